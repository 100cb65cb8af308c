"""Folders of mattes: recorded figures, sizes and bit depths, and what is said of bad ones."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import plain_imq
import pytest

from evaluation.folders import pair_folders
from evaluation.runner import Options, evaluate_folders
from misc.errors import InputError
from misc.images import write_image


@pytest.mark.parametrize(("protocol", "reading"), [("imq", "count_missing"), ("imq-published", "skip_missing")])
def test_recorded_data_set(recorded, expected, protocol, reading):
    evaluation = evaluate_folders(recorded / "pred", recorded / "gt", Options(protocol=protocol))
    for threshold, rows in evaluation.counts().compute().items():
        for measure, row in rows.items():
            assert row == pytest.approx(expected[reading][threshold][measure], abs=1e-6), (threshold, measure)
    assert evaluation.counts().missing == 1


def test_workers_do_not_change_a_digit(write_set):
    folders = write_set([plain_imq.image_of(seed) for seed in range(12)])
    one = evaluate_folders(*folders, Options(workers=1))
    many = evaluate_folders(*folders, Options(workers=7))
    assert one.results == many.results


def test_sixteen_bits_count(tmp_path):
    """A 16-bit matte that 8 bits would round to the truth keeps its error, and a 16-bit pair is exact."""
    truth = np.full((32, 32), 100 * 257, np.uint16)
    (tmp_path / "gt/a").mkdir(parents=True)
    (tmp_path / "pred/a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "gt/a/00.png"), truth)
    cv2.imwrite(str(tmp_path / "pred/a/00.png"), truth + 100)
    (result,) = evaluate_folders(tmp_path / "pred", tmp_path / "gt").results
    assert result.pairs[0].errors["MAD"] == pytest.approx(100 / 65535 * 1024 / 1025, rel=1e-4)


def test_given_trimaps(write_set, tmp_path):
    image = plain_imq.image_of(3, gts=1, preds=1)
    pred, gt = write_set([image])
    trimap = np.zeros(image[1][0].shape, np.uint8)
    trimap[10:20, 5:40] = 128
    trimap[30:, :] = 255
    write_image(tmp_path / "trimaps/0000/00.png", trimap)
    evaluation = evaluate_folders(pred, gt, Options(protocol="trimap", trimaps=tmp_path / "trimaps"))
    band = trimap == 128
    sad = np.abs(image[0][0].astype(np.float64) - image[1][0])[band].sum() / 1000
    assert evaluation.results[0].pairs[0].errors["SAD"] == pytest.approx(sad, abs=1e-7)
    assert "trimaps" in evaluation.region


def test_resize(write_set):
    image = plain_imq.image_of(8, gts=1, preds=1)
    pred, gt = write_set([image])
    path = pred / "0000" / "00.png"
    write_image(path, cv2.resize(cv2.imread(str(path), 0), None, fx=2, fy=2))
    with pytest.raises(InputError, match="--resize") as error:
        evaluate_folders(pred, gt)
    for text in (str(path), str(gt / "0000" / "00.png"), "112×96", "56×48"):
        assert text in str(error.value)
    (result,) = evaluate_folders(pred, gt, Options(resize=True)).results
    assert result.pairs[0].errors["MAD"] < 0.2


def test_names_without_a_counterpart_are_listed(write_set):
    pred, gt = write_set([plain_imq.image_of(seed) for seed in range(3)])
    shutil.move(pred / "0001", pred / "else")
    evaluation = evaluate_folders(pred, gt)
    assert [result.name for result in evaluation.results if result.missing] == ["0001"]
    assert evaluation.unexpected == ("else",)
    for name in ("0000", "0002"):
        shutil.rmtree(pred / name)
    with pytest.raises(InputError, match=r"found else; expected 0000, 0001, 0002"):
        pair_folders(pred, gt)


def test_folders_that_cannot_be_evaluated(write_set, tmp_path):
    pred, gt = write_set([plain_imq.image_of(1)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate_folders(pred, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"empty: found no image folders; .*GT/<image>/NN\.png"):
        evaluate_folders(pred, tmp_path / "empty")
    with pytest.raises(InputError, match=r"3 \.png files but no image folders"):
        evaluate_folders(pred / "0000", gt)
    (gt / "0001").mkdir()
    with pytest.raises(InputError, match=r"0001: holds no \.png file"):
        evaluate_folders(pred, gt)
    (gt / "0001").rmdir()
    (pred / "0000" / "mattes.npz").touch()
    for path in (pred / "0000").glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"pred/0000: found mattes\.npz but no \.png"):
        evaluate_folders(pred, gt)


def test_files_that_cannot_be_evaluated(write_set, tmp_path):
    pred, gt = write_set([plain_imq.image_of(seed) for seed in range(4)])
    path = pred / "0002" / "01.png"
    whole = path.read_bytes()
    for data in (b"", b"no picture", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"0002/01\.png"):
            evaluate_folders(pred, gt)
    path.write_bytes(whole)
    write_image(gt / "0003" / "01.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"0003/01\.png: found 9×9 pixels, expected 56×48 as in .*00\.png"):
        evaluate_folders(pred, gt)


def test_trimaps_that_cannot_be_used(write_set, tmp_path):
    pred, gt = write_set([plain_imq.image_of(1, gts=1, preds=1)])
    options = Options(protocol="trimap", trimaps=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"0000/00\.png"):
        evaluate_folders(pred, gt, options)
    write_image(tmp_path / "0000" / "00.png", np.full((48, 56), 255, np.uint8))
    with pytest.raises(InputError, match="no unknown pixel"):
        evaluate_folders(pred, gt, options)
    write_image(tmp_path / "0000" / "00.png", np.full((8, 8), 128, np.uint8))
    with pytest.raises(InputError, match="found 8×8 pixels, expected 56×48"):
        evaluate_folders(pred, gt, options)
