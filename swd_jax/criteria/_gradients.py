"""The criteria that look at gradients, or at what an optimizer knows of them."""

import jax
import jax.numpy as jnp

from swd_jax._arguments import validation
from swd_jax.criteria._criterion import Criterion, Tracked


def _product(weights: jax.Array, statistic: None, *, gradient: jax.Array) -> jax.Array:
    del statistic
    return jnp.abs(weights * gradient)


def _tracked(weights: jax.Array, statistic: None, *, tracked: jax.Array) -> jax.Array:
    del statistic
    return jnp.where(jnp.isfinite(weights), tracked, jnp.inf)


def _fisher(weights: jax.Array, statistic: None, *, nu: jax.Array) -> jax.Array:
    del statistic
    return jnp.abs(weights) * jnp.sqrt(nu)


def _moved(tracked: jax.Array, weights: jax.Array, gradient: jax.Array) -> jax.Array:
    return tracked - weights * gradient


def mean_saliency(decay: float = 0.99) -> Criterion:
    r"""The running mean of the saliency over the last steps.

    .. math:: s_t = d\, s_{t-1} + (1 - d)\, |w\, g|

    It tells apart what a single batch cannot. The means are kept in the state of the
    transformation: a float32 array for each prunable leaf.

    Args:
      decay: d, in [0, 1).

    Returns:
      A criterion for `Target(criterion=...)`. It gathers gradients before the
      optimizer, as in `swd`; transformations after it take them as the extra argument
      `gradient`. `prune` takes what was gathered as
      `evidence={"tracked": optax.tree_utils.tree_get(state, "tracked")}`.

    Raises:
      ValueError: if the decay is out of range.

    Examples:
      >>> import swd_jax
      >>> swd_jax.Target(0.9, criterion=swd_jax.criteria.mean_saliency(0.9)).criterion
      swd_jax.criteria.mean_saliency(0.9)

    Source: Molchanov et al., "Importance estimation for neural network pruning"
    (arXiv 1906.10771), section 3.
    """
    known = validation.as_decimal("decay", decay)
    if known is None or not 0 <= known < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay!r}")

    def advance(
        tracked: jax.Array, weights: jax.Array, gradient: jax.Array
    ) -> jax.Array:
        return decay * tracked + (1 - decay) * jnp.abs(weights * gradient)

    return Criterion(
        f"mean_saliency({decay})", _tracked, tracked=Tracked(advance), by_weight=True
    )


saliency = Criterion("saliency", _product, needs=("gradient",), by_weight=True)
"""The saliency |w g|: how much the loss would change, to first order, without w.

It needs gradients. `swd`, which stands before the optimizer, takes the updates that
reach it; transformations after the optimizer take the extra argument `gradient`, and
`prune` takes `evidence={"gradient": gradients}`. One batch's gradients are noisy:
`mean_saliency` takes the mean of many.

Source: equation 3 of Molchanov et al., "Importance estimation for neural network
pruning" (arXiv 1906.10771), and before it Mozer & Smolensky's skeletonization (1988).
"""

movement = Criterion(
    "movement", _tracked, tracked=Tracked(_moved), signed=True, by_weight=True
)
"""Movement: the sum over all steps of -w g. Weights that move towards zero go first.

The sums are kept in the state of the transformation: a float32 array for each prunable
leaf. Gradients as for `saliency`; for `prune` as for `mean_saliency`. It is made for
fine-tuning a network that is trained already, whose magnitudes are those of another
task.

Source: equation 3 of Sanh et al., "Movement pruning: adaptive sparsity by fine-tuning"
(arXiv 2005.07683), with w for the masked weight.
"""

fisher = Criterion("fisher", _fisher, needs=("nu",), by_weight=True)
r"""The magnitude times the root of Adam's second moment: |w| sqrt(nu).

The square is w^2 nu, twice the increase of the loss without w under a diagonal Fisher
matrix. It needs Adam's second moment as an extra argument: `tx.update(gradients, state,
params, nu=optax.tree_utils.tree_get(state, "nu"))`; `prune` takes
`evidence={"nu": ...}`. Before Adam's first step all scores are 0, and nothing is
selected.

Source: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning"
(arXiv 1801.05787), section 2.2; after LeCun et al., "Optimal brain damage" (1989).
"""
