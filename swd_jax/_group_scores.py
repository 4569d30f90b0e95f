"""What a structure makes of the scores of single weights: worked out once a step."""

import functools

import jax
import jax.numpy as jnp

from swd_jax import _blocks, _criteria, _criterion, _float_order, _structures


# Compiled once for all calls, and outside of jit without all between.
@functools.partial(jax.jit, static_argnames=("structure", "criterion", "dtype"))
def protected(
    structure: _structures.NM,
    criterion: _criterion.Criterion,
    of_leaves: list[_criterion.Scored],
    dtype: jnp.dtype,
) -> list[jax.Array]:
    """The weights of every leaf that its structure never prunes."""
    found = []
    for of_leaf in of_leaves:
        scores = _criterion.scores(criterion, *of_leaf, dtype)
        if criterion.signed:
            scores = _float_order.ordered(scores)
        found.append(structure.protected(scores))
    # Else the compiler would work them out again wherever they are read.
    return [jax.lax.optimization_barrier(mask) for mask in found]


@functools.partial(jax.jit, static_argnames=("structure", "criterion", "dtype"))
def group_scores(
    structure: _structures.Structure,
    criterion: _criterion.Criterion,
    of_leaves: list[_criterion.Scored],
    dtype: jnp.dtype,
) -> list[jax.Array]:
    """The scores of the groups of weights of every leaf."""
    found = []
    for of_leaf in of_leaves:
        # The norms of this library take scores with signs.
        ours = type(structure) in (_blocks.Block, _blocks.Channel)
        score = _criteria.scores_with_signs if ours else _criterion.scores
        scores = score(criterion, *of_leaf, dtype)
        if criterion.signed:
            # A norm has no sign: what speaks for a group, less what speaks against it.
            above = structure.scores(jnp.maximum(scores, 0))
            below = structure.scores(jnp.maximum(-scores, 0))
            found.append(_float_order.ordered(above - below))
        else:
            found.append(structure.scores(scores).astype(dtype))
    return found
