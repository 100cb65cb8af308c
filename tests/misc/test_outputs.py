"""Results: colours of cut-outs and composites, and that no result falls on a file of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.images import read_image, read_rgba
from misc.outputs import Outputs
from misc.photographs import InferenceRecord
from tests.scenes import wide_profile

PERSON = np.array([200, 60, 40], np.uint8)


@pytest.mark.parametrize("tagged", [False, True])
def test_cutouts_keep_the_profile_and_composites_are_in_srgb(tmp_path: Path, tagged: bool) -> None:
    pytest.importorskip("pymatting")
    extra = {"icc_profile": wide_profile()} if tagged else {}
    Image.fromarray(np.full((40, 40, 3), PERSON)).save(tmp_path / "a.png", **extra)
    record = InferenceRecord("a", tmp_path / "a.png", (tmp_path / "00.png",))
    outputs = Outputs(tmp_path / "out", rgba=True, background=np.full((40, 40, 3), (0, 0, 255), np.uint8))
    matte = np.zeros((1, 40, 40), np.float32)
    matte[:, 10:30, 10:30] = 1
    outputs.write(record, (read_image(record.image), matte))
    cutout = tmp_path / "out_rgba" / "a" / "00.png"
    assert Image.open(cutout).info.get("icc_profile") == extra.get("icc_profile")
    np.testing.assert_allclose(read_rgba(cutout)[20, 20, :3], PERSON, atol=2)
    made = tmp_path / "out_composite" / "a.png"
    assert "icc_profile" not in Image.open(made).info
    np.testing.assert_allclose(read_image(made)[20, 20], PERSON[[1, 0, 2]] if tagged else PERSON, atol=3)
    np.testing.assert_array_equal(read_image(made)[0, 0], (0, 0, 255))
