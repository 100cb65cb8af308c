"""Entry points of torch.hub: ``torch.hub.load("OWNER/InstMatt", "instmatt_s")``."""

from __future__ import annotations

from typing import Any

from networks import InstMatt
from networks.checkpoint import network_from_checkpoint
from networks.predictor import SHIPPED, Predictor

dependencies = ["torch", "cv2", "numpy", "PIL", "tqdm"]


def instmatt_s(**options: Any) -> Predictor:
    """InstMatt-S with its weights: (H, W, 3) photograph and (K, H, W) rough masks to (K, H, W) mattes.

    Args:
        options: of ``networks.predictor.Predictor``, such as ``device="cuda"`` or ``precision="auto"``.
    """
    return Predictor(SHIPPED, **options)


def instmatt_s_network() -> InstMatt:
    """The same as a module, in evaluation mode on the CPU, to fine-tune or to take apart."""
    return network_from_checkpoint(SHIPPED)
