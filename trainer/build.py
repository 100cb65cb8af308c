"""From a configuration to a run: network, task, state, data, in this order, each checked before the work begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from config import Config, Model, dump_config
from dataloader.dataset import build_train_dataset, build_validation_records
from evaluation.protocols import PROTOCOLS
from evaluation.quality import ImqCounts
from misc import distributed
from misc.errors import InputError
from misc.files import write_text
from misc.keys import Value
from networks import InstMatt
from networks.checkpoint import FEATURES_OF_OTHERS, REFINER, describe, few, load_network, load_refiner, read_checkpoint
from networks.features import PLACE
from networks.imagenet import load_imagenet_encoder, load_imagenet_features
from networks.predictor import Predictor
from trainer.compiler import require_compiler
from trainer.logger import RunLogger, environment
from trainer.schedule import AdaptiveClip, WeightAverage
from trainer.stages import STAGES
from trainer.state import BEST, LAST, TrainingState
from trainer.stream import StepSampler, training_batches
from trainer.sync_bn import convert_sync_batchnorm
from trainer.tasks import Task
from trainer.trainer import Trainer
from trainer.validate import check_records, quality_table, validate


def build_network(model: Model, *, refiner: bool) -> InstMatt:
    """The network that the ``model`` section describes, freshly initialised."""
    arch = model.arch
    return InstMatt(width=arch.width, refiner=refiner, settings=model.settings, features=arch.features)


def initial_weights(network: InstMatt, model: Model, *, stage: int) -> None:
    """Load the weights that a run starts from: ImageNet's, a stage-1 checkpoint for stage 2, or one to fine-tune.

    Raises:
        FileNotFoundError: no such file.
        InputError: no ``model.pretrain`` where the stage refines, ``model.pretrain_refiner`` where it does not, or a
            file that does not fit.
    """
    refines = STAGES[stage].refiner
    if model.imagenet_pretrain:
        load_imagenet_encoder(network, model.imagenet_pretrain_path)
    checkpoint = read_checkpoint(model.pretrain) if model.pretrain else {}
    given = describe(checkpoint, source=model.pretrain) if checkpoint else None
    kept: tuple[str, ...] = () if refines and given and given.refiner else REFINER
    if network.features and not (given and given.features):
        if not model.features_path:
            why = f"{model.pretrain} has none" if given else "there is no model.pretrain that could have them"
            raise InputError(
                f'model.features_path: found "", expected a file of the weights of {network.features}: {why}'
            )
        load_imagenet_features(network, model.features_path)
        kept += FEATURES_OF_OTHERS
    if given:
        load_network(network, checkpoint, source=model.pretrain, kept=kept)
    elif refines:
        raise InputError(
            f'model.pretrain: found "", expected a checkpoint of stage 1: stage {stage} refines a trained network'
        )
    if model.pretrain_refiner:
        if not refines:
            raise InputError(f'model.pretrain_refiner: expected "" in stage {stage}, which trains no refiner')
        load_refiner(network, read_checkpoint(model.pretrain_refiner), source=model.pretrain_refiner)


def evaluate(config: Config, *, named: Mapping[str, Value], checkpoint: str, device: torch.device) -> ImqCounts:
    """Score a checkpoint on the test lists, used as infer.py uses it; prints the table in the main process.

    Args:
        config: resolved; its section ``data`` is read.
        named: what of it somebody named, see ``networks.checkpoint.network_from_checkpoint``.
        checkpoint: the file.
        device: to run on.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: no test lists, or a file that cannot be used.
    """
    records = build_validation_records(config.data)
    if not records:
        raise InputError('data.test_alpha: found "", expected a filelist: there is nothing to evaluate on')
    counts = validate(Predictor(checkpoint, named=named, device=device), records)
    if distributed.is_main():
        print(f"{checkpoint} on {counts.images} images, {counts.instances} instances (IMQ/MQ/RQ in percent)")
        print(quality_table(counts))
    return counts


def build_trainer(config: Config, *, stage: int, device: torch.device) -> Trainer:
    """Everything a run needs, resumed if there is something to resume from.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: a configuration, checkpoint or filelist that cannot be used.
    """
    train, log = config.train, config.log
    measures = PROTOCOLS["imq"].names
    if train.best_metric not in measures:
        raise InputError(f"train.best_metric: found {train.best_metric!r}, expected {' or '.join(map(repr, measures))}")
    if train.precision == "fp16" and device.type != "cuda":
        raise InputError(f"train.precision: fp16 needs CUDA, the device is {device}; use bf16 or fp32")
    joined = config.model.batch_size * (distributed.world_size() if train.sync_bn else 1)
    if train.freeze_bn and not STAGES[stage].batch_norm:
        raise InputError(f"train.freeze_bn: found true, expected false in stage {stage}, which trains no batch norm")
    if train.features_rate and (STAGES[stage].refiner or not config.model.arch.features):
        why = "model.arch.features is empty" if not config.model.arch.features else f"stage {stage} does not teach them"
        raise InputError(f"train.features_rate: found {train.features_rate}, expected 0: {why}")
    learns_norm = STAGES[stage].batch_norm and not train.freeze_bn
    if learns_norm and joined < 2:
        raise InputError(
            f"model.batch_size: found {config.model.batch_size}, expected at least 2 in stage {stage}: batch norm "
            "needs them, or train.freeze_bn"
        )
    if STAGES[stage].refiner and not config.model.arch.refiner:
        raise InputError(
            f'model.arch.refiner: found "", expected "multi_inst_refiner" in stage {stage}, which trains it'
        )
    if train.compile:
        require_compiler(device)
    if train.num_threads:
        torch.set_num_threads(train.num_threads)
    crops, turns, workers = config.data.crops_per_scene, config.data.scenes_in_turn, config.data.workers
    batches = turns * train.accumulate  # with scenes of their own
    shared = workers > 1 and batches % workers > 0  # by loader processes
    of_one_process = batches if shared else batches // max(1, workers)
    keep_scenes = config.model.batch_size * of_one_process if crops > 1 else 0
    dataset = build_train_dataset(config.data, select=STAGES[stage].select, seed=train.seed, keep_scenes=keep_scenes)
    records = build_validation_records(config.data)
    records = records[: train.val_images] if train.val_images else records
    folder = Path(log.checkpoint_path) / config.version
    state, task = _build_state(config, stage=stage, device=device, folder=folder)
    _require_one_start(state.step, folder)
    logger = _build_logger(config, first_step=state.step)
    if state.processes not in (0, distributed.world_size()):
        logger.warning(
            f"{folder}: was trained by {state.processes} processes, now by {distributed.world_size()}: a step sees "
            f"{distributed.world_size()}/{state.processes} of the samples that it saw, and others than it would have"
        )
    if crops > 1 and shared:
        logger.warning(
            f"data.scenes_in_turn: found {turns}: several of the {workers} loader processes (data.workers) make each "
            f"scene; set it to {workers}"
        )
    if train.val_step and distributed.is_main():
        check_records(records, report=logger.warning)
    predictor = Predictor(state.result, device=device)
    sampler = StepSampler(
        first_step=state.step,
        total_step=train.total_step,
        batch_size=config.model.batch_size,
        accumulate=train.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    logger.info(
        f"stage {stage}: {len(dataset)} training images, {len(records)} validation images, "
        f"{sum(p.numel() for p in state.network.parameters()) / 1e6:.1f} M parameters, {distributed.world_size()} "
        f"processes, {device}, step {state.step} of {train.total_step}"
    )
    return Trainer(
        task=_distribute(task, sync_bn=learns_norm and train.sync_bn, device=device),
        state=state,
        batches=training_batches(
            dataset,
            sampler,
            seed=train.seed,
            crops=crops,
            turns=turns,
            workers=workers,
            pin_memory=device.type == "cuda",
        ),
        validate=(lambda stop: validate(predictor, records, report=logger.warning, stop=stop)) if records else None,
        config=config,
        logger=logger,
        folder=folder,
        device=device,
    )


def _build_state(config: Config, *, stage: int, device: torch.device, folder: Path) -> tuple[TrainingState, Task]:
    """The state, new or resumed, and the task that trains its network."""
    torch.manual_seed(config.train.seed)
    network = build_network(config.model, refiner=STAGES[stage].refiner)
    resume = resume_path(config.train.resume_checkpoint, folder)
    if resume is None:
        if config.train.freeze_bn and not config.model.pretrain:
            raise InputError('model.pretrain: found "", expected a checkpoint: train.freeze_bn keeps its statistics')
        initial_weights(network, config.model, stage=stage)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # the layout that convolutions are fastest in
    task = STAGES[stage].task(network, config.train)
    state = TrainingState(
        network=network,
        optimizer=torch.optim.Adam(
            _parameter_groups(network),
            lr=config.train.G_lr,
            betas=(config.train.beta1, config.train.beta2),
        ),
        clip=AdaptiveClip(),
        average=WeightAverage(network, decay=config.train.ema_decay) if config.train.ema_decay else None,
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16"),
        stage=stage,
    )
    if resume is not None:
        try:
            state.load(resume, weights_only=config.train.reset_lr)
        except InputError as error:
            raise InputError(f"{error}{_other_checkpoints(state, resume)}") from None
    return state, task


def _parameter_groups(network: InstMatt) -> list[dict[str, Any]]:
    """What learns, for the optimizer; features of others, if they do, apart, as their rate is another."""
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    apart = [parameter for name, parameter in learning.items() if name.startswith(PLACE)]
    rest = [parameter for name, parameter in learning.items() if not name.startswith(PLACE)]
    return [{"params": rest}, *([{"params": apart, "features": True}] if apart else [])]


def _other_checkpoints(state: TrainingState, broken: Path) -> str:
    """Which whole checkpoints of the run stand beside one that cannot be used, newest first, for the end of a line."""
    whole: list[tuple[int, Path]] = []
    for path in (broken.parent / LAST, broken.parent / BEST, *sorted(broken.parent.glob("step_*.pth"))[-3:]):
        try:
            if path != broken and path.is_file():
                state.load(path)
                whole.append((state.step, path))
        except (InputError, OSError):
            continue
    if not whole:
        return ""
    listed = ", ".join(f"{path.name} of step {step}" for step, path in sorted(whole, reverse=True))
    return f"; to go on from an earlier one: train.resume_checkpoint={max(whole)[1]} ({listed})"


def _require_one_start(step: int, folder: Path) -> None:
    """Make sure that all processes go on from the same checkpoint.

    Raises:
        InputError: they do not, as happens where every machine has a folder of checkpoints of its own.
    """
    steps = distributed.gather_objects(step)
    if len(set(steps)) > 1:
        raise InputError(
            f"{folder.absolute()}: the processes found checkpoints of different steps ({few([*map(str, steps)], 8)}; 0 "
            "is none), expected the same one; put log.checkpoint_path where all machines see it"
        )


def resume_path(setting: str, folder: Path) -> Path | None:
    """The checkpoint to resume from: a named file, or with "auto" the last (else the best) of this experiment."""
    if not setting:
        return None
    if setting != "auto":
        return Path(setting)
    found = [folder / name for name in (LAST, BEST) if (folder / name).is_file()]
    return found[0] if found else None


def _distribute(task: nn.Module, *, sync_bn: bool, device: torch.device) -> nn.Module:
    """The task as several processes train it; a single one trains it as it is."""
    if distributed.world_size() == 1:
        return task
    if sync_bn:
        task = convert_sync_batchnorm(task, device)
    return DistributedDataParallel(task, device_ids=[device.index] if device.type == "cuda" else None)


def _build_logger(config: Config, *, first_step: int) -> RunLogger:
    log, main = config.log, distributed.is_main()
    folder = Path(log.logging_path) / config.version
    logger = RunLogger(
        folder,
        tensorboard=Path(log.tensorboard_path) / config.version,
        level=log.logging_level,
        active=main,
        first_step=first_step,
    )
    if main:
        write_text(folder / "config.toml", dump_config(config))
        write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    return logger
