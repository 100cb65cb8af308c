"""Configuration: the schema, precedence, base files, and one clear line for whatever is wrong."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from config import KEYS, Config, dump_config, load_config, named_keys, resolve, to_plain
from config.__main__ import document
from config.schema import GONE
from misc.errors import InputError
from tests.launch import ROOT

# The shape of the published files: their sections and keys, with values of the types they use.
PUBLISHED = """
version = "InstMatt-stage1"
dist = true
[model]
trimap_channel = 3
mask_channel = 3
batch_size = 4
imagenet_pretrain = false
imagenet_pretrain_path = "pretrain/model_best_resnet34_En_nomixup.pth"
pretrain = false
evaluated = false
self_refine_width1 = 30
self_refine_width2 = 15
freeze = false
act_function = "tanh"
[model.arch]
encoder = "res_shortcut_encoder_29"
decoder = "res_shortcut_decoder_22_3ch"
refiner = "multi_inst_refiner"
cross_head = false
discriminator = ""
[train]
total_step = 200000
warmup_step = 2000
val_step = 2000
clip_grad = true
G_lr = 1e-4
min_lr = 1e-5
cosine_period = 95000
beta1 = 0.5
beta2 = 0.999
rec_weight = 1
lap_weight = 1
comp_weight = 1
alpha_weight = 1
resume_checkpoint = ""
reset_lr = false
[data]
train_alpha = "a.txt"
train_merged = "b.txt"
train_mask = "c.txt"
train_fg = "d.txt"
train_bg = "e.txt"
test_alpha = "f.txt"
test_merged = "g.txt"
test_mask = "h.txt"
workers = 4
crop_size = 640
cutmask_prob = 0.25
cutmask_internal_prob = 0.5
cutmask_external_prob = 0.5
augmentation = true
random_interp = true
real_world_aug = false
vertical_flip = false
rescale_min = 0.8
rescale_max = 1.25
[log]
tensorboard_path = "logs/tensorboard"
tensorboard_step = 100
tensorboard_image_step = 2000
logging_path = "logs/stdout"
logging_step = 10
logging_level = "DEBUG"
checkpoint_path = "checkpoints"
checkpoint_step = 2000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\ntotal_step = 50\nwarmup_step = 5\nG_lr = 1\n")
    config = load_config(path, ["train.total_step=70", "data.train_alpha=lists/alpha.txt", "log.logging_level='DEBUG'"])
    assert config.train.total_step == 70
    assert config.train.warmup_step == 5
    assert config.train.G_lr == 1.0
    assert isinstance(config.train.G_lr, float)
    assert config.data.train_alpha == "lists/alpha.txt"
    assert config.log.logging_level == "DEBUG"
    assert config.train.beta1 == load_config().train.beta1


def test_named_keys_are_those_that_somebody_wrote(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\nG_lr = 1\n[model.arch]\nwidth = 0.5\n")
    assert named_keys() == {}
    named = named_keys(path, ["model.arch.width=0.25", "data.people=folder"])
    assert named == {"train.G_lr": 1.0, "model.arch.width": 0.25, "data.people": ["folder"]}
    assert resolve(named) == load_config(path, ["model.arch.width=0.25", "data.people=folder"])


def test_every_shipped_file_loads_without_a_warning() -> None:
    shipped = sorted((ROOT / "config").rglob("*.toml"))
    assert len(shipped) >= 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in shipped:
            load_config(path)


def test_default_file_is_printed_from_the_schema(tmp_path: Path) -> None:
    printed = document()
    assert (ROOT / "config" / "default.toml").read_text(encoding="utf-8") == printed, "python -m config prints it"
    assert named_keys(written(tmp_path, printed)) == {
        name: key.default for name, key in KEYS.items() if not key.rule.unused
    }


def sections(section: Any) -> list[Any]:
    values = [getattr(section, item.name) for item in dataclasses.fields(section)]
    return [section, *(found for value in values if dataclasses.is_dataclass(value) for found in sections(value))]


def test_types_of_the_schema_are_those_of_its_defaults() -> None:
    for section in sections(Config()):
        for name, hint in get_type_hints(type(section)).items():
            value = getattr(section, name)
            assert type(value) is (list if hint == list[str] else hint), f"{type(section).__name__}.{name}"
    assert all(key.rule.meaning for key in KEYS.values())
    assert not GONE.keys() & KEYS.keys()


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config().train.total_step = 3  # type: ignore[misc]
    load_config().data.people.append("folder")
    assert load_config().data.people == []


def test_checkpoints_record_plain_values() -> None:
    plain = to_plain(load_config(None, ["data.people=a", "model.arch.width=0.5"]))
    assert plain["model"]["arch"]["width"] == 0.5
    assert plain["data"]["people"] == ["a"]

    def kinds(value: object) -> set[type]:
        return {type(value)}.union(*map(kinds, value.values())) if isinstance(value, dict) else {type(value)}

    assert kinds(plain) == {dict, list, str, int, float, bool}


def test_a_file_builds_upon_its_base(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "first.toml").write_text("[train]\ntotal_step = 50\nwarmup_step = 5\nG_lr = 1\n")
    (tmp_path / "below" / "second.toml").write_text('base = "first.toml"\n[train]\nG_lr = 2\nseed = 4\n')
    path = written(tmp_path, 'base = "below/second.toml"\n[train]\nseed = 5\n')
    named = named_keys(path, ["train.warmup_step=6"])
    assert named == {"train.total_step": 50, "train.warmup_step": 6, "train.G_lr": 2.0, "train.seed": 5}
    assert "base" not in dump_config(load_config(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('base = "experiment.toml"', "base: 'experiment.toml' leads back to a file that builds upon this one"),
        ('base = "other.toml"', "base: 'experiment.toml' leads back to a file that builds upon this one"),
        ('base = "nowhere.toml"', "nowhere.toml: no such configuration file"),
        ("base = 3", "base: found 3, expected the path of a file"),
        ('base = ""', "base: found '', expected the path of a file"),
        ('base = "a\\u0000b"', "expected the path of a file"),
        ('base = "bad.toml"', "bad.toml: train.seed: found -1, expected a value from 0 to"),
        ('[train]\nbase = "other.toml"', "unknown key train.base"),
    ],
)
def test_a_bad_base_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('base = "experiment.toml"\n')
    (tmp_path / "bad.toml").write_text("[train]\nseed = -1\n")
    with pytest.raises((InputError, FileNotFoundError)) as error:
        load_config(written(tmp_path, text + "\n"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + 400 * "0"])
def test_numbers_are_finite(value: str) -> None:
    numbers = [name for name, key in KEYS.items() if isinstance(key.default, float) and not key.rule.unused]
    assert len(numbers) > 20
    for name in numbers:
        with pytest.raises(InputError, match="expected a finite number"):
            load_config(None, [f"{name}={value}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.beta1=5.0", "train.beta1: found 5.0, expected less than 1"),
        ("train.ema_decay=1.0", "train.ema_decay: found 1.0, expected less than 1"),
        ("train.num_threads=1000000", "found 1000000, expected a value from 0 to 1024"),
        ("data.rescale_max=1e6", "found 1000000.0, expected at most 16"),
        ("data.trimap_kernel=100000", "found 100000, expected a value from 2 to 1000"),
        ("data.rescale_min=2.0", "found 2.0, expected at most data.rescale_max = 1.25"),
        ("version=../../x", "version: found '../../x', expected the name of one folder"),
        ("version=", "version: found '', expected the name of one folder"),
        ("version='..'", "expected the name of one folder"),
        ("data.people=" + 5000 * "[" + 5000 * "]", "data.people: the value is nested too deeply"),
        ("log.logging_path='a\\u0000b'", "expected text without a NUL character"),
        ('data.people=["a\\u0000b"]', "expected text without a NUL character"),
        ("train.seed=" + 5000 * "9", "train.seed: found"),
    ],
)
def test_absurd_values_are_one_short_line(override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(None, [override.replace("'a", '"a').replace("b'", 'b"')])
    assert words in str(error.value)
    assert len(str(error.value)) < 400


def test_published_file_loads_and_names_what_lost_its_meaning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as caught:
        config = load_config(written(tmp_path, PUBLISHED))
    told = "\n".join(str(warning.message) for warning in caught)
    assert "data.cutmask_prob" in told
    assert "data.cutmask_internal_prob" in told
    assert "train.cosine_period" in told
    assert config.model.pretrain == ""
    assert config.train.total_step == 200000


def test_dump_returns(tmp_path: Path) -> None:
    config = load_config(None, ["train.total_step=3000", "version=round-trip"])
    assert load_config(written(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\ntotal_stp = 3", "unknown key train.total_stp; did you mean train.total_step"),
        ("[trian]\ntotal_step = 3", "unknown key trian.total_step"),
        ("train = 3", "unknown key train"),
        ("[train]\ntotal_step = '3'", "train.total_step: found '3', expected an integer"),
        ("[train]\ntotal_step = true", "train.total_step: found True, expected an integer"),
        ("[train]\ntotal_step = 0", "train.total_step: found 0, expected at least 1"),
        ("[train]\ntotal_step = 10", "train.warmup_step: found 2000, expected at most train.total_step = 10"),
        ("[data]\ncrop_size = 500", "data.crop_size: found 500, expected a multiple of 32"),
        ("[data]\nmask_random_sampling = 1.5", "expected a value from 0 to 1"),
        ("[model.arch]\nencoder = 'vgg'", "model.arch.encoder: found 'vgg', expected 'res_shortcut_encoder_29'"),
        ("[model]\nmax_side = 16", "model.max_side: found 16, expected 0 or at least 32"),
        ("[train]\nbeta2 = 1.0", "train.beta2: found 1.0, expected less than 1"),
        ("[train]\nprecision = 'int8'", "train.precision"),
        ("[model]\nimagenet_pretrain = true", "model.imagenet_pretrain_path"),
        ("[train\n", "not valid TOML"),
        ("x = " + 5000 * "[" + 5000 * "]", "not valid TOML: nested too deeply"),
        ('version = "a\\u0000b"', "version: found 'a\\x00b', expected text without a NUL character"),
    ],
)
def test_bad_file_is_one_line_that_names_it(text: str, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_bad_override_names_the_command_line() -> None:
    with pytest.raises(InputError, match="command line: found 'total_step', expected KEY=VALUE"):
        load_config(None, ["total_step"])
    with pytest.raises(InputError, match=r"command line: unknown key model\.widht"):
        load_config(None, ["model.widht=1"])
    with pytest.raises(FileNotFoundError, match="no such configuration file"):
        load_config("nowhere.toml")
