"""Everything that one training depends on, and what its result is called."""

import dataclasses
import math
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Run:
    """One network, trained once."""

    experiment: str
    """The table it belongs to."""
    data: str
    """Name of the data set."""
    model: str
    """Name of the model."""
    method: str
    """Name of the method."""
    sparsity: float
    """Fraction of the weights to prune. 0 for dense training."""
    seed: int
    """Seed of the initial weights, the batches and everything else that is random."""
    epochs: int
    """In all, fine-tuning included: the same for every method."""
    learning_rate: float
    """At the start, or the highest of one cycle."""
    batch_size: int | None = None
    """Images or windows of text a step; None for graphs, of which a step takes all."""
    optimizer: Literal["adam", "sgd", "lion", "muon", "lamb"] = "adam"
    """SGD has a momentum of 0.9. Muon leaves all that is no matrix to Adam."""
    decay: Literal["constant", "cosine", "steps", "one-cycle"] = "cosine"
    """Course of the learning rate: none, to 0, to a tenth at each third, or up in the
    first fifth and then down to almost 0."""
    weight_decay: float = 0.0
    """Ordinary decay (L2) of all weights of two or more dimensions."""
    label_smoothing: float = 0.0
    """Part of the probability that the loss gives to all classes alike, of images."""
    shift: int = 4
    """By how many pixels images of CIFAR are moved at most, in each direction."""
    strong_decay: float = 1e-3
    """The same for the method that has nothing but more of it."""
    mu: float = 5e-4
    """Strength of the selective decay, before its multiplier."""
    a_min: float = 0.1
    """The multiplier at the first step."""
    a_max: float = 1e6
    """The multiplier at the last step."""
    structure: str = "unstructured"
    """Name of what is pruned together."""
    criterion: str = "magnitude"
    """Name of what weights are ranked by, in methods that do not say it themselves."""
    scope: Literal["global", "local", "erk"] = "global"
    """Which leaves are ranked together."""
    spared: str = ""
    """Pattern of the paths of leaves that stay dense."""
    min_channels: float = 1
    """Number of channels that each layer keeps, or below 1 the part of them, in methods
    that prune whole channels."""
    rise: float = 0.7
    """Part of the training in which a rising target rises."""
    dense_part: float = 2 / 3
    """Part of the training before a method that prunes at once does so."""
    update_every: int = 1
    """Optimizer steps from one refresh of the threshold to the next."""
    tolerance: float = 0.0
    """Fraction of the weights that may be missing in a selection."""
    train_images: int | None = None
    """A reduced budget: so many of the training images, or windows of text an epoch."""
    test_images: int | None = None
    """A reduced budget: so many of the test images, or windows of text."""
    held_out: bool = False
    """Whether part of the training data is kept out of training and measured instead of
    the test data: for choosing settings."""
    variant: str = ""
    """Suffix of runs that differ in other settings than sparsity and seed."""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {self.sparsity}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be in [0, 1), got {self.label_smoothing}"
            )
        if self.shift < 0:
            raise ValueError(f"shift must be at least 0, got {self.shift}")
        for name in ("epochs", "learning_rate", "a_min"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be greater than 0, got {value}")

    @property
    def optimizer_reads_weights(self) -> bool:
        """Whether a weight's update depends on more than its own gradients."""
        return self.weight_decay > 0 or self.optimizer in ("lamb", "muon")

    @property
    def row(self) -> str:
        """The row of a table: the method, and what else is particular."""
        return f"{self.method} {self.variant}".strip()

    @property
    def kept_percent(self) -> str:
        """Percentage of the weights kept, as it is written: "0.5"."""
        return f"{round(100 * (1 - self.sparsity), 6):g}"

    @property
    def name(self) -> str:
        """Name of the result file, in letters that every file system takes."""
        variant = self.variant.replace(" ", "_").replace("=", "").replace(",", "")
        parts = [self.method, variant, f"kept{self.kept_percent}", f"seed{self.seed}"]
        return "-".join(part for part in parts if part)

    @property
    def program(self) -> "Run":
        """The run without what a compiled program is given when it starts."""
        return dataclasses.replace(self, sparsity=0.0, seed=0)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings of runs that were written before a setting existed."""
        return {
            field.name: field.default
            for field in dataclasses.fields(cls)
            if field.default is not dataclasses.MISSING
        }

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
