"""What a visitor may open and change, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misc.app.matting import DETAILS, REFINEMENTS, Way, archive, matte, tidy
from misc.app.people import WITHOUT, Finder
from misc.app.session import Limits, Session, Sessions
from misc.app.tools import MOST_PEOPLE, act
from misc.errors import InputError
from misc.images import write_image
from tests.launch import SAMPLE
from tests.scenes import boxes, photograph


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """One photograph of 60 x 80 with two people side by side, 1 on the left."""
    own = Session(tmp_path / "session", Limits(photographs=2, bytes=100_000, pixels=50_000))
    write_image(tmp_path / "a b.png", photograph(60, 80))
    own.set_masks(own.add(tmp_path / "a b.png"), boxes(60, 80, (10, 50, 5, 35), (10, 50, 45, 75)))
    return own


def masks(session: Session) -> dict[int, np.ndarray]:
    return {person.number: session.shown.mask(person) for person in session.shown.people}


def test_a_brush_gives_pixels_to_one_person_and_undo_gives_them_back(session: Session) -> None:
    before = masks(session)
    act(session.shown, {"tool": "paint", "person": 1, "points": [[40, 30], [60, 30]], "radius": 3})
    now = masks(session)
    assert now[1][30, 60] and not now[2][30, 60] and now[2][45, 60]
    act(session.shown, {"tool": "undo"})
    assert all(np.array_equal(masks(session)[number], before[number]) for number in (1, 2))


def test_who_has_nothing_left_is_gone_and_numbers_are_not_given_twice(session: Session) -> None:
    line = act(session.shown, {"tool": "erase", "person": 2, "points": [[60, 30]], "radius": 500})
    assert line == "Erased from person 2. Nothing is left of it." and list(masks(session)) == [1]
    assert "Person 3 is new" in act(session.shown, {"tool": "box", "points": [[45, 10], [75, 50]]})


def test_merging_and_splitting_keep_who_is_left_out(session: Session) -> None:
    act(session.shown, {"tool": "toggle", "person": 2, "points": []})
    assert [person.number for person in session.shown.kept] == [1]
    act(session.shown, {"tool": "toggle", "points": [[60, 30]]})
    assert act(session.shown, {"tool": "merge", "points": [[60, 30], [20, 30]]}) == "1 and 2 are one person now: 1."
    assert list(masks(session)) == [1] and masks(session)[1][30, 60]
    assert act(session.shown, {"tool": "split", "points": [[20, 30], [60, 30]]}) == "Person 1 is split into 1 and 3."
    assert masks(session)[3][30, 60] and not masks(session)[1][30, 60]


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"tool": "remove"},
        {"tool": ["paint"]},
        {"tool": "paint", "person": 9, "points": [[1, 1]], "radius": 3},
        {"tool": "paint", "person": 1, "points": [[1, 1]], "radius": "3"},
        {"tool": "paint", "person": 1, "points": [[1, float("nan")]], "radius": 3},
        {"tool": "paint", "person": 1, "points": [[1, 1]] * 5000, "radius": 3},
        {"tool": "paint", "person": 1, "points": "12", "radius": 3},
        {"tool": "paint", "person": 1, "points": [], "radius": 3},
        {"tool": "box", "points": [[1, 1, 1], [2]]},
        {"tool": "box", "points": [[5, 5]]},
        {"tool": "split", "points": [[20, 30]]},
        {"tool": "split", "points": [[20, 30], [60, 30]]},
        {"tool": "merge", "points": [[20, 30], [21, 30]]},
        {"tool": "toggle", "points": [[1, 1]]},
        {"tool": "toggle", "points": []},
    ],
)
def test_whatever_a_browser_sends_is_done_or_refused_in_one_line(session: Session, action: dict[str, Any]) -> None:
    before = session.shown.people
    with pytest.raises(InputError) as caught:
        act(session.shown, action)
    assert "\n" not in str(caught.value) and session.shown.people == before


def test_uploads_are_bounded_and_named_without_their_folder(session: Session, tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", photograph(250, 250))
    write_image(tmp_path / "A b.png", photograph(20, 30))
    write_image(tmp_path / "c.png", photograph(20, 30))
    (tmp_path / "heavy.jpg").write_bytes(bytes(100_001))
    (tmp_path / "no.gif").write_bytes(b"GIF")
    for name, words in (
        ("large.png", "250×250 pixels"),
        ("heavy.jpg", "at most 0 MB"),
        ("no.gif", "not a readable image"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            session.add(tmp_path / name)
        assert str(caught.value).startswith(f"{name}: ") and str(tmp_path) not in str(caught.value)
    assert session.add(tmp_path / "A b.png").name == "A_b-2"  # also where file systems know no case
    with pytest.raises(InputError, match="more than 2 photographs"):
        session.add(tmp_path / "c.png")
    with pytest.raises(InputError, match=f"more than {MOST_PEOPLE} people"):
        for _ in range(MOST_PEOPLE + 1):
            act(session.shown, {"tool": "box", "points": [[0, 0], [30, 20]]})
            session.shown.turn(session.shown.people[-1].number)


def test_masks_of_another_size_are_refused(session: Session) -> None:
    with pytest.raises(InputError, match=r"mask 2: found 80×50 pixels, expected 80×60 as in a_b"):
        session.set_masks(session.shown, [np.full((60, 80), 255, np.uint8), np.full((50, 80), 255, np.uint8)])


def test_sessions_are_apart_bounded_and_closed_when_idle(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, Limits(sessions=2, idle_seconds=1000))
    one, two = sessions.of("one"), sessions.of("two")
    assert one is sessions.of("one") and one.folder != two.folder and len(one.folder.name) > 16
    with pytest.raises(InputError, match="2 pages are open"):
        sessions.of("three")
    one.used -= 2000
    sessions.sweep()
    sessions.of("three")
    assert not one.folder.exists() and one.closed and two.folder.exists()
    sessions.close_all()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_two_visitors_sent_stays_until_both_have_left(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "open", Limits())
    sent = tmp_path / "hash" / "a.jpg"
    sent.parent.mkdir()
    sent.write_bytes(b"the same photograph")
    for key in ("one", "two"):
        sessions.of(key).uploads.append(sent)
    sessions.close("one")
    assert sent.exists()
    sessions.close("two")
    assert not sent.parent.exists()


def test_the_zip_has_no_time_of_its_own_in_what_it_holds(session: Session) -> None:
    write_image(session.folder / "mattes" / "a" / "00.png", photograph(20, 30)[..., 0])
    first = archive(session).read_bytes()
    assert archive(session).read_bytes() == first
    assert tidy(session, f"error: {session.folder}/images/a.png: bad") == "a.png: bad"


HALTING = """
import sys, pathlib
names = ("--image-dir", "--mask-dir", "--output")
images, masks, output = (pathlib.Path(sys.argv[sys.argv.index(name) + 1]) for name in names)
assert "--resume" in sys.argv
for mask in sorted(masks.glob("*/*.png")):
    if mask.parent.name == "bad":
        sys.exit(f"error: {images}/bad.png: too large for the memory")
    matte = output / mask.parent.name / mask.name
    if not matte.exists():
        matte.parent.mkdir(parents=True, exist_ok=True)
        matte.write_bytes(b"new")
"""  # in place of infer.py: does what it can in the order of names, until a photograph that is called bad


def test_only_what_changed_is_matted_again_and_what_was_done_stays(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "infer.py").write_text(HALTING)
    monkeypatch.setattr("misc.app.matting.ROOT", tmp_path)
    way, mattes = Way(Path("x.pth")), session.folder / "mattes"
    write_image(tmp_path / "bad.png", photograph(60, 80))
    session.set_masks(session.add(tmp_path / "bad.png"), boxes(60, 80, (10, 50, 5, 35)))
    good, bad = session.photographs.values()
    with pytest.raises(InputError, match=r"^bad\.png: too large"):
        list(matte(session, way))
    assert good.matted == good.kept and bad.matted is None

    bad.turn(1)
    assert list(matte(session, way)) == []  # all is there
    (mattes / "a_b" / "00.png").write_bytes(b"old")
    act(good, {"tool": "toggle", "person": 2, "points": []})
    assert list(matte(session, way))[-1] == (1, 1)
    assert [(path.name, path.read_bytes()) for path in sorted(mattes.rglob("*.png"))] == [("00.png", b"new")]
    (mattes / "a_b" / "00.png").write_bytes(b"old")
    list(matte(session, Way(Path("x.pth"), refinement="off")))
    assert (mattes / "a_b" / "00.png").read_bytes() == b"new"


def test_what_is_chosen_becomes_options_of_infer() -> None:
    import infer

    for refinement in REFINEMENTS:
        for detail in DETAILS:
            options = Way(Path("x.pth"), refinement, detail, "bf16", "cpu").options
            found = infer.parse(["--image-dir", "i", "--mask-dir", "m", "--output", "o", *options])
            assert found.checkpoint == "x.pth" and found.precision == "bf16"
            assert found.settings.get("detail") == {"on": True, "off": False}.get(detail)
            assert found.settings.get("refine_iterations") == {"off": 0, "once": 1, "twice": 2}.get(refinement)


def test_without_a_detector_the_visitor_is_told_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = photograph(40, 40)
    with pytest.raises(InputError, match="Add person"):
        Finder("none")(image)
    finder = Finder("torchvision", weights=tmp_path / "none.pth", device="cpu")
    for _ in range(2):
        with pytest.raises(InputError, match="Add person") as caught:
            finder(image)
        assert str(caught.value) == WITHOUT and str(tmp_path) not in str(caught.value)
    assert capsys.readouterr().err.count("without a detector") == 1


def test_samples_have_masks_for_the_page_to_begin_with() -> None:
    from misc.app.page import FIRST_SAMPLE

    assert (SAMPLE / "photos" / "images" / f"{FIRST_SAMPLE}.jpg").is_file()
    assert len(list((SAMPLE / "photos" / "masks" / FIRST_SAMPLE).glob("*.png"))) > 1
