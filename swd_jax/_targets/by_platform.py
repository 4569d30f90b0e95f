"""Computations that are laid out in memory for the platform that runs them."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

from swd_jax._targets.resolve import ResolvedTargets

Result = TypeVar("Result")


def compute_by_platform(
    resolved: ResolvedTargets,
    compute: Callable[[ResolvedTargets], Result],
    inputs: Any = (),
) -> Result:
    """Return `compute(resolved)`, with structures in their forms for TPUs on a TPU.

    Traced once for TPUs and once for all other platforms, if a structure has a form for
    TPUs. Both give the same bits. Outside of jit the arrays say where they are.

    Args:
      resolved: the targets and their leaves.
      compute: returns a tree of arrays.
      inputs: what else it reads: a tree of arrays.
    """
    for_tpu = resolved.for_tpu()
    if for_tpu is resolved:
        return compute(resolved)
    arrays = jax.tree.leaves((inputs, [leaf.weights for leaf in resolved.leaves]))
    if not any(isinstance(array, Tracer) for array in arrays):
        return compute(on_platform_of_weights(resolved))
    structure: Any = None

    def flat(targets: ResolvedTargets) -> list[Any]:
        nonlocal structure
        results, structure = jax.tree.flatten(compute(targets))
        return results

    results = jax.lax.platform_dependent(
        tpu=lambda: flat(for_tpu), default=lambda: flat(resolved)
    )
    return jax.tree.unflatten(structure, results)


def on_platform_of_weights(resolved: ResolvedTargets) -> ResolvedTargets:
    """Return the targets with structures in their forms for TPUs if weights are on one.

    Args:
      resolved: the targets and their leaves. Where traced weights are is not known.
    """
    platforms = {
        device.platform
        for leaf in resolved.leaves
        if isinstance(leaf.weights, jax.Array) and not isinstance(leaf.weights, Tracer)
        for device in leaf.weights.devices()
    }
    return resolved.for_tpu() if "tpu" in platforms else resolved
