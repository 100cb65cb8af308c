"""ONNX: the network as graphs for other runtimes. Names, shapes and ranges: ``networks/README.md``.

Made by the TorchScript exporter, which PyTorch 2.4 and later have and which needs no further package. A trace is right
for all sizes where the traced code takes sizes from tensors only; the tests compare other sizes than the traced ones.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from misc.errors import InputError
from misc.files import write_bytes
from misc.packages import need
from networks.features import PLACE
from networks.fold import fold
from networks.instmatt import InstMatt, normalise
from networks.layers import scaled
from networks.refiner import MultiInstanceRefiner

OPSET = 17
WEIGHTS = ("fp32", "fp16", "bf16")  # how a file stores the weights of convolutions
Axes = dict[str, dict[int, str]]  # name of an input or output -> number of an axis that varies -> what it counts
SIDE = 64  # of the tensors that are traced


class Stage1(nn.Module):
    """From photograph and tri-masks to the fused tri-mattes: all of stage 1, everywhere.

    Args:
        network: as ``networks.fold`` returns it.
    """

    INPUTS: ClassVar[Axes] = {"image": {2: "H", 3: "W"}, "guidance": {0: "N", 2: "H", 3: "W"}}
    OUTPUTS: ClassVar[Axes] = {
        "alpha": {0: "N", 2: "H", 3: "W"},
        "region": {0: "N", 2: "H", 3: "W"},
        "feature": {0: "N", 2: "H", 3: "W"},
    }

    def __init__(self, network: InstMatt) -> None:
        super().__init__()
        self.network = network

    def example(self) -> tuple[Tensor, ...]:
        """Tensors to trace with."""
        return torch.zeros(1, 3, SIDE, SIDE), torch.zeros(2, 3, SIDE, SIDE)

    def forward(self, image: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Progressive refinement is inside the graph.

        Args:
            image: (1, 3, H, W), RGB in [0, 1]; H and W multiples of 32.
            guidance: (N, 3, H, W) float32, tri-masks.

        Returns:
            alpha (N, 3, H, W) in [0, 1]; region (N, 1, H, W), 1 where the full scale had the last word, else 0; feature
            (N, 32w, H, W), for the refiner.
        """
        prediction = self.network(normalise(image), guidance)
        matte = self.network.fuse(prediction)
        return matte.alpha, matte.region_os1, prediction.feature


class RefinerWindow(nn.Module):
    """The refiner in one window, all instances at once: see ``MultiInstanceRefiner.forward``.

    Args:
        refiner: of the network.
        width: of the network.
    """

    INPUTS: ClassVar[Axes] = {
        "image": {2: "h", 3: "w"},
        "tri_mattes": {0: "K", 2: "h", 3: "w"},
        "feature": {0: "K", 2: "h", 3: "w"},
    }
    OUTPUTS: ClassVar[Axes] = {"refined": {0: "K", 2: "h", 3: "w"}}

    def __init__(self, refiner: MultiInstanceRefiner, *, width: float) -> None:
        super().__init__()
        self.refiner = refiner
        self.features = scaled(32, width)

    def example(self) -> tuple[Tensor, ...]:
        """Tensors to trace with."""
        return torch.zeros(1, 3, SIDE, SIDE), torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, self.features, SIDE, SIDE)

    def forward(self, image: Tensor, tri_mattes: Tensor, feature: Tensor) -> Tensor:
        """As ``exchange``, of an image in [0, 1]."""
        return self.exchange(normalise(image), tri_mattes, feature)

    def exchange(self, image: Tensor, tri_mattes: Tensor, feature: Tensor, present: Tensor | None = None) -> Tensor:
        """The exchange of ``MultiInstanceRefiner``, all instances at once, since K is not known.

        Args:
            image: (1, 3, h, w), normalised.
            tri_mattes: (K, 3, h, w) in [0, 1].
            feature: (K, 32w, h, w), of stage 1.
            present: (K, 1, h, w), see there; ``None``: all are everywhere.

        Returns:
            (K, 3, h, w), new tri-mattes in [0, 1].
        """
        weighted = [feature * tri_mattes[:, channel : channel + 1] for channel in range(3)]
        split = self.refiner.split(torch.cat(weighted, dim=1))
        if present is None:
            present = torch.ones_like(tri_mattes[:, :1, :1, :1])
        else:
            assert self.refiner.split.bias is not None
            split = split + self.refiner.split.bias.view(1, -1, 1, 1) * (present - 1)
        t, r, b = split.chunk(3, dim=1)
        count, targets, references, background = (each.sum(dim=0, keepdim=True) for each in (present, t, r, b))
        common = self.refiner.common(
            targets, references, background / count.clamp(min=1), image, others=(count - 1).clamp(min=1)
        )
        return self.refiner.merged(t, r, common)


def graph_of(module: Any) -> bytes:
    """The ONNX graph, float32, of a module with ``example``, ``INPUTS`` and ``OUTPUTS`` (names to axes that vary)."""
    legacy: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # the exporter is the older one, checks of sizes are traced, slices go backwards
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            module.example(),
            buffer,  # type: ignore[arg-type]  # newer stubs know of paths only
            opset_version=OPSET,
            input_names=list(module.INPUTS),
            output_names=list(module.OUTPUTS),
            dynamic_axes={**module.INPUTS, **module.OUTPUTS},
            **legacy,
        )
    return buffer.getvalue()


def finished(graph: bytes, *, weights: str, facts: Mapping[str, Any]) -> bytes:
    """A graph with its weights stored as wanted and with facts about it, checked.

    Args:
        graph: float32.
        weights: one of ``WEIGHTS``. What is stored in half is cast by the graph and computed in float32: runtimes cast
            it once, at load, and few have convolutions in half precision on a CPU.
        facts: for the field ``metadata_props``.

    Raises:
        InputError: a weight that the format cannot hold.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    for output in model.graph.output:  # where the exporter loses the number of channels it names it after another axis
        if output.name == "region":
            output.type.tensor_type.shape.dim[1].dim_value = 1
    if weights != "fp32":
        kind = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[weights]
        of_convolutions = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
        casts = [  # bfloat16 is too coarse for the features of an ImageNet network, see there
            _store_as(tensor, kind=onnx.TensorProto.FLOAT16 if PLACE in tensor.name else kind)
            for tensor in model.graph.initializer
            if tensor.name in of_convolutions
        ]
        for number, cast in enumerate(casts):
            model.graph.node.insert(number, cast)
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _store_as(tensor: Any, *, kind: int) -> Any:
    """Change an initializer's type in place; the node that casts it back under its old name."""
    import onnx

    values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    half = values.to(torch.float16 if kind == onnx.TensorProto.FLOAT16 else torch.bfloat16)
    if not bool(half.isfinite().all()):
        raise InputError(f"{tensor.name}: holds values beyond half precision; store it as fp32")
    name = tensor.name
    tensor.ClearField("float_data")
    tensor.name, tensor.data_type, tensor.raw_data = f"{name}.stored", kind, half.view(torch.int16).numpy().tobytes()
    return onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)


def write_graphs(
    network: InstMatt, output: Path, *, refiner: Path | None, weights: str, facts: Mapping[str, Any]
) -> Sequence[Path]:
    """Write stage 1 as an ONNX file, and the refiner's window as another.

    Args:
        network: in evaluation mode, not folded.
        output: for stage 1.
        refiner: for the refiner, ``None`` for none.
        weights: see ``finished``.
        facts: see ``finished``.

    Returns:
        The files written.

    Raises:
        InputError: the package onnx is missing, or the network has no refiner, or one does not fit ``weights``.
    """
    need("onnx", wanted_by="an ONNX file")
    if refiner is not None and network.refiner is None:
        raise InputError(f"{refiner}: the checkpoint has no refiner to write; leave --refiner out")
    folded = fold(network)
    modules: dict[Path, nn.Module] = {output: Stage1(folded)}
    if refiner is not None:
        assert folded.refiner is not None
        modules[refiner] = RefinerWindow(folded.refiner, width=folded.width)
    files = {path: finished(graph_of(module), weights=weights, facts=facts) for path, module in modules.items()}
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)
