"""Measuring sparsity: target and obtained, leaf by leaf, and what pruning risks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._allocation import exact_counts
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import exact_sums, leaf_norms, sort_keys, tree_paths, uint64
from swd_jax._ranking import channel_summary, exact_k
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax._targets import resolve
from swd_jax._targets.target import Target, Targets, as_targets
from swd_jax._transforms.swd import SwdState
from swd_jax.reports._summary import LeafSummary, Summary
from swd_jax.schedules._stable_multiplier import largest_stable_multiplier
from swd_jax.structures._coupled_channels import CoupledChannels


def summarize(
    params: Any,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    state: optax.OptState | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Summary:
    """Report how sparse parameters are, and what pruning them to a target would do.

    Before `prune` it tells what pruning risks, after it that the target is met.

    Args:
      params: any tree of concrete arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it.
      step: where the target's sparsity is a schedule, the optimizer step at which it is
        wanted; by default the value on which the schedule settles.
      state: an optimizer state with that of `swd` in it. The report then says up to
        which learning rate SGD stays stable at its last multiplier.
      evidence: as for `prune`.

    Returns:
      A `Summary`: totals, a row for each prunable leaf, `emptied_leaves`, and what
      disappears with coupled channels; its `str` is a table, its `as_dict()` a flat
      dict of floats.

    Raises:
      ValueError: as `prune`; or if the parameters are traced, since a report is for the
        host.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> params = {
      ...     "bias": jnp.zeros(2),
      ...     "kernel": jnp.array([[3.0, -4.0], [0.0, 0.0]]),
      ... }
      >>> print(swd_jax.summarize(params, 0.75))
      leaf          shape   weights  zeros  sparsity  pruned  residual
      ----------------------------------------------------------------
      kernel        (2, 2)        4      2    50.00%       3       0.6
      ----------------------------------------------------------------
      all prunable                4      2    50.00%       3       0.6
      <BLANKLINE>
      target sparsity 0.75, obtained 0.5
      residual 0.6: the share of the weights' norm that pruning takes away
      24 bytes as dense arrays, where a zero takes as much as any number; 13 stored
      sparsely once pruned
    """
    targets = as_targets(target)
    resolve.check_evidence(targets, evidence)
    tree, ranked = resolve.rank(params, targets, evidence=evidence)
    if any(isinstance(leaf, Tracer) for leaf in tree.leaves):
        raise ValueError(
            "params are traced, and a report needs their values: call summarize "
            "outside jit, or log the state of swd instead"
        )
    pairs = []
    for each in ranked:
        measured = jax.device_get(
            exact_k.map_lost(_measured, each.ranking, each.counts(step), np.uint32(1))
        )
        pairs += zip(each.leaves, measured, strict=True)
    pairs.sort(key=lambda pair: pair[0].position)
    leaves = [leaf for leaf, _ in pairs]
    measured = [numbers for _, numbers in pairs]
    rows = tuple(_leaf_summary(*pair) for pair in pairs)
    arrays = [leaf for _, _, leaf in tree_paths.arrays(tree)]
    bytes_dense = sum(map(_nbytes, arrays))
    saved = [
        _nbytes(leaf.weights) - _sparse_bytes(leaf.weights, row.pruned)
        for leaf, row in zip(leaves, rows, strict=True)
    ]
    channels = tuple(
        channel_summary.channel_summary(
            each.target.structure, each.ranking, each.counts(step)
        )
        for each in ranked
        if isinstance(each.target.structure, CoupledChannels)
        and isinstance(each.ranking, ChannelRanking)
    )
    norm = math.hypot(*(float(numbers.norm) for numbers in measured))
    pruned_norm = math.hypot(*(float(numbers.pruned_norm) for numbers in measured))
    return Summary(
        target_sparsity=_target_sparsity(targets, ranked, step),
        weights=sum(row.weights for row in rows),
        zeros=sum(row.zeros for row in rows),
        pruned=sum(row.pruned for row in rows),
        non_finite=sum(row.non_finite for row in rows),
        residual=_share(pruned_norm, norm),
        parameters=sum(leaf.size for leaf in arrays),
        bytes_dense=bytes_dense,
        bytes_sparse=bytes_dense - sum(saved),
        leaves=rows,
        largest_stable_learning_rate=_largest_stable_learning_rate(state),
        channels=channels,
        only_channels=len(channels) == len(targets) == 1,
    )


def _target_sparsity(
    targets: Sequence[Target], ranked: Sequence[resolve.Ranked], step: ArrayLike | None
) -> float:
    """The sparsity of all that is prunable: as it was given, if there is one."""
    if len(targets) == 1 and isinstance(targets[0].scope, str):
        return float(exact_counts.sparsity_at(targets[0].sparsity, step))
    wanted = [k for each in ranked for k in each.counts(step)]
    sizes = [size for each in ranked for size in each.ranking.sizes()]
    return _share(sum(map(uint64.to_int, wanted)), sum(sizes))


class _Measured(NamedTuple):
    """What is measured of a leaf, on its device."""

    counts: Any  # wide numbers: zeros, zeros once pruned, not finite
    norm: Any
    pruned_norm: Any


def _measured(weights: jax.Array, lost: jax.Array, one: jax.Array) -> _Measured:
    zero = sort_keys.is_zero(weights, one)
    dtype = sort_keys.score_dtype(weights.dtype)
    weights = sort_keys.widen(weights, dtype)
    norm, pruned_norm = leaf_norms.l2_norms([weights, jnp.where(lost, weights, 0)])
    return _Measured(
        exact_sums.count_true([[zero, zero | lost, ~jnp.isfinite(weights)]])[0],
        norm,
        pruned_norm,
    )


def _leaf_summary(leaf: PrunableLeaf, measured: _Measured) -> LeafSummary:
    zeros, pruned, non_finite = map(uint64.to_int, measured.counts)
    return LeafSummary(
        path=leaf.path,
        shape=tuple(leaf.weights.shape),
        dtype=str(leaf.weights.dtype),
        weights=leaf.weights.size,
        zeros=zeros,
        pruned=pruned,
        non_finite=non_finite,
        residual=_share(float(measured.pruned_norm), float(measured.norm)),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _nbytes(array: jax.Array) -> int:
    return array.size * array.dtype.itemsize


def _sparse_bytes(weights: jax.Array, zeros: int) -> int:
    """The smallest of: dense, non-zeros and a bit mask, non-zeros and their indices."""
    values = (weights.size - zeros) * weights.dtype.itemsize
    bit_mask = -(-weights.size // 8)
    indices = 4 * (weights.size - zeros)
    return min(_nbytes(weights), values + bit_mask, values + indices)


def _largest_stable_learning_rate(state: optax.OptState | None) -> float | None:
    if state is None:
        return None
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, SwdState))
    states = [node for node in nodes if isinstance(node, SwdState)]
    if not states:
        raise ValueError(
            "state holds no state of swd: give the optimizer state of a chain with swd "
            "in it, or none"
        )
    coefficient = max(float(node.coefficient) for node in states)
    return largest_stable_multiplier(1.0, coefficient)
