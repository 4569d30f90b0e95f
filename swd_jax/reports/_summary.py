"""The report that `summarize` gives, as a value, a table and a flat dict."""

import dataclasses
import math
from collections.abc import Sequence

from swd_jax._arguments import text_tables
from swd_jax._ranking.channel_summary import ChannelSummary
from swd_jax.schedules import largest_stable_multiplier

_PATHS_LISTED = 6
LARGE_RESIDUAL = 0.1
"""The residual of a leaf above which pruning it is felt: a tenth of its norm, 1 % of
its sum of squares."""


@dataclasses.dataclass(frozen=True)
class LeafSummary:
    """One prunable leaf in numbers."""

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
    """||weights to be pruned|| / ||leaf||, L2 norms. NaN if no weight but zeros is
    finite."""

    @property
    def sparsity(self) -> float:
        """Zeros over weights."""
        return self.zeros / max(self.weights, 1)

    @property
    def emptied(self) -> bool:
        """Whether pruning sets the whole leaf to zero."""
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
    """||weights to be pruned|| / ||prunable weights||, L2 norms, in [0, 1]: how much of
    the network pruning now would remove. Near 0 pruning changes nothing, as long as the
    residual of every leaf is small too: see `worst_leaf`. NaN if no weight but zeros is
    finite."""
    parameters: int
    """All parameters, prunable or not."""
    bytes_dense: int
    """Bytes of all parameters as dense arrays, in which zeros are stored too."""
    bytes_sparse: int
    """Bytes of all parameters once pruned, prunable leaves in the smallest of three
    forms: dense, non-zeros with a bit mask, or non-zeros with 32-bit indices."""
    leaves: tuple[LeafSummary, ...]
    largest_stable_learning_rate: float | None = None
    """The learning rate above which SGD without momentum diverges with `swd` before it,
    at the multiplier of the optimizer state that was passed. With momentum the limit of
    `schedules.largest_stable_multiplier` is lower. None without a state of `swd`, or if
    an optimizer stands after it that has no such limit, such as Adam."""

    channels: tuple[ChannelSummary, ...] = ()
    """The summary of each target with coupled channels."""
    only_channels: bool = False
    """Whether nothing but coupled channels is pruned."""
    warnings: tuple[str, ...] = ()
    """Those of `reports.diagnose` on the optimizer state; () without a state."""
    left_by_name: tuple[str, ...] = ()
    """Paths of floating-point leaves of two or more dimensions that stay dense because
    `is_weight`, the default of `Target(prunable=...)`, takes them for biases, scales or
    parameters of a normalisation layer."""
    non_finite_scores: int = 0
    """Finite weights whose scores are NaN or infinite, so that they are never pruned:
    for want of finite gradients, say, or in a block with a weight that is NaN."""

    @property
    def obtained_sparsity(self) -> float:
        """Zeros over prunable weights, now.

        With coupled channels as the only target: the share of the parameters, or of the
        operations, that the channels which are zero account for.
        """
        if self.only_channels:
            return self.channels[0].obtained_sparsity
        return self.zeros / max(self.weights, 1)

    @property
    def emptied_leaves(self) -> tuple[str, ...]:
        """Paths of the leaves that pruning sets to zero as a whole."""
        return tuple(leaf.path for leaf in self.leaves if leaf.emptied)

    @property
    def worst_leaf(self) -> LeafSummary | None:
        """The leaf with the largest residual, the first of several; None of none.

        One layer that pruning destroys is enough to destroy a network, and a small
        layer does not show in the residual of all.
        """
        return worst_leaf(self.leaves)

    def as_dict(self) -> dict[str, float]:
        """Return the report as flat names and floats, for a logger."""
        totals = {
            "target_sparsity": self.target_sparsity,
            "obtained_sparsity": self.obtained_sparsity,
            "residual": self.residual,
            "weights": self.weights,
            "zeros": self.zeros,
            "pruned": self.pruned,
            "non_finite": self.non_finite,
            "non_finite_scores": self.non_finite_scores,
            "emptied_leaves": len(self.emptied_leaves),
            "num_warnings": len(self.warnings),
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
            *_residual_remarks(self),
            f"{self.bytes_dense:,} bytes as dense arrays, where a zero takes as much "
            f"as any number; {self.bytes_sparse:,} stored sparsely once pruned",
        ]
        warned = "".join(self.warnings)
        if self.left_by_name:
            remarks.append(f"left dense by name: {_listing(self.left_by_name)}")
        for path in self.emptied_leaves:
            if f"{path!r} (" not in warned:
                remarks.append(f"WARNING: pruning leaves nothing of {path!r}")
        if self.non_finite:
            remarks.append(
                f"WARNING: {self.non_finite:,} weights are NaN or infinite; they are "
                "never pruned"
            )
        if self.non_finite_scores:
            remarks.append(
                f"WARNING: the scores of {self.non_finite_scores:,} other weights are "
                "NaN or infinite; these weights are never pruned"
            )
        remarks += [f"WARNING: {warning}" for warning in self.warnings]
        limit = self.largest_stable_learning_rate
        if limit is not None:
            # The largest product of learning rate, a and mu is 2 without momentum.
            share = largest_stable_multiplier(
                learning_rate=1, weight_decay=2, momentum=0.9
            )
            remarks.append(
                "with SGD after it, swd is stable now up to a learning rate of "
                f"{limit:.3g}; with momentum 0.9 that is sure up to {share * limit:.3g}"
            )
        return remarks


def _listing(paths: tuple[str, ...]) -> str:
    listed = ", ".join(paths[:_PATHS_LISTED])
    more = len(paths) - _PATHS_LISTED
    return f"{listed} and {more:,} more, in left_by_name" if more > 0 else listed


def worst_leaf(leaves: Sequence[LeafSummary]) -> LeafSummary | None:
    """Return the leaf with the largest residual, NaN counting as the largest."""

    def badness(leaf: LeafSummary) -> float:
        return math.inf if math.isnan(leaf.residual) else leaf.residual

    return max(leaves, key=badness, default=None)


def _residual_remarks(summary: Summary) -> list[str]:
    """Return what the residual of all means, and that of the worst leaves."""
    worst = summary.worst_leaf
    headline = (
        f"residual {summary.residual:.3g}: the share of the weights' norm that pruning "
        "takes away"
    )
    # Emptied leaves have a warning of their own.
    is_telling = worst is not None and worst.residual != 0 and not worst.emptied
    if worst is not None and is_telling and len(summary.leaves) > 1:
        headline += f"; of one leaf at most {worst.residual:.3g}, of {worst.path!r}"
    remarks = [headline]
    damaged = [
        leaf
        for leaf in summary.leaves
        if leaf.residual > LARGE_RESIDUAL and not leaf.emptied
    ]
    if damaged and summary.residual <= LARGE_RESIDUAL:
        worst = max(damaged, key=lambda leaf: leaf.residual)
        others = f" and of {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
        remarks.append(
            f"WARNING: pruning takes {worst.residual:.3g} of the norm of "
            f"{worst.path!r}, which the residual of all leaves hides: more than "
            f"{LARGE_RESIDUAL:g} of one leaf{others} is enough to spoil a network"
        )
    remarks += [
        f"WARNING: {leaf.path!r} has no finite weights other than zeros, so that its "
        "residual is NaN"
        for leaf in summary.leaves
        if math.isnan(leaf.residual)
    ]
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
