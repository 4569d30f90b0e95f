"""Everything that a run depends on, in one value; and the runs that have a name."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import swd_jax

IMAGENET_IMAGES = 1_281_167
IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a residual network with selective weight decay, then prune it."""

    data: Path | None = None
    """Folder with train/<class>/*.JPEG and val/<class>/*.JPEG."""
    val_folder: Path | None = None
    """Folder with <class>/*.JPEG to evaluate on, if it is not `val` in the data."""
    output: Path = Path("results/imagenet")
    """Folder for checkpoints, metrics and results. The same command goes on from what
    is there. Several processes must see the same folder."""
    synthetic: bool = False
    """Train on noise that is on the devices already: what the network alone takes."""

    depth: int = 50
    """18 and 50 are networks of ImageNet; 8, 14, 20, ... those for 32x32 pixels."""
    width: int = 64
    """Maps of the first convolution. All others are multiples of it."""
    resolution: int = 224
    """Height and width of the images that the network sees."""
    bfloat16: bool = True
    """Compute in bfloat16. The weights are float32 either way."""

    epochs: int = 90
    """Passes through the training images."""
    steps: int | None = None
    """Optimizer steps in all, instead of `epochs`: for tests and throughput."""
    batch_size: int = 1024
    """Images per optimizer step, those of all devices together."""
    optimizer: Literal["sgd", "lars", "lamb"] = "sgd"
    """LARS and LAMB scale the step of every layer: for batches of 8,192 and more."""
    learning_rate: float = 0.1
    """For a batch of 256 images; it grows in proportion to the batch."""
    schedule: Literal["cosine", "thirds"] = "cosine"
    """Fall of the learning rate: along a cosine, or by ten at each third."""
    warmup_epochs: float = 5.0
    """In which the learning rate rises from 0."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    nesterov: bool = True
    """Nesterov's momentum."""
    weight_decay: float = 5e-5
    """Ordinary decay, of selected weights and others alike."""
    decay_all: bool = False
    """Ordinary decay of biases and of batch norm's parameters too."""
    label_smoothing: float = 0.1
    """Part of the target that is spread evenly over all classes."""
    average: float = 0.0
    """Evaluate and prune an exponential moving average of the parameters with this
    decay per step, such as 0.9999; 0 has none."""

    sparsity: float = 0.9
    """Fraction of the weights to prune. 0 trains the dense network."""
    rise: float = 0.7
    """Part of the training in which the target rises to it; 0: in force from the
    start, as in the paper."""
    criterion: Literal["magnitude", "normalized_magnitude"] = "magnitude"
    """Criterion by which weights are ranked."""
    a_min: float = 0.1
    """Multiplier of the selective decay at the first step."""
    a_max: float = 1e5
    """Multiplier at the last step, reached exponentially."""
    selective_decay: float = 5e-5
    """Strength of the selective decay before the multiplier: the paper's mu."""
    update_every: int = 1
    """Steps after which the threshold is renewed."""

    mesh: Literal["data", "fsdp"] = "data"
    """"data": each device has all weights; "fsdp": each has a part of them, and of the
    optimizer's state."""
    distributed: bool = False
    """Several processes, as on a TPU pod: each must be started with this."""
    coordinator: str | None = None
    """HOST:PORT of the first process. Known without on TPU pods and under Slurm."""
    process_count: int | None = None
    """Number of processes, where `coordinator` is given."""
    process_index: int | None = None
    """Which of them this one is, from 0."""

    seed: int = 0
    """Seed of the initial weights, the order of the images and their crops."""
    threads: int = 16
    """That decode images, in every worker."""
    workers: int = 0
    """Processes that decode images, beside this one; 0: threads of this one do."""

    evaluate_every: int = 5
    """Epochs after which the network is evaluated."""
    checkpoint_every: int = 1000
    """Steps after which a checkpoint is written."""
    keep_checkpoints: int = 2
    """Number of checkpoints that are kept."""
    log_every: int = 50
    """Steps after which the metrics are written."""
    tensorboard: bool = False
    """Write them for TensorBoard too."""

    def __post_init__(self) -> None:
        for name in (
            "width resolution epochs batch_size update_every threads evaluate_every "
            "checkpoint_every keep_checkpoints log_every"
        ).split():
            _require_at_least(name, getattr(self, name), 1)
        for name in ("seed", "workers", "warmup_epochs", "weight_decay"):
            _require_at_least(name, getattr(self, name), 0)
        if self.steps is not None:
            _require_at_least("steps", self.steps, 1)
        for name in ("momentum", "label_smoothing", "average", "sparsity"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be in [0, 1), got {getattr(self, name)}; 0 is without"
                )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be greater than 0, got {self.learning_rate}"
            )
        if not 0 <= self.rise <= 1:
            raise ValueError(
                f"rise must be in [0, 1], got {self.rise}; 0 has the target in force "
                "from the start"
            )
        if self.depth not in (18, 50) and (self.depth < 8 or self.depth % 6 != 2):
            raise ValueError(
                "depth must be 18 or 50, or 6 n + 2 (8, 14, 20, ...) for small images, "
                f"got {self.depth}"
            )
        several = (self.coordinator, self.process_count, self.process_index)
        if any(value is not None for value in several) and not self.distributed:
            raise ValueError(
                "coordinator, process_count and process_index are for several "
                "processes: add --distributed, or leave them out"
            )
        # The library checks the rest. Better now than after minutes of start-up.
        swd_jax.exponential_growth(self.a_min, self.a_max, total_steps=1)
        swd_jax.swd(0.5, weight_decay=self.selective_decay, a=1.0)

    def steps_per_epoch(self, images: int) -> int:
        """Optimizer steps in which as many images are seen as there are."""
        return max(1, images // self.batch_size)

    def total_steps(self, images: int) -> int:
        """Optimizer steps of the whole training."""
        return self.steps or self.epochs * self.steps_per_epoch(images)

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.learning_rate * self.batch_size / 256


def _require_at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


# Options that may differ when a run goes on, since they do not change its result.
MAY_CHANGE = frozenset(
    "data output val_folder threads workers distributed coordinator process_count "
    "process_index checkpoint_every keep_checkpoints log_every tensorboard "
    "evaluate_every".split()
)


def reference_configs() -> dict[str, tuple[str, Config]]:
    """The runs that have a name, each with what it is."""
    configs = {
        "paper": (
            "As the SWD paper trains on ImageNet: SGD, 90 epochs, 2.5 % kept.",
            Config(
                bfloat16=False,
                batch_size=256,
                schedule="thirds",
                warmup_epochs=0.0,
                nesterov=False,
                weight_decay=1e-4,
                decay_all=True,
                label_smoothing=0.0,
                sparsity=0.975,
                rise=0.0,
                selective_decay=1e-4,
            ),
        )
    }
    for epochs in (90, 100):
        for percent in (80, 90, 95, 98):
            configs[f"epochs-{epochs}-sparsity-{percent}"] = (
                f"{epochs} epochs, {percent} % pruned: warm-up, cosine, label "
                "smoothing, rising target.",
                Config(epochs=epochs, sparsity=percent / 100),
            )
    return configs
