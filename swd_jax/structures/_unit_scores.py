"""Scores of units from the scores of their weights, computed once a step and stored."""

import functools

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax.criteria import _criterion, _magnitudes


# Jitted as a whole, so that outside of jit no scores of single weights are stored.
@functools.partial(
    jax.jit, static_argnames=("structure", "criterion", "dtype", "ignores_sign")
)
def unit_scores(
    structure: Structure,
    criterion: _criterion.Criterion,
    score_inputs: list[_criterion.ScoreInputs],
    dtype: jnp.dtype,
    *,
    ignores_sign: bool = False,
) -> list[jax.Array]:
    """Return the scores of each leaf's units.

    Args:
      structure: which weights make up a unit.
      criterion: the scoring rule of single weights.
      score_inputs: the weights of each leaf, their statistic and the extra inputs.
      dtype: the type of the scores.
      ignores_sign: whether `structure.scores` takes scores of either sign for their
        absolute values, as the norms of `Block` and `Channel` do.
    """
    all_scores = []
    for inputs in score_inputs:
        score = _magnitudes.scores_with_signs if ignores_sign else _criterion.scores
        scores = score(criterion, *inputs, dtype)
        if criterion.signed:
            # A norm drops the sign: norm(positive part) - norm(negative part) keeps it.
            positive = structure.scores(jnp.maximum(scores, 0))
            negative = structure.scores(jnp.maximum(-scores, 0))
            all_scores.append(sort_keys.signed_to_nonnegative(positive - negative))
        else:
            all_scores.append(structure.scores(scores).astype(dtype))
    return all_scores
