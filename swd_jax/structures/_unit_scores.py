"""Scores of units from the scores of their weights, computed once a step and stored."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from swd_jax._arrays import row_chunks, sort_keys
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax.criteria import _criterion, _magnitudes


def map_rows(
    function: Callable[[_criterion.ScoreInputs], jax.Array],
    criterion: _criterion.Criterion,
    score_inputs: _criterion.ScoreInputs,
    rows_per_unit: int,
) -> jax.Array:
    """Apply a function of a leaf's score inputs to some rows at a time, if it can be.

    Scores that depend on the position cannot be computed from some of the rows.

    Args:
      function: from score inputs to an array, as `row_chunks.map_rows` takes it.
      criterion: the scoring rule of single weights.
      score_inputs: the weights of the leaf, its statistic and the extra inputs.
      rows_per_unit: as for `row_chunks.map_rows`.
    """
    weights, statistic, extra_inputs = score_inputs
    if not criterion.elementwise:
        return function(score_inputs)

    def of_rows(rows: tuple[jax.Array, _criterion.ExtraInputs]) -> jax.Array:
        weights, extra_inputs = rows
        return function((weights, statistic, extra_inputs))

    return row_chunks.map_rows(of_rows, (weights, extra_inputs), rows_per_unit)


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
