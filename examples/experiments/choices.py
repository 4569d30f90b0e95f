"""Choices that a run names for its target: structure, criterion, leaves."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import optax

import swd_jax

Choice = TypeVar("Choice")

STRUCTURES: dict[str, swd_jax.structures.Structure] = {
    "unstructured": swd_jax.Unstructured(),
    "block-1x4": swd_jax.Block((1, 4)),
    "block-4x4": swd_jax.Block((4, 4)),
    "channels": swd_jax.Channel(-1),
} | {f"1-of-{m}": swd_jax.NM(1, m, axis=-2) for m in (5, 10, 20, 50)}

CRITERIA: dict[str, swd_jax.criteria.Criterion] = {
    criterion.name: criterion
    for criterion in (
        swd_jax.criteria.magnitude,
        swd_jax.criteria.normalized_magnitude,
        swd_jax.criteria.rms_normalized_magnitude,
        swd_jax.criteria.lamp,
        swd_jax.criteria.saliency,
        swd_jax.criteria.movement,
        swd_jax.criteria.fisher,
    )
} | {
    "mean_saliency": swd_jax.criteria.mean_saliency(),
    # One seed for every training: a criterion is static, so that another seed would
    # compile another program.
    "random": swd_jax.criteria.random_scores(seed=0),
}


def structure(name: str) -> swd_jax.structures.Structure:
    """Return the structure of that name.

    Raises:
      ValueError: if there is none.
    """
    return _chosen("structure", name, STRUCTURES)


def criterion(name: str) -> swd_jax.criteria.Criterion:
    """Return the criterion of that name.

    Raises:
      ValueError: if there is none.
    """
    return _chosen("criterion", name, CRITERIA)


def prunable(path: str, leaf: Any, *, spared: str) -> bool:
    """Tell whether a leaf is a weight that is not spared."""
    is_spared = bool(spared) and re.search(spared, path) is not None
    return swd_jax.is_weight(path, leaf) and not is_spared


def update_args(
    criterion: swd_jax.criteria.Criterion, gradient: Any, optimizer_state: Any
) -> dict[str, Any]:
    """Return the extra arguments of a chain's `update`: trees like the parameters.

    Args:
      criterion: by which the chain selects weights.
      gradient: of this step.
      optimizer_state: before this step, where Adam's second moment is.
    """
    reads = bool(criterion.extra_args) or criterion.accumulator is not None
    arguments = {"gradient": gradient} if reads else {}
    if "nu" in criterion.extra_args:
        arguments["nu"] = optax.tree_utils.tree_get(optimizer_state, "nu")
    return arguments


def extra_args(
    criterion: swd_jax.criteria.Criterion, gradient: Any, optimizer_state: Any
) -> dict[str, Any]:
    """Return the `extra_args` of pruning after a step with that gradient."""
    names = criterion.extra_args
    if criterion.accumulator is not None:
        names = (*names, "accumulated")
    return {
        name: gradient
        if name == "gradient"
        else optax.tree_utils.tree_get(optimizer_state, name)
        for name in names
    }


def _chosen(what: str, name: str, known: Mapping[str, Choice]) -> Choice:
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {name!r}")
    return known[name]
