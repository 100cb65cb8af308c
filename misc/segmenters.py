"""Instance segmenters behind one small interface: Mask R-CNN of detectron2 or torchvision, or any in an ONNX file.

The packages behind them are large or optional, so each is imported where a segmenter of it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from misc.errors import InputError
from misc.packages import need, open_onnx
from misc.torch_file import read_torch_file

DETECTRON2_CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
INSTALL_DETECTRON2 = (
    "pip install 'setuptools<81' && "
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"'
)
LONGEST_SIDE = 1333  # Mask R-CNN looks at no more; larger photographs would only cost memory
NAME_IT = "name it with --weights of image_demo or --detector-weights of infer.py; or give masks with --mask-dir"


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


def _reduced(image: np.ndarray, *, height: int | None = None, width: int | None = None) -> np.ndarray:
    """A photograph (H, W, 3) no larger than a segmenter looks at, or of the sides that it wants."""
    scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    size = (width or max(1, round(image.shape[1] * scale)), height or max(1, round(image.shape[0] * scale)))
    return image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


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

        tensor = (
            torch.from_numpy(np.ascontiguousarray(_reduced(image))).permute(2, 0, 1).float().div(255).to(self.device)
        )
        with torch.inference_mode():
            found: dict[str, Any] = self.model([tensor])[0]
        classes = [self.categories[label] for label in found["labels"].tolist()]
        return Detections(classes, found["scores"].cpu().numpy(), (found["masks"][:, 0] > 0.5).cpu().numpy())


def _downloaded(weights: Any) -> dict[str, Any]:
    import torch

    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(f"{_not_downloaded(weights.url, error)}, put it into {place}, or {NAME_IT}") from None


def _not_downloaded(url: str, error: Exception) -> str:
    return f"{url}: cannot be downloaded ({' '.join(str(error).split())}); fetch that file where there is a network"


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
        # Its compiled part is imported by what uses it only.
        need("detectron2.engine", wanted_by="this detector (torchvision is another)", install=INSTALL_DETECTRON2)
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
        try:
            self.predictor = DefaultPredictor(config)
        except (OSError, RuntimeError) as error:
            if "://" not in str(config.MODEL.WEIGHTS):
                raise
            raise InputError(f"{_not_downloaded(config.MODEL.WEIGHTS, error)} and {NAME_IT}") from None

    def __call__(self, image: np.ndarray) -> Detections:
        """Find instances in a (H, W, 3) uint8 RGB photograph."""
        found = self.predictor(np.ascontiguousarray(image[..., ::-1]))["instances"].to("cpu")  # it expects BGR
        if not found.has("pred_masks"):
            raise InputError("--config-file: this detectron2 model predicts no masks; choose an instance segmenter")
        classes = [self.categories[label] for label in found.pred_classes.tolist()]
        return Detections(classes, found.scores.numpy(), found.pred_masks.numpy().astype(bool))


class OnnxDetector:
    """Any instance segmenter in an ONNX file, run by onnxruntime.

    The file has one input, float32 RGB in [0, 1], (3, H, W) or (1, 3, H, W) in fixed or free sizes, and outputs of
    these names, as torchvision's Mask R-CNN gives them, for n instances:

    - ``labels``: (n,) whole numbers, COCO categories as torchvision counts them: 1 is a person;
    - ``scores``: (n,) in [0, 1];
    - ``masks``: (n, h, w) or (n, 1, h, w), over the whole picture at any size, set where above 0.5.

    Others, such as ``boxes``, are not looked at. A batch dimension of 1 in front is accepted.

    Raises:
        FileNotFoundError: no such file.
        InputError: onnxruntime is not installed or broken, or the file is not such a segmenter.
    """

    def __init__(self, path: str | Path, device: str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; expected an instance segmenter, an ONNX file")
        self.session = open_onnx(path, device=device, wanted_by=f"{path}: this segmenter")
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

        inputs = self.session.get_inputs()
        outputs = [output.name for output in self.session.get_outputs()]
        missing = [name for name in ("labels", "scores", "masks") if name not in outputs]
        if missing or len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) not in (3, 4):
            found = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs)
            raise InputError(
                f"{path}: found input {found} and outputs {', '.join(outputs)}; expected one input, float32 RGB of "
                "(3, H, W) or (1, 3, H, W), and outputs labels, scores and masks"
            )
        self.path = path
        self.input = inputs[0]
        self.categories: list[str] = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]

    def __call__(self, image: np.ndarray) -> Detections:
        """Find instances in a (H, W, 3) uint8 RGB photograph.

        Raises:
            InputError: the outputs are not what they should be.
        """
        height, width = (side if isinstance(side, int) else None for side in self.input.shape[-2:])
        image = _reduced(image, height=height, width=width)
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(255)
        pixels = pixels[None] if len(self.input.shape) == 4 else pixels
        try:
            labels, scores, masks = self.session.run(["labels", "scores", "masks"], {self.input.name: pixels})
        except Exception as error:  # as above
            raise InputError(
                f"{self.path}: failed on a picture of {image.shape[1]}×{image.shape[0]}: {str(error)[:160]}"
            ) from None
        labels, scores = labels.reshape(-1), scores.reshape(-1)
        height, width = masks.shape[-2:] if masks.ndim >= 2 else (0, 0)
        if len(labels) != len(scores) or masks.size != len(scores) * height * width:
            raise InputError(
                f"{self.path}: found labels {labels.shape}, scores {scores.shape} and masks {masks.shape}; expected "
                "(n,), (n,) and (n, h, w)"
            )
        known = len(self.categories)
        classes = [self.categories[label] if 0 <= label < known else str(label) for label in map(int, labels)]
        return Detections(classes, scores, masks.reshape(len(scores), height, width) > 0.5)
