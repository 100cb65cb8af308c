"""The adapters of networks/README.md run as they stand there; stand-ins take the places of YOLO and SAM."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import infer
from tests.detector import write_people
from tests.launch import ROOT


class _Yolo:
    """As much of ultralytics as the adapter uses: brightness is a person in red, one in green, a dog in blue."""

    names = {0: "person", 16: "dog"}  # noqa: RUF012

    def __init__(self, weights: str) -> None:
        assert weights.endswith(".pt")

    def __call__(self, image: np.ndarray, *, retina_masks: bool, verbose: bool) -> list[Any]:
        assert retina_masks and not verbose
        bright = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))) > 127
        seen = bright.flatten(1).any(1)
        if not seen.any():
            return [SimpleNamespace(masks=None, boxes=None)]
        boxes = SimpleNamespace(cls=torch.tensor([0.0, 0, 16])[seen], conf=torch.tensor([0.8, 0.9, 0.95])[seen])
        return [SimpleNamespace(boxes=boxes, masks=SimpleNamespace(data=bright[seen].float()))]


class _Sam:
    """As much of segment_anything as the text uses: what is bright within the box."""

    def __init__(self, model: str) -> None:
        assert model == "sam_vit_h_4b8939.pth"

    def set_image(self, image: np.ndarray) -> None:
        self.image = image

    def predict(self, *, box: np.ndarray, multimask_output: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert not multimask_output
        left, top, right, bottom = box
        mask = np.zeros(self.image.shape[:2], bool)
        mask[top:bottom, left:right] = self.image[top:bottom, left:right].max(2) > 127
        return mask[None], np.ones(1), mask[None]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    yolo, sam = ModuleType("ultralytics"), ModuleType("segment_anything")
    vars(yolo)["YOLO"] = _Yolo
    vars(sam).update(SamPredictor=_Sam, sam_model_registry={"vit_h": lambda checkpoint: checkpoint})
    monkeypatch.setitem(sys.modules, "ultralytics", yolo)
    monkeypatch.setitem(sys.modules, "segment_anything", sam)


@pytest.mark.usefixtures("stand_ins")
def test_adapters_as_they_are_written_down(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    class Recording(infer.Predictor):
        def __init__(self) -> None:
            super().__init__(small_checkpoint, device="cpu")

        def __call__(self, image: np.ndarray, masks: np.ndarray) -> np.ndarray:
            seen.append(masks > 0)
            return super().__call__(image, masks)

    monkeypatch.setattr(infer, "Predictor", Recording)
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "networks" / "README.md").read_text().split("## Masks of other tools")[1].split("\n## ")[0]
    yolo, sam = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    truth = write_people(tmp_path / "photo.jpg", 2, size=(640, 660))
    names: dict[str, Any] = {}
    exec(yolo, names)
    assert names["mattes"].shape == truth.shape
    assert ((seen[0] != truth[::-1]).mean((1, 2)) < 0.01).all()  # best score first: green before red
    exec(sam, names)
    assert names["mattes"].shape == truth.shape
    assert ((seen[1] != truth).mean((1, 2)) < 0.01).all()
    write_people(tmp_path / "photo.jpg", 0)
    exec(yolo, names)
    assert names["mattes"] == [] and len(seen) == 2
