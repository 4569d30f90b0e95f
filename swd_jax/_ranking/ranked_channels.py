"""What a target of coupled channels prunes, ready to be ranked."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._allocation import exact_counts
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import sort_keys, tree_paths
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking import channel_layout
from swd_jax._ranking.channel_ranking import ChannelRanking, ranked_scores
from swd_jax._targets.target import Target
from swd_jax.criteria import _criterion
from swd_jax.structures._coupled_channels import CoupledChannels


def find_layout(
    target: Target, tree: tree_paths.Flat, params: Any, leaves: Sequence[PrunableLeaf]
) -> channel_layout.Layout | None:
    """Where a target's channels lie, if it has coupled ones and there are leaves."""
    structure = target.structure
    if not isinstance(structure, CoupledChannels) or not leaves:
        return None
    return channel_layout.layout(structure, target.prunable, tree, params, leaves)


def ranking(
    target: Target,
    layout: channel_layout.Layout,
    leaves: Sequence[PrunableLeaf],
    evidence: Sequence[_criterion.Evidence],
    axis_name: AxisName,
) -> ChannelRanking:
    """The channels with their scores.

    Raises:
      ValueError: if leaves are divided by hand.
    """
    if axis_name is not None:
        raise ValueError(
            f"axis_name is {axis_name!r}, and coupled channels may lie on several "
            "devices: leave it out, under jit over a mesh"
        )
    # The selection is piecewise constant: nothing to differentiate.
    weights = [jax.lax.stop_gradient(jnp.asarray(leaf.weights)) for leaf in leaves]
    dtype = sort_keys.score_dtype(*(leaf.dtype for leaf in weights))
    criterion = target.known_criterion
    statistics = _criterion.statistics(criterion, weights, dtype)
    scores, ties = ranked_scores(
        layout,
        criterion,
        list(zip(weights, statistics, evidence, strict=True)),
        dtype,
        local=target.scope == "local",
    )
    return ChannelRanking(weights, scores, ties, layout, dtype)


def check_reachable(
    layout: channel_layout.Layout, sparsity: Fraction | jax.Array
) -> None:
    """Raise if a sparsity that is known takes more channels than may go."""
    if not isinstance(sparsity, Fraction):
        return
    total, most = layout.counting.total, layout.most_removable
    if exact_counts.known_count(sparsity, total) > most:
        # Rounded down, so that it can be taken as it is.
        greatest = int(Fraction(most, total) * 10**4) / 10**4
        raise ValueError(
            f"sparsity is {float(sparsity):.7g}, and without all channels that may go "
            f"the model is smaller by no more than {greatest:.4f}. Ask for less, or "
            "keep less with min_channels or multiple_of"
        )


def check_target(target: Target, params: Any) -> None:
    """Raise if channels can never be as few as is known to be wanted."""
    structure = target.structure
    if not isinstance(structure, CoupledChannels):
        return
    tree = tree_paths.flatten(params)
    leaves = channel_layout.find_leaves(structure, target.prunable, tree, params)
    layout = find_layout(target, tree, params, leaves)
    if layout is None:
        return
    try:
        wanted = exact_counts.sparsity_at(target.sparsity, None)
    except ValueError:  # a schedule that never settles
        return
    check_reachable(layout, wanted)
