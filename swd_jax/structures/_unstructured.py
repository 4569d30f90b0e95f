"""`Unstructured`: every weight is a unit."""

import dataclasses

import jax
import jax.numpy as jnp

from swd_jax.criteria import _criterion
from swd_jax.structures._leaf_structure import LeafStructure


@dataclasses.dataclass(frozen=True)
class Unstructured(LeafStructure):
    """Every weight is a unit of its own.

    The structure of the paper's main results: any weight may be pruned, whatever its
    neighbours are. The weights that are kept are scattered, which saves memory in a
    sparse format but no time in a dense product.

    Examples:
      >>> import swd_jax
      >>> swd_jax.Target(0.9, structure=swd_jax.Unstructured()).structure
      Unstructured()

    Source: section 3.3 of arXiv 2011.10520.
    """

    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the scores themselves."""
        return scores

    def sizes(self, shape: tuple[int, ...]) -> int:
        """Return 1 for every unit."""
        del shape
        return 1

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the units' entries themselves."""
        del shape
        return units

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Return True: a weight always lies within one shard."""
        del shape
        return True

    def unit_scores(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array] | None:
        """Return None: scores are computed in each pass and are not stored."""
        if type(self).scores is not Unstructured.scores:
            # A derived class that overrides `scores` has unit scores of its own.
            return super().unit_scores(criterion, score_inputs, dtype)
        return None
