"""What a structure makes of the scores of single weights: worked out once a step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax.criteria import _criterion, _magnitudes
from swd_jax.structures import _blocks, _structure
from swd_jax.structures._n_of_m import NM


def _keys(
    criterion: _criterion.Criterion,
    statistic: Any,
    dtype: jnp.dtype,
    arrays: tuple[jax.Array, _criterion.Evidence],
) -> jax.Array:
    """The scores of weights, with the evidence, as integers in the same order."""
    weights, evidence = arrays
    return sort_keys.to_key(
        _criterion.magnitudes(criterion, weights, statistic, evidence, dtype)
    )


# Compiled once for all calls, and outside of jit without all between.
@functools.partial(jax.jit, static_argnames=("structure", "criterion", "dtype"))
def protected(
    structure: NM,
    criterion: _criterion.Criterion,
    of_leaves: list[_criterion.Scored],
    dtype: jnp.dtype,
) -> list[jax.Array]:
    """The weights of every leaf that its structure never prunes."""
    found = []
    for weights, statistic, evidence in of_leaves:
        key = functools.partial(_keys, criterion, statistic, dtype)
        arrays = weights, evidence
        if criterion.by_weight:
            found.append(structure.protected(weights, arrays, key))
        else:
            keys = key(arrays)
            found.append(structure.protected(weights, keys, lambda keys: keys))
    return found


@functools.partial(jax.jit, static_argnames=("structure", "criterion", "dtype"))
def group_scores(
    structure: _structure.Structure,
    criterion: _criterion.Criterion,
    of_leaves: list[_criterion.Scored],
    dtype: jnp.dtype,
) -> list[jax.Array]:
    """The scores of the groups of weights of every leaf."""
    found = []
    for of_leaf in of_leaves:
        # The norms of this library take scores with signs.
        ours = type(structure) in (_blocks.Block, _blocks.Channel)
        score = _magnitudes.scores_with_signs if ours else _criterion.scores
        scores = score(criterion, *of_leaf, dtype)
        if criterion.signed:
            # A norm has no sign: what speaks for a group, less what speaks against it.
            above = structure.scores(jnp.maximum(scores, 0))
            below = structure.scores(jnp.maximum(-scores, 0))
            found.append(sort_keys.ordered(above - below))
        else:
            found.append(structure.scores(scores).astype(dtype))
    return found
