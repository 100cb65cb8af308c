"""The page in a real browser: from photographs to the zip file, repairs of masks, what is refused, what is left."""

from __future__ import annotations

import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import infer
from misc.app.page import FIRST_SAMPLE
from misc.images import read_mask, read_rgba, write_image
from tests.launch import SAMPLE
from tests.scenes import photograph

MASKS = SAMPLE / "photos" / "masks" / FIRST_SAMPLE


def pressed(tab: Any, query: str) -> None:
    tab.locator(query).click()


def after(tab: Any, act: Callable[[], Any]) -> str:
    """Do something to the photograph on the page, wait for what comes of it; returns the line below it."""
    before = tab.locator("[data-serial]").get_attribute("data-serial")
    act()
    tab.wait_for_function("s => document.querySelector('[data-serial]').dataset.serial !== s", arg=before)
    return tab.locator("#stage .im-note").inner_text()


def at(tab: Any, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a place of the photograph is, both in shares of its width and height."""
    canvas = tab.locator(".im-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def dragged(tab: Any, *points: tuple[float, float]) -> None:
    tab.mouse.move(*at(tab, *points[0]))
    tab.mouse.down()
    for point in points[1:]:
        tab.mouse.move(*at(tab, *point), steps=4)
    tab.mouse.up()


def people(tab: Any) -> list[str]:
    return tab.locator("#stage [data-person]").all_inner_texts()


def chosen(tab: Any, tool: str) -> None:
    pressed(tab, f"[data-tool={tool}]")


def matted(tab: Any) -> str:
    """Press the button, wait for the end; returns what the page says then."""
    pressed(tab, "#go")
    tab.wait_for_function("/Done|Not done/.test(document.querySelector('#status').innerText)", timeout=180_000)
    return tab.locator("#status").inner_text()


def downloaded(tab: Any) -> dict[str, bytes]:
    tab.wait_for_selector("#download:not([disabled])")
    with tab.expect_download() as download:
        pressed(tab, "#download")
    with zipfile.ZipFile(download.value.path()) as file:
        return {name: file.read(name) for name in file.namelist()}


def mask_of(data: bytes, folder: Path) -> np.ndarray:
    (folder / "mask.png").write_bytes(data)
    return read_mask(folder / "mask.png")


def dropped(tab: Any, *files: tuple[str, bytes]) -> str:
    payload = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    return after(tab, lambda: tab.locator("input[type=file][data-testid=file-upload]").first.set_input_files(payload))


def png(image: np.ndarray, folder: Path) -> bytes:
    write_image(folder / "picture.png", image)
    return (folder / "picture.png").read_bytes()


@pytest.mark.slow
def test_a_sample_becomes_mattes_and_a_zip_that_equals_the_files_of_infer(visit: Callable, tmp_path: Path) -> None:
    tab = visit()
    assert people(tab) == ["Person 1", "Person 2"]
    assert matted(tab) == "Done."
    tab.wait_for_selector("#results [data-drawn]")
    files = downloaded(tab)
    assert sorted(files) == [
        f"{folder}/{FIRST_SAMPLE}/{name}.png"
        for folder in ("mattes", "mattes_masks", "mattes_rgba")
        for name in ("00", "01")
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{FIRST_SAMPLE}.jpg").symlink_to(SAMPLE / "photos" / "images" / f"{FIRST_SAMPLE}.jpg")
    folders = ["--image-dir", tmp_path / "images", "--mask-dir", MASKS.parent, "--output", tmp_path / "mattes"]
    torch.set_num_threads(1)  # as the page's program has here; the last digit of a sum depends on it
    assert infer.main([*map(str, folders), "--rgba", "--device", "cpu"]) == 0
    for name, data in files.items():
        if name.startswith("mattes/"):
            assert (tmp_path / name).read_bytes() == data, name
        elif "rgba" in name:
            (tmp_path / "cutout.png").write_bytes(data)
            ours, theirs = (read_rgba(path).astype(int) for path in (tmp_path / "cutout.png", tmp_path / name))
            assert np.array_equal(ours[..., 3], theirs[..., 3]), name
            assert np.abs(ours - theirs).max() <= 1, name
        else:
            assert np.array_equal(mask_of(data, tmp_path), read_mask(MASKS / Path(name).name)), name

    shown = [tab.locator(".im-after").screenshot()]  # every choice shows another picture
    for query in ("[data-who='1']", "[data-behind='#00b140']", "[data-look=matte]", ".im-zoom"):
        pressed(tab, query)
        tab.wait_for_timeout(150)
        shown.append(tab.locator(".im-after").screenshot())
    tab.locator(".im-slider").fill("80")
    tab.wait_for_timeout(150)
    shown.append(tab.locator(".im-after").screenshot())
    pressed(tab, "[data-look=cutout]")
    tab.locator(".im-own").set_input_files(SAMPLE / "backgrounds" / "kodak_004.jpg")
    tab.wait_for_selector("[data-drawn*=' own ']")
    shown.append(tab.locator(".im-after").screenshot())
    assert len(set(shown)) == len(shown)


@pytest.mark.slow
def test_repaired_masks_are_used_and_two_pages_at_once_do_not_mix(visit: Callable, tmp_path: Path) -> None:
    tab, other = visit(), visit()
    dropped(other, ("own name.png", png(photograph(120, 90, seed=1), tmp_path)))
    source = png(photograph(180, 240), tmp_path)
    dropped(tab, ("own name.png", source))
    assert people(tab) == ["Person 1", "Person 2"]

    chosen(tab, "paint")
    assert after(tab, lambda: dragged(tab, (0.1, 0.04), (0.3, 0.04))) == "Added to person 1."
    chosen(tab, "erase")
    pressed(tab, "[data-person='2']")
    assert after(tab, lambda: dragged(tab, (0.7, 0.5), (0.8, 0.5))) == "Erased from person 2."

    chosen(tab, "split")
    tab.mouse.click(*at(tab, 0.1, 0.5))
    note = after(tab, lambda: tab.mouse.click(*at(tab, 0.4, 0.5)))
    assert note == "Person 1 is split into 1 and 3." and len(people(tab)) == 3

    chosen(tab, "box")
    assert "Person 4 is new" in after(tab, lambda: dragged(tab, (0.55, 0.9), (0.95, 0.99)))
    assert len(people(tab)) == 4

    chosen(tab, "merge")
    tab.mouse.click(*at(tab, 0.1, 0.5))
    assert "are one person now: 1" in after(tab, lambda: tab.mouse.click(*at(tab, 0.4, 0.5)))
    after(tab, lambda: pressed(tab, ".im-undo"))
    assert people(tab) == [f"Person {number}" for number in (1, 2, 3, 4)]

    chosen(tab, "toggle")
    assert after(tab, lambda: tab.mouse.click(*at(tab, 0.75, 0.3))) == "Person 2 is left out."
    pressed(other, "#go")
    assert matted(tab) == "Done."
    files = downloaded(tab)
    assert sorted(files) == [
        f"{folder}/own_name/{name}.png"
        for folder in ("mattes", "mattes_masks", "mattes_rgba")
        for name in ("00", "02", "03")
    ]
    masks = {name[-6:-4]: mask_of(data, tmp_path) for name, data in files.items() if "masks" in name}
    assert (masks["00"] | masks["02"])[7, 48] and not (masks["00"] & masks["02"]).any()
    assert masks["03"][170, 180]
    after(tab, lambda: tab.mouse.click(*at(tab, 0.75, 0.3)))
    tab.locator(".im-stale").wait_for()  # mattes that are no longer those of the masks are said to be

    other.wait_for_function("/Done/.test(document.querySelector('#status').innerText)", timeout=180_000)
    files = downloaded(other)
    assert len(files) == 6
    assert all(picture.shape == (120, 90) for picture in (mask_of(data, tmp_path) for data in files.values()))


LONG_STROKE = """canvas => {
  const box = canvas.getBoundingClientRect();
  const [left, top] = [(x) => box.left + x * box.width, (y) => box.top + y * box.height];
  const at = (x, y) => ({ bubbles: true, pointerId: 1, clientX: left(x), clientY: top(y) });
  const points = [...Array(9000).keys()].map((i) => new PointerEvent("pointermove", at(0.1 + i / 11250, 0.95)));
  canvas.setPointerCapture = () => {};
  canvas.dispatchEvent(new PointerEvent("pointerdown", at(0.1, 0.95)));
  canvas.dispatchEvent(new PointerEvent("pointermove", { ...at(0.9, 0.95), coalescedEvents: points }));
  canvas.dispatchEvent(new PointerEvent("pointerup", at(0.9, 0.95)));
}"""


def test_a_change_is_made_to_the_photograph_that_is_seen(visit: Callable, served: Any, tmp_path: Path) -> None:
    tab = visit()
    dropped(tab, ("one.png", png(photograph(60, 80, seed=4), tmp_path)), ("two.png", png(photograph(60, 80), tmp_path)))
    session = next(session for session in served.page.sessions._open.values() if "two" in session.photographs)
    session.current = "one"  # as while more photographs are read
    chosen(tab, "toggle")
    after(tab, lambda: tab.mouse.click(*at(tab, 0.3, 0.5)))
    assert [len(session.photographs[name].kept) for name in ("one", "two")] == [2, 1]


def test_a_matting_that_waits_its_turn_can_be_stopped(
    visit: Callable, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = visit(), visit()
    busy, done = threading.Event(), threading.Event()
    monkeypatch.setattr(served.page, "find", lambda image: (busy.set(), done.wait(60), [])[2])
    file = {"name": "slow.png", "mimeType": "image/png", "buffer": png(photograph(60, 80, seed=5), tmp_path)}
    one.locator("input[type=file][data-testid=file-upload]").first.set_input_files([file])
    assert busy.wait(30)
    pressed(two, "#go")
    two.get_by_text("Waiting …").wait_for()
    with two.expect_response(lambda answer: "queue/join" in answer.url or "run/predict" in answer.url):
        pressed(two, "#stop")
    session = next(s for s in served.page.sessions._open.values() if FIRST_SAMPLE in s.photographs)
    two.wait_for_timeout(500)
    done.set()
    two.get_by_text("Not done: stopped").wait_for()
    assert session.process is None


def test_strokes_follow_each_other_and_begin_anywhere(visit: Callable, served: Any, tmp_path: Path) -> None:
    tab = visit()
    dropped(tab, ("strokes.png", png(photograph(180, 240, seed=3), tmp_path)))
    session = next(one for one in served.page.sessions._open.values() if "strokes" in one.photographs)

    def mask(number: int) -> np.ndarray:
        return next(session.shown.mask(person) for person in session.shown.people if person.number == number)

    chosen(tab, "paint")
    after(tab, lambda: [dragged(tab, (0.1, y), (0.3, y)) for y in (0.02, 0.06, 0.1)])  # faster than they are done
    tab.wait_for_function("!document.querySelector('#stage .im-busy')")
    assert all(mask(1)[round(180 * y), 48] for y in (0.02, 0.06, 0.1))
    chosen(tab, "box")
    assert "Person 3 is new" in after(tab, lambda: dragged(tab, (0.4, -0.015), (0.6, 0.12)))
    assert mask(3)[0].any()  # up to the border
    chosen(tab, "paint")
    assert after(tab, lambda: tab.locator(".im-canvas").evaluate(LONG_STROKE)) == "Added to person 3."
    assert mask(3)[171, 30:210].all()
    tab.on("dialog", lambda dialog: dialog.dismiss())
    with tab.expect_event("dialog") as asked:  # repaired masks are not lost without a question
        tab.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload" and len(people(tab)) == 3


def test_each_bad_input_has_one_clear_line_and_the_good_ones_stay(visit: Callable, tmp_path: Path) -> None:
    tab = visit()
    good = png(photograph(60, 80), tmp_path)
    huge = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 50000, 8, 2, 0, 0, 0)) + good[33:]
    assert dropped(tab, ("broken.png", good[: len(good) // 2])) == (
        f"broken.png: the file is cut short ({len(good) // 2} bytes); replace it"
    )
    assert "huge.png: 60000×50000 pixels" in dropped(tab, ("huge.png", huge))
    assert dropped(tab, ("notes.txt", b"hello")).startswith("notes.txt: not a photograph")
    assert "im-error" in tab.locator("#stage .im-note").get_attribute("class")
    assert dropped(tab, ("empty.png", png(np.zeros((60, 80, 3), np.uint8), tmp_path))) == (
        "empty: no person was found; draw a box round each."
    )
    chosen(tab, "paint")
    assert "choose “Add person”" in after(tab, lambda: dragged(tab, (0.2, 0.2), (0.4, 0.2)))
    assert people(tab) == [] and matted(tab) == (
        "Not done: there is nobody to matte; draw a box round a person, or take one back"
    )
    line = dropped(tab, ("1.png", good), ("2.png", good), ("3.png", good))
    assert line.startswith("3.png: more than 3 photographs")
    assert tab.locator("#stage .im-strip button").count() == 3
    before = tab.locator("[data-serial]").get_attribute("data-serial")
    files = [{"name": "heavy.png", "mimeType": "image/png", "buffer": bytes(4_000_000)}]
    tab.locator("input[type=file][data-testid=file-upload]").first.set_input_files(files)
    tab.get_by_text("maximum allowed size").first.wait_for()
    assert tab.locator("[data-serial]").get_attribute("data-serial") == before


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_the_keyboard_is_enough(visit: Callable) -> None:
    tab = visit()
    tab.locator("[data-tool=toggle]").focus()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.dataset.tool") == "paint"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.locator("[data-tool=box]").focus()
    tab.keyboard.press("Enter")
    tab.locator(".im-canvas").focus()
    for _ in range(8):
        tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    for _ in range(8):
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("ArrowLeft")
    assert "Person 3 is new" in after(tab, lambda: tab.keyboard.press("Enter"))
    tab.locator("#stage .im-person input").first.focus()
    assert after(tab, lambda: tab.keyboard.press("Space")) == "Person 1 is left out."


CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.5) return c; } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll(".gradio-container *")) {
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
    const box = e.getBoundingClientRect();
    if (!text || !box.width || !box.height || e.closest(":disabled, [hidden], .hidden, style, script")) continue;
    const style = getComputedStyle(e);
    if (style.visibility === "hidden" || style.clip === "rect(0px, 0px, 0px, 0px)") continue;
    const [a, b] = [light(parse(style.color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${text.slice(0, 40)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_easy_to_read_and_a_phone_shows_everything(visit: Callable, scheme: str) -> None:
    tab = visit(width=390, height=844, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert tab.evaluate(CONTRAST) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("[...document.images].every(i => i.alt !== null)")
    box = tab.locator("#go").bounding_box()
    assert box["height"] >= 38
    tab.touchscreen.tap(*at(tab, 0.3, 0.7))
    tab.get_by_text("Person 1 is left out.").wait_for()


def test_nothing_is_left_of_a_page_that_was_closed(visit: Callable, served: Any, tmp_path: Path) -> None:
    tab = visit()
    dropped(tab, ("mine.png", png(photograph(60, 80, seed=9), tmp_path)))
    assert list(served.root.rglob("mine*"))
    before = {path for path in served.root.rglob("*") if path.is_file()}
    tab.close()
    deadline = time.monotonic() + 20
    while list(served.root.rglob("mine*")):
        assert time.monotonic() < deadline, sorted(served.root.rglob("mine*"))
        time.sleep(0.1)
    assert {path for path in served.root.rglob("*") if path.is_file()} < before
