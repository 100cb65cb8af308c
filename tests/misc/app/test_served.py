"""The server behind the page: its API, and what no browser can reach."""

from __future__ import annotations

import json
import signal
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from misc.app.__main__ import checkpoints_in, main, parse
from misc.errors import InputError
from tests.launch import ROOT, SAMPLE, finish, free_port, start, wait_until

IMAGE = SAMPLE / "photos" / "images" / "pexels_pexels-photo-755028.jpg"
MASKS = sorted((SAMPLE / "photos" / "masks" / IMAGE.stem).glob("*.png"))


def test_a_program_gets_the_zip_in_three_lines(served: Any) -> None:
    client_of = pytest.importorskip("gradio_client")
    client = client_of.Client(served.url, verbose=False)
    files = [client_of.handle_file(str(path)) for path in MASKS]
    archive = client.predict(client_of.handle_file(str(IMAGE)), files, refinement="off", api_name="/cut_out")
    with zipfile.ZipFile(archive) as file:
        assert len(file.namelist()) == 3 * len(MASKS)
        for mask in MASKS:
            assert f"mattes/{IMAGE.stem}/{mask.name}" in file.namelist()
    with pytest.raises(Exception, match=r"mask 1: found 1024×\d+ pixels, expected"):
        client.predict(client_of.handle_file(str(SAMPLE / "backgrounds" / "kodak_004.jpg")), files, api_name="/cut_out")
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/cut_out"]


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "README.md"), "../../../../etc/passwd"])
def test_no_path_reaches_the_file_system(served: Any, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{served.url}/gradio_api/file={path}", timeout=20)
    assert caught.value.code in (403, 404)
    endpoints = served.blocks.config["dependencies"]
    cut_out = next(entry["id"] for entry in endpoints if entry["api_name"] == "cut_out")
    upload = next(entry["id"] for entry in endpoints if entry["targets"][0][1] == "upload")
    settings = ["instmatt-s", "as trained", "as trained", "fp32"]
    own, other = file_data(sent(served.url, IMAGE)), file_data(path)
    assert called(served.url, upload, [[own]])["success"]
    for number, data in (
        (upload, [[other]]),
        (cut_out, [other, None, *settings]),
        (cut_out, [own, [other], *settings]),
        (cut_out, [own, None, path, *settings[1:]]),
    ):
        assert not called(served.url, number, data)["success"], data
    assert not list(served.root.rglob("passwd")) and not list(served.root.rglob("README.md"))


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def sent(url: str, path: Path) -> str:
    """Where the server put a file that a browser uploads."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()
    body = head + path.read_bytes() + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/gradio_api/upload", body, kind), timeout=20) as answer:
        return json.load(answer)[0]


def called(url: str, number: int, data: list[Any]) -> dict[str, Any]:
    """What the server answers to a call that no page would make."""
    body = {"data": data, "fn_index": number, "session_hash": f"forged{number}", "event_data": None}
    request = urllib.request.Request(
        f"{url}/gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=20).read()
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash=forged{number}", timeout=20) as stream:
        for line in stream:
            if line.startswith(b"data: ") and (found := json.loads(line[6:]))["msg"] == "process_completed":
                return found
    raise AssertionError("no answer")


def test_the_command_binds_to_this_machine_and_offers_the_checkpoints_of_a_folder(tmp_path: Path) -> None:
    assert parse([]).host == "127.0.0.1"
    with pytest.raises(InputError, match="no checkpoints"):
        checkpoints_in(tmp_path)
    for name in ("a.pth", "instmatt-s.pth", "notes.md"):
        (tmp_path / name).touch()
    assert list(checkpoints_in(tmp_path)) == ["instmatt-s", "a"]


def test_the_command_says_so_where_gradio_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not there
    with pytest.raises(InputError, match="make app"):
        main([])


def test_the_command_serves_until_it_is_ended_and_leaves_nothing(served: Any, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    process = start(
        "-m", "misc.app", "--port", port, "--detector", "none", output=log, TMPDIR=str(tmp_path), GRADIO_TEMP_DIR=""
    )
    wait_until(lambda: "until Ctrl-C" in log.read_text(), process)
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
    process.send_signal(signal.SIGTERM)
    assert finish([process], timeout=60) == [143], log.read_text()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [log]
