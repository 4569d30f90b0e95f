"""The report that `summarize` gives, as a value, a table and a flat dict."""

import dataclasses

from swd_jax._arguments import text_tables
from swd_jax._ranking.channel_summary import ChannelSummary


@dataclasses.dataclass(frozen=True)
class LeafSummary:
    """What a report says of one prunable leaf."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    weights: int
    zeros: int
    """Weights that are exactly zero now."""
    pruned: int
    """Weights that `prune` would set to zero, or that are zero already."""
    non_finite: int
    """Weights that are NaN or infinite."""
    residual: float
    """||what would be pruned|| / ||leaf||, L2 norms."""

    @property
    def sparsity(self) -> float:
        """Zeros over weights, now."""
        return self.zeros / max(self.weights, 1)

    @property
    def emptied(self) -> bool:
        """Whether nothing is left of it after pruning."""
        return self.weights > 0 and self.pruned == self.weights


@dataclasses.dataclass(frozen=True)
class Summary:
    """A report on parameters under a target. Print it, or log `as_dict()`."""

    target_sparsity: float
    weights: int
    """Prunable weights."""
    zeros: int
    """Prunable weights that are exactly zero now."""
    pruned: int
    """Prunable weights that are zero once `prune` has been applied."""
    non_finite: int
    """Prunable weights that are NaN or infinite."""
    residual: float
    """||what would be pruned|| / ||prunable weights||, L2 norms, in [0, 1]: the part of
    the network that pruning now would take away. Near 0 pruning changes nothing."""
    parameters: int
    """All parameters, prunable or not."""
    bytes_dense: int
    """All parameters as arrays. Zeros take as much room there as any number."""
    bytes_sparse: int
    """All parameters once pruned, the prunable leaves in the smallest of three forms:
    as they are, the non-zeros with a bit mask, or the non-zeros with 32-bit indices."""
    leaves: tuple[LeafSummary, ...]
    largest_stable_learning_rate: float | None = None
    """For `swd` before SGD without momentum, at the multiplier of the optimizer state
    that was given: beyond it training diverges. None without a state."""

    channels: tuple[ChannelSummary, ...] = ()
    """Of each target with coupled channels."""
    only_channels: bool = False
    """Whether nothing but coupled channels is pruned."""

    @property
    def obtained_sparsity(self) -> float:
        """Zeros over prunable weights, now.

        With coupled channels as the only target: the share of what it counts that
        disappears with the channels that are zero.
        """
        if self.only_channels:
            return self.channels[0].obtained_sparsity
        return self.zeros / max(self.weights, 1)

    @property
    def emptied_leaves(self) -> tuple[str, ...]:
        """Paths of the leaves of which pruning leaves nothing."""
        return tuple(leaf.path for leaf in self.leaves if leaf.emptied)

    def as_dict(self) -> dict[str, float]:
        """The report as flat names and floats, for a logger."""
        totals = {
            "target_sparsity": self.target_sparsity,
            "obtained_sparsity": self.obtained_sparsity,
            "residual": self.residual,
            "weights": self.weights,
            "zeros": self.zeros,
            "pruned": self.pruned,
            "non_finite": self.non_finite,
            "emptied_leaves": len(self.emptied_leaves),
            "parameters": self.parameters,
            "bytes_dense": self.bytes_dense,
            "bytes_sparse": self.bytes_sparse,
        }
        if self.largest_stable_learning_rate is not None:
            limit = self.largest_stable_learning_rate
            totals["largest_stable_learning_rate"] = limit
        for channels in self.channels:
            totals["parameters_pruned"] = channels.parameters_pruned
            totals["flops"] = channels.flops
            totals["flops_pruned"] = channels.flops_pruned
            for group in channels.groups:
                totals[f"channels_pruned/{group.name}"] = group.pruned
        for leaf in self.leaves:
            totals[f"sparsity/{leaf.path}"] = leaf.sparsity
            totals[f"residual/{leaf.path}"] = leaf.residual
        return {name: float(value) for name, value in totals.items()}

    def __str__(self) -> str:
        rows = [("leaf", "shape", "weights", "zeros", "sparsity", "pruned", "residual")]
        rows += [_row(leaf.path, str(leaf.shape), leaf) for leaf in self.leaves]
        rows.append(_row("all prunable", "", self))
        lines = [text_tables.format_table(rows, label_columns=2, has_totals=True), ""]
        for channels in self.channels:
            lines += [str(channels), ""]
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        remarks = [
            f"target sparsity {self.target_sparsity:.7g}, obtained "
            f"{self.obtained_sparsity:.7g}",
            f"residual {self.residual:.3g}: the share of the weights' norm that "
            "pruning takes away",
            f"{self.bytes_dense:,} bytes as dense arrays, where a zero takes as much "
            f"as any number; {self.bytes_sparse:,} stored sparsely once pruned",
        ]
        for path in self.emptied_leaves:
            remarks.append(f"WARNING: pruning leaves nothing of {path!r}")
        if self.non_finite:
            remarks.append(
                f"WARNING: {self.non_finite:,} weights are NaN or infinite; they are "
                "never pruned"
            )
        limit = self.largest_stable_learning_rate
        if limit is not None:
            remarks.append(
                f"swd before SGD diverges now above a learning rate of {limit:.3g} "
                f"({1.9 * limit:.3g} with momentum 0.9)"
            )
        return remarks


def _row(name: str, shape: str, counted: LeafSummary | Summary) -> tuple[str, ...]:
    zeros = counted.zeros / max(counted.weights, 1)
    return (
        name,
        shape,
        f"{counted.weights:,}",
        f"{counted.zeros:,}",
        f"{zeros:.2%}",
        f"{counted.pruned:,}",
        f"{counted.residual:.3g}",
    )
