"""The page, served in this process, and a browser that looks at it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misc.app.__main__ import serve
from misc.app.matting import ROOT
from misc.app.page import Page
from misc.app.session import Limits, Sessions
from tests.launch import free_port
from tests.scenes import boxes

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
LIMITS = Limits(photographs=3, bytes=3_000_000, pixels=2_000_000)


def stand_in(image: np.ndarray) -> list[np.ndarray]:
    """Two people side by side where a photograph is not black."""
    height, width = image.shape[:2]
    if not image.any():
        return []
    top, bottom = height // 8, height - height // 8
    return list(boxes(height, width, (top, bottom, 4, width // 2 - 4), (top, bottom, width // 2 + 4, width - 4)))


class Served:
    """A running page: its address, its state on this side, and the folder of everything that it writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.page = Page(
            Sessions(root, LIMITS), {"instmatt-s": ROOT / "checkpoints" / "instmatt-s.pth"}, stand_in, device="cpu"
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.blocks = serve(self.page, root, host="127.0.0.1", port=port)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page with a stand-in for the detector and small limits."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -r requirements-app.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
        patch.setenv("OMP_NUM_THREADS", "1")
        running = Served(tmp_path_factory.mktemp("served"))
        yield running
        running.blocks.close()
        running.page.sessions.close_all()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser of the system."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(served: Served, chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page in a browser of its own, (width, height) pixels large, and waits for the first photograph."""
    contexts, faults = [], []

    def opened(width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        tab.goto(served.url)
        tab.wait_for_selector("[data-serial]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []
