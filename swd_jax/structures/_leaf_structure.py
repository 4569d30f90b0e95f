"""`LeafStructure`: structures whose units lie within single leaves."""

import abc
import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from swd_jax._allocation import prunable_leaves, scopes
from swd_jax._allocation.allocation import Allocation
from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._allocation.prunable_leaves import Prunable
from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import sort_keys, tiling, tree_paths
from swd_jax._arrays.manual_sharding import AxisName, Shards, find_shards
from swd_jax._ranking.leaf_ranking import LeafRanking
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax._selection.order_statistics import Pools
from swd_jax.criteria import _criterion
from swd_jax.criteria._criterion import Criterion, ExtraInputs
from swd_jax.structures import _unit_scores
from swd_jax.structures._abstract_structure import AbstractStructure, StructuredLeaves

# Thirds and the like print as a little more or less than they are.
_ROUNDING = Fraction(1, 10**12)


class LeafStructure(AbstractStructure):
    """A structure whose units lie within single leaves.

    A concrete class has the three methods of `Structure`, and overrides the others
    where their default does not hold.
    """

    @property
    def max_sparsity(self) -> Fraction:
        """The largest fraction of the weights that can be pruned."""
        return Fraction(1)

    @abc.abstractmethod
    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the scores of the units from those of a leaf's weights."""

    @abc.abstractmethod
    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """Return the number of weights of each unit, or one number if all are alike."""

    @abc.abstractmethod
    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return each weight's unit's entry."""

    def of_leaf(self, number: int) -> "LeafStructure":
        """Return the structure of one leaf: the structure itself."""
        del number
        return self

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Whether every unit lies within one shard of this shape, sharded by hand."""
        del shape
        return False

    def fits_mesh(self, shape: tuple[int, ...], num_shards: tuple[int, ...]) -> bool:
        """Whether every unit lies within one of so many shards along each axis."""
        del shape, num_shards
        return True

    def unit_scores(
        self,
        criterion: Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array] | None:
        """Return the scores of each leaf's units; None if every weight is a unit."""
        return _unit_scores.unit_scores(self, criterion, score_inputs, dtype)

    def protected(
        self,
        criterion: Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array] | None:
        """Return the weights of each leaf that are never pruned; None if there is none.

        Read only where every weight is a unit. `protected_mask` makes bools of them.
        """
        del criterion, score_inputs, dtype

    def protected_mask(self, protected: jax.Array, leaf: jax.Array) -> jax.Array:
        """Return a leaf's entry of `protected` as bools in the shape of the leaf."""
        del leaf
        return protected

    def check_allocation(self, allocation: Allocation) -> None:
        """Raise if the structure can never become as sparse as the target asks."""
        for sparsity in allocation.all_sparsities():
            value = None
            if not callable(sparsity):
                value = validation.as_decimal("sparsity", sparsity)
            if value is not None and value > self.max_sparsity + _ROUNDING:
                raise ValueError(
                    f"sparsity is {sparsity!r}, and {self!r} prunes at most "
                    f"{self.max_sparsity} of the weights. Ask for less, or choose "
                    "another structure"
                )

    def find_leaves(
        self,
        prunable: Prunable,
        allocation: Allocation,
        tree: tree_paths.FlatTree,
        params: Any,
    ) -> StructuredLeaves:
        """Return the prunable leaves, and the pools that the scope makes of them."""
        leaves, left_by_name = prunable_leaves.choose(prunable, tree, params)
        pools = scopes.find_pools(allocation.scope, leaves)
        return StructuredLeaves(leaves, pools, len(pools), left_by_name)

    def check_leaves(
        self, allocation: Allocation, structured: StructuredLeaves
    ) -> None:
        """Raise if a leaf cannot be divided into units."""
        self._check_leaves(allocation, structured, shards=None)

    def _check_leaves(
        self,
        allocation: Allocation,
        structured: StructuredLeaves,
        shards: Shards | None,
    ) -> None:
        for number, leaf in enumerate(structured.leaves):
            is_sharded = shards is not None and bool(shards.leaf_axes[number])
            num_shards = tiling.shards_per_axis(leaf.weights)
            self.of_leaf(number).check_leaf(
                leaf.path, leaf.weights.shape, is_sharded, num_shards
            )
            if is_sharded and allocation.scope == "erk":
                raise ValueError(
                    "scope 'erk' needs the shapes of whole leaves, and with axis_name "
                    f"{leaf.path!r} is a shard of one: leave out axis_name, under jit "
                    "over a mesh, or give each leaf's sparsity in a mapping"
                )

    def check_leaf(
        self,
        path: str,
        shape: tuple[int, ...],
        is_sharded: bool,
        num_shards: tuple[int, ...],
    ) -> None:
        """Raise if a leaf cannot be divided into units, or its shards cannot be."""
        try:
            self.sizes(shape)
        except ValueError as error:
            raise ValueError(
                f"{self!r} does not fit the parameter {path!r} of shape {shape}: "
                f"{error}. Give prunable to leave it out"
            ) from error
        if is_sharded and not self.fits_shard(shape):
            raise ValueError(
                f"{self!r} has units that may extend over several devices: each has a "
                f"shard of shape {shape} of {path!r}. Leave out axis_name, under jit "
                "over a mesh, where units may extend over devices; or shard the leaf "
                "between units"
            )
        if not self.fits_mesh(shape, num_shards):
            raise ValueError(
                f"{self!r} has units that would extend over several devices: {path!r} "
                f"of shape {shape} has {num_shards} shards along its axes. Shard it "
                "between units, or give the mesh axes the type Auto, where units may "
                "extend over devices"
            )

    def sparsities(
        self,
        allocation: Allocation,
        structured: StructuredLeaves,
        step: ArrayLike | None,
    ) -> PoolSparsities:
        """Return the sparsity of every pool at an optimizer step."""
        pools: Pools = structured.layout
        shapes = [leaf.weights.shape for leaf in structured.leaves]
        return allocation.pool_sparsities(step, shapes, pools)

    def rank(
        self,
        allocation: Allocation,
        criterion: Criterion,
        structured: StructuredLeaves,
        extra_inputs: Sequence[ExtraInputs],
        axis_name: AxisName,
    ) -> LeafRanking:
        """Return the leaves with the scores of their units."""
        # The selection is piecewise constant in the weights: it has no gradient.
        weights = [
            jax.lax.stop_gradient(jnp.asarray(leaf.weights))
            for leaf in structured.leaves
        ]
        dtype = sort_keys.score_dtype(*(leaf.dtype for leaf in weights))
        shards = find_shards(weights, axis_name)
        self._check_leaves(allocation, structured, shards)
        statistics = _criterion.statistics(criterion, weights, dtype, shards)
        score_inputs = list(zip(weights, statistics, extra_inputs, strict=True))
        unit_scores = self.unit_scores(criterion, score_inputs, dtype)
        protected = None
        if unit_scores is None:
            protected = self.protected(criterion, score_inputs, dtype)
        ranking = LeafRanking(
            weights=weights,
            statistics=statistics,
            criterion=criterion,
            dtype=dtype,
            pools=structured.layout,
            extra_inputs=list(extra_inputs),
            structure=self,
            unit_scores=unit_scores,
            protected=protected,
            shards=shards,
        )
        if allocation.min_kept == 0:
            return ranking
        leaf_sizes = map(ranking.units.leaf_size, range(len(weights)))
        min_kept = tuple(map(allocation.min_kept_of_leaf, leaf_sizes))
        return dataclasses.replace(ranking, min_kept=min_kept)


@dataclasses.dataclass(frozen=True)
class UserStructure(LeafStructure):
    """A user's structure, with the three methods of `Structure` and perhaps more."""

    user: Structure

    def __repr__(self) -> str:
        return repr(self.user)

    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the user's scores of the units."""
        return self.user.scores(scores)

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """Return the user's sizes of the units."""
        return self.user.sizes(shape)

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return each weight's unit's entry, by the user's rule."""
        return self.user.expand(units, shape)

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Ask the user's structure; False if it does not say."""
        fits_shard = getattr(self.user, "fits_shard", None)
        return fits_shard is not None and bool(fits_shard(shape))

    def fits_mesh(self, shape: tuple[int, ...], num_shards: tuple[int, ...]) -> bool:
        """Ask the user's structure; True if it does not say."""
        fits_mesh = getattr(self.user, "fits_mesh", None)
        return fits_mesh is None or bool(fits_mesh(shape, num_shards))


def as_structure(structure: Any) -> AbstractStructure:
    """Return a user's value for `Target(structure=...)` as a structure.

    Raises:
      ValueError: if it is none.
    """
    if isinstance(structure, AbstractStructure):
        return structure
    if not isinstance(structure, Structure) or isinstance(structure, type):
        raise ValueError(
            "structure must be Unstructured(), Block(...), NM(...), Channel(...), "
            "CoupledChannels(...) or your own, with the methods scores, sizes and "
            f"expand, got {shown(structure)}"
        )
    try:
        hash(structure)
    except TypeError as error:
        raise ValueError(
            f"structure must be hashable, as a frozen dataclass is, and {structure!r} "
            f"is not: {error}"
        ) from error
    return UserStructure(structure)


def normalize_axis(axis: int, shape: tuple[int, ...]) -> int:
    """Return an axis counted from the front.

    Raises:
      ValueError: if there is no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"there is no axis {axis} in {len(shape)} dimensions")
    return axis % len(shape)
