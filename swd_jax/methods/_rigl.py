"""RigL and SET: dynamic sparsity with weights grown by gradient, or at random."""

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._targets.target import Target
from swd_jax.methods._drop_and_grow import dynamic_sparsity


def rigl(
    optimizer: optax.GradientTransformation,
    target: Target | validation.Number,
    *,
    until: int,
    update_every: int = 100,
    drop_fraction: float = 0.3,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""RigL: zeros move to where the gradient is smallest. Goes ROUND the optimizer.

    The network has its final sparsity from the first step. Every m steps, in place of a
    step of the optimizer, each group of leaves drops the fraction

    .. math:: f(t) = \tfrac{\alpha}{2} \left(1 + \cos \frac{\pi t}{T}\right)

    of its active weights, those with the smallest magnitude, and makes as many others
    active, from zero, where the gradient is largest. From step T on the masks stay.

    Where it stands: round the whole optimizer, `rigl(optax.adam(lr), target, ...)`,
    since it needs the gradients of all weights, hands on those of the active ones, and
    has the last word on the update. It keeps masks, a byte for each weight, which the
    methods of this library otherwise do without.

    Args:
      optimizer: what trains the active weights.
      target: what is pruned, or just the sparsity s, in [0, 1), a number. With
        `scope="local"` every leaf keeps its own part, as in the paper's uniform
        distribution; with "global" zeros move between leaves too. The criterion is
        magnitude.
      until: T, the step from which the masks stay, at least 1. The paper has three
        quarters of the training.
      update_every: m, optimizer steps from one move to the next, at least 1.
      drop_fraction: alpha, the fraction dropped at first, in (0, 1).
      seed: for the weights that are active at first, which are chosen at random.

    Returns:
      A transformation whose state is a `DynamicState`. Its update needs `params`, and
      sets what is not active to exactly zero. Extra arguments go to the optimizer.

    Raises:
      ValueError: at construction, if a number is out of range, the sparsity is a
        schedule or the criterion is not magnitude; in `init`, if the target does not
        fit the parameters; in `update`, if `params` is missing or the updates have
        another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> tx = swd_jax.methods.rigl(optax.sgd(0.5), 0.5, until=100, update_every=10)
      >>> gradient = {"kernel": jnp.ones((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> print(int((params["kernel"] == 0).sum()), int(state.active[0].sum()))
      2 2

    Source: Evci et al., "Rigging the lottery: making all tickets winners"
    (arXiv 1911.11134), section 3 and algorithm 1.
    """
    validation.check_step_count("until", until, least=1)
    start = _check_fraction(drop_fraction)

    def fraction(count: jax.Array) -> jax.Array:
        progress = jnp.minimum(count / until, 1)
        return jnp.where(count < until, start / 2 * (1 + jnp.cos(jnp.pi * progress)), 0)

    def desire(gradient: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return gradient

    return dynamic_sparsity(
        "rigl",
        optimizer,
        target,
        update_every=update_every,
        fraction=fraction,
        desire=desire,
        seed=seed,
    )


def sparse_evolution(
    optimizer: optax.GradientTransformation,
    target: Target | validation.Number,
    *,
    update_every: int,
    drop_fraction: float = 0.3,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SET: zeros move from small weights to random ones. Goes ROUND the optimizer.

    As `rigl`, but the fraction of the active weights that is dropped does not fall, and
    the weights that become active, from zero, are chosen at random.

    Where it stands: round the whole optimizer, as `rigl`, with the same masks.

    Args:
      optimizer: what trains the active weights.
      target: as for `rigl`.
      update_every: optimizer steps from one move to the next, at least 1: in the paper,
        the steps of an epoch.
      drop_fraction: zeta, in (0, 1).
      seed: for all that is chosen at random.

    Returns:
      A transformation whose state is a `DynamicState`, with the habits of `rigl`.

    Raises:
      ValueError: as `rigl`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> tx = swd_jax.methods.sparse_evolution(optax.sgd(0.5), 0.5, update_every=10)
      >>> gradient = {"kernel": jnp.ones((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> print(int((params["kernel"] == 0).sum()), int(state.active[0].sum()))
      2 2

    Source: Mocanu et al., "Scalable training of artificial neural networks with
    adaptive sparse connectivity" (Nature Communications 9, 2383), algorithm 1.
    """
    start = _check_fraction(drop_fraction)

    def fraction(count: jax.Array) -> jax.Array:
        del count
        return jnp.asarray(start, jnp.float32)

    def desire(gradient: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, gradient.shape)

    return dynamic_sparsity(
        "sparse_evolution",
        optimizer,
        target,
        update_every=update_every,
        fraction=fraction,
        desire=desire,
        seed=seed,
    )


def _check_fraction(value: float) -> float:
    number = validation.as_decimal("drop_fraction", value)
    if number is None or not 0 < number < 1:
        raise ValueError(f"drop_fraction must be in (0, 1), got {value!r}")
    return float(number)
