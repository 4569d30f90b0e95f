"""Targets of every structure, criterion and scope, and what they prune by brute force.

For test_every_target.py and for sharded_program.py.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

import swd_jax
from swd_jax.criteria import _criterion
from tests.helpers import reference, structured

# In the order in which JAX has the leaves of a dict.
SHAPES = {"conv": (3, 2, 4, 16), "in": (12, 16), "out": (16, 12)}
STRUCTURES = {
    "single": swd_jax.Unstructured(),
    "blocks": swd_jax.Block((4, 2)),
    "edges": swd_jax.Block((3, 5), norm="l1"),
    "columns": swd_jax.Block((None, 1), norm="l2"),
    "2 of 4": swd_jax.NM(2, 4),
    "3 of 5": swd_jax.NM(3, 5, axis=-1),
    "outputs": swd_jax.Channel(-1),
    "heads": swd_jax.Channel(-1, size=4, norm="mean"),
}
CRITERIA = {
    "magnitude": swd_jax.criteria.magnitude,
    "normalized": swd_jax.criteria.normalized_magnitude,
    "rms": swd_jax.criteria.rms_normalized_magnitude,
    "lamp": swd_jax.criteria.lamp,
    "saliency": swd_jax.criteria.saliency,
    "mean saliency": swd_jax.criteria.mean_saliency(),
    "movement": swd_jax.criteria.movement,
    "fisher": swd_jax.criteria.fisher,
    "random": swd_jax.criteria.random_scores(5),
    "squares": lambda weights: weights * weights,
}
# With the leaves that are ranked together and, in places, their sparsities.
SCOPES = {
    "global": ("global", [[0, 1, 2]], [0.4]),
    "local": ("local", [[0], [1], [2]], [0.4] * 3),
    "erk": ("erk", [[0], [1], [2]], None),
    "mapping": ({"^in$": 0.1, "conv": 0.25}, [[1], [0], [2]], [0.1, 0.25, 0.4]),
}
EVERY = [(s, c, g) for s in STRUCTURES for c in CRITERIA for g in SCOPES]
# Each structure with two criteria and scopes, each criterion and scope at least once.
SOME = [
    (s, [*CRITERIA][(2 * i + k) % len(CRITERIA)], [*SCOPES][(i + 2 * k) % len(SCOPES)])
    for i, s in enumerate(STRUCTURES)
    for k in range(2)
]


def target_of(structure: str, criterion: str, scope: str) -> swd_jax.Target:
    return swd_jax.Target(
        0.4,
        structure=STRUCTURES[structure],
        criterion=CRITERIA[criterion],
        scope=SCOPES[scope][0],
    )


def random_case(seed: int, dtype) -> tuple[dict, dict]:
    """Weights and what criteria look at; every other time so rounded that much ties."""
    rng = np.random.default_rng(seed)
    params, gradient = (
        {
            name: rng.normal(size=shape).round(1 if seed % 2 else 7).astype(dtype)
            for name, shape in SHAPES.items()
        }
        for _ in range(2)
    )
    return params, {
        "gradient": gradient,
        "accumulated": {
            name: leaf.astype(np.float32) for name, leaf in gradient.items()
        },
        "nu": {
            name: np.abs(leaf).astype(np.float32) for name, leaf in gradient.items()
        },
    }


def needed(target: swd_jax.Target, extra_args: dict) -> dict:
    """What a target's criterion looks at; none but movement gathers what has a sign."""
    found = {name: extra_args[name] for name in target.criterion.input_names}
    if "accumulated" in found and not target.criterion.signed:
        found["accumulated"] = {
            name: np.abs(e) for name, e in found["accumulated"].items()
        }
    return found


def expected_masks(
    structure: str, criterion: str, scope: str, params: dict, extra_args: dict
) -> dict[str, np.ndarray]:
    """What is kept, by brute force: each group's score and cost, sorted."""
    target = target_of(structure, criterion, scope)
    leaves = [*params.values()]
    scores = [
        np.asarray(each)
        for each in _scores(target.criterion, leaves, needed(target, extra_args))
    ]
    found = [_groups(target, each) for each in scores]
    _, ranked, sparsities = SCOPES[scope]
    if sparsities is None:
        sparsities = [erk_sparsity(leaf.shape) for leaf in leaves]
    masks = [np.empty(0)] * len(leaves)
    for group, sparsity in zip(ranked, sparsities, strict=True):
        budget = reference.pruned_count(sparsity, sum(leaves[i].size for i in group))
        lost = reference.group_lowest(
            [found[i][0] for i in group], [found[i][1] for i in group], budget
        )
        for i, mask in zip(group, lost, strict=True):
            masks[i] = ~mask.ravel()[found[i][2]]
    return dict(zip(params, masks, strict=True))


def erk_sparsity(shape: tuple[int, ...]) -> Fraction:
    """1 - epsilon (sum of lengths) / (product of lengths); none of them is dense."""
    total = sum(np.prod(each) for each in SHAPES.values())
    epsilon = Fraction(6, 10) * int(total) / sum(map(sum, SHAPES.values()))
    kept = epsilon * sum(shape) / int(np.prod(shape))
    assert kept < 1
    return 1 - kept


def _groups(target: swd_jax.Target, scores: np.ndarray):
    if not target.criterion.signed:
        return structured.groups(target.structure, scores)
    if isinstance(target.structure, swd_jax.NM | swd_jax.Unstructured):
        return structured.groups(target.structure, _told_apart(scores))
    # A group's score is what speaks for it, less what speaks against it.
    above, sizes, members = structured.groups(target.structure, scores.clip(0))
    below, _, _ = structured.groups(target.structure, (-scores).clip(0))
    return _told_apart(above - below), sizes, members


def _told_apart(scores: np.ndarray) -> np.ndarray:
    """Scores of either sign as they are compared: by all of their bits but the last."""
    pattern = np.asarray(scores, np.float32).view(np.int32)
    ascending = np.where(pattern < 0, pattern ^ np.int32(0x7FFFFFFF), pattern) >> 1
    return np.where(np.isfinite(scores), ascending.astype(np.float64), np.inf)


def _scores(
    criterion: swd_jax.criteria.Criterion, leaves: list, extra_args: dict
) -> list:
    """Scores of single weights, which test_criteria.py holds against NumPy."""
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    dtype = jnp.dtype(jnp.float32)
    statistics = _criterion.statistics(criterion, leaves, dtype)

    @jax.jit
    def scored(leaf, statistic, extra_args):
        return _criterion.scores(criterion, leaf, statistic, extra_args, dtype)

    return [
        scored(
            leaf,
            statistic,
            {n: jnp.asarray([*e.values()][i]) for n, e in extra_args.items()},
        )
        for i, (leaf, statistic) in enumerate(zip(leaves, statistics, strict=True))
    ]
