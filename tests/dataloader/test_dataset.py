"""The training set as the trainer sees it."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataloader.batch import collate
from dataloader.dataset import (
    MattingDataset,
    SampleError,
    build_train_dataset,
    build_validation_records,
    select_each,
    select_subset,
    training_transforms,
)
from dataloader.scenes import FileScenes, binary_mask
from misc.errors import InputError
from misc.images import write_image
from trainer.stream import SampleStream


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


@pytest.mark.parametrize("select", [select_subset, select_each])
@pytest.mark.parametrize("augmentation", [True, False])
def test_samples_hold_the_invariants_of_training(make_data, select, augmentation):
    counts = [1, 2, 4]
    dataset = build_train_dataset(
        make_data(counts, augmentation=augmentation, real_world_aug=False), select=select, seed=3
    )
    assert len(dataset) == 3
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for index, count in enumerate(counts):
            sample = dataset[index]
            n = 1 if select is select_subset else count
            assert sample.image.shape == (64, 64, 3) and sample.guidance.shape == (n, 3, 64, 64)
            assert set(np.unique(sample.guidance)) <= {0, 1}
            np.testing.assert_allclose(sample.tri_matte.sum(1), 1, atol=1e-6)
            composed = (sample.tri_matte[..., None] * sample.colors).sum(1)
            assert np.abs(composed - sample.image).mean() < 1
            for trimap, (target, _, _) in zip(sample.trimap, sample.tri_matte):
                assert (target[trimap == 0] < 0.003).all() and (target[trimap == 255] > 0.997).all()
            assert (sample.trimap == 128).any()


def test_seed_epoch_and_index_alone_decide(make_data):
    data = make_data([2, 2])
    first, second = (build_train_dataset(data, select=select_subset, seed=5) for _ in range(2))
    second[1]
    assert same(first[0], second[0])
    other_seed = build_train_dataset(data, select=select_subset, seed=6)
    assert not same(first[0], other_seed[0])
    second.set_epoch(1)
    assert not same(first[0], second[0])
    assert same(first.sample(0, epoch=1), second[0])
    second.set_epoch(0)
    assert same(first[0], second[0])


@pytest.mark.parametrize("select", [select_subset, select_each])
def test_batches_do_not_depend_on_the_number_of_workers(make_data, select):
    dataset = build_train_dataset(make_data([2, 1, 3]), select=select, seed=0)

    def epochs(loader):
        for epoch in range(2):
            dataset.set_epoch(epoch)
            yield from loader

    alone = list(epochs(DataLoader(dataset, batch_size=2, collate_fn=collate)))
    workers = DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=2, persistent_workers=True)
    for expected, batch in zip(alone, epochs(workers), strict=True):
        assert expected.names == batch.names
        for field in ("image", "guidance", "tri_matte", "colors", "trimap", "image_index"):
            assert torch.equal(getattr(expected, field), getattr(batch, field)), field


def test_scenes_that_are_kept_give_the_same_samples_and_are_loaded_once(make_data):
    data = make_data([2, 2])
    plain, keeping = (build_train_dataset(data, select=select_subset, seed=3, keep_scenes=kept) for kept in (0, 2))
    loaded = []
    load = keeping.scenes.scene
    keeping.scenes.scene = lambda index, *, epoch: loaded.append(index) or load(index, epoch=epoch)
    streams = [SampleStream(dataset, seed=3, crops=3, joined_batch=2) for dataset in (plain, keeping)]
    ours, kept = ([stream[position] for position in range(6)] for stream in streams)
    assert all(same(a, b) for a, b in zip(ours, kept, strict=True))
    assert sorted(loaded) == [0, 1]  # three steps of two samples, on two scenes
    assert [sample.name for sample in ours[:2]] == [sample.name for sample in ours[2:4]]
    assert not same(ours[0], ours[2])  # but other crops of them


def test_loader_processes_that_take_turns_each_load_scenes_of_their_own_once(make_data):
    data = make_data([2, 2, 2, 2, 2, 2])
    loaded, samples = [], {}
    for process in range(3):  # steps go round three of them
        dataset = build_train_dataset(data, select=select_subset, seed=3, keep_scenes=1)
        load = dataset.scenes.scene
        dataset.scenes.scene = lambda index, *, epoch, load=load: loaded.append(index) or load(index, epoch=epoch)
        stream = SampleStream(dataset, seed=3, crops=2, turns=3)
        samples |= {step: stream[step] for step in range(process, 12, 3)}
    assert sorted(loaded) == [0, 1, 2, 3, 4, 5]
    names = [samples[step].name for step in range(12)]
    assert names[:3] == names[3:6] and names[6:9] == names[9:] and len({*names}) == 6
    one_after_the_other = SampleStream(dataset, seed=3, crops=2)
    expected = [one_after_the_other[step] for step in (0, 2, 4, 1, 3, 5)]
    assert all(same(samples[step], sample) for step, sample in enumerate(expected))


def test_without_augmentation_masks_are_the_detectors_and_the_image_is_untouched(make_data):
    dataset = build_train_dataset(make_data([2], augmentation=False, crop_size=96), select=select_each, seed=0)
    sample = dataset[0]
    assert (sample.guidance.sum(1) == 1).all()
    agreement = sample.guidance[:, 0] == (sample.tri_matte[:, 0] > 0.5)
    assert agreement.mean() > 0.999


def test_masks_may_be_absent(make_data):
    sample = build_train_dataset(make_data([2], train_mask=""), select=select_each, seed=0)[0]
    assert sample.guidance.shape == (2, 3, 64, 64)


# ------------------------------------------------------------------------------------------------------- bad input


def break_file(path, how):
    if how == "missing":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"not an image")
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        write_image(path, np.zeros((10, 12), np.uint8))


@pytest.mark.parametrize("how", ["missing", "garbage", "cut short", "another size"])
@pytest.mark.parametrize("kind", ["alpha", "fg", "mask"])
def test_a_bad_file_is_named_in_one_line(make_data, tmp_path, how, kind):
    dataset = build_train_dataset(make_data([2]), select=select_subset, seed=0)
    bad = tmp_path / kind / "img00" / "01.png"
    break_file(bad, how)
    with pytest.raises(InputError) as caught:
        dataset[0]
    message = str(caught.value)
    assert message.startswith(f"{bad}: ") and "\n" not in message
    if how == "another size":
        assert "found 12×10 pixels, expected 128×96 as in" in message


def test_a_bad_file_is_named_in_one_line_out_of_a_worker_too(make_data, tmp_path):
    dataset = build_train_dataset(make_data([1]), select=select_subset, seed=0)
    bad = tmp_path / "merged" / "img00.png"
    break_file(bad, "cut short")
    with pytest.raises(InputError) as alone:
        dataset[0]
    with pytest.raises(InputError) as caught:
        next(iter(DataLoader(dataset, collate_fn=collate, num_workers=1)))
    assert str(caught.value) == str(alone.value)
    assert str(bad) in str(caught.value)


def test_workers_forked_after_opencv_used_its_threads_do_not_wait_for_them(make_data):
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((1000, 1000, 3), np.uint8), (0, 0), 3)  # starts the pool of this process
    dataset = build_train_dataset(make_data([1], crop_size=512), select=select_subset, seed=0)
    loader = DataLoader(dataset, collate_fn=collate, num_workers=1, multiprocessing_context="fork", timeout=20)
    assert len(list(loader)) == 1


def test_sample_errors_keep_a_message_that_names_their_own_class():
    assert str(SampleError("a.png: no such file")) == "a.png: no such file"


@pytest.mark.parametrize("key", ["train_alpha", "train_merged", "train_fg", "train_bg"])
def test_lists_that_are_not_set_are_named(make_data, key):
    with pytest.raises(InputError, match=rf"data\.{key}: not set"):
        build_train_dataset(make_data([1], **{key: ""}), select=select_subset, seed=0)


def test_impossible_values_are_refused(make_data):
    with pytest.raises(InputError, match=r"data\.crop_size: found 100"):
        build_train_dataset(make_data([1], crop_size=100), select=select_subset, seed=0)
    with pytest.raises(InputError, match="seed: found -1"):
        build_train_dataset(make_data([1]), select=select_subset, seed=-1)
    with pytest.raises(InputError, match="holds no images"):
        MattingDataset(FileScenes([]), training_transforms(make_data([1]), select=select_subset))


# ------------------------------------------------------------------------------------------------------ validation


def test_validation_records_come_from_the_test_lists(make_data):
    data = make_data([1, 3])
    assert build_validation_records(data) == []
    data = replace(data, **{f"test_{key}": getattr(data, f"train_{key}") for key in ("alpha", "merged", "mask")})
    records = build_validation_records(data)
    assert [(record.name, len(record.alphas), len(record.masks)) for record in records] == [
        ("img00", 1, 1),
        ("img01", 3, 3),
    ]
    with pytest.raises(InputError, match=r"data\.test_mask: not set"):
        build_validation_records(replace(data, test_mask=""))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([0, 169, 170, 255], [0, 0, 1, 1]), ([0, 1, 1, 0], [0, 1, 1, 0]), ([0, 0, 0, 0], [0, 0, 0, 0])],
)
def test_grey_masks_are_cut_where_inference_cuts_them(mask, expected):
    np.testing.assert_array_equal(binary_mask(np.array([mask], np.uint8)), [expected])
