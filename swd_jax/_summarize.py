"""Measuring sparsity: target and obtained, leaf by leaf, and what pruning risks."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax import (
    _criteria,
    _float_order,
    _paths,
    _ranking,
    _reductions,
    _sparsity,
    _wide,
)
from swd_jax._prunable import PrunableLeaf
from swd_jax._stability import largest_stable_multiplier
from swd_jax._summary import LeafSummary, Summary
from swd_jax._swd import SwdState
from swd_jax._target import Target, as_target


def summarize(
    params: Any,
    target: Target | _sparsity.Sparsity,
    *,
    step: ArrayLike | None = None,
    state: optax.OptState | None = None,
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

    Returns:
      A `Summary`: totals, a row for each prunable leaf, `emptied_leaves`; its `str` is
      a table, its `as_dict()` a flat dict of floats.

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
    target = as_target(target)
    tree, leaves, ranking = _ranking.rank(params, target)
    if any(isinstance(leaf, Tracer) for leaf in tree.leaves):
        raise ValueError(
            "params are traced, and a report needs their values: call summarize "
            "outside jit, or log the state of swd instead"
        )
    sparsity = _sparsity.sparsity_at(target.sparsity, step)
    counts = ranking.counts(sparsity)
    measured = jax.device_get(
        _ranking.map_lost(_measured, ranking, counts, np.uint32(1))
    )
    rows = tuple(
        _leaf_summary(leaf, numbers)
        for leaf, numbers in zip(leaves, measured, strict=True)
    )
    arrays = [leaf for _, _, leaf in _paths.arrays(tree)]
    bytes_dense = sum(map(_nbytes, arrays))
    saved = [
        _nbytes(leaf.weights) - _sparse_bytes(leaf.weights, row.pruned)
        for leaf, row in zip(leaves, rows, strict=True)
    ]
    norm = math.hypot(*(float(numbers.norm) for numbers in measured))
    pruned_norm = math.hypot(*(float(numbers.pruned_norm) for numbers in measured))
    return Summary(
        target_sparsity=float(sparsity),
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
    )


class _Measured(NamedTuple):
    """What is measured of a leaf, on its device."""

    counts: Any  # wide numbers: zeros, zeros once pruned, not finite
    norm: Any
    pruned_norm: Any


def _measured(weights: jax.Array, lost: jax.Array, one: jax.Array) -> _Measured:
    zero = _float_order.is_zero(weights, one)
    dtype = _float_order.score_dtype(weights.dtype)
    weights = _float_order.widen(weights, dtype)
    norm, pruned_norm = _criteria.l2_norms([weights, jnp.where(lost, weights, 0)])
    return _Measured(
        _reductions.count_true([[zero, zero | lost, ~jnp.isfinite(weights)]])[0],
        norm,
        pruned_norm,
    )


def _leaf_summary(leaf: PrunableLeaf, measured: _Measured) -> LeafSummary:
    zeros, pruned, non_finite = map(_wide.to_int, measured.counts)
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
