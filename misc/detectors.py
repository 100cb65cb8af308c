"""Instance segmenters behind one small interface, and which of their detections become masks."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from misc.errors import InputError
from misc.torch_file import read_torch_file

INSTALL_DETECTRON2 = (
    "pip install 'setuptools<81' && "
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"'
)
DETECTRON2_CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
LONGEST_SIDE = 1333  # Mask R-CNN looks at no more; larger photographs would only cost memory


@dataclass(frozen=True)
class Detections:
    """What a segmenter found in one photograph.

    Attributes:
        classes: n class names.
        scores: (n,) in [0, 1].
        masks: (n, h, w) bool; h, w may be smaller than the photograph.
    """

    classes: Sequence[str]
    scores: np.ndarray
    masks: np.ndarray


class Detector(Protocol):
    """An instance segmenter."""

    categories: list[str]

    def __call__(self, image: np.ndarray) -> Detections:
        """Find instances in a (H, W, 3) uint8 RGB photograph."""
        ...


def select(
    found: Detections, size: tuple[int, int], *, classes: Collection[str], min_score: float, min_area: float
) -> list[np.ndarray]:
    """Masks of the wanted instances, best score first.

    Args:
        found: what the segmenter found.
        size: height and width of the photograph.
        classes: class names to keep.
        min_score: smallest score to keep.
        min_area: smallest area to keep, as a share of the image; the paper's data drop people below 2 %.

    Returns:
        Each (H, W) uint8, 0 or 255.
    """
    masks = []
    for index in np.argsort(-np.asarray(found.scores, np.float64), kind="stable"):
        if found.classes[index] not in classes or found.scores[index] < min_score:
            continue
        mask = found.masks[index].astype(np.uint8) * np.uint8(255)
        if mask.shape != size:
            mask = (cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8) * np.uint8(255)
        if np.count_nonzero(mask) >= max(1, min_area * mask.size):
            masks.append(mask)
    return masks


def build_detector(
    backend: str,
    *,
    weights: str | Path | None,
    device: str,
    min_score: float,
    config_file: str | None = None,
    options: Sequence[str] = (),
) -> Detector:
    """Load a segmenter.

    Args:
        backend: "detectron2", "torchvision", or "auto" for the first of these that is installed.
        weights: a local file; ``None`` downloads the backend's own.
        device: "cpu", "cuda", or "auto" for the GPU if there is one.
        min_score: detections below it need not be returned.
        config_file: of detectron2: a file, or a name of its model zoo.
        options: of detectron2: KEY VALUE pairs that override its configuration.

    Raises:
        InputError: a backend, device, configuration or weights that cannot be used.
        FileNotFoundError: no such weights file.
    """
    has_detectron2 = importlib.util.find_spec("detectron2") is not None
    if backend == "auto":
        backend = "detectron2" if has_detectron2 else "torchvision"
    if backend == "torchvision" and (config_file or options):
        remedy = "--backend detectron2" if has_detectron2 else f"that is not installed: {INSTALL_DETECTRON2}"
        raise InputError(f"--config-file, --opts: meant for detectron2; leave them out to use torchvision, or {remedy}")
    if backend == "detectron2" and not has_detectron2:
        raise InputError(f"--backend detectron2: not installed; use --backend torchvision, or {INSTALL_DETECTRON2}")
    for file in (weights, dict(zip(options[::2], options[1::2])).get("MODEL.WEIGHTS")):
        if file is not None and "://" not in str(file) and not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such file; expected weights of {backend}")
    if backend == "detectron2":
        return Detectron2Detector(config_file, weights, _device(device), min_score, options)
    return TorchvisionDetector(weights, _device(device), min_score)


def _device(name: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: no CUDA device found; use --device cpu")
    return ("cuda" if available else "cpu") if name == "auto" else name


class TorchvisionDetector:
    """Mask R-CNN R50-FPN of torchvision, trained on COCO."""

    def __init__(self, weights: str | Path | None, device: str, min_score: float) -> None:
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

        coco = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
        self.categories: list[str] = coco.meta["categories"]
        self.device = device
        state = _downloaded(coco) if weights is None else _local_state(weights)
        # Masks of weak detections are not even pasted: a hundred of them at full size take gigabytes.
        model = maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=len(self.categories), box_score_thresh=min_score
        )
        try:
            model.load_state_dict(state)
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{weights}: not weights of torchvision's maskrcnn_resnet50_fpn ({reason}); expected a file like "
                f"{coco.url.rsplit('/', 1)[1]}"
            ) from None
        self.model = model.eval().to(device)

    def __call__(self, image: np.ndarray) -> Detections:
        """Find instances in a (H, W, 3) uint8 RGB photograph."""
        import torch

        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        if scale < 1:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div(255).to(self.device)
        with torch.inference_mode():
            found: dict[str, Any] = self.model([tensor])[0]
        classes = [self.categories[label] for label in found["labels"].tolist()]
        return Detections(classes, found["scores"].cpu().numpy(), (found["masks"][:, 0] > 0.5).cpu().numpy())


def _downloaded(weights: Any) -> dict[str, Any]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{weights.url}: cannot be downloaded ({' '.join(str(error).split())}); fetch the file elsewhere and "
            "name it with --weights"
        ) from None


def _local_state(path: str | Path) -> dict[str, Any]:
    state = read_torch_file(Path(path))
    if not isinstance(state, dict):
        raise InputError(f"{path}: found {type(state).__name__}, expected a state dictionary saved with torch.save")
    return state.get("model", state)


class Detectron2Detector:
    """Any instance segmenter of detectron2; Mask R-CNN R50-FPN 3x by default, as the paper uses."""

    def __init__(
        self, config_file: str | None, weights: str | Path | None, device: str, min_score: float, options: Sequence[str]
    ) -> None:
        from detectron2 import model_zoo
        from detectron2.config import get_cfg
        from detectron2.data import MetadataCatalog
        from detectron2.engine import DefaultPredictor

        name = config_file or DETECTRON2_CONFIG
        if not Path(name).is_file():  # such as ../configs/COCO-…/….yaml in a folder that is not detectron2's own
            name = name.rpartition("configs/")[2]
        config = get_cfg()
        try:
            config.merge_from_file(name if Path(name).is_file() else model_zoo.get_config_file(name))
            if config_file is None or not Path(name).is_file():
                config.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(name)
            config.merge_from_list(list(options))
        except (RuntimeError, KeyError, AssertionError, ValueError) as error:
            raise InputError(f"{name}: no usable detectron2 configuration ({error}); see its model zoo") from None
        if weights is not None:
            config.MODEL.WEIGHTS = str(weights)
        config.MODEL.DEVICE = device
        config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = min_score
        self.categories: list[str] = list(MetadataCatalog.get(config.DATASETS.TRAIN[0]).thing_classes)
        self.predictor = DefaultPredictor(config)

    def __call__(self, image: np.ndarray) -> Detections:
        """Find instances in a (H, W, 3) uint8 RGB photograph."""
        found = self.predictor(np.ascontiguousarray(image[..., ::-1]))["instances"].to("cpu")  # it expects BGR
        if not found.has("pred_masks"):
            raise InputError("--config-file: this detectron2 model predicts no masks; choose an instance segmenter")
        classes = [self.categories[label] for label in found.pred_classes.tolist()]
        return Detections(classes, found.scores.numpy(), found.pred_masks.numpy().astype(bool))
