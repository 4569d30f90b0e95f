"""Targets of every structure, criterion and scope, with masks by brute force.

For test_every_target.py and for sharded_program.py.
"""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

import swd_jax
from swd_jax.criteria import _criterion
from tests.helpers import reference, structured

DTYPE = jnp.dtype(jnp.float32)
# Sorted by name, as JAX orders the leaves of a dict.
SHAPES = {"conv": (3, 2, 4, 16), "in": (12, 16), "out": (16, 12)}
STRUCTURES = {
    "single": swd_jax.Unstructured(),
    "blocks": swd_jax.Block((4, 2)),
    "edges": swd_jax.Block((3, 5), norm="l1"),
    "columns": swd_jax.Block((None, 1), norm="l2"),
    "2 of 4": swd_jax.NM(2, 4, axis=-2),
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
# For each scope: its pools as positions of leaves, and the sparsity of each pool.
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
    """Return weights and extra arguments; odd seeds round them, so that many tie."""
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
    """Return the extra arguments of a criterion; only movement accumulates signs."""
    arguments = {name: extra_args[name] for name in target.criterion.input_names}
    if "accumulated" in arguments and not target.criterion.signed:
        accumulated = arguments["accumulated"].items()
        arguments["accumulated"] = {name: np.abs(leaf) for name, leaf in accumulated}
    return arguments


def expected_masks(
    structure: str, criterion: str, scope: str, params: dict, extra_args: dict
) -> dict[str, np.ndarray]:
    """Return masks of the kept weights, from sorted scores of all units."""
    target = target_of(structure, criterion, scope)
    leaves = [*params.values()]
    scores = [
        np.asarray(leaf_scores)
        for leaf_scores in _scores(target.criterion, leaves, needed(target, extra_args))
    ]
    units = [_units(target, leaf_scores) for leaf_scores in scores]
    _, pools, sparsities = SCOPES[scope]
    if sparsities is None:
        sparsities = [erk_sparsity(leaf.shape) for leaf in leaves]
    masks = [np.empty(0)] * len(leaves)
    for pool, sparsity in zip(pools, sparsities, strict=True):
        budget = reference.pruned_count(sparsity, sum(leaves[i].size for i in pool))
        pruned = reference.group_lowest(
            [units[i][0] for i in pool], [units[i][1] for i in pool], budget
        )
        for i, mask in zip(pool, pruned, strict=True):
            masks[i] = ~mask.ravel()[units[i][2]]
    return dict(zip(params, masks, strict=True))


def erk_sparsity(shape: tuple[int, ...]) -> Fraction:
    """1 - epsilon (sum of lengths) / (product of lengths); none of them is dense."""
    total = sum(np.prod(shape) for shape in SHAPES.values())
    epsilon = Fraction(6, 10) * int(total) / sum(map(sum, SHAPES.values()))
    kept = epsilon * sum(shape) / int(np.prod(shape))
    assert kept < 1
    return 1 - kept


def _units(target: swd_jax.Target, scores: np.ndarray):
    if not target.criterion.signed:
        return structured.groups(target.structure, scores)
    if isinstance(target.structure, swd_jax.NM | swd_jax.Unstructured):
        return structured.groups(target.structure, _comparable(scores))
    # A unit's score is the norm of its positive part less that of its negative part.
    above, sizes, members = structured.groups(target.structure, scores.clip(0))
    below, _, _ = structured.groups(target.structure, (-scores).clip(0))
    return _comparable(above - below), sizes, members


def _comparable(scores: np.ndarray) -> np.ndarray:
    """Return signed scores as the library compares them: without their last bit."""
    pattern = np.asarray(scores, np.float32).view(np.int32)
    ascending = np.where(pattern < 0, pattern ^ np.int32(0x7FFFFFFF), pattern) >> 1
    return np.where(np.isfinite(scores), ascending.astype(np.float64), np.inf)


def _scores(
    criterion: swd_jax.criteria.Criterion, leaves: list, extra_args: dict
) -> list:
    """Return scores of single weights; test_criteria.py compares these with NumPy."""
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    statistics = _criterion.statistics(criterion, leaves, DTYPE)
    return [
        _scores_of_leaf(
            leaf,
            statistic,
            {n: jnp.asarray([*e.values()][i]) for n, e in extra_args.items()},
            criterion=criterion,
        )
        for i, (leaf, statistic) in enumerate(zip(leaves, statistics, strict=True))
    ]


# One function for all calls: jax would compile a function defined in `_scores` anew.
@functools.partial(jax.jit, static_argnames="criterion")
def _scores_of_leaf(leaf, statistic, extra_args, criterion):
    return _criterion.scores(criterion, leaf, statistic, extra_args, DTYPE)
