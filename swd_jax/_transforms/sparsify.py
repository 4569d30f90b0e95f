"""`sparsify`: sparse by a step, with nothing else to choose."""

import dataclasses

import optax
from jax.typing import DTypeLike

from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Target, Targets, as_targets
from swd_jax._transforms.latent_pruning import latent_pruning
from swd_jax.schedules import cubic_sparsity


def sparsify(
    target: Targets,
    total_steps: int,
    *,
    begin: int = 0,
    end: int | None = None,
    memory_dtype: DTypeLike | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    if end is None:
        end = begin + round(0.7 * (total_steps - begin))
    return latent_pruning(
        tuple(_rising(entry, begin, end) for entry in as_targets(target)),
        forgetting=0.1,
        memory_dtype=memory_dtype,
        axis_name=axis_name,
    )


def _rising(target: Target, begin: int, end: int) -> Target:
    if callable(target.sparsity):
        return target
    rising = cubic_sparsity(target.sparsity, begin, end)
    return dataclasses.replace(target, sparsity=rising)
