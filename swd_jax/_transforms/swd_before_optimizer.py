"""Selective weight decay before the optimizer, as in the paper."""

import jax
import optax

from swd_jax._arguments import validation
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Targets
from swd_jax._transforms.selective_decay import selective_decay


def swd(
    target: Targets,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    update_every: int = 1,
    tolerance: validation.Number | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Selective weight decay as in the paper. Goes BEFORE the optimizer.

    At every step the k = floor(s n) weights that the target would prune now, and only
    those, get a decay that grows over training:

    .. math::

        \tau_t &= \text{the (k+1)-th smallest } |w| \text{ of all prunable weights} \\
        g_i &\leftarrow g_i + a(t)\, \mu\, w_i \quad\text{where } |w_i| < \tau_t

    (with the scores of the target's criterion in place of :math:`|w|`, where it has
    another). The selection is made anew from the current weights at every step, so a
    weight that grows past the threshold is no longer decayed. At the end the selected
    weights are so small that `prune` changes nothing. Ordinary decay of all weights is
    separate: `optax.add_decayed_weights`.

    Where it stands: first, `optax.chain(swd(...), optax.adam(lr))`, so that momentum
    and Adam's moments see the decay as part of the gradient. An optimizer that
    normalises its gradients (Adam, Lion, LAMB, ...) then moves a selected weight by at
    most about the learning rate a step. With SGD a selected weight shrinks by
    `lr * a * mu` of itself a step. Training diverges once that passes
    `2 * (1 + momentum)`, and with momentum it can diverge before: wrap `a` in
    `bound_multiplier`, which keeps it where nothing can grow, or use `proximal_swd`,
    which is stable for any value. Clip gradients before `swd`: after
    `swd`, a growing penalty would make the clipping shrink the gradients of all
    weights.

    Args:
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      weight_decay: mu, at least 0; a number or a schedule of the optimizer step.
      a: the multiplier a(t), at least 0; a number or a schedule of the optimizer step,
        such as `exponential_growth(...)`.
      update_every: the number of optimizer steps from one refresh of the threshold to
        the next, at least 1. The comparison `|w| < tau` is made at every step.
      tolerance: the fraction of the prunable weights, in [0, 1), by which fewer than k
        may be selected at a refresh; never more than k are. By default it is 0: exactly
        the weights below :math:`\tau_t` are selected, which takes two to four readings
        of the weights at most steps. With 1e-4 one reading is enough at nearly all
        steps. With `CoupledChannels` the selection is exact in any case.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the weights are
        sharded, so that the weights of all devices are counted. Not under `jit` alone.

    Returns:
      A transformation whose state is an `SwdState`: a few scalars, no masks. Its update
      needs `params`, and keeps the dtype of every leaf of the updates. A criterion that
      reads the gradient reads the updates, or the extra argument `gradient` if it is
      passed. A criterion that reads anything else reads the extra argument of that
      name. Other extra arguments are ignored.

    Raises:
      ValueError: at construction, if a number is out of range; in `init`, if the target
        does not fit the parameters; in `update`, if `params` is missing or the updates
        have another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(swd_jax.swd(0.5, weight_decay=0.1, a=2.0), optax.sgd(1.0))
      >>> state = tx.init(params)
      >>> gradient = {"kernel": jnp.zeros((1, 4))}
      >>> updates, state = tx.update(gradient, state, params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.08 -0.16  3.    4.  ]]
      >>> print(optax.tree_utils.tree_get(state, "selected_fraction"))
      0.5

    Source: section 3.1 and algorithm 1 of arXiv 2011.10520.
    """

    def add_decay(update: jax.Array, weight: jax.Array, c: jax.Array) -> jax.Array:
        return update + c * weight

    return selective_decay(
        target,
        add_decay,
        weight_decay=weight_decay,
        a=a,
        update_every=update_every,
        tolerance=tolerance,
        axis_name=axis_name,
        updates_are_gradients=True,
    )
