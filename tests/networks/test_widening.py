"""A widened network computes what the narrow one does, and its two halves learn different things."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from misc.errors import InputError
from networks import InstMatt
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.inference import mattes
from networks.widening import main, widened
from tests.scenes import lively, side_by_side, small_network


@pytest.fixture(scope="module")
def narrow() -> InstMatt:
    return lively(small_network())


def test_same_mattes(narrow: InstMatt) -> None:
    wide = widened(narrow, seed=3)
    assert wide.width == 2 * narrow.width
    image, guidance = side_by_side(2, 96, 160)
    stacked, tri_mask = image.expand(2, -1, -1, -1), guidance.float()
    with torch.inference_mode():
        expected, found = narrow(stacked, tri_mask), wide(stacked, tri_mask)
    for name in ("os8", "os4", "os1"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-3, rtol=0)
    torch.testing.assert_close(mattes(wide, image, tri_mask)[0], mattes(narrow, image, tri_mask)[0], atol=5e-3, rtol=0)


def test_copies_of_a_channel_learn_different_things(narrow: InstMatt) -> None:
    image, guidance = side_by_side(2, 64, 96)

    def gradient(noise: float) -> Tensor:
        wide = widened(narrow, noise=noise).train()
        wide(image.expand(2, -1, -1, -1), guidance.float()).os1.sum().backward()
        weight = wide.get_parameter("encoder.layer1.0.conv1.parametrizations.weight.original")
        assert weight.grad is not None
        return weight.grad

    same, different = gradient(0.0), gradient(0.5)
    torch.testing.assert_close(same[::2], same[1::2], atol=1e-5 + float(same.abs().max()) / 50, rtol=0)
    assert (different[::2] - different[1::2]).abs().mean() > 0.2 * different.abs().mean()


def test_channels_that_do_not_double_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        widened(InstMatt(width=0.3))
    with pytest.raises(ValueError, match="noise"):
        widened(InstMatt(width=0.25), noise=-1)


def test_command_line(tmp_path: Path, narrow: InstMatt, run: Callable) -> None:
    given, output = tmp_path / "narrow.pth", tmp_path / "new" / "wide.pth"
    write_checkpoint(given, {"state_dict": to_published(narrow.state_dict()), "stage": 2})

    done = run("-m", "networks.widening", given, output)
    assert done.returncode == 0 and "width 0.125 to 0.25" in done.stdout, done.stderr
    image, guidance = side_by_side(2, 64, 96)
    wide = network_from_checkpoint(output)
    found = mattes(wide, image, guidance.float())[0]
    torch.testing.assert_close(found, mattes(narrow, image, guidance.float())[0], atol=5e-3, rtol=0)
    with pytest.raises(InputError, match=r"^--noise: found -1.0, expected 0 to 10$"):
        main([str(given), str(output), "--noise", "-1"])
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        main([str(tmp_path / "none.pth"), str(output)])
