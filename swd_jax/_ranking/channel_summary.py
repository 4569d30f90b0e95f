"""What a report says of coupled channels, and what they take away with them."""

import dataclasses

import jax
import numpy as np

from swd_jax._arguments import text_tables
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax.structures._coupled_channels import Count, CoupledChannels


@dataclasses.dataclass(frozen=True)
class GroupSummary:
    """What a report says of one group of channels."""

    name: str
    channels: int
    zeros: int
    """Channels that are zero now, in all that the target prunes of them."""
    pruned: int
    """Channels that `prune` would set to zero."""


@dataclasses.dataclass(frozen=True)
class ChannelSummary:
    """What a report says of a target with coupled channels."""

    count: Count
    """What the target's sparsity is a fraction of."""
    groups: tuple[GroupSummary, ...]
    parameters: int
    """Of the whole model, as its groups count them."""
    parameters_now: int
    """Once the channels that are zero now are cut out."""
    parameters_pruned: int
    """Once those that `prune` would set to zero are cut out."""
    flops: int
    flops_now: int
    flops_pruned: int

    @property
    def obtained_sparsity(self) -> float:
        """The share of what the target counts that the channels zero now take away."""
        if self.count == "parameters":
            return 1 - self.parameters_now / max(self.parameters, 1)
        return 1 - self.flops_now / max(self.flops, 1)

    def __str__(self) -> str:
        rows = [("group", "channels", "zeros", "pruned")]
        rows += [
            (g.name, f"{g.channels:,}", f"{g.zeros:,}", f"{g.pruned:,}")
            for g in self.groups
        ]
        lines = [
            text_tables.table(rows, names=1),
            "",
            _share("parameters", self.parameters_pruned, self.parameters),
            _share("operations (FLOPs)", self.flops_pruned, self.flops),
        ]
        return "\n".join(lines)


def _share(what: str, left: int, whole: int) -> str:
    gone = 1 - left / max(whole, 1)
    return f"{left:,} of {whole:,} {what} are left without them: {gone:.2%} less"


def channel_summary(
    structure: CoupledChannels, ranking: ChannelRanking, counts: jax.Array
) -> ChannelSummary:
    """Count the channels that are zero and those that would be.

    Args:
      structure: of the target.
      ranking: its channels.
      counts: how much may go: a wide number, shape (1, 4).
    """
    lost, zero = jax.device_get(_lost_and_zero(ranking, counts, np.uint32(1)))
    groups, layout = structure.groups, ranking.layout
    rows = []
    gone: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for group, first in zip(layout.groups, layout.offsets, strict=False):
        here = slice(first, first + group.size)
        gone[group.name] = zero[here], lost[here] | zero[here]
        counted = [int(vector.sum()) for vector in gone[group.name]]
        rows.append(GroupSummary(group.name, group.size, *counted))

    def kept(which: int) -> list[np.ndarray]:
        nothing = {group.name: np.zeros(group.size, bool) for group in groups}
        return [
            ~(gone[group.name][which] if group.name in gone else nothing[group.name])
            for group in groups
        ]

    return ChannelSummary(
        count=structure.count,
        groups=tuple(rows),
        parameters=groups.parameters(),
        parameters_now=groups.parameters(kept(0)),
        parameters_pruned=groups.parameters(kept(1)),
        flops=groups.flops(),
        flops_now=groups.flops(kept(0)),
        flops_pruned=groups.flops(kept(1)),
    )


@jax.jit
def _lost_and_zero(
    ranking: ChannelRanking, counts: jax.Array, one: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return ranking.lost(counts), ~ranking.alive(one)
