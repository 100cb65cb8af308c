"""The InstMatt network: from guidance to mattes, its checkpoints, and ``Predictor``."""

from networks.instmatt import InstMatt

__all__ = ["InstMatt"]
