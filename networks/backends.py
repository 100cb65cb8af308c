"""The network computed by another runtime, on the CPU: its parts as ONNX graphs, made in memory from what was loaded.

Convolutions run there; choosing what is computed, fusing the scales and the loop round the refiner stay those of
``networks.inference``, which calls the parts of any ``InstMatt``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from misc.box import Box
from misc.device import inference_dtype, select_device
from misc.errors import InputError
from misc.packages import need
from networks.decoder import Coarse
from networks.fold import fold
from networks.graphs import RefinerWindow, graph_of
from networks.instmatt import InstMatt
from networks.layers import scaled
from networks.refiner import MultiInstanceRefiner

Run = Callable[..., list[Tensor]]  # float32 and int64 tensors of a CPU in and out, in the order of the graph


def _onnxruntime(graph: bytes, dtype: torch.dtype) -> Run:
    """A graph computed by ONNX Runtime, in float32."""
    import onnxruntime  # optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Its threads sleep between calls: PyTorch works then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        given = {name: tensor.contiguous().numpy() for name, tensor in zip(names, tensors)}
        return [torch.from_numpy(array) for array in session.run(None, given)]

    return run


def _openvino(graph: bytes, dtype: torch.dtype) -> Run:
    """A graph computed by OpenVINO; bfloat16 where the processor has it, else float32."""
    import openvino  # optional

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
    }
    core = openvino.Core()
    model = core.compile_model(core.read_model(graph, b""), "CPU", settings)

    def run(*tensors: Tensor) -> list[Tensor]:
        result = model([tensor.contiguous().numpy() for tensor in tensors], share_inputs=True)
        return [torch.from_numpy(result[output]) for output in model.outputs]

    return run


RUNTIMES: Mapping[str, Callable[[bytes, torch.dtype], Run]] = MappingProxyType(
    {"onnxruntime": _onnxruntime, "openvino": _openvino}
)
BACKENDS = ("torch", *RUNTIMES)


def device_and_dtype(backend: str, device: str | torch.device, precision: str) -> tuple[torch.device, torch.dtype]:
    """Where and in what number format a backend computes.

    Args:
        backend: one of ``BACKENDS``.
        device: a device, or its name as in ``misc.device.select_device``; "auto" is the CPU but for PyTorch.
        precision: see ``misc.device.inference_dtype``; "auto" is float32 for ONNX Runtime.

    Raises:
        InputError: no such backend, its package is not installed, or it has no such device or number format.
    """
    if backend not in BACKENDS:
        raise InputError(f"--backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend in RUNTIMES:
        need(backend, wanted_by=f"--backend {backend}")
        device = "cpu" if device == "auto" else device
    chosen = device if isinstance(device, torch.device) else select_device(device)
    if backend in RUNTIMES and chosen.type != "cpu":
        raise InputError(f"--backend: {backend} is used on the CPU only, found --device {chosen}; use cpu, or torch")
    if backend == "onnxruntime" and precision in ("auto", "bf16"):
        if precision == "bf16":
            raise InputError("--precision: onnxruntime computes in fp32, found bf16; use --backend openvino or torch")
        precision = "fp32"
    return chosen, inference_dtype(precision, chosen)


class _Part(nn.Module):
    """Part of a network in the form of which ``networks.graphs.graph_of`` makes a graph.

    Args:
        network: whose weights it reads.
        compute: from tensors to a tensor or a tuple of them.
        example: tensors to trace with; of those (N, C, H, W) all axes but C vary.
        outputs: how many.
    """

    def __init__(
        self, network: nn.Module, compute: Callable[..., Any], example: Sequence[Tensor], *, outputs: int = 1
    ) -> None:
        super().__init__()
        self.network, self.compute, self._example = network, compute, tuple(example)
        self.INPUTS = {f"in{number}": _axes(f"in{number}", tensor.ndim) for number, tensor in enumerate(example)}
        self.OUTPUTS = {f"out{number}": _axes(f"out{number}", 4) for number in range(outputs)}

    def example(self) -> tuple[Tensor, ...]:
        """Tensors to trace with."""
        return self._example

    def forward(self, *tensors: Tensor) -> Any:
        return self.compute(*tensors)


def _axes(name: str, count: int) -> dict[int, str]:
    return {axis: f"{name}_{axis}" for axis in (0, 2, 3)} if count == 4 else {}


class Compiled(InstMatt):
    """A network whose parts another runtime computes, for ``networks.inference`` only: it has no weights to read.

    Args:
        network: as ``networks.fold`` returns it, float32.
        compiler: one of ``RUNTIMES``.
        dtype: what the runtime computes in; tensors in and out are float32.
    """

    def __init__(self, network: InstMatt, compiler: Callable[[bytes, torch.dtype], Run], *, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.width, self.settings, self.features = network.width, network.settings, network.features

        def compiled(module: nn.Module, dtype: torch.dtype = dtype) -> Run:
            return compiler(graph_of(module), dtype)

        def fine(x: Tensor, quarter: Tensor, part: Tensor) -> Tensor:
            return network.fine(x, quarter, Box(*part))  # type: ignore[arg-type]  # edges are traced

        c32, c64 = (scaled(channels, network.width) for channels in (32, 64))
        x, edges = torch.zeros(2, 6, 64, 64), torch.tensor([8, 8, 56, 56])
        photograph = torch.zeros(1, 3, 64, 64)
        seen = network.see(photograph)
        self._see = None
        if seen:
            self._see = compiled(_Part(network, network.see, [photograph], outputs=len(seen)), torch.float32)
        self._coarse = compiled(_Part(network, lambda x, *seen: network.coarse(x, seen), [x, *seen], outputs=3))
        self._fine = compiled(_Part(network, fine, [x, torch.zeros(2, c64, 16, 16), edges]))
        self._head = compiled(_Part(network, network.head, [torch.zeros(2, c32, 64, 64)]))
        self.refiner = None
        if network.refiner is not None:
            window = RefinerWindow(network.refiner, width=network.width)
            example = window.example()
            example = (*example, torch.ones_like(example[1][:, :1]))
            self.refiner = _CompiledRefiner(compiled(_Part(window, window.exchange, example)))

    @property
    def dtype(self) -> torch.dtype:
        """Of features."""
        return torch.float32

    def see(self, image: Tensor) -> list[Tensor]:
        return [] if self._see is None else self._see(image)

    def coarse(self, x: Tensor, seen: Sequence[Tensor]) -> Coarse:
        return Coarse(*self._coarse(x, *seen))

    def fine(self, x: Tensor, quarter: Tensor, part: Box) -> Tensor:
        return self._fine(x, quarter, torch.tensor(part))[0]

    def head(self, feature: Tensor) -> Tensor:
        return self._head(feature)[0]


class _CompiledRefiner(MultiInstanceRefiner):
    """The refiner in a window, all instances at once."""

    def __init__(self, run: Run) -> None:
        nn.Module.__init__(self)
        self._run = run

    def forward(
        self,
        image: Tensor,
        tri_mattes: Tensor,
        feature: Iterable[Tensor],
        wanted: Sequence[int] | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        present = torch.ones_like(tri_mattes[:, :1]) if present is None else present
        (refined,) = self._run(image, tri_mattes, torch.stack(list(feature)), present)
        return refined if wanted is None else refined[list(wanted)]


def inference_network(network: InstMatt, *, backend: str, dtype: torch.dtype) -> InstMatt:
    """The network for inference: folded, and compiled for the backend.

    Args:
        network: in any mode.
        backend: one of ``BACKENDS``.
        dtype: as ``device_and_dtype`` returns it.
    """
    if backend not in RUNTIMES:
        return fold(network, dtype=dtype)
    return Compiled(fold(network), RUNTIMES[backend], dtype=dtype)
