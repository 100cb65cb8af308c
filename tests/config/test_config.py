"""Configuration: precedence, and one clear line for whatever is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from config import DEFAULTS, dump_config, load_config, named_keys, resolve
from misc.errors import InputError
from tests.conftest import ROOT

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
    shipped = sorted((ROOT / "config").glob("*.toml"))
    assert len(shipped) >= 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in shipped:
            load_config(path)


def test_every_default_is_documented() -> None:
    for line in DEFAULTS.read_text().splitlines():
        if "=" in line and not line.lstrip().startswith("#"):
            assert "#" in line, f"no word on what this means: {line}"


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
        ("[model]\nclean_below = 0.5", "model.clean_below: found 0.5, expected less than 0.5"),
        ("[train]\nprecision = 'int8'", "train.precision"),
        ("[model]\nimagenet_pretrain = true", "model.imagenet_pretrain_path"),
        ("[train\n", "not valid TOML"),
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
