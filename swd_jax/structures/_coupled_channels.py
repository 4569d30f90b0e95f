"""Coupled channels as a structure: what lives and dies together across all layers."""

import dataclasses
import functools
import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from swd_jax._arguments import validation
from swd_jax._coupling.channel_groups import ChannelGroup, ChannelGroups

Score: TypeAlias = Literal["bn_scale", "rms", "l2", "mean", "l1"]
Count: TypeAlias = Literal["parameters", "flops"]
Decays: TypeAlias = Literal["all", "scales"]


@dataclasses.dataclass(frozen=True)
class CoupledChannels:
    r"""Channels with all that belongs to them in every layer, as `shrink` cuts them.

    The target counts what will disappear: of the N parameters (or operations) that the
    whole model has, those of a model without the channels that are selected, with
    everything that goes along downstream. Channels are taken in the order of their
    scores, as many as it allows,

    .. math::

        r^* = \max \{ r : N - N(\text{without the first } r) \le \lfloor s N \rfloor \}

    so that the sparsity asked for is never exceeded, and missed by less than one
    channel, or than `multiple_of` channels. N(...) is a sum of products of the layers'
    widths, and is counted exactly. Where channels that are zero already come as near as
    that, no other goes: what is pruned stays as it is.

    Args:
      groups: what `channel_groups` found in the model.
      score: what a channel is ranked by, from the criterion's scores of single weights:
        "rms", the root of their mean square over all that computes the channel and all
        that computes others from it; "l2", of the sum of squares; "mean" or "l1", of
        the absolute values; or "bn_scale", the mean over the channel's scales in its
        batch norms. With that, channels that have none are left alone.
      count: what the target's sparsity is a fraction of: all "parameters" that the
        groups count, or "flops" of convolutions and matrix products.
      decays: which weights of a selected channel get the penalty and are pruned.
        "all": everything that `shrink` cuts, filters and scales (the paper's mode
        "structuredF" goes as far). "scales": only scales and biases (its mode
        "structured"), with score="bn_scale". A channel whose batch norm has zeros for
        both is zero itself, and its filters can be cut as well.
      min_channels: how many channels each group keeps at least: a number, or a fraction
        of the group below 1. 0 lets layers be emptied, which `shrink` then refuses.
      multiple_of: axes keep lengths that are multiples of this, such as 8 or 128, which
        processors compute at once. So many channels of a group go together, with the
        highest of their scores. From a length that is no multiple the excess goes
        first. In a local scope the channels before the last of them count.

    As the structure of a `Target`: `scope` is "global", or "local" for one fraction of
    the channels in every group, whatever the layers' scores. `prunable` leaves out
    groups: those of which not all producers match it. A path is that in the parameters
    that the optimizer has, which may be a part of those that the groups were found in.

    Raises:
      ValueError: if an option is unknown or out of range, or no group has what it
        needs; when the target meets the parameters, if these are not those of the
        groups, or more is wanted than the groups have.

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
    al., arXiv 2301.12900, for scores of groups.
    """

    groups: ChannelGroups = dataclasses.field(repr=False)
    _: dataclasses.KW_ONLY
    score: Score = "rms"
    count: Count = "parameters"
    decays: Decays = "all"
    min_channels: validation.Number = 1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.groups, ChannelGroups):
            raise ValueError(
                "groups of CoupledChannels must be what channel_groups(...) gives, got "
                f"{type(self.groups).__name__}"
            )
        for name, options in (("score", Score), ("count", Count), ("decays", Decays)):
            value = getattr(self, name)
            if value not in get_args(options):
                raise ValueError(
                    f"{name} of CoupledChannels must be one of {get_args(options)}, "
                    f"got {value!r}"
                )
        if self.decays == "scales" and self.score != "bn_scale":
            raise ValueError(
                f"decays='scales' needs score='bn_scale', got {self.score!r}: what is "
                "ranked by its filters has to lose them"
            )
        floor = validation.as_floor(
            "min_channels", self.min_channels, counted="channels", of="group"
        )
        object.__setattr__(self, "min_channels", floor)
        validation.check_step_count("multiple_of", self.multiple_of, least=1)
        object.__setattr__(self, "multiple_of", int(self.multiple_of))
        if not self.eligible:
            raise ValueError(
                "groups has no channels that can be removed: "
                + (
                    "none of the groups has a batch norm for score='bn_scale'. Give "
                    "score='rms'"
                    if len(self.groups)
                    else "print it to see what froze them"
                )
            )

    @functools.cached_property
    def eligible(self) -> tuple[int, ...]:
        """The numbers of the groups that have what the score needs."""
        return tuple(
            number
            for number, group in enumerate(self.groups)
            if self.score != "bn_scale"
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
        """The roles of the members that a channel is ranked by."""
        return ("scale",) if self.score == "bn_scale" else ("producer", "consumer")

    def least_kept(self, group: ChannelGroup) -> int:
        """How many channels a group keeps at least."""
        floor: Any = self.min_channels
        least = floor if isinstance(floor, int) else math.ceil(floor * group.size)
        return group.rounded_up(least, self.multiple_of)

    def total(self) -> int:
        """N: what the whole model has of what the target counts."""
        return self.groups.parameters() if self._parameters else self.groups.flops()

    @property
    def costs(self) -> tuple[Any, ...]:
        """The products that N is the sum of."""
        if self._parameters:
            return self.groups.parameter_costs
        return self.groups.flop_costs

    def channel_costs(self, group: ChannelGroup) -> np.ndarray:
        """What goes with each channel of a group when all others stay."""
        return group.parameters if self._parameters else group.flops

    @property
    def _parameters(self) -> bool:
        return self.count == "parameters"
