"""The page: what it looks like and what happens where. One column of steps: photographs, people, mattes, cut-outs."""

from __future__ import annotations

import html
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from misc.app import views
from misc.app.matting import AS_TRAINED, DETAILS, REFINEMENTS, ROOT, Way, archive, matte, tidy
from misc.app.session import Session, Sessions
from misc.app.tools import act
from misc.device import PRECISIONS
from misc.errors import InputError, RunError
from misc.folders import pictures_in
from misc.images import read_image

_before = random.getstate()
try:
    import gradio as gr
except Exception:  # missing or broken: ``python -m misc.app`` says what to do
    gr = None  # type: ignore[assignment]
finally:
    random.setstate(_before)  # from which gradio draws as it is imported

BROWSER = Path(__file__).parent / "browser"
SAMPLES = ROOT / "datasets" / "sample" / "photos"
FIRST_SAMPLE = "pexels_pexels-photo-206269"
# Detector and network share the machine.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network"}
API = " api"  # what is opened by a program is not shown on a page
QUICK: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "quick"}


@dataclass
class Page:
    """What the page does.

    Attributes:
        sessions: of all visitors.
        checkpoints: files by the names that a visitor chooses from, the default first.
        find: the people of a photograph, see ``people.Finder``.
        device: where mattes are made, as ``infer.py --device``.
        samples: folder of ``images`` and ``masks``, which the page opens with.
    """

    sessions: Sessions
    checkpoints: Mapping[str, Path]
    find: Callable[[np.ndarray], list[np.ndarray]]
    device: str = "auto"
    samples: Path = SAMPLES
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def stage(
        self, session: Session, note: str = "", *, error: bool = False, tool: str | None = None
    ) -> dict[str, Any]:
        """What the browser shows of a session's photographs and people."""
        value = views.stage(session, note, error=error, serial=next(self._serial))
        return value | {"tool": tool} if tool else value

    def results(self, session: Session) -> dict[str, Any]:
        """What the browser shows of a session's mattes."""
        return views.results(session, serial=next(self._serial))

    # ------------------------------------------------------------------------------------------------ photographs

    def open(self, request: gr.Request) -> tuple[Any, ...]:
        """A page has been loaded: it begins with a sample."""
        session = self.sessions.of(key_of(request))
        names = [path.stem for path in pictures_in(self.samples / "images")]
        with session.lock:
            return self._open_sample(session, FIRST_SAMPLE if FIRST_SAMPLE in names else names[0])

    def pick(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """A sample was clicked. It takes the place of what is open, unless that is the visitor's own."""
        session = self.sessions.of(key_of(request))
        with session.lock:
            return self._open_sample(session, str(event._data.get("name")))

    def _open_sample(self, session: Session, name: str) -> tuple[Any, ...]:
        found = {path.stem: path for path in pictures_in(self.samples / "images")}.get(name)
        if found is None:
            return self.stage(session, "there is no such sample", error=True), self.results(session), None
        if session.sample:
            session.clear()
        session.sample = session.sample or not session.photographs
        try:
            photograph = session.add(found)
            session.read_masks(photograph, sorted((self.samples / "masks" / name).glob("*.png")))
        except InputError as error:
            return self.stage(session, str(error), error=True), self.results(session), None
        note = "A sample to begin with; go on to step 3, or drop a photograph of your own above."
        return self.stage(session, note, tool="toggle"), self.results(session), None

    def upload(self, files: list[str] | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Photographs were dropped: they are read, and their people are looked for."""
        session = self.sessions.of(key_of(request))
        with session.lock:
            session.uploads += map(Path, files or [])
            if session.sample:
                session.clear()
        bad: list[str] = []
        notes: list[str] = []
        found = None
        for number, file in enumerate(files or [], 1):
            yield self._status(f"Looking at photograph {number} of {len(files or [])} …"), gr.skip(), gr.skip(), None
            try:
                with session.lock:
                    photograph = session.add(Path(file))
                people = self.find(read_image(photograph.file))
                with session.lock:
                    session.set_masks(photograph, people)
                found = bool(people)
                if not people:
                    notes.append(f"{photograph.name}: no person was found; draw a box round each.")
            except InputError as error:
                (notes if "Add person" in str(error) else bad).append(str(error))
            except (OSError, MemoryError) as error:
                bad.append(f"{Path(file).name}: could not be read ({type(error).__name__}); try a smaller one")
        lines = list(dict.fromkeys([*bad, *notes])) or ["People are found. Mend what is wrong, or go on to step 3."]
        stage = self.stage(session, " ".join(lines), error=bool(bad), tool="toggle" if found else "box")
        yield "", stage, self.results(session), None

    def show(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Another photograph of the strip was chosen."""
        session = self.sessions.of(key_of(request))
        with session.lock:
            if event._data.get("name") in session.photographs:
                session.current = event._data["name"]
            return self.stage(session), self.results(session)

    def edit(self, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """Something was done to the people of the photograph."""
        session = self.sessions.of(key_of(request))
        with session.lock:
            if event._data.get("photograph") in session.photographs:  # the one that the visitor sees
                session.current = event._data["photograph"]
            try:
                return self.stage(session, act(session.shown, event._data))
            except (InputError, OSError) as error:
                return self.stage(session, str(error), error=True)

    # ------------------------------------------------------------------------------------------------------ mattes

    def way(self, checkpoint: str, refinement: str, detail: str, precision: str) -> Way:
        """What a visitor chose, of the lists that the page offers.

        Raises:
            InputError: it is not in them.
        """
        for found, known in (
            (checkpoint, self.checkpoints), (refinement, REFINEMENTS), (detail, DETAILS), (precision, PRECISIONS)
        ):  # fmt: skip
            if found not in known:
                raise InputError(f"found {str(found)[:40]!r}, expected one of {', '.join(known)}")
        return Way(self.checkpoints[checkpoint], refinement, detail, precision, self.device)

    def ready(self, request: gr.Request) -> tuple[Any, ...]:
        """Matte was pressed; its turn may come later."""
        self.sessions.of(key_of(request)).stopped = False
        return self._status("Waiting …"), gr.DownloadButton(interactive=False, value=None)

    def matte(
        self, checkpoint: str, refinement: str, detail: str, precision: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Matte what is open; status, people, results, zip file."""
        session = self.sessions.of(key_of(request))
        yield self._status("Starting …"), gr.skip(), gr.skip(), gr.skip()
        said = "Done."
        try:
            for done, total in matte(session, self.way(checkpoint, refinement, detail, precision)):
                session.used = max(session.used, self.sessions.now())
                text = f"Matting photograph {min(done + 1, total)} of {total} …"
                yield self._status(text, share=(done + 0.5) / (total + 0.5)), gr.skip(), gr.skip(), gr.skip()
        except (InputError, RunError, OSError) as error:
            said = "Not done: " + ("stopped" if session.closed else tidy(session, str(error)))
        yield from self._matted(session, said)

    def _matted(self, session: Session, said: str) -> Iterator[tuple[Any, ...]]:
        """The end of a matting, whole or not: what there is of mattes, and a photograph that has some."""
        stage, file = gr.skip(), None
        with session.lock:
            done = [name for name, photograph in session.photographs.items() if photograph.matted]
            if done and session.current not in done:
                session.current = done[0]
                stage = self.stage(session)
            try:
                file = archive(session) if done else None
            except OSError as error:
                said = f"Not done: {tidy(session, str(error))}"
        if said != "Done." and done:
            said += f" ({len(done)} of {len(session.photographs)} photographs have mattes)"
        button = gr.DownloadButton(interactive=file is not None, value=file and str(file))
        yield self._status(said, error=said != "Done."), stage, self.results(session), button

    def stop(self, request: gr.Request) -> None:
        """End the matting of this page, or let it not begin."""
        self.sessions.of(key_of(request)).stop()

    def close(self, request: gr.Request) -> None:
        """The page was closed: nothing is kept."""
        for key in (key_of(request), key_of(request) + API):
            self.sessions.close(key)

    def cut_out(
        self, photograph: str, masks: list[str] | None, checkpoint: str, refinement: str, detail: str, precision: str,
        request: gr.Request,
    ) -> str:  # fmt: skip
        """The API: a photograph, and its masks where a detector is not to look for people, to a zip file."""
        session = self.sessions.of(key_of(request) + API)
        try:
            way = self.way(checkpoint, refinement, detail, precision)
            with session.lock:
                session.uploads += map(Path, [photograph, *(masks or [])])
                session.clear()
                opened = session.add(Path(photograph))
                if masks:
                    session.read_masks(opened, [Path(mask) for mask in masks])
                else:
                    session.set_masks(opened, self.find(read_image(opened.file)))
            session.stopped = False
            for _ in matte(session, way):
                session.used = self.sessions.now()
            return str(archive(session))
        except (InputError, RunError, OSError) as error:
            raise gr.Error(tidy(session, str(error)), print_exception=False) from None

    def _status(self, text: str, *, share: float | None = None, error: bool = False) -> str:
        bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
        kind = ' class="im-error"' if error else ""
        return f'<div class="im-status" role="status"{kind}><span{kind}>{html.escape(text)}</span>{bar}</div>'


def key_of(request: gr.Request) -> str:
    """What tells the pages of visitors apart: a secret of the browser's tab."""
    return str(request.session_hash)


def _text(name: str) -> str:
    return (BROWSER / name).read_text(encoding="utf-8")


def _step(number: int, title: str) -> None:
    gr.HTML(f"<h2><span>{number}</span>{html.escape(title)}</h2>", elem_classes="im-step")


def build(page: Page) -> gr.Blocks:
    """The page as Gradio's blocks."""
    with gr.Blocks(title="InstMatt", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.HTML(
            "<h1>InstMatt</h1><p>One cut-out for each person in a photograph. Everything stays on the machine that "
            "serves this page and is deleted when you close it.</p>",
            elem_classes="im-head",
        )
        _step(1, "Photographs")
        files = gr.File(file_count="multiple", label="Photographs", show_label=False, elem_classes="im-drop")
        gr.HTML("<p>One or several, of people. Or try one of these:</p>", elem_classes="im-head")
        samples = gr.HTML(_sample_row(page), js_on_load=_text("samples.js"))
        _step(2, "People")
        stage = gr.HTML(
            {},
            html_template=_text("stage.html"),
            js_on_load=_text("stage.js"),
            elem_id="stage",
            apply_default_css=False,
        )
        _step(3, "Mattes")
        with gr.Accordion("Settings", open=False), gr.Row():
            settings = [
                gr.Dropdown(list(page.checkpoints), value=next(iter(page.checkpoints)), label="Checkpoint"),
                gr.Dropdown(list(REFINEMENTS), value=AS_TRAINED, label="Refinement"),
                gr.Dropdown(list(DETAILS), value=AS_TRAINED, label="Detail at full size"),
                gr.Dropdown(list(PRECISIONS), value="fp32", label="Precision"),
            ]
        with gr.Row():
            go = gr.Button("Matte", variant="primary", elem_id="go", scale=3)
            stop = gr.Button("Stop", elem_id="stop", scale=1)
        status = gr.HTML("", elem_id="status")
        _step(4, "Cut-outs")
        results = gr.HTML(
            {"people": []}, html_template=_text("results.html"), js_on_load=_text("results.js"), elem_id="results"
        )
        download = gr.DownloadButton(
            "Download mattes, cut-outs and masks (zip)", interactive=False, variant="primary", elem_id="download"
        )

        private: dict[str, Any] = {"api_visibility": "private"}
        hidden: dict[str, Any] = {**private, "show_progress": "hidden"}
        waits: dict[str, Any] = {**private, "show_progress": "minimal", "show_progress_on": status}  # and for how long
        shown = [stage, results, status]
        blocks.load(page.open, None, shown, **hidden, **QUICK)
        samples.pick(page.pick, None, shown, **hidden, **QUICK)
        files.upload(page.upload, files, [status, stage, results, files], **waits, **ONE_AT_A_TIME)
        stage.show(page.show, None, [stage, results], **hidden, **QUICK)
        stage.edit(page.edit, None, stage, **hidden, **QUICK)
        pressed = go.click(page.ready, None, [status, download], **hidden, queue=False)
        pressed.then(page.matte, settings, [status, stage, results, download], **waits, **ONE_AT_A_TIME)
        stop.click(page.stop, None, None, **hidden, queue=False)
        blocks.unload(page.close)
        with gr.Row(visible=False):
            inputs = [gr.File(label="photograph"), gr.File(file_count="multiple", label="masks"), *settings]
            gr.Button().click(page.cut_out, inputs, gr.File(label="zip"), api_name="cut_out", **ONE_AT_A_TIME)
    return blocks


def _sample_row(page: Page) -> str:
    buttons: list[str] = []
    for path in pictures_in(page.samples / "images"):
        image = read_image(path)
        small = views.shrunk_to(image, views.THUMB)
        name = html.escape(path.stem)
        buttons.append(
            f'<button type="button" data-name="{name}" aria-label="Sample {len(buttons) + 1}">'
            f'<img src="{views.data_url(small)}" alt=""></button>'
        )
    return f'<div class="im-samples" role="group" aria-label="Sample photographs">{"".join(buttons)}</div>'
