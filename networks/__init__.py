"""The InstMatt network and its checkpoints."""

from networks.instmatt import InstMatt

__all__ = ["InstMatt"]
