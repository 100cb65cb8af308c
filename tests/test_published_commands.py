"""The command lines that the published project documents, as they stand there, paths and number of processes apart."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from misc.images import read_mask, write_image
from tests.launch import ROOT, free_port

Run = Callable[..., object]
DETECTOR = ["--config-file", "../configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"]

# As much of detectron2 as misc.detectors asks for. It takes what is bright in red for a person, in BGR as the original.
DETECTRON2 = {
    "__init__": "",
    "model_zoo": """
        def get_config_file(name):
            if name != "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml":
                raise RuntimeError(f"{name} not available in Model Zoo!")
            return "/model_zoo/" + name
        def get_checkpoint_url(name):
            return "https://zoo/" + name
        """,
    "config": """
        from types import SimpleNamespace as Node
        class Config(Node):
            def merge_from_file(self, path):
                assert path.startswith("/model_zoo/")
            def merge_from_list(self, items):
                for key, value in zip(items[::2], items[1::2]):
                    *nodes, name = key.split(".")
                    node = self
                    for part in nodes:
                        node = getattr(node, part)
                    setattr(node, name, value)
        def get_cfg():
            model = Node(WEIGHTS="", DEVICE="", ROI_HEADS=Node(SCORE_THRESH_TEST=0.05))
            return Config(MODEL=model, DATASETS=Node(TRAIN=("coco",)))
        """,
    "data": """
        from types import SimpleNamespace as Node
        class MetadataCatalog:
            get = staticmethod(lambda name: Node(thing_classes=["person", "dog"]))
        """,
    "engine": """
        import torch
        class Instances:
            def __init__(self, masks):
                self.pred_masks, count = masks, len(masks)
                self.pred_classes, self.scores = torch.tensor([0, 1, 0]), torch.tensor([0.9, 0.99, 0.6])
            def to(self, device):
                return self
            def has(self, name):
                return hasattr(self, name)
        class DefaultPredictor:
            def __init__(self, config):
                with open(config.MODEL.WEIGHTS) as file:
                    assert file.read() == "weights"
            def __call__(self, image):
                return {"instances": Instances(torch.from_numpy(image[..., 2] > 128).expand(3, -1, -1))}
        """,
}


@pytest.fixture
def detectron2(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with the stand-in for detectron2."""
    package = tmp_path / "stand-in" / "detectron2"
    package.mkdir(parents=True)
    for name, text in DETECTRON2.items():
        lines = [line[8:] for line in text.splitlines()]
        (package / f"{name}.py").write_text("\n".join(lines) + "\n")
    return str(package.parent)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Two photographs whose left half is bright in red and nothing else."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0] = 255
    paths = [tmp_path / "natural" / f"{name}.png" for name in ("a", "b")]
    for path in paths:
        write_image(path, image)
    return paths


@pytest.mark.parametrize(
    ("script", "folder", "quoted"),
    [("image_demo.py", ROOT / "misc", False), ("misc/image_demo.py", ROOT, True)],
)
def test_masks(
    script: str, folder: Path, quoted: bool, detectron2: str, photographs: list[Path], run: Run, tmp_path: Path
) -> None:
    weights = tmp_path / "model_final_f10217.pkl"
    weights.write_text("weights")
    inputs = [tmp_path / "natural" / "*.png"] if quoted else photographs
    done = run(
        script, *DETECTOR, "--input", *inputs, "--output", tmp_path / "masks" / "natural",
        "--opts", "MODEL.WEIGHTS", weights,
        folder=folder, PYTHONPATH=detectron2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = sorted((tmp_path / "masks" / "natural").glob("*/*"))
    assert [str(path.relative_to(tmp_path / "masks")) for path in written] == ["natural/a/00.png", "natural/b/00.png"]
    expected = np.zeros((40, 60), np.uint8)
    expected[:, :30] = 255
    np.testing.assert_array_equal(read_mask(written[0]), expected)


def test_masks_without_weights_or_detectron2_are_one_line(
    detectron2: str, photographs: list[Path], run: Run, tmp_path: Path
) -> None:
    command = ["misc/image_demo.py", *DETECTOR, "--input", *photographs, "--output", tmp_path / "masks"]
    command += ["--opts", "MODEL.WEIGHTS", tmp_path / "gone.pkl"]
    lost = run(*command, PYTHONPATH=detectron2)
    assert lost.returncode == 2
    assert lost.stderr == f"error: {tmp_path / 'gone.pkl'}: no such file; expected weights of detectron2\n"
    if importlib.util.find_spec("detectron2") is None:
        missing = run(*command)
        assert missing.returncode == 2
        assert re.fullmatch(r"error: --config-file, --opts: meant for detectron2; .*pip install .*\n", missing.stderr)


def test_the_one_command_finds_people_by_detectron2(
    detectron2: str, photographs: list[Path], small_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    weights = tmp_path / "model_final_f10217.pkl"
    weights.write_text("weights")
    command = ["infer.py", "--image-dir", tmp_path / "natural", "--output", tmp_path / "out", "--device", "cpu"]
    command += ["--checkpoint", small_checkpoint]
    offline = run(*command, PYTHONPATH=detectron2)
    assert offline.returncode == 2
    assert re.fullmatch(
        r"error: https://zoo/COCO-\S+: cannot be downloaded \(.*\); fetch that file .* --detector-weights of .*\n",
        offline.stderr,
    )
    done = run(*command, "--detector", "detectron2", "--detector-weights", weights, PYTHONPATH=detectron2)
    assert done.returncode == 0, done.stderr
    for folder in ("out", "out_masks"):
        written = sorted(str(path.relative_to(tmp_path / folder)) for path in (tmp_path / folder).glob("*/*"))
        assert written == ["a/00.png", "b/00.png"]


def test_training_filelists_inference_and_evaluation(
    experiment: Callable[..., Path], small_set: Path, run: Run, tmp_path: Path
) -> None:
    one = experiment("stage1")
    base = tmp_path / "checkpoint" / "stage1" / "last.pth"
    two = experiment("stage2", model=f'pretrain = "{base}"')
    for stage, config in ((1, one), (2, two)):
        done = run(
            "-m", "torch.distributed.launch", "--nproc_per_node=2", "main.py", "--stage", stage, f"--config={config}",
            CUDA_VISIBLE_DEVICES="", PET_MASTER_PORT=str(free_port()),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "2 processes" in done.stderr

    lists = {"image": tmp_path / "HIM2K_natural_image.txt", "mask": tmp_path / "HIM2K_natural_mask.txt"}
    done = run(
        "misc/gen_filelist.py", "--input", small_set / "masks", "--image-prefix", small_set / "images",
        "--image-path", lists["image"], "--mask-path", lists["mask"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images, masks = ([Path(line) for line in lists[kind].read_text().splitlines()] for kind in ("image", "mask"))
    assert masks == sorted((small_set / "masks").glob("*/*.png"))
    assert images == [small_set / "images" / f"{mask.parent.name}.jpg" for mask in masks]
    assert len(set(images)) < len(images)

    done = run(
        "infer.py", "--config", two, "--checkpoint", tmp_path / "checkpoint" / "stage2" / "last.pth",
        "--image-dir", lists["image"], "--mask-dir", lists["mask"], "--output", tmp_path / "results" / "natural",
        "--image-ext", "jpg", "--mask-ext", "png", "--guidance-thres", "170",
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mattes = sorted((tmp_path / "results" / "natural").glob("*/*"))
    assert [path.parts[-2:] for path in mattes] == [path.parts[-2:] for path in masks]
    assert all(read_mask(matte).shape == read_mask(mask).shape for matte, mask in zip(mattes, masks))

    done = run("IMQ.py", tmp_path / "results" / "natural", small_set / "alphas", folder=ROOT / "evaluation")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\bMAD +\d", done.stdout)
