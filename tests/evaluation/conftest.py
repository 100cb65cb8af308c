"""The recorded data set, and data sets of random mattes on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misc.images import write_image

RECORDED = Path(__file__).parent.parent / "fixtures" / "imq"


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Folder with pred/, gt/ and expected.json, figures recorded from the published evaluation."""
    return RECORDED


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    return json.loads((RECORDED / "expected.json").read_text())


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write images of (predictions, truths) as PRED and GT folders."""

    def write(images: Sequence[tuple[list[np.ndarray], list[np.ndarray]]], *, name: str = "set") -> tuple[Path, Path]:
        for index, pair in enumerate(images):
            for kind, alphas in zip(("pred", "gt"), pair):
                for number, alpha in enumerate(alphas):
                    path = tmp_path / name / kind / f"{index:04d}" / f"{number:02d}.png"
                    write_image(path, np.rint(alpha * 255).astype(np.uint8))
        return tmp_path / name / "pred", tmp_path / name / "gt"

    return write
