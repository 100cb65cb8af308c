"""Every key of a configuration: name, type, default, meaning and bounds, a line each and a dataclass per section.

``""`` stands for "none". ``python -m config`` prints this as TOML: config/default.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from misc.keys import key, share, unused
from networks.features import FEATURES
from networks.settings import Settings

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")

# Keys that are accepted with a warning: of published training files, such as weights of losses that InstMatt does not
# have, and of earlier versions.
GONE = {
    "model.clean_below": "use model.drop_far",
    "model.roi": 'use model.scale = "person", which makes crops round people',
    "train.smooth_l1_weight": "use train.rec_weight",
    "train.grad_weight": "use train.lap_weight",
    "train.gabor_weight": "use train.lap_weight",
    "train.D_lr": "there is no discriminator",
    "train.feature_weight": "there is no discriminator",
}


@dataclass(frozen=True)
class Arch:
    """``[model.arch]``: what weights have their shape from."""

    encoder: str = key("res_shortcut_encoder_29", "the one there is", choices=("res_shortcut_encoder_29",))
    decoder: str = key("res_shortcut_decoder_22_3ch", "the one there is", choices=("res_shortcut_decoder_22_3ch",))
    refiner: str = key("multi_inst_refiner", "stage 2 needs one", choices=("multi_inst_refiner", ""))
    features: str = key("", "of an ImageNet network, added to the encoder's", choices=("", *FEATURES))
    width: float = key(1.0, "scales every channel count; 1.0 is the paper's network", least=0.0625, most=4)
    cross_head: bool = unused(False, "there is no cross head")
    discriminator: str = unused("", "there is no discriminator")


@dataclass(frozen=True)
class Model(Settings):
    """``[model]``: how mattes are made, the network, and where its weights come from."""

    batch_size: int = key(4, "images per process and micro-batch; in stage 2 each brings all its instances", least=1)
    pretrain: str = key("", "checkpoint to start from; stage 2 needs one of stage 1", or_false=True)
    pretrain_refiner: str = key("", "stage 2: checkpoint to take the refiner from, if pretrain has none or another")
    imagenet_pretrain: bool = key(False, "start the encoder from ImageNet weights")
    imagenet_pretrain_path: str = key("", "of these: published ResNet-34-D, torchvision's or timm's", or_false=True)
    features_path: str = key(
        "", "weights of arch.features, where pretrain has none: efficientnet-lite0's", or_false=True
    )
    evaluated: str = key("", "published; a checkpoint for --evaluate (same as --checkpoint)", or_false=True)
    trimap_channel: int = unused(3, "the tri-matte always has 3 channels")
    mask_channel: int = unused(3, "the tri-mask always has 3 channels")
    freeze: bool = unused(True, "stage 2 always freezes the base network")
    act_function: str = unused("tanh", "the heads always end in tanh")
    arch: Arch = field(default_factory=Arch)

    @property
    def settings(self) -> Settings:
        """The part that no weight depends on."""
        return Settings(**{item.name: getattr(self, item.name) for item in fields(Settings)})


@dataclass(frozen=True)
class Train:
    """``[train]``: optimisation, losses, validation, resuming."""

    seed: int = key(0, "of weights, sample order and augmentation", least=0, most=2**63 - 1)
    total_step: int = key(200_000, "optimisation steps", least=1)
    warmup_step: int = key(2000, "of the learning rate and the regions of stage 1", least=0, most="train.total_step")
    G_lr: float = key(1e-4, "peak learning rate", least=0)
    min_lr: float = key(1e-5, "learning rate at total_step, reached along a half cosine", least=0, most="train.G_lr")
    beta1: float = key(0.5, "Adam", least=0, below=1)
    beta2: float = key(0.999, "Adam", least=0, below=1)
    accumulate: int = key(1, "micro-batches per step: the gradient is their mean; batch norm sees each alone", least=1)
    ema_decay: float = key(0.0, "average of weights, validated and saved in their place; 0 = none", least=0, below=1)
    clip_grad: bool = key(True, "clip the gradient norm at twice its moving average")
    rec_weight: float = key(1.0, "L1 of the tri-matte", least=0)
    lap_weight: float = key(1.0, "L1 of its Laplacian pyramid", least=0)
    comp_weight: float = key(1.0, "L1 of the recomposed photograph", least=0)
    alpha_weight: float = key(1.0, "L1 of the sum of the tri-matte against 1", least=0)
    sobel_weight: float = key(0.0, "L1 of the tri-matte's gradients; not one of the paper's", least=0)
    hard_edge_share: float = share(0.99, "alphas with such a share of exact 0 and 1 lose their edge band; 0 = never")
    random_width: bool = key(True, "draw the dilations of the unknown region, 1..width-1; false: as in testing")
    refine_iterations: int = key(3, "stage 2 draws 1..this many refinement iterations per step", least=1)
    refine_window: int = key(128, "side of the windows of the refiner, pixels", least=32, most="data.crop_size")
    refine_windows: int = key(1, "stage 2: most windows taught per image and step; the paper takes one", least=1)
    precision: str = key("fp32", "fp16 needs CUDA; auto is bf16 where that is fast", choices=PRECISIONS)
    compile: bool = key(False, "torch.compile: minutes at the start, faster steps; needs a compiler")
    sync_bn: bool = key(True, "batch norm over all processes in stage 1")
    freeze_bn: bool = key(False, "stage 1: batch norm keeps the statistics of model.pretrain, for few crops per step")
    features_rate: float = key(
        0.0, "stage 1: learning rate of model.arch.features, as a share of G_lr; 0 = not taught", least=0, most=1
    )
    val_step: int = key(2000, "validate every so many steps; 0 = never", least=0)
    best_metric: str = key("MAD", "IMQ figure that decides the best checkpoint, a measure of evaluation/measures.py")
    val_images: int = key(0, "validate on the first so many images of the test lists; 0 = all", least=0)
    resume_checkpoint: str = key("auto", '"auto": the newest of this experiment; "": afresh; or a file', or_false=True)
    reset_lr: bool = key(False, "resume weights only: step, optimizer and schedule start anew")
    num_threads: int = key(0, "CPU threads of PyTorch per process; 0 = its own choice", least=0, most=1024)
    cosine_period: int = unused(0, "the cosine always ends at train.total_step")


@dataclass(frozen=True)
class Data:
    """``[data]``: where scenes come from, and their augmentation."""

    source: str = key("files", "the lists below, or made while training", choices=("files", "compose"))
    train_alpha: str = key("", "filelist, one line per instance: …/<image name>/NN.png")
    train_merged: str = key("", "filelist of photographs: …/<image name>.jpg")
    train_mask: str = key("", 'filelist of detector masks, …/<image name>/NN.png, matched by IoU; "" = from alphas')
    train_fg: str = key("", "filelist of foreground colours: …/<image name>/NN.png or .jpg")
    train_bg: str = key("", "filelist of background colours: …/<image name>.jpg or …/<image name>/NN.jpg")
    test_alpha: str = key("", 'the same for validation; "" = no validation')
    test_merged: str = key("", "photographs of validation")
    test_mask: str = key("", "detector masks of validation")
    people: list[str] = key([], "compose: folders with fg/ and alpha/, or of RGBA cut-outs")
    backgrounds: list[str] = key([], "compose: folders of photographs without people")
    photos: list[str] = key([], "compose: folders with photo/ and alpha/: photographs of one person each")
    photo_share: float = share(0.2, "compose: images that are such a photograph, with others pasted in front")
    identity: str = key("", "compose: regular expression whose first group, in a file stem, names the person")
    split: str = key("train", "of compose; train leaves out what is in the test split", choices=("train", "all"))
    test_fraction: float = share(0.1, "compose: people and backgrounds in the test split, as in dataloader.synthesize")
    people_min: int = key(2, "compose: fewest people per image", least=1, most="data.people_max")
    people_max: int = key(5, "compose: most people per image", most=100)
    epoch_images: int = key(10_000, "compose: images that count as one epoch; every epoch has new ones", least=1)
    compose_size: int = key(1024, "compose: longer side of the images, pixels", least=64, most=16384)
    compose_size_min: int = key(
        0, "compose: sizes are drawn from here; 0 = one size", least=0, most="data.compose_size"
    )
    max_enlarge: float = key(2.0, "compose: largest enlargement of a cut-out", least=0.1, most=16)
    hair_prob: float = share(0.0, "compose: probability that strands of hair are drawn on a person")
    compose_masks: str = key("detector", "compose; none: all masks come from the alphas", choices=("detector", "none"))
    detector_box_jitter: float = key(0.015, "compose: deviation of imitated boxes, share of a side", least=0, most=1)
    detector_noise: float = key(0.8, "compose: standard deviation of the noise on imitated logits", least=0, most=100)
    detector_missing_part: float = share(0.15, "compose: probability that an imitated mask misses a piece")
    detector_neighbour_part: float = share(0.15, "compose: probability that it includes a piece of a neighbour")
    detector_missing: float = share(0.02, "compose: probability that the imitated detector misses a person")
    compose_cache_mb: int = key(256, "compose: decoded cut-outs kept by each loader process, megabytes", least=0)
    contact_share: float = share(0.7, "compose: least share of images in which people touch")
    tone: float = share(0.25, "compose: most by which a person's light is drawn towards that of the background")
    defocus: float = share(0.0, "compose: probability that the background is out of focus")
    faint_prob: float = share(0.0, "compose: probability of a background of the colour of somebody's outline")
    match_sharpness: bool = key(False, "compose: blur the background as much as enlarging has blurred people")
    shadow: float = share(0.0, "compose: greatest darkness of the shadows people cast on the background")
    crops_per_scene: int = key(1, "successive steps that show the same scenes in other crops, loaded once", least=1)
    scenes_in_turn: int = key(
        1,
        "steps with scenes of their own that take turns; a multiple of data.workers: each process loads its own",
        least=1,
    )
    workers: int = key(4, "loader processes per rank; 0 loads in the training process", least=0, most=512)
    crop_size: int = key(640, "training crop, pixels, a multiple of 32", least=64, most=8192, multiple=32)
    augmentation: bool = key(True, "affine, mask perturbation, CutMask; false leaves crop and trimap only")
    random_interp: bool = key(True, "warp linearly or cubically, as drawn; false: linearly")
    white_balance: float = key(0.0, "deviation of the colour cast of a photograph, natural log", least=0, most=3)
    real_world_aug: bool = key(False, "contrast, JPEG, blur and noise on the photograph")
    horizontal_flip: float = share(0.5, "probability")
    vertical_flip: bool = key(False, "also flip upside down, with probability 0.5")
    rotation: float = key(5.0, "degrees, either way", least=0, most=180)
    rotation_min_side: int = key(1024, "rotate only images whose longer side has so many pixels", least=0)
    rescale_min: float = key(0.8, "scale per axis, drawn between these two", least=0.1, most="data.rescale_max")
    rescale_max: float = key(1.25, "greatest scale", most=16)
    shear: float = key(10.0, "degrees, either way", least=0, most=80)
    mask_iou_min: float = key(0.3, "detector masks are used above an IoU from here", least=0, most="data.mask_iou_max")
    mask_iou_max: float = share(0.5, "to here, else a mask is made from the alpha")
    mask_kernel: int = key(30, "largest ellipse of mask perturbation, pixels at 2048 or less", least=2, most=1000)
    mask_merge_prob: float = share(0.0, "probability that one mask also covers a person beside it, or a part")
    mask_erase_prob: float = share(0.0, "probability that a part of a mask is missing")
    mask_paste_prob: float = share(0.0, "probability that a piece of some mask is added to the contour of another")
    mask_polygon_prob: float = share(0.0, "probability that the contour of a mask becomes a polygon")
    mask_coarse_prob: float = share(0.0, "probability that a mask comes from a grid 8 to 32 times as coarse")
    mask_random_sampling: float = share(0.1, "stage 1: probability that one reference mask is dropped")
    trimap_kernel: int = key(30, "ellipses of 1..this-1 pixels shrink sure regions", least=2, most=1000)
    cutmask_internal_prob: float = share(0.25, "copy a rectangle within a tri-mask channel")
    cutmask_external_prob: float = share(0.25, "swap a rectangle between two tri-mask channels")
    cutmask_prob: float = unused(0.0, "use data.cutmask_internal_prob and data.cutmask_external_prob")


@dataclass(frozen=True)
class Log:
    """``[log]``: what a run leaves behind, and how often."""

    logging_path: str = key("runs/logs", "log file, log.jsonl, resolved configuration")
    logging_step: int = key(10, "steps between log lines", least=1)
    logging_level: str = key("INFO", "least severity of what is shown", choices=LEVELS)
    tensorboard_path: str = key("runs/tensorboard", "events")
    tensorboard_step: int = key(100, "steps between scalars", least=1)
    tensorboard_image_step: int = key(2000, "steps between pictures", least=1)
    checkpoint_path: str = key("runs/checkpoints", "last.pth and best.pth, below the name of the experiment")
    checkpoint_step: int = key(2000, "steps between checkpoints", least=1)
    checkpoint_keep: int = key(0, "how many of them to keep by step beside last.pth and best.pth", least=0)


@dataclass(frozen=True)
class Config:
    """A whole configuration."""

    version: str = key("InstMatt", "name of the experiment and of its folders below log.*", folder=True)
    dist: bool = unused(True, "several processes are used whenever a launcher (torchrun) starts them")
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    data: Data = field(default_factory=Data)
    log: Log = field(default_factory=Log)
