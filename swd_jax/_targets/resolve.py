"""What targets prune, found in a tree of parameters and ready to be ranked."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from swd_jax._allocation import exact_counts, scopes
from swd_jax._allocation.prunable_leaves import PrunableLeaf, find_prunable
from swd_jax._arrays import sort_keys, tiling, tree_paths, uint64
from swd_jax._arrays.manual_sharding import AxisName, Shards, find_shards
from swd_jax._ranking import channel_layout, ranked_channels
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax._ranking.leaf_ranking import Ranking
from swd_jax._targets.target import Target
from swd_jax.criteria import _criterion
from swd_jax.structures import _structure
from swd_jax.structures._coupled_channels import CoupledChannels


class Ranked(NamedTuple):
    """What one target prunes."""

    target: Target
    leaves: list[PrunableLeaf]
    ranking: Ranking | ChannelRanking

    def sparsities(self, step: ArrayLike | None) -> list[Fraction | jax.Array]:
        """The sparsity of every group of leaves at a step."""
        if isinstance(self.ranking, ChannelRanking):
            return [exact_counts.sparsity_at(self.target.sparsity, step)]
        return scopes.group_sparsities(
            self.target.scope,
            self.target.sparsity,
            step,
            [leaf.weights.shape for leaf in self.leaves],
            self.ranking.groups,
        )

    def counts(self, step: ArrayLike | None) -> jax.Array:
        """K of every group of leaves at a step: wide numbers, shape (groups, 4)."""
        if not self.ranking.groups:
            return jnp.zeros((0, uint64.LIMBS), jnp.uint32)
        sparsities = self.sparsities(step)
        if isinstance(self.ranking, ChannelRanking):
            ranked_channels.check_reachable(self.ranking.layout, sparsities[0])
        return self.ranking.counts(sparsities)


def find_leaves(
    targets: Sequence[Target], tree: tree_paths.Flat, params: Any
) -> list[list[PrunableLeaf]]:
    """The leaves that each target prunes.

    Raises:
      ValueError: if a target fits none of the parameters, or two prune the same leaf.
    """
    found = [_leaves(target, tree, params) for target in targets]
    taken: dict[str, Target] = {}
    for target, leaves in zip(targets, found, strict=True):
        for leaf in leaves:
            if leaf.path in taken:
                raise ValueError(
                    f"two targets prune {leaf.path!r}: {taken[leaf.path]} and "
                    f"{target}. Give each its own leaves, with prunable=..."
                )
            taken[leaf.path] = target
    return found


def _leaves(target: Target, tree: tree_paths.Flat, params: Any) -> list[PrunableLeaf]:
    if isinstance(target.structure, CoupledChannels):
        return channel_layout.find_leaves(
            target.structure, target.prunable, tree, params
        )
    return find_prunable(target.prunable, tree, params)


def rank(
    params: Any,
    targets: Sequence[Target],
    axis_name: AxisName = None,
    *,
    evidence: Mapping[str, Any] | None = None,
    way: str = "evidence={{{name!r}: ...}}",
) -> tuple[tree_paths.Flat, list[Ranked]]:
    """Find and rank what targets prune.

    Args:
      params: any tree of arrays.
      targets: what is pruned.
      axis_name: mesh axes over which the arrays are divided by hand, if they are.
      evidence: what criteria look at besides the weights: trees like the parameters.
      way: how the caller's user gives what is missing there, for an error.

    Returns:
      The parameters flattened, and what each target prunes.

    Raises:
      ValueError: if a target does not fit the parameters, or evidence is missing.
    """
    tree = tree_paths.flatten(params)
    found = find_leaves(targets, tree, params)
    ranked = []
    for target, leaves in zip(targets, found, strict=True):
        seen = _evidence(target, leaves, evidence or {}, way)
        layout = ranked_channels.find_layout(target, tree, params, leaves)
        if layout is not None:
            ranking = ranked_channels.ranking(target, layout, leaves, seen, axis_name)
        else:
            ranking = _ranking(target, leaves, seen, axis_name)
        ranked.append(Ranked(target, leaves, ranking))
    return tree, ranked


def check_leaves(
    target: Target, leaves: Sequence[PrunableLeaf], shards: Shards | None = None
) -> None:
    """Raise if a target's structure or scope does not fit one of its leaves."""
    if isinstance(target.structure, CoupledChannels):
        return
    for i, leaf in enumerate(leaves):
        divided = shards is not None and bool(shards.of_leaf[i])
        _structure.check_leaf(
            target.structure,
            leaf.path,
            leaf.weights.shape,
            divided=divided,
            parts=tiling.parts_of(leaf.weights),
        )
        if divided and target.scope == "erk":
            raise ValueError(
                "scope 'erk' needs the shapes of whole leaves, and with axis_name "
                f"{leaf.path!r} is a part of one: leave out axis_name, under jit over "
                "a mesh, or give each leaf's sparsity in a mapping"
            )


def _ranking(
    target: Target,
    leaves: list[PrunableLeaf],
    evidence: list[_criterion.Evidence],
    axis_name: AxisName,
) -> Ranking:
    # The selection is piecewise constant: nothing to differentiate.
    structure = target.structure
    if isinstance(structure, CoupledChannels):  # of a tree without leaves
        structure = _structure.Unstructured()
    weights = [jax.lax.stop_gradient(jnp.asarray(leaf.weights)) for leaf in leaves]
    dtype = sort_keys.score_dtype(*(leaf.dtype for leaf in weights))
    shards = find_shards(weights, axis_name)
    check_leaves(target, leaves, shards)
    criterion = target.known_criterion
    ranking = Ranking(
        weights=weights,
        statistics=_criterion.statistics(criterion, weights, dtype, shards),
        criterion=criterion,
        dtype=dtype,
        groups=scopes.find_groups(target.scope, leaves),
        evidence=evidence,
        structure=structure,
        shards=shards,
    )
    return ranking.grouped().with_floor(target.known_floor)


def threshold_count(target: Target, leaves: Sequence[PrunableLeaf]) -> int:
    """How many thresholds a target has."""
    if isinstance(target.structure, CoupledChannels):
        return 1 if leaves else 0
    return len(scopes.find_groups(target.scope, leaves))


def _evidence(
    target: Target, leaves: list[PrunableLeaf], given: Mapping[str, Any], way: str
) -> list[_criterion.Evidence]:
    """What a criterion looks at besides the weights, for each leaf."""
    seen: list[dict[str, jax.Array]] = [{} for _ in leaves]
    for name in target.known_criterion.evidence if leaves else ():
        if given.get(name) is None:
            raise ValueError(
                f"criterion {target.criterion!r} needs {name}, a tree like the "
                f"parameters: give {way.format(name=name)}"
            )
        flat = tree_paths.flatten(given[name])
        arrays = {path: array for _, path, array in tree_paths.arrays(flat)}
        for leaf, of_leaf in zip(leaves, seen, strict=True):
            array = arrays.get(leaf.path)
            if array is None or array.shape != leaf.weights.shape:
                what = "nothing" if array is None else f"an array of {array.shape}"
                raise ValueError(
                    f"{name} must be a tree like the parameters, and has {what} at "
                    f"{leaf.path!r}, where they have an array of {leaf.weights.shape}"
                )
            of_leaf[name] = jax.lax.stop_gradient(jnp.asarray(array))
    return list(seen)


def check_evidence(
    targets: Sequence[Target], evidence: Mapping[str, Any] | None
) -> None:
    """Raise if something is given that no criterion looks at."""
    needed = {name for target in targets for name in target.known_criterion.evidence}
    for name in evidence or ():
        if name not in needed:
            raise ValueError(
                f"evidence has {name!r}, which the criterion does not look at: it "
                f"needs {', '.join(sorted(needed)) or 'nothing but the weights'}"
            )


def start_tracking(targets: Sequence[Target], params: Any) -> Any:
    """Zeros for what criteria gather: a tree like the parameters; () for nothing."""
    tree = tree_paths.flatten(params)
    found = find_leaves(targets, tree, params)
    tracking = [
        leaf
        for target, leaves in zip(targets, found, strict=True)
        if target.known_criterion.tracked is not None
        for leaf in leaves
    ]
    if not any(target.known_criterion.tracked for target in targets):
        return ()
    entries: dict[int, Any] = {i: optax.MaskedNode() for i in range(len(tree.leaves))}
    for leaf in tracking:
        dtype = sort_keys.score_dtype(leaf.weights.dtype)
        entries[leaf.position] = jnp.zeros_like(leaf.weights, dtype=dtype)
    return tree.rebuilt(entries)


def track(
    targets: Sequence[Target], params: Any, tracked: Any, gradient: Any, way: str
) -> Any:
    """What criteria have gathered after one more step.

    Raises:
      ValueError: if there is no gradient to gather from.
    """
    gathering = [target for target in targets if target.known_criterion.tracked]
    if not gathering:
        return tracked
    if gradient is None:
        raise ValueError(
            f"criterion {gathering[0].criterion!r} gathers gradients: give "
            f"{way.format(name='gradient')}"
        )
    tree = tree_paths.flatten(params)
    gathered = tree_paths.flatten(tracked)
    positions = {path: i for i, path in enumerate(gathered.paths)}
    gradients = tree_paths.flatten(gradient)
    by_path = dict(zip(gradients.paths, gradients.leaves, strict=True))
    advanced = {}
    for target, leaves in zip(targets, find_leaves(targets, tree, params), strict=True):
        of_target = target.known_criterion.tracked
        for leaf in leaves if of_target is not None else ():
            old = gathered.leaves[positions[leaf.path]]
            wide = [
                sort_keys.widen(jnp.asarray(array), old.dtype)
                for array in (leaf.weights, by_path[leaf.path])
            ]
            assert of_target is not None
            advanced[positions[leaf.path]] = of_target.advance(old, *wide)
    return gathered.rebuilt(advanced)
