"""Targets resolved against a tree of parameters: the prunable leaves, then rankings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arguments import parameter_trees
from swd_jax._arrays import tree_paths
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking.ranking import Ranking
from swd_jax._targets import extra_arguments
from swd_jax._targets.target import Target, Targets, as_targets
from swd_jax.structures._abstract_structure import StructuredLeaves


class ResolvedTarget(NamedTuple):
    """A target and the leaves of some parameters that it prunes."""

    target: Target
    structured: StructuredLeaves

    @property
    def leaves(self) -> list[PrunableLeaf]:
        """The prunable leaves."""
        return self.structured.leaves

    def with_weights(self, weights: Mapping[int, jax.Array]) -> "ResolvedTarget":
        """Return the target with other weights in its leaves, by position."""
        leaves = [leaf._replace(weights=weights[leaf.position]) for leaf in self.leaves]
        return self._replace(structured=self.structured._replace(leaves=leaves))

    def for_tpu(self) -> "ResolvedTarget":
        """Return the target with its structure in its form for TPUs, or itself."""
        structure = self.target.structure.for_tpu()
        if structure is self.target.structure:
            return self
        return self._replace(
            target=dataclasses.replace(self.target, structure=structure)
        )

    def check_leaves(self) -> None:
        """Raise if the structure does not fit the leaves or cannot be as sparse."""
        self.target.structure.check_leaves(self.target.allocation, self.structured)

    def sparsities(self, step: ArrayLike | None) -> PoolSparsities:
        """Return the sparsity of every pool at an optimizer step."""
        target = self.target
        return target.structure.sparsities(target.allocation, self.structured, step)


class ResolvedTargets(NamedTuple):
    """Targets and the leaves of one tree of parameters that each of them prunes."""

    tree: tree_paths.FlatTree
    targets: list[ResolvedTarget]

    @property
    def leaves(self) -> list[PrunableLeaf]:
        """The prunable leaves of all targets, target by target."""
        return [leaf for target in self.targets for leaf in target.leaves]

    def with_weights(self, weights: Mapping[int, jax.Array]) -> "ResolvedTargets":
        """Return the targets with other weights in the prunable leaves, by position."""
        targets = [target.with_weights(weights) for target in self.targets]
        return ResolvedTargets(self.tree, targets)

    def for_tpu(self) -> "ResolvedTargets":
        """Return the targets with structures in their forms for TPUs, or itself."""
        targets = [target.for_tpu() for target in self.targets]
        if all(new is old for new, old in zip(targets, self.targets, strict=True)):
            return self
        return ResolvedTargets(self.tree, targets)


class RankedTarget(NamedTuple):
    """A target and the scored units of its leaves, of which there is at least one."""

    resolved: ResolvedTarget
    ranking: Ranking

    @property
    def target(self) -> Target:
        """The target itself."""
        return self.resolved.target

    @property
    def leaves(self) -> list[PrunableLeaf]:
        """The prunable leaves, in the order of the ranking's weights."""
        return self.resolved.leaves

    def budgets(self, step: ArrayLike | None) -> jax.Array:
        """Return k of every pool at a step: emulated uint64, shape (pools, 4)."""
        return self.ranking.budgets(self.resolved.sparsities(step))


def resolve(targets: Sequence[Target], params: Any) -> ResolvedTargets:
    """Find the leaves that each target prunes. Called once for every tree.

    Args:
      targets: one target or several.
      params: any tree of arrays, traced or abstract ones too.

    Raises:
      ValueError: if a target fits none of the parameters, two prune the same leaf, or
        there is an optimizer's state among the parameters.
    """
    parameter_trees.check_parameters(params)
    tree = tree_paths.flatten(params)
    resolved = [_resolve_one(target, tree, params) for target in targets]
    target_of_leaf: dict[int, Target] = {}
    for target, structured in resolved:
        for leaf in structured.leaves:
            if leaf.position in target_of_leaf:
                raise ValueError(
                    f"two targets prune {leaf.path!r}: "
                    f"{target_of_leaf[leaf.position]} and {target}. Give each its own "
                    "leaves, with prunable=..."
                )
            target_of_leaf[leaf.position] = target
    return ResolvedTargets(tree, resolved)


def resolve_arguments(
    params: Any, target: Targets, extra_args: Mapping[str, Any] | None
) -> ResolvedTargets:
    """Check and resolve the arguments of a function of (params, target, extra_args).

    Raises:
      ValueError: as `resolve`; if there are no parameters; if target is none; or if an
        extra argument is given that no criterion reads.
    """
    parameter_trees.check_given_parameters(params)
    targets = as_targets(target)
    extra_arguments.check_extra_args(targets, extra_args)
    return resolve(targets, params)


def _resolve_one(
    target: Target, tree: tree_paths.FlatTree, params: Any
) -> ResolvedTarget:
    structure = target.structure
    structured = structure.find_leaves(target.prunable, target.allocation, tree, params)
    of_leaves = structure.for_leaves(structured.leaves, tree, params)
    if of_leaves is not structure:
        target = dataclasses.replace(target, structure=of_leaves)
    return ResolvedTarget(target, structured)


def rank(
    resolved: ResolvedTargets,
    axis_name: AxisName = None,
    *,
    extra_args: Mapping[str, Any] | None = None,
    how_to_pass: str = extra_arguments.AS_ARGUMENT,
) -> list[RankedTarget]:
    """Score the leaves of resolved targets.

    Args:
      resolved: the targets and their leaves.
      axis_name: the mesh axes over which the leaves are sharded by hand.
      extra_args: what criteria read besides the weights, by name: trees like the
        parameters.
      how_to_pass: a format string for errors, which says how the caller's user passes
        the extra argument `name`.

    Returns:
      The targets that have leaves, with their rankings.

    Raises:
      ValueError: if a structure does not fit its leaves, or an extra argument is
        missing or does not fit the parameters.
    """
    return [
        RankedTarget(
            entry,
            entry.target.structure.rank(
                entry.target.allocation,
                entry.target.criterion,
                entry.structured,
                extra_arguments.of_leaves(
                    entry.target.criterion,
                    entry.leaves,
                    resolved.tree,
                    extra_args or {},
                    how_to_pass,
                ),
                axis_name,
            ),
        )
        for entry in resolved.targets
        if entry.leaves
    ]
