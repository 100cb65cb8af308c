"""Thousands of photographs that nobody made for us: each is matted or named, and nothing of the user's is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import infer
from misc import files
from misc.errors import InputError, printable
from misc.filelists import read_filelist, write_filelist
from misc.images import read_mask, write_image
from misc.outputs import Outputs
from misc.photographs import InferenceRecord
from tests.launch import ROOT, run, start
from tests.scenes import boxes, photograph

PHOTO = photograph(40, 56)
MASK = boxes(40, 56, (8, 32, 10, 40))[0]


def make(folder: Path, *names: str, suffix: str = ".jpg") -> Path:
    """Photographs with one mask each below a folder."""
    for name in names:
        write_image(folder / "photos" / f"{name}{suffix}", PHOTO)
        write_image(folder / "masks" / name / "00.png", MASK)
    return folder


@pytest.fixture
def matte(small_checkpoint: Path, capsys: pytest.CaptureFixture) -> Callable:
    """Run infer.py over a folder of :func:`make`; returns its status and what it printed."""

    def command(folder: Path, *extra: object, output: Path | None = None) -> tuple[int, str]:
        capsys.readouterr()
        status = infer.main([
            "--checkpoint", str(small_checkpoint), "--image-dir", str(folder / "photos"), "--device", "cpu",
            "--mask-dir", str(folder / "masks"), "--output", str(output or folder / "out"), *map(str, extra),
        ])  # fmt: skip
        return status, "".join(capsys.readouterr())

    return command


def mattes(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "out").glob("*/*.png"))


# ------------------------------------------------------------------------------------------------- folders as they are


def test_a_folder_of_mixed_formats_is_taken_whole_and_the_rest_is_counted(tmp_path: Path, matte: Callable) -> None:
    make(tmp_path, "a")
    for name, suffix in (("b", ".png"), ("c", ".webp"), ("d", ".jpeg"), ("e", ".bmp"), ("f", ".tif")):
        make(tmp_path, name, suffix=suffix)
    make(tmp_path, "g").joinpath("photos/g.jpg").rename(tmp_path / "photos" / "g.JPG")
    (tmp_path / "photos" / "notes.txt").write_text("x")
    (tmp_path / "photos" / "raw.CR2").write_text("x")
    (tmp_path / "photos" / "more").mkdir()
    status, said = matte(tmp_path)
    assert status == 0 and mattes(tmp_path) == list("abcdefg")
    assert "photos: 2 other files left out (" in said and "1 .CR2" in said and "1 folder not looked into (more)" in said
    status, said = matte(tmp_path, "--image-ext", "jpg", output=tmp_path / "jpg")
    assert status == 0 and "7 other files left out" in said


def test_two_photographs_of_one_name_need_a_choice(tmp_path: Path, matte: Callable) -> None:
    make(tmp_path, "a")
    make(tmp_path, "a", suffix=".png")
    with pytest.raises(InputError, match="name one kind with --image-ext"):
        matte(tmp_path)
    assert matte(tmp_path, "--image-ext", "png")[0] == 0


def test_a_folder_of_folders_names_them(tmp_path: Path, matte: Callable) -> None:
    make(tmp_path, "a")
    shutil.move(tmp_path / "photos", tmp_path / "inner")
    (tmp_path / "photos").mkdir()
    shutil.move(tmp_path / "inner", tmp_path / "photos" / "holiday")
    with pytest.raises(InputError, match="it holds the folders holiday"):
        matte(tmp_path)


# --------------------------------------------------------------------------------------- nothing of the user's is lost


def overwriting(folder: Path) -> dict[str, tuple[Path, list[object]]]:
    background = folder / "photos" / "a.jpg"
    return {
        "masks": (folder / "masks", []),
        "masks, resumed": (folder / "masks", ["--resume"]),
        "masks by a link": (folder / "link", []),
        "masks by cut-outs": (folder / "cut", ["--mask-dir", folder / "cut_rgba", "--rgba"]),
        "photographs by composites": (
            folder / "all",
            ["--image-dir", folder / "all_composite", "--composite", background],
        ),
        "a link to a mask": (folder / "linked", []),
    }


@pytest.mark.parametrize("how", overwriting(Path()))
def test_no_result_takes_the_place_of_an_input(tmp_path: Path, matte: Callable, how: str) -> None:
    pytest.importorskip("pymatting")
    make(tmp_path, "a", "b")
    (tmp_path / "link").symlink_to(tmp_path / "masks", target_is_directory=True)
    shutil.copytree(tmp_path / "masks", tmp_path / "cut_rgba")
    for name in "ab":
        write_image(tmp_path / "all_composite" / f"{name}.png", PHOTO)
    (tmp_path / "linked" / "b").mkdir(parents=True)
    (tmp_path / "linked" / "b" / "00.png").symlink_to(tmp_path / "masks" / "b" / "00.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    output, extra = overwriting(tmp_path)[how]
    with pytest.raises(InputError, match=r"would take the place of .*, which is read; choose another --output"):
        matte(tmp_path, *extra, output=output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_output_may_be_the_working_directory(tmp_path: Path, matte: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymatting")
    make(tmp_path / "in", "a")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert matte(tmp_path / "in", "--rgba", output=Path("."))[0] == 0
    assert (tmp_path / "here" / "a" / "00.png").is_file() and (tmp_path / "here_rgba" / "a" / "00.png").is_file()
    with pytest.raises(InputError, match="no folder can stand beside it"):
        Outputs(Path("/"), rgba=True).cutouts(InferenceRecord("a", Path("a.jpg"), (Path("00.png"),)))


@pytest.mark.parametrize(("photograph", "mask"), [("...jpg", "x/../00.png"), ("a.jpg", "..png"), ("..jpg", "00.png")])
def test_names_that_lead_out_of_the_output_are_refused(
    tmp_path: Path, matte: Callable, photograph: str, mask: str
) -> None:
    folder = tmp_path / "deep"
    (folder / "x").mkdir(parents=True)
    write_image(folder / "plain.jpg", PHOTO)
    write_image(folder / "00.png", MASK)
    (folder / "plain.jpg").rename(folder / photograph)
    if not (folder / mask).exists():
        shutil.copy(folder / "00.png", folder / mask)
    (tmp_path / "photos").write_text(f"{folder}/{photograph}\n")
    (tmp_path / "masks").write_text(f"{folder}/{mask}\n")
    with pytest.raises(InputError, match=r"the name '\.{1,2}' cannot be used|is not among"):
        matte(tmp_path, output=tmp_path / "victim" / "out")
    assert not (tmp_path / "victim").exists()


# ------------------------------------------------------------------------------------ one bad thing does not end a run


def test_results_that_cannot_be_written_are_named_and_the_others_are_there(tmp_path: Path, matte: Callable) -> None:
    make(tmp_path, "a", "b", "c", "d", "n" * 250)
    (tmp_path / "out" / "b" / "00.png").mkdir(parents=True)
    (tmp_path / "out" / "c").write_text("a file")
    status, said = matte(tmp_path)
    assert status == 1
    assert "error: " in said and "out/b/00.png: Is a directory" in said and "out/c" in said and ".tmp-" not in said
    assert {"a", "d", "n" * 250} <= set(mattes(tmp_path))
    assert "3 of 5 photographs" in said


def test_every_bad_file_is_named_and_the_others_are_matted(tmp_path: Path, matte: Callable) -> None:
    make(tmp_path, *"abcdefg", suffix=".png")
    photos = tmp_path / "photos"
    (photos / "b.png").write_bytes(b"")
    (photos / "c.png").write_bytes((photos / "a.png").read_bytes()[:-30])
    data = (photos / "a.png").read_bytes()
    (photos / "d.png").write_bytes(data[:16] + (60000).to_bytes(4, "big") * 2 + data[24:])
    write_image(tmp_path / "masks" / "e" / "00.png", MASK // 200)
    write_image(tmp_path / "masks" / "f" / "00.png", 0 * MASK)
    status, said = matte(tmp_path)
    assert status == 1 and mattes(tmp_path) == ["a", "e", "g"]  # a mask of 0 and 1 is one
    assert all(f"error: {photos / name}.png: " in said for name in "bcd")
    assert "masks/f/00.png: the mask is empty: its maximum is 0" in said


class Forgetful:
    """A predictor for which one photograph is too large, and another one only as long as that is in the way."""

    guidance_threshold = 170

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __call__(
        self, image: np.ndarray, masks: np.ndarray, *, dtype: type, out: np.ndarray | None, name: Path
    ) -> np.ndarray:
        self.calls += 1
        if image.shape[0] > 90 or self.calls == 3:
            raise self.error
        return masks.astype(dtype) * dtype(255)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried 9"),
        RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_what_the_memory_does_not_suffice_for_is_named_and_the_others_are_matted(
    tmp_path: Path, error: Exception
) -> None:
    make(tmp_path, *"abcd")
    write_image(tmp_path / "photos" / "b.jpg", np.kron(PHOTO, np.ones((3, 3, 1), np.uint8)))
    write_image(tmp_path / "masks" / "b" / "00.png", np.kron(MASK, np.ones((3, 3), np.uint8)))
    records = [
        InferenceRecord(name, tmp_path / "photos" / f"{name}.jpg", (tmp_path / "masks" / name / "00.png",))
        for name in "abcd"
    ]
    failures = infer.run(Forgetful(error), records, Outputs(tmp_path / "out"))  # type: ignore[arg-type]
    assert len(failures) == 1
    assert "b.jpg: not enough memory, it takes about 0.9 GB; make it smaller or lower --max-side" in failures[0]
    assert mattes(tmp_path) == ["a", "c", "d"]
    with pytest.raises(RuntimeError, match="a bug"):
        infer.run(Forgetful(RuntimeError("a bug")), records, Outputs(tmp_path / "out"))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- names


def test_unicode_forms_pair(tmp_path: Path, matte: Callable) -> None:
    name = "Zoë é"
    make(tmp_path, unicodedata.normalize("NFC", name))
    folder = tmp_path / "masks" / unicodedata.normalize("NFC", name)
    folder.rename(tmp_path / "masks" / unicodedata.normalize("NFD", name))
    assert matte(tmp_path)[0] == 0
    assert mattes(tmp_path) == [unicodedata.normalize("NFC", name)]


NAMES = [b"Zo\xc3\xab", b"b\xff", b"c\x1b[31mred", b"d e\t", "\u202eevil".encode()]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_of_any_bytes_go_through_filelists(tmp_path: Path, locale: str) -> None:
    make(tmp_path, *(f"n{number}" for number in range(len(NAMES))))
    for number, name in enumerate(NAMES):
        os.rename(tmp_path / "photos" / f"n{number}.jpg", os.fsencode(tmp_path / "photos") + b"/" + name + b".jpg")
        os.rename(tmp_path / "masks" / f"n{number}", os.fsencode(tmp_path / "masks") + b"/" + name)
    done = run(
        "-m", "misc.gen_filelist", "--image-dir", tmp_path / "photos", "--mask-dir", tmp_path / "masks",
        "--output", tmp_path / "lists", LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "lists" / "image.txt").read_bytes().splitlines()
    assert sorted(os.path.basename(line) for line in written) == sorted(name + b".jpg" for name in NAMES)
    assert len(read_filelist(tmp_path / "lists" / "mask.txt")) == len(NAMES)


def test_printed_names_are_harmless(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert printable("a\x1b[31m\nb\udcff é 名") == "a\\x1b[31m\\nb\\udcff é 名"
    with pytest.raises(InputError, match="line break"):
        write_filelist(tmp_path / "l.txt", [tmp_path / "a\nb.jpg"])


def test_a_list_in_utf16_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"l\.txt: UTF-16; save it as UTF-8"):
        read_filelist(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("Zoë.jpg\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"l\.txt: not a UTF-8 text file"):
        read_filelist(tmp_path / "l.txt")


# ------------------------------------------------------------------------------------------------ processes and streams

SCRIPT = "import sys, time; from misc.errors import run_script, say\n"


def script(body: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    code = SCRIPT + "def main():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "run_script(main)\n"
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirect}', sys.executable, code],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("redirect", ["2>&-", ">&-", ">&- 2>&-", "| true", "2>&1 | true", ">/dev/null 2>&1"])
def test_streams_that_nobody_reads_are_no_fault(redirect: str) -> None:
    done = script(
        "from tqdm import tqdm\nlist(tqdm(range(3)))\ntime.sleep(0.2)\nsay('a warning')\nprint('done')", redirect
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "rror" not in done.stderr


def test_a_stream_that_knows_few_characters_shows_the_others_as_numbers() -> None:
    code = SCRIPT + "def main():\n    print('é')\nrun_script(main)\n"
    done = run("-c", code, PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stdout) == (0, "\\xe9\n")


def test_sigterm_ends_as_ctrl_c_does() -> None:
    body = "try:\n        print('ready', flush=True); time.sleep(30)\n    finally:\n        print('tidy', flush=True)"
    process = start("-c", f"{SCRIPT}def main():\n    {body}\nrun_script(main)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (143, "tidy\n", "terminated\n")


def test_temporary_files_of_dead_processes_go_and_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = ".tmp-{machine}-{process}-{run}-0123abcd.png"
    here = files._MACHINE
    dead = [name.format(machine=here, process=number, run="00000000") for number in (gone.pid, os.getpid())]
    stay = [
        name.format(machine=here, process=living.pid, run="00000000"),
        name.format(machine=here, process=os.getpid(), run=files._RUN),
        name.format(machine="00000000", process=gone.pid, run="00000000"),
        ".tmp-mine.png", ".00.abcdefgh.png",
    ]  # fmt: skip
    for entry in dead + stay:
        (tmp_path / entry).write_text("x")
    write_image(tmp_path / "00.png", MASK)
    living.communicate(b"\n")
    assert sorted(os.listdir(tmp_path)) == sorted([*stay, "00.png"])
    np.testing.assert_array_equal(read_mask(tmp_path / "00.png"), MASK)


def test_what_is_plainly_too_large_does_not_even_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    record = InferenceRecord("a", tmp_path / "photos" / "a.jpg", (tmp_path / "masks" / "a" / "00.png",))
    monkeypatch.setattr(infer, "free_memory", lambda device: 1000)
    predictor = Forgetful(RuntimeError("not reached"))
    (line,) = infer.run(predictor, [record], Outputs(tmp_path / "out"))  # type: ignore[arg-type]
    assert "a.jpg: not enough memory, it takes about 0.9 GB" in line and not predictor.calls


def test_a_limit_of_this_process_bounds_its_free_memory() -> None:
    code = "import torch; from misc.device import free_memory; print(free_memory(torch.device('cpu')))"
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 8000000; "$0" -c "$1"', sys.executable, code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0 < int(done.stdout) < 8e9
