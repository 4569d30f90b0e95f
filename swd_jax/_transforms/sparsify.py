"""`sparsify`: sparse by a step, with nothing else to choose."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optax
from jax.typing import DTypeLike

from swd_jax._allocation.sparsity_values import Sparsity
from swd_jax._arguments import schedule_probes, validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Target, Targets, as_targets
from swd_jax._transforms.latent_pruning import prune_latents
from swd_jax.schedules import cubic_sparsity

# Chosen on held-out data of several tasks; see docs/study.md.
_RISE = 0.5
_FORGETTING = 0.05
_POWER = 2.0
_MAX_RESCALE = 4.0
_PRUNED_GRADIENT_SCALE = 0.5

# In one step, of a schedule in a run of more than a few steps.
_LARGE_RISE = 0.5
_FEW_STEPS = 100


def sparsify(
    target: Targets,
    total_steps: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    begin: int = 0,
    end: int | None = None,
    memory: DTypeLike | None = None,
    tolerance: validation.Number | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Make a network sparse while it trains, with nothing to tune. Goes LAST.

    The sparsity rises along a cubic from 0 at `begin` to the target at `end`. From
    then on the parameters are sparse at every step: a checkpoint is a sparse network,
    and `prune` changes nothing. (Weights that tie at the threshold are kept; `prune`
    settles these.) What pruning takes from a weight is kept in a memory,
    which the optimizer's updates reach as they reach the weight, so that a pruned
    weight comes back once it has become one of the largest. At every step, with the
    optimizer's update u and the memory m:

    .. math::

        l_i &\leftarrow w_i + m_i + u_i \\
        S_t &= \{ i : |l_i| < \tau_t \} \\
        f_i &= \sqrt{l_i^2 - \sigma_t^2}\, \operatorname{sign}(l_i)
            \;\text{ where } i \notin S_t, \text{ else } 0 \\
        w_i &\leftarrow f_i \,
            \min(4,\; \lVert l_{\notin S_t} \rVert / \lVert f \rVert)
            \quad\text{leaf by leaf} \\
        l_i &\leftarrow l_i \,/\,
            (1 + 0.05\, \lVert u \rVert / \lVert l_{\notin S_t} \rVert)
            \quad\text{where } i \in S_t, \text{ leaf by leaf} \\
        m_i &\leftarrow l_i - w_i

    :math:`\tau_t` is the threshold of `swd` for the latent weights l, and
    :math:`\sigma_t` the largest magnitude that is pruned. (With a criterion of score s
    other than :math:`|l|`, f is :math:`l \sqrt{1 - \sigma_t^2 / s^2}`.) Three parts
    work together. Zeros are exact, and no weight jumps when it crosses the threshold.
    What the threshold takes from the norm of a leaf is given back. And the selected
    weights decay, as in selective weight decay, but in the memory: in proportion to
    the relative change of their leaf, so that what they learned long ago counts less.

    Where it stands: last, after an optimizer that moves every weight by its own
    gradients: `optax.chain(optax.adam(1e-3), sparsify(0.95, total_steps))`. Around any
    other: `sparsify(0.95, total_steps, optimizer=optax.adamw(1e-3))`. The optimizer
    then has the latent weights w + m as its parameters, and the gradients of pruned
    weights are halved before it reads them. In a chain it has the sparse weights:
    weight decay does not reach the memory, LAMB and LARS shorten their steps to suit
    the small norm of a sparse network, and Muon and Shampoo, which combine the
    gradients of a matrix, spend most of a step on pruned weights.

    Args:
      target: what is pruned, or just the sparsity, in [0, 1); or several targets, each
        for leaves of its own. A sparsity that is a schedule already is used as it is.
      total_steps: the number of optimizer steps of the whole training, counted from the
        `init` of this transformation. To make a trained network sparse, start with its
        parameters, and give the number of steps that fine-tuning has.
      optimizer: the whole optimizer, with its learning rate and weight decay, if it is
        not before this in a chain.
      begin: the step at which the sparsity begins to rise, at least 0.
      end: the step from which the parameters have the whole target sparsity, after
        `begin` and at most `total_steps`. By default half of the way from `begin` to
        `total_steps`, which suits learning rates that fall towards the end. With a
        constant one and very few weights kept, a later `end` is better, such as
        `round(0.7 * total_steps)`.
      memory: the dtype of the memory, by default float32, or float64 for float64
        weights. bfloat16 takes half of the bytes.
      tolerance: as for `swd`. With more than 0, so many weights may be missing in the
        sparsity until `prune` is called.
      axis_name: as for `swd`.

    Returns:
      A transformation whose state is a `methods.LatentState`: a few scalars, and the
      memory, an array for every prunable leaf (4 bytes a weight, 2 in bfloat16). With
      `optimizer`, a `methods.LatentOptimizerState` holds it and the optimizer's state.
      With parameters in bfloat16 the memory holds what their rounding drops, so that
      small updates are not lost. The update needs `params`, which it takes as they are:
      if something else changes them between two steps, training goes on from there. It
      keeps the dtype of the updates, except where that has fewer bits than the
      parameters'. Criteria that read the gradient need the extra argument `gradient`,
      unless there is `optimizer`, which gets all extra arguments.
      Weights that `NM` never prunes, and those of criteria whose scores may be
      negative, are not shrunk towards the threshold.

    Raises:
      ValueError: at construction, if a number is out of range, `optimizer` is no
        transformation, or `begin` or `end` is given and every sparsity is a schedule
        already, or one leaves [0, 1) in the run; in `init`, if the target does not fit
        the parameters; in `update`, if `params` is missing, or the updates or the
        memory have another structure.

    Warns:
      UserWarning: if a schedule of the sparsity rises by more than 0.5 in one step.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(optax.adam(0.1), swd_jax.sparsify(0.5, total_steps=10))
      >>> state = tx.init(params)
      >>> for step in range(10):
      ...     updates, state = tx.update(params, state, params)  # of sum(w^2) / 2
      ...     params = optax.apply_updates(params, updates)
      >>> print(params["kernel"].round(1))
      [[0. 0. 2. 3.]]
      >>> print(swd_jax.summarize(params, 0.5).obtained_sparsity)
      0.5

    Source: see `methods.latent_pruning`, of which this is one setting. The rise is that
    of Zhu & Gupta (arXiv 1710.01878).
    """
    targets = as_targets(target)
    has_own_rise = all(
        callable(sparsity)
        for entry in targets
        for sparsity in entry.allocation.all_sparsities()
    )
    if has_own_rise and (begin != 0 or end is not None):
        raise ValueError(
            f"begin is {begin!r} and end {end!r}, and the sparsity is a schedule, "
            "which says itself when it rises: leave them out, or give sparsify a "
            f"number, got {shown(target)}"
        )
    begin, end, total_steps = _checked_steps(begin, end, total_steps)
    _check_own_schedules(targets, total_steps)
    rising = tuple(_rising(entry, begin, end) for entry in targets)
    return prune_latents(
        "sparsify",
        rising,
        forgetting=_FORGETTING,
        power=_POWER,
        max_rescale=_MAX_RESCALE,
        optimizer=optimizer,
        pruned_gradient_scale=None if optimizer is None else _PRUNED_GRADIENT_SCALE,
        memory=memory,
        tolerance=tolerance,
        axis_name=axis_name,
        rise_end=0 if has_own_rise else end,
        total_steps=total_steps,
    )


def _checked_steps(begin: Any, end: Any, total_steps: Any) -> tuple[int, int, int]:
    steps = {"total_steps": total_steps, "begin": begin, "end": end}
    for name, value in steps.items():
        validation.refuse_traced(name, value)
    validation.as_step_count("total_steps", total_steps, minimum=1)
    validation.as_step_count("begin", begin, minimum=0)
    begin, total_steps = int(begin), int(total_steps)
    if begin >= total_steps:
        raise ValueError(
            f"begin must be less than total_steps, {total_steps}, got {begin}"
        )
    if end is None:
        end = begin + max(1, round(_RISE * (total_steps - begin)))
    validation.check_end(begin, end)
    if end > total_steps:
        raise ValueError(
            f"end must be at most total_steps, {total_steps}, got {end}: the run would "
            "be over before the target is reached"
        )
    return begin, int(end), total_steps


def _check_own_schedules(targets: tuple[Target, ...], total_steps: int) -> None:
    """Raise or warn if a schedule of a user leaves [0, 1) in the run, or jumps."""
    if total_steps < _FEW_STEPS:
        return
    for sparsity in (s for t in targets for s in t.allocation.all_sparsities()):
        if not callable(sparsity):
            continue
        steps = np.unique(np.linspace(0, total_steps, 257).astype(np.int32))
        values = schedule_probes.evaluate(sparsity, steps)
        if values is None:
            continue
        outside = np.flatnonzero(~((values > -1e-6) & (values < 1)))
        if outside.size:
            raise ValueError(
                "sparsity must be in [0, 1) at all steps of the run, got a schedule "
                f"that is {values[outside[0]]:.6g} at step {steps[outside[0]]:,}"
            )
        rise = schedule_probes.largest_rise(sparsity, total_steps)
        if rise is not None and rise[1] > _LARGE_RISE:
            warnings.warn(
                f"The sparsity's schedule rises by {rise[1]:.2g} in one step, that "
                f"to {rise[0] + 1:,}: the network has no time to make up for what is "
                "pruned. Give sparsify a number, which rises along a cubic, or a "
                "schedule that rises over many steps.",
                stacklevel=3,
            )


def _rising(target: Target, begin: int, end: int) -> Target:
    """Return a target whose constant sparsities rise from 0."""

    def rise(sparsity: Sparsity) -> Sparsity:
        if callable(sparsity):
            return sparsity
        return cubic_sparsity(sparsity, begin, end)

    scope: Any = target.scope
    if isinstance(scope, Mapping):
        scope = {pattern: rise(sparsity) for pattern, sparsity in scope.items()}
    return dataclasses.replace(target, sparsity=rise(target.sparsity), scope=scope)
