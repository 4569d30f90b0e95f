"""`CoupledChannels`: channels pruned with everything that depends on them, anywhere."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from swd_jax._allocation import exact_counts, sparsity_values
from swd_jax._allocation.allocation import Allocation
from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._allocation.prunable_leaves import Prunable
from swd_jax._arguments import validation
from swd_jax._arguments.short_text import one_of, shown
from swd_jax._arrays import sort_keys, tree_paths
from swd_jax._arrays.axis_norms import Norm
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._coupling import path_prefix
from swd_jax._coupling.channel_groups import ChannelGroup, ChannelGroups
from swd_jax._ranking import channel_leaves, channel_scores
from swd_jax._ranking.channel_layout import (
    ChannelLayout,
    ChannelNorm,
    Count,
    build_layout,
)
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax.criteria import _criterion
from swd_jax.criteria._criterion import Criterion, ExtraInputs
from swd_jax.structures._abstract_structure import AbstractStructure, StructuredLeaves

Decays: TypeAlias = Literal["all", "scales"]

_NORMS = (*get_args(Norm), "bn_scale")

# Of the report of what is frozen, in an error.
_LINES_SHOWN = 12

# The part of every channel group that a ranking across layers leaves: the largest with
# which the target can be reached.
_DEFAULT_FLOORS = (Fraction(1, 8), Fraction(1, 16), Fraction(1, 32))


@dataclasses.dataclass(frozen=True)
class CoupledChannels(AbstractStructure):
    r"""Channels with all that depends on them in every layer, as `shrink` cuts them.

    The target counts what will be removed. Of the N parameters (or operations) of the
    whole model, as many are removed as its sparsity s allows: the channels with the
    lowest scores, with everything that they compute downstream,

    .. math::

        r^* = \max \{ r : N - N(\text{without the first } r) \le \lfloor s N \rfloor \}

    so that the sparsity asked for is never exceeded, and missed by less than one
    channel, or than `multiple_of` channels. N(...) is a sum of products of the layers'
    widths, and is counted exactly. Where the channels that are zero already use up the
    budget, no other is pruned: pruning a pruned model changes nothing.

    Args:
      groups: the channel groups of the model, from `channels.channel_groups`.
      norm: how a channel's score follows from the criterion's scores of its weights:
        "rms", the root of their mean square over all weights that compute the channel
        and all that compute others from it; "l2", the root of the sum of squares;
        "mean" or "l1", the mean or the sum of the absolute values; or "bn_scale", the
        mean over the channel's scales in its batch norms. With "bn_scale", channels
        without a batch norm are not pruned.
      count: the quantity that the target's sparsity is a fraction of: all "parameters"
        that the groups count, or "flops" of convolutions and matrix products.
      decays: the weights of a selected channel that are penalised and pruned. "all":
        everything that `shrink` cuts, filters and scales (as the paper's mode
        "structuredF"). "scales": only scales and biases (its mode "structured"), with
        norm="bn_scale". A channel whose batch norm has zeros for both is zero itself,
        and its filters can be cut as well.
      min_channels: the number of channels that each channel group keeps at least, or a
        fraction of the group below 1. 0 lets layers be emptied, which `shrink` then
        refuses. By default, with a global scope, whose ranking across layers may leave
        a layer next to nothing, an eighth of the group; where the target cannot be
        reached so, a sixteenth, a thirty-second, or 1. With a local scope 1.
      multiple_of: pruned axes keep lengths that are multiples of this number, such as 8
        or 128, which processors compute at once. So many channels of a group are
        removed at once, in a bundle, with the highest of their scores. From a length
        that is no multiple the excess is removed first. With a local scope the share
        ranked before the last channel of a bundle counts.
      prefix: the path that the groups' paths have in front of those of the parameters
        that the optimizer has, such as "params/". By default it is found from the
        shapes; it must be given where the parameters fit the model in several places.

    As the structure of a `Target`: `scope` is "global", or "local" for one fraction of
    the channels of every channel group, whatever the layers' scores. `prunable` leaves
    out the channel groups whose producers do not all match it. Its paths are those of
    the parameters that the optimizer has, which may be a part of the model's.

    Raises:
      ValueError: if an option is unknown or out of range, or no channel group has what
        it needs; when the target meets the parameters, if these are not those of the
        groups, or the sparsity is more than the groups can lose.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["second"]
      >>> params = {
      ...     "first": jnp.array([[0.1, 3.0, 0.2, 2.0]]),
      ...     "second": jnp.array([[0.1], [1.0], [0.2], [1.0]]),
      ... }
      >>> x = jnp.ones((2, 1))
      >>> groups = swd_jax.channels.channel_groups(model, params, x)
      >>> target = swd_jax.Target(0.5, structure=swd_jax.CoupledChannels(groups))
      >>> pruned = swd_jax.prune(params, target)
      >>> print(pruned["first"])
      [[0. 3. 0. 2.]]
      >>> kept = swd_jax.channels.kept_channels(params, target)
      >>> small = swd_jax.channels.shrink(model, pruned, groups, kept, x)
      >>> groups.parameters(), groups.parameters(kept), small.params["second"].tolist()
      (8, 4, [[1.0], [1.0]])

    Source: section 4.1 of arXiv 2011.10520 for the two modes and the target; Fang et
    al., arXiv 2301.12900, for scores of channel groups.
    """

    groups: ChannelGroups = dataclasses.field(repr=False)
    _: dataclasses.KW_ONLY
    norm: ChannelNorm = "rms"
    count: Count = "parameters"
    decays: Decays = "all"
    min_channels: validation.Number | None = None
    multiple_of: int = 1
    prefix: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.groups, ChannelGroups):
            raise ValueError(
                "groups of CoupledChannels must be what channel_groups(...) returns, "
                f"got {shown(self.groups)}"
            )
        for name, options in (
            ("norm", _NORMS),
            ("count", get_args(Count)),
            ("decays", get_args(Decays)),
        ):
            value = getattr(self, name)
            if value not in options:
                raise ValueError(
                    f"{name} of CoupledChannels must be {one_of(options)}, got "
                    f"{shown(value)}"
                )
        if self.decays == "scales" and self.norm != "bn_scale":
            raise ValueError(
                f"decays='scales' needs norm='bn_scale', got {self.norm!r}: channels "
                "that are ranked by their filters must lose these"
            )
        if self.min_channels is not None:
            min_channels = validation.as_min_kept(
                "min_channels",
                self.min_channels,
                item_name="channels",
                whole_name="group",
            )
            object.__setattr__(self, "min_channels", min_channels)
        validation.as_step_count("multiple_of", self.multiple_of, minimum=1)
        object.__setattr__(self, "multiple_of", int(self.multiple_of))
        if self.prefix is not None and not isinstance(self.prefix, str):
            raise ValueError(
                "prefix of CoupledChannels must be a path, such as 'encoder', got "
                f"{shown(self.prefix)}"
            )
        if not self.eligible:
            why = (
                "none of the groups has a batch norm for norm='bn_scale'. Give "
                "norm='rms'"
                if len(self.groups)
                else _what_froze(self.groups)
            )
            raise ValueError(f"groups has no channels that can be removed: {why}")

    @functools.cached_property
    def eligible(self) -> tuple[int, ...]:
        """The numbers of the channel groups that have what the norm needs."""
        return tuple(
            number
            for number, group in enumerate(self.groups)
            if self.norm != "bn_scale"
            or any(member.role == "scale" for member in group.members)
        )

    @property
    def decayed_roles(self) -> tuple[str, ...]:
        """The roles of the members that are penalised and pruned."""
        if self.decays == "scales":
            return ("scale", "bias")
        return ("producer", "consumer", "scale", "bias", "other")

    @property
    def scored_roles(self) -> tuple[str, ...]:
        """The roles of the members that a channel is scored by."""
        return ("scale",) if self.norm == "bn_scale" else ("producer", "consumer")

    def min_channels_of(self, group: ChannelGroup) -> int:
        """Return the number of channels that a channel group keeps at least."""
        minimum: Any = 1 if self.min_channels is None else self.min_channels
        if not isinstance(minimum, int):
            minimum = math.ceil(minimum * group.size)
        return group.round_up(minimum, self.multiple_of)

    def check_allocation(self, allocation: Allocation) -> None:
        """Raise if the scope or `min_kept` has no meaning for coupled channels."""
        if allocation.scope not in ("global", "local"):
            raise ValueError(
                "scope must be 'global' or 'local' with CoupledChannels, since what a "
                "channel's removal saves depends on all leaves, got "
                f"{allocation.scope!r}"
            )
        if allocation.min_kept != 0:
            raise ValueError(
                "min_kept counts weights of single leaves, got "
                f"{allocation.min_kept!r}: with CoupledChannels give it "
                "min_channels=..."
            )

    def find_leaves(
        self,
        prunable: Prunable,
        allocation: Allocation,
        tree: tree_paths.FlatTree,
        params: Any,
    ) -> StructuredLeaves:
        """Return the leaves that lose channels, and the layout of these channels."""
        if not tree_paths.arrays(tree):
            return StructuredLeaves([], None, 0)
        prefix = path_prefix.find_prefix(self.groups, tree, prefix=self.prefix)
        chosen = channel_leaves.choose_groups(
            self.groups, self.eligible, prunable, tree, params, prefix=prefix
        )
        leaves = channel_leaves.find_leaves(
            self.groups, chosen, self.decayed_roles, tree, prefix
        )
        if not leaves:
            return StructuredLeaves([], None, 0)
        paths = tuple(prefix + leaf.path for leaf in leaves)
        layout = build_layout(self, chosen, paths)
        if self.min_channels is None and allocation.scope == "global":
            layout = self._layout_with_floor(allocation, chosen, paths, layout)
        return StructuredLeaves(leaves, layout, 1)

    def _layout_with_floor(
        self,
        allocation: Allocation,
        chosen: tuple[int, ...],
        paths: tuple[str, ...],
        without_floor: ChannelLayout,
    ) -> ChannelLayout:
        """Return the layout with the highest default floor that the target allows."""
        try:
            sparsity = sparsity_values.sparsity_at(allocation.sparsity, None)
        except ValueError:  # a schedule without a final value
            return without_floor
        if not isinstance(sparsity, Fraction):
            return without_floor
        for floor in _DEFAULT_FLOORS:
            options = dataclasses.replace(self, min_channels=floor)
            layout = build_layout(options, chosen, paths)
            if _num_pruned(layout, sparsity) <= layout.max_removable:
                return layout
        return without_floor

    def check_leaves(
        self, allocation: Allocation, structured: StructuredLeaves
    ) -> None:
        """Raise if the channels can never be as few as the target asks."""
        if not structured.leaves:
            return
        try:
            sparsity = sparsity_values.sparsity_at(allocation.sparsity, None)
        except ValueError:  # a schedule without a final value
            return
        _check_removable(structured.layout, sparsity)

    def sparsities(
        self,
        allocation: Allocation,
        structured: StructuredLeaves,
        step: ArrayLike | None,
    ) -> PoolSparsities:
        """Return the sparsity of the one pool at an optimizer step."""
        sparsity = sparsity_values.sparsity_at(allocation.sparsity, step)
        _check_removable(structured.layout, sparsity)
        return [sparsity]

    def rank(
        self,
        allocation: Allocation,
        criterion: Criterion,
        structured: StructuredLeaves,
        extra_inputs: Sequence[ExtraInputs],
        axis_name: AxisName,
    ) -> ChannelRanking:
        """Return the channels with their scores."""
        if axis_name is not None:
            raise ValueError(
                f"axis_name is {axis_name!r}, and coupled channels may extend over "
                "several devices: leave it out, under jit over a mesh"
            )
        # The selection is piecewise constant in the weights: it has no gradient.
        weights = [
            jax.lax.stop_gradient(jnp.asarray(leaf.weights))
            for leaf in structured.leaves
        ]
        dtype = sort_keys.score_dtype(*(leaf.dtype for leaf in weights))
        statistics = _criterion.statistics(criterion, weights, dtype)
        is_local = allocation.scope == "local"
        scores = channel_scores.ranked_scores(
            structured.layout,
            criterion,
            list(zip(weights, statistics, extra_inputs, strict=True)),
            dtype,
            is_local=is_local,
        )
        return ChannelRanking(
            weights, *scores, layout=structured.layout, dtype=dtype, is_local=is_local
        )


def _check_removable(layout: ChannelLayout, sparsity: Fraction | jax.Array) -> None:
    """Raise if a known sparsity asks for more channels than may be removed."""
    if not isinstance(sparsity, Fraction):
        return
    total, removable = layout.cost_model.total, layout.max_removable
    if _num_pruned(layout, sparsity) > removable:
        # Rounded down, so that the value in the message can be asked for.
        max_sparsity = int(Fraction(removable, total) * 10**4) / 10**4
        raise ValueError(
            f"sparsity is {float(sparsity):.7g}, and without all channels that may be "
            f"removed the model is smaller by no more than {max_sparsity:.4f}. Ask for "
            "less, or keep less with min_channels or multiple_of"
        )


def _num_pruned(layout: ChannelLayout, sparsity: Fraction) -> int:
    """Return what a sparsity asks to remove, in the layout's count."""
    return exact_counts.known_count(sparsity, layout.cost_model.total)


def _what_froze(groups: ChannelGroups) -> str:
    """Return the reasons why axes are frozen, as a report of the groups lists them."""
    _, _, *lines = str(groups).splitlines()
    if len(lines) > _LINES_SHOWN:
        lines = [*lines[:_LINES_SHOWN], "and more: see print(groups)"]
    return "\n".join(["what froze their axes is", *lines])
