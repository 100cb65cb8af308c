"""Training without files: composites made on the fly, the same whatever the workers, nobody of the test split."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from config import dump_config, load_config
from dataloader.batch import collate
from dataloader.compose.sources import find_people, label, split_sources
from dataloader.dataset import build_train_dataset, select_each, select_subset
from dataloader.scenes import composed_scenes
from dataloader.synthesize import synthesize
from misc.errors import InputError
from misc.images import write_image
from tests.launch import SAMPLE


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


@pytest.mark.parametrize("select", [select_subset, select_each])
def test_samples_hold_the_invariants_of_training(data, select):
    dataset = build_train_dataset(data(), select=select, seed=2)
    assert len(dataset) == 4
    for index in range(4):
        sample = dataset.sample(index, epoch=0)
        n = len(sample.guidance)
        assert n == 1 if select is select_subset else 2 <= n <= 3
        assert sample.image.shape == (64, 64, 3)
        np.testing.assert_allclose(sample.tri_matte.sum(1), 1, atol=1e-6)
        composed = (sample.tri_matte[..., None] * sample.colors).sum(1)
        assert np.abs(composed - sample.image).mean() < 1


def test_seed_epoch_and_index_alone_decide_and_every_epoch_is_new(data):
    scenes = composed_scenes(data(), seed=5)
    first = scenes.scene(1, epoch=2)
    scenes.scene(0, epoch=0)
    again, uncached = (s.scene(1, epoch=2) for s in (scenes, composed_scenes(data(compose_cache_mb=0), seed=5)))
    for other in (again, uncached):
        assert np.array_equal(first.image, other.image)
        assert all(np.array_equal(a, b) for a, b in zip(first.masks, other.masks, strict=True))
    others = [scenes.scene(1, epoch=3), scenes.scene(2, epoch=2), composed_scenes(data(), seed=6).scene(1, epoch=2)]
    assert not any(np.array_equal(first.image, other.image) for other in others)


def test_alphas_of_a_scene_leave_the_exact_rest_to_the_background(data):
    scene = composed_scenes(data(), seed=0).scene(3, epoch=1)
    alphas = np.stack(scene.alphas)
    rest = 1 - alphas.sum(0)
    assert rest.min() > -1e-6
    composed = (alphas[..., None] * np.stack(scene.fgs)).sum(0) + rest[..., None] * scene.bgs[0]
    assert np.abs(composed - scene.image).max() <= 0.51


def test_batches_do_not_depend_on_the_number_of_workers(data):
    dataset = build_train_dataset(data(), select=select_each, seed=0)
    alone, apart = (
        list(DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=workers)) for workers in (0, 2)
    )
    for expected, batch in zip(alone, apart, strict=True):
        assert expected.names == batch.names
        for field in ("image", "guidance", "tri_matte", "colors", "trimap", "image_index"):
            assert torch.equal(getattr(expected, field), getattr(batch, field)), field


def test_both_stages_train_without_any_training_file(experiment, run, tmp_path):
    folders = (f'{key} = ["{SAMPLE / key}"]' for key in ("people", "backgrounds"))
    file = experiment(data="\n".join(['source = "compose"', *folders]))
    options = ["data.train_alpha=", "data.train_merged=", "data.compose_size=160", "data.people_max=2"]
    first = run("main.py", "--config", file, "train.total_step=2", *options)
    assert first.returncode == 0, first.stderr
    base = next(tmp_path.rglob("last.pth"))
    second = ["version=second", f"model.pretrain={base}", "model.batch_size=1", "train.total_step=2"]
    done = run("main.py", "--stage", 2, "--config", file, *second, *options)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("last.pth"))) == 2


def test_nobody_of_the_written_test_split_is_trained_on(data, tmp_path):
    folders = [SAMPLE / "people"], [SAMPLE / "backgrounds"]
    synthesize(*folders, tmp_path, images=1, size=128, split="test", people_per_image={2: 1.0}, progress=False)
    scenes = composed_scenes(data(), seed=0)
    held_out, _ = split_sources(find_people(folders[0]), scenes.backgrounds, split="test", test_fraction=0.1)
    assert held_out
    assert {p.identity for p in scenes.people}.isdisjoint(p.identity for p in held_out)
    manifest = (tmp_path / "manifest.json").read_text()
    assert not any(label(person.color) in manifest for person in scenes.people)
    assert len(composed_scenes(data(split="all"), seed=0).people) == len(scenes.people) + len(held_out)


def test_masks_of_the_detector_can_be_left_to_the_augmentation(data):
    assert composed_scenes(data(compose_masks="none"), seed=0).scene(0, epoch=0).masks == []
    sample = build_train_dataset(data(compose_masks="none"), select=select_subset, seed=0)[0]
    assert sample.guidance[0, 0].any()


def test_folders_on_the_command_line_and_in_files(tmp_path):
    options = ["data.source=compose", "data.people=a", "data.backgrounds=['b', 'c']"]
    config = load_config(None, options)
    assert (config.data.people, config.data.backgrounds) == (["a"], ["b", "c"])
    (tmp_path / "again.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.toml") == config


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["data.source=compose"], "data.people: found [], expected a list of folders"),
        (["data.people=3"], "data.people: found 3, expected a list of strings"),
        (["data.people=[1, 2]"], "data.people: found [1, 2], expected a list of strings"),
        (["data.source=web"], "data.source: found 'web', expected 'files' or 'compose'"),
        (["data.people_min=6"], "data.people_min: found 6, expected at most data.people_max = 5"),
    ],
)
def test_bad_settings_are_one_line(options, words):
    with pytest.raises(InputError) as error:
        load_config(None, options)
    assert words in str(error.value)


def test_bad_folders_and_files_are_named(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        composed_scenes(data(people=["nowhere"]), seed=0)
    with pytest.raises(InputError, match="fewer than the 40 of one image"):
        composed_scenes(data(people_max=40), seed=0)
    for name in "ab":
        write_image(tmp_path / f"{name}.png", np.full((60, 40, 4), 255, np.uint8))
    (tmp_path / "b.png").write_bytes(b"no picture")
    pair = data(split="all", people=[str(tmp_path)], people_max=2)
    with pytest.raises(InputError, match=r"b\.png: not a readable image"):
        build_train_dataset(pair, select=select_subset, seed=0)[0]
