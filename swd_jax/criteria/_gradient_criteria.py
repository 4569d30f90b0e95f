"""Criteria of the gradients, or of what an optimizer derives from them."""

import dataclasses

import jax
import jax.numpy as jnp

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax.criteria._criterion import Accumulator, Criterion, LibraryCriterion


def _saliency(weights: jax.Array, statistic: None, *, gradient: jax.Array) -> jax.Array:
    del statistic
    return jnp.abs(weights * gradient)


def _accumulated(
    weights: jax.Array, statistic: None, *, accumulated: jax.Array
) -> jax.Array:
    del statistic
    return jnp.where(jnp.isfinite(weights), accumulated, jnp.inf)


def _fisher(weights: jax.Array, statistic: None, *, nu: jax.Array) -> jax.Array:
    del statistic
    return jnp.abs(weights) * jnp.sqrt(nu)


def _add_movement(
    accumulated: jax.Array, weights: jax.Array, gradient: jax.Array
) -> jax.Array:
    return accumulated - weights * gradient


@dataclasses.dataclass(frozen=True)
class _MeanSaliency:
    """The running mean of the saliency. Equal for equal decays."""

    decay: float

    def __call__(
        self, accumulated: jax.Array, weights: jax.Array, gradient: jax.Array
    ) -> jax.Array:
        return self.decay * accumulated + (1 - self.decay) * jnp.abs(weights * gradient)


def mean_saliency(decay: float = 0.99) -> Criterion:
    r"""The running mean of the saliency over the last steps.

    .. math:: s_t = d\, s_{t-1} + (1 - d)\, |w\, g|

    Less noisy than the saliency of a single batch. The means are part of the state of
    the transformation: a float32 array for each prunable leaf. A gradient that is NaN
    or infinite leaves the mean of its weight as it was, and the step is counted in
    `steps_left_out` of the state.

    Args:
      decay: d, in [0, 1).

    Returns:
      A criterion for `Target(criterion=...)`; criteria of the same decay are equal. It
      accumulates gradients before the optimizer, as in `swd`; transformations after the
      optimizer take them as the extra argument `gradient`. `prune` takes the means as
      `extra_args={"accumulated": optax.tree_utils.tree_get(state, "accumulated")}`.

    Raises:
      ValueError: if the decay is out of range.

    Examples:
      >>> import swd_jax
      >>> swd_jax.Target(0.9, criterion=swd_jax.criteria.mean_saliency(0.9)).criterion
      swd_jax.criteria.mean_saliency(0.9)

    Source: Molchanov et al., "Importance estimation for neural network pruning"
    (arXiv 1906.10771), section 3.
    """
    exact = validation.as_decimal("decay", decay)
    if exact is None or not 0 <= exact < 1:
        raise ValueError(f"decay must be in [0, 1), got {shown(decay)}")
    return LibraryCriterion(
        f"mean_saliency({float(exact)})",
        _accumulated,
        accumulator=Accumulator(_MeanSaliency(float(exact))),
        elementwise=True,
    )


saliency: Criterion = LibraryCriterion(
    "saliency", _saliency, extra_args=("gradient",), elementwise=True
)
"""The saliency |w g|: to first order, the change of the loss without w.

It needs gradients. `swd`, which stands before the optimizer, takes the updates that
reach it; transformations after the optimizer take the extra argument `gradient`, and
`prune` takes `extra_args={"gradient": gradients}`. The gradients of one batch are
noisy: `mean_saliency` averages over many. At a step whose gradients are NaN or infinite
the weights concerned are not selected.

Source: equation 3 of Molchanov et al., "Importance estimation for neural network
pruning" (arXiv 1906.10771), and before it Mozer & Smolensky's skeletonization (1988).
"""

movement: Criterion = LibraryCriterion(
    "movement",
    _accumulated,
    accumulator=Accumulator(_add_movement),
    signed=True,
    elementwise=True,
)
"""Movement: the sum over all steps of -w g. Weights that move towards zero go first.

The sums are part of the state of the transformation: a float32 array for each prunable
leaf. Gradients as for `saliency`; for `prune` as for `mean_saliency`; gradients that
are not finite are left out as there. It is meant for fine-tuning a pretrained network,
whose magnitudes are those of another task.

Source: equation 3 of Sanh et al., "Movement pruning: adaptive sparsity by fine-tuning"
(arXiv 2005.07683), with w for the masked weight.
"""

fisher: Criterion = LibraryCriterion(
    "fisher", _fisher, extra_args=("nu",), elementwise=True
)
r"""The magnitude times the root of Adam's second moment: |w| sqrt(nu).

The square is w^2 nu, twice the increase of the loss without w under a diagonal Fisher
matrix. It needs Adam's second moment as an extra argument: `tx.update(gradients, state,
params, nu=optax.tree_utils.tree_get(state, "nu"))`; `prune` takes
`extra_args={"nu": ...}`. Before Adam's first step all scores are 0, and nothing is
selected.

Source: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning"
(arXiv 1801.05787), section 2.2; after LeCun et al., "Optimal brain damage" (1989).
"""
