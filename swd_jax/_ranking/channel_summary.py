"""Summary of a target with coupled channels, and of what their removal saves."""

import dataclasses

import numpy as np

from swd_jax._arguments import text_tables
from swd_jax._ranking.channel_layout import ChannelLayout, Count


@dataclasses.dataclass(frozen=True)
class GroupSummary:
    """The channels of one channel group, in numbers."""

    name: str
    channels: int
    zeros: int
    """Channels that are zero now, in every weight that the target prunes of them."""
    pruned: int
    """Channels that `prune` would set to zero, or that are zero already."""


@dataclasses.dataclass(frozen=True)
class ChannelSummary:
    """A target with coupled channels, in numbers."""

    count: Count
    """The quantity that the target's sparsity is a fraction of."""
    groups: tuple[GroupSummary, ...]
    """The channel groups that may be pruned."""
    parameters: int
    """Parameters of the whole model, as `ChannelGroups.parameters` counts them."""
    parameters_now: int
    """Parameters of the model without the channels that are zero now."""
    parameters_pruned: int
    """Parameters of the model without the channels that `prune` would set to zero."""
    flops: int
    """Operations of the whole model, as `ChannelGroups.flops` counts them."""
    flops_now: int
    """Operations of the model without the channels that are zero now."""
    flops_pruned: int
    """Operations of the model without the channels that `prune` would set to zero."""

    @property
    def obtained_sparsity(self) -> float:
        """The fraction of `count` that the channels which are zero now account for."""
        if self.count == "parameters":
            return 1 - self.parameters_now / max(self.parameters, 1)
        return 1 - self.flops_now / max(self.flops, 1)

    def __str__(self) -> str:
        rows = [("channel group", "channels", "zeros", "pruned")]
        rows += [
            (g.name, f"{g.channels:,}", f"{g.zeros:,}", f"{g.pruned:,}")
            for g in self.groups
        ]
        lines = [
            text_tables.format_table(rows, label_columns=1),
            "",
            _saving("parameters", self.parameters_pruned, self.parameters),
            _saving("operations (FLOPs)", self.flops_pruned, self.flops),
        ]
        return "\n".join(lines)


def _saving(quantity: str, pruned: int, full: int) -> str:
    saved = 1 - pruned / max(full, 1)
    return f"{pruned:,} of {full:,} {quantity} are left without them: {saved:.2%} less"


def summarize_channels(
    layout: ChannelLayout, removed: np.ndarray, is_zero: np.ndarray
) -> ChannelSummary:
    """Return the summary of the channels that are zero and of those to be removed.

    Args:
      layout: the channels.
      removed: the channels that `prune` would remove: bools, shape (channels,).
      is_zero: the channels that are zero now: bools, shape (channels,).
    """
    rows = []
    kept_now = {group.name: np.ones(group.size, bool) for group in layout.all_groups}
    kept_pruned = dict(kept_now)
    for group, channels in layout.slices():
        kept_now[group.name] = ~is_zero[channels]
        kept_pruned[group.name] = ~(removed | is_zero)[channels]
        masks = kept_now[group.name], kept_pruned[group.name]
        num_removed = [int((~mask).sum()) for mask in masks]
        rows.append(GroupSummary(group.name, group.size, *num_removed))
    groups = layout.all_groups
    return ChannelSummary(
        count=layout.count,
        groups=tuple(rows),
        parameters=groups.parameters(),
        parameters_now=groups.parameters(kept_now),
        parameters_pruned=groups.parameters(kept_pruned),
        flops=groups.flops(),
        flops_now=groups.flops(kept_now),
        flops_pruned=groups.flops(kept_pruned),
    )
