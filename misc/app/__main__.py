"""Serve the page: ``python -m misc.app --host 127.0.0.1 --port 7860``.

From a program, with gradio_client:

    client = Client("http://127.0.0.1:7860")
    masks = [handle_file("photo/00.png"), handle_file("photo/01.png")]  # None: the server's detector looks for people
    archive = client.predict(handle_file("photo.jpg"), masks, api_name="/cut_out")
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

from misc.app import page as pages
from misc.app.matting import ROOT
from misc.app.people import Finder
from misc.app.session import Limits, Sessions
from misc.errors import InputError, run_script, say
from misc.files import sweep, temporary_name
from misc.packages import need

SHIPPED = "instmatt-s"  # the checkpoint that is offered first
SWEEP_SECONDS = 60  # between looks for sessions that were left idle


def checkpoints_in(folder: Path) -> dict[str, Path]:
    """The checkpoints that a visitor may choose from, by name.

    Raises:
        InputError: there are none.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.pth"))}
    if not found:
        raise InputError(f"{folder}: no checkpoints; expected files ending with .pth, such as InstMatt-S")
    return dict(sorted(found.items(), key=lambda item: item[0] != SHIPPED))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m misc.app", description="A page that cuts people out.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine only)")
    add("--port", type=int, default=7860, help="port (default 7860)")
    add("--checkpoints", type=Path, default=ROOT / "checkpoints", help="folder of those to choose from")
    add("--detector", default="auto", help="who searches: auto (default), detectron2, torchvision, FILE.onnx or none")
    add("--detector-weights", type=Path, help="weights of the detector (default: its own, downloaded when needed)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:<index> or mps (default auto)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; then nothing is left on the disk."""
    options = parse(arguments)
    need("gradio", wanted_by="the page, which `make app` sets up,", install="pip install -r requirements-app.txt")
    checkpoints = checkpoints_in(options.checkpoints)
    finder = Finder(options.detector, weights=options.detector_weights, device=options.device)
    places = Path(tempfile.gettempdir())
    sweep(places)  # what a server left that was killed
    root = places / temporary_name()
    root.mkdir(mode=0o700)
    page = pages.Page(Sessions(root, Limits()), checkpoints, finder, device=options.device)
    blocks = None
    try:
        blocks = serve(page, root, host=options.host, port=options.port)
        say(f"the page is at http://{options.host}:{options.port} until Ctrl-C")
        while not threading.Event().wait(SWEEP_SECONDS):
            page.sessions.sweep()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if blocks is not None:
            blocks.close(verbose=False)
        page.sessions.close_all()
        shutil.rmtree(root, ignore_errors=True)


def serve(page: pages.Page, root: Path, *, host: str, port: int) -> pages.gr.Blocks:
    """Start the server in threads of its own; what browsers send lies in ``root``.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    blocks = pages.build(page)
    blocks.queue(max_size=64)
    gr = pages.gr
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            max_file_size=page.sessions.limits.bytes,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=pages.BROWSER / "style.css",
            run_history=False,
            footer_links=["api"],
            prevent_thread_lock=True,
            quiet=True,
            share=False,
        )
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be listened at ({error}); choose another port") from None
    return blocks


if __name__ == "__main__":
    run_script(main)
