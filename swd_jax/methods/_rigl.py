"""RigL and SET: weights dropped by magnitude, and grown by gradient or at random."""

import warnings

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._targets.target import Target
from swd_jax.methods._drop_and_grow import drop_and_grow


def rigl(
    optimizer: optax.GradientTransformation,
    target: Target | validation.Number,
    *,
    until: int,
    update_every: int = 100,
    drop_fraction: float = 0.3,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""RigL: drop small weights, grow where gradients are large. WRAPS the optimizer.

    The network has its final sparsity from the first step. Every m steps, in place of a
    step of the optimizer, each pool of leaves drops the fraction

    .. math:: f(t) = \tfrac{\alpha}{2} \left(1 + \cos \frac{\pi t}{T}\right)

    of its active weights, those with the smallest magnitude, and makes as many inactive
    weights active, from zero, those whose gradient has the largest magnitude. A weight
    that has just been dropped may be among them. From step T on the masks do not
    change.

    Where it stands: around the whole optimizer, `rigl(optax.adam(lr), target, ...)`,
    because it reads the gradients of all weights, passes on those of the active ones,
    and must set the final update of inactive weights. Its state holds masks, one byte
    for each prunable weight, sharded like the parameters.

    Args:
      optimizer: the optimizer of the active weights.
      target: what is pruned, or just the sparsity s, in [0, 1), a number. With
        `scope="erk"` every leaf keeps a part that follows from its shape, kernel sides
        included: the paper's better distribution. With "local" all keep the same part,
        which is its uniform one if `prunable` leaves out the first layer. With "global"
        zeros move between leaves too, which is not in the paper. The criterion is
        magnitude.
      until: T, the step from which the masks do not change, at least 1. The paper uses
        three quarters of the training.
      update_every: m, optimizer steps from one exchange to the next, at least 1.
      drop_fraction: alpha, the fraction dropped at first, in (0, 1).
      seed: the seed of the random choice of the first active weights.

    Returns:
      A transformation whose state is a `DynamicState`. Its update needs `params`, and
      sets what is not active to exactly zero. Extra arguments go to the optimizer.

    Raises:
      ValueError: at construction, if a number is out of range, `optimizer` is no
        transformation, the sparsity is a schedule or the criterion is not magnitude; in
        `init`, if the target does not fit the parameters; in `update`, if `params` is
        missing or the updates have another structure.

    Warns:
      UserWarning: if `update_every` is not less than `until`: no mask would change.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> tx = swd_jax.methods.rigl(optax.sgd(0.5), 0.5, until=100, update_every=10)
      >>> gradient = {"kernel": jnp.ones((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> print(int((params["kernel"] == 0).sum()), int(state.active["kernel"].sum()))
      2 2

    Source: Evci et al., "Rigging the lottery: making all tickets winners"
    (arXiv 1911.11134), section 3 and algorithm 1.
    """
    until = validation.as_step_count("until", until, minimum=1)
    start = _check_fraction(drop_fraction)
    update_every = validation.as_step_count("update_every", update_every, minimum=1)
    steps = (until, update_every)
    if all(isinstance(number, int) for number in steps) and update_every >= until > 1:
        warnings.warn(
            f"The masks of rigl never change: update_every is {update_every}, and "
            f"until {until}, the step from which they stay as they are. Give a smaller "
            "update_every, or a later until.",
            stacklevel=2,
        )

    def fraction_at(count: jax.Array) -> jax.Array:
        progress = jnp.minimum(count / until, 1)
        return jnp.where(count < until, start / 2 * (1 + jnp.cos(jnp.pi * progress)), 0)

    def growth_scores(gradient: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return gradient

    return drop_and_grow(
        "rigl",
        optimizer,
        target,
        update_every=update_every,
        drop_fraction=fraction_at,
        growth_scores=growth_scores,
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
    """SET: drop small weights, grow others at random. WRAPS the optimizer.

    As `rigl`, but the fraction of the active weights that is dropped is constant, and
    the weights that become active, from zero, are chosen at random.

    Where it stands: around the whole optimizer, as `rigl`, with the same masks.

    Args:
      optimizer: the optimizer of the active weights.
      target: as for `rigl`.
      update_every: optimizer steps from one exchange to the next, at least 1. The paper
        uses the steps of an epoch.
      drop_fraction: zeta, in (0, 1).
      seed: the seed of every random choice.

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
      >>> print(int((params["kernel"] == 0).sum()), int(state.active["kernel"].sum()))
      2 2

    Source: Mocanu et al., "Scalable training of artificial neural networks with
    adaptive sparse connectivity" (Nature Communications 9, 2383), algorithm 1.
    """
    start = _check_fraction(drop_fraction)

    def fraction_at(count: jax.Array) -> jax.Array:
        del count
        return jnp.asarray(start, jnp.float32)

    def growth_scores(gradient: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, gradient.shape, jnp.float32)

    return drop_and_grow(
        "sparse_evolution",
        optimizer,
        target,
        update_every=update_every,
        drop_fraction=fraction_at,
        growth_scores=growth_scores,
        seed=seed,
    )


def _check_fraction(value: float) -> float:
    validation.refuse_traced("drop_fraction", value)
    number = validation.as_decimal("drop_fraction", value)
    if number is None or not 0 < number < 1:
        raise ValueError(f"drop_fraction must be in (0, 1), got {shown(value)}")
    return float(number)
