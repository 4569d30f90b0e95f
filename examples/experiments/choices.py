"""What a run may choose of its target by name: structure, criterion, leaves."""

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
} | {f"1-of-{m}": swd_jax.NM(1, m) for m in (5, 10, 20, 50)}

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
    # The same numbers for every seed of the training: one program trains them all.
    "random": swd_jax.criteria.random_scores(seed=0),
}


def structure(name: str) -> swd_jax.structures.Structure:
    """The structure of that name.

    Raises:
      ValueError: if there is none.
    """
    return _chosen("structure", name, STRUCTURES)


def criterion(name: str) -> swd_jax.criteria.Criterion:
    """The criterion of that name.

    Raises:
      ValueError: if there is none.
    """
    return _chosen("criterion", name, CRITERIA)


def prunable(path: str, leaf: Any, *, spared: str) -> bool:
    """Whether a leaf is a weight that is not spared."""
    is_spared = bool(spared) and re.search(spared, path) is not None
    return swd_jax.is_weight(path, leaf) and not is_spared


def extra_arguments(
    criterion: swd_jax.criteria.Criterion, gradient: Any, optimizer_state: Any
) -> dict[str, Any]:
    """What the chain is told at a step, for the criterion: trees like the parameters.

    Of the optimizer it is what is known before the step.
    """
    known = {"gradient": gradient} if criterion.evidence else {}
    if "nu" in criterion.needs:
        known["nu"] = optax.tree_utils.tree_get(optimizer_state, "nu")
    return known


def evidence(
    criterion: swd_jax.criteria.Criterion, gradient: Any, optimizer_state: Any
) -> dict[str, Any]:
    """What pruning is told, for the criterion, after a step with that gradient."""
    return {
        name: gradient
        if name == "gradient"
        else optax.tree_utils.tree_get(optimizer_state, name)
        for name in criterion.evidence
    }


def _chosen(what: str, name: str, known: Mapping[str, Choice]) -> Choice:
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {name!r}")
    return known[name]
