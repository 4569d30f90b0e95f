"""`NM`: at most n weights kept of every m along an axis, as sparse hardware wants.

The m weights of a *set* are neighbours along the axis. Where m does not divide the
axis, the weights at the far edge are a smaller set, of which up to n are kept.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._allocation import scopes
from swd_jax._allocation.allocation import Allocation
from swd_jax._allocation.prunable_leaves import Prunable, PrunableLeaf
from swd_jax._allocation.weight_or_bias import is_weight
from swd_jax._arrays import packed_masks, row_chunks, sort_keys, tiling, tree_paths
from swd_jax._arrays.explicit_sharding import reshard_like
from swd_jax._arrays.xla_cpu import materialize
from swd_jax._coupling.summed_axes import SummedAxes
from swd_jax.criteria import _criterion
from swd_jax.structures import _input_axes, _sorting_network, _unit_scores
from swd_jax.structures._abstract_structure import StructuredLeaves
from swd_jax.structures._largest_of_sets import is_among_largest
from swd_jax.structures._leaf_structure import LeafStructure, normalize_axis

# Up to this m a sorting network finds the n-th largest weight of a set. It reads the
# weights once, but the program grows faster than m: XLA:CPU (jaxlib 0.10) takes 23 s
# more to compile a ResNet-50 with m = 32.
_MAX_SORTED = 32


@dataclasses.dataclass(frozen=True)
class NM(LeafStructure):
    """N:M sparsity: the best n of every m weights along an axis are never pruned.

    At the sparsity 1 - n/m exactly n of every m weights are kept, as the sparse matrix
    units of GPUs require: 2 of 4 along the axis that a product sums over. At a lower
    sparsity, as while a scheduled target rises, the lowest scores among the other m - n
    weights are pruned first.

    Args:
      n: the number of weights of every m that are kept, at least 1.
      m: the number of consecutive weights in a set, more than n and at most 256.
      axis: the axis along which sets lie, in every leaf; or
        `structures.summed_axes(...)`, which finds for each leaf the axis that the
        model's products sum over. By default it is the axis that the layer of each leaf
        is known to sum over, and an error where that is not known.

    The default knows the layers of Equinox by their class, and those of Flax and haiku
    by the names of their parameters: the last axis of Equinox's `Linear`, the second of
    its convolutions; the last but one of a "kernel" or "w" with two dimensions or in a
    layer called "conv..."; in Flax's attention the first of query, key and value, and
    the second of out. Other kernels with three or more dimensions are known if their
    bias shows which axes are outputs. A leaf with two dimensions and a name of your own
    has its inputs first, as in `x @ w`.

    A bias or scale that a pattern in `prunable` matches beside weights is left out: no
    product sums over it.

    Where m does not divide the axis, the weights at its far edge are a smaller set, of
    which up to n are kept. Of weights with equal scores the last ones are kept.

    Raises:
      ValueError: if a number is out of range; when the target meets the parameters, if
        a leaf has no such axis, or it is not known.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=-1))
      >>> kernel = jnp.array([[1.0, 5, 3, 2, 9, 8, 7, 6]])
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[0. 5. 3. 0. 9. 8. 0. 0.]]

    Source: Mishra et al., "Accelerating sparse deep neural networks"
    (arXiv 2104.08378), section 3.
    """

    n: int
    m: int
    axis: int | SummedAxes | None = None

    def __post_init__(self) -> None:
        numbers = {"n": self.n, "m": self.m}
        if self.axis is not None and not isinstance(self.axis, SummedAxes):
            numbers["axis"] = self.axis
        for name, value in numbers.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} of NM must be a whole number, got {value!r}")
        if not 1 <= self.n < self.m <= 256:
            raise ValueError(
                f"NM(n, m) needs 1 <= n < m <= 256, got n={self.n}, m={self.m}"
            )

    def find_leaves(
        self,
        prunable: Prunable,
        allocation: Allocation,
        tree: tree_paths.FlatTree,
        params: Any,
    ) -> StructuredLeaves:
        """Return the prunable leaves; of those that a pattern matches, the weights."""
        found = super().find_leaves(prunable, allocation, tree, params)
        if not isinstance(prunable, str | re.Pattern):
            return found
        weights = [leaf for leaf in found.leaves if is_weight(leaf.path, leaf.weights)]
        if not weights or len(weights) == len(found.leaves):
            return found
        pools = scopes.find_pools(allocation.scope, weights)
        return StructuredLeaves(weights, pools, len(pools))

    def for_leaves(
        self, leaves: Sequence[PrunableLeaf], tree: tree_paths.FlatTree, params: Any
    ) -> LeafStructure:
        """Return the structure with the axis of each leaf."""
        if isinstance(self.axis, int) or not leaves:
            return self
        find_axis = _input_axes.axis_finder(tree, params)
        axes: list[int] = []
        for leaf in leaves:
            shape = leaf.weights.shape
            try:
                if self.axis is None:
                    axes.append(find_axis(leaf.path, shape))
                else:
                    axes.append(self.axis.axis_of(leaf.path, len(shape)))
            except ValueError as error:
                raise ValueError(
                    f"NM({self.n}, {self.m}) must lie along the axis that a product "
                    f"sums over, and of the parameter {leaf.path!r} of shape {shape} "
                    f"it is not known: {error}. Give the axis, as in NM({self.n}, "
                    f"{self.m}, axis=-1), or let the model tell: axis="
                    "swd_jax.structures.summed_axes(apply, params, inputs). Or give "
                    "prunable to leave the parameter out"
                ) from error
        parts = [dataclasses.replace(self, axis=axis) for axis in axes]
        return parts[0] if len(set(parts)) == 1 else NMOfLeaves(tuple(parts))

    @property
    def max_sparsity(self) -> Fraction:
        """The fraction of the weights that is never kept, (m - n) / m."""
        return Fraction(self.m - self.n, self.m)

    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the scores, with infinity for weights that are never pruned."""
        protected = self.protected_weights(scores, scores, sort_keys.to_key)
        return jnp.where(protected, jnp.inf, scores)

    def sizes(self, shape: tuple[int, ...]) -> int:
        """Return 1: every weight is a unit."""
        normalize_axis(self._axis, shape)
        return 1

    @property
    def _axis(self) -> int:
        """The axis, as a number: by default as in `x @ w`."""
        if isinstance(self.axis, SummedAxes):
            raise ValueError("the axis of a single array must be a number")
        return -2 if self.axis is None else self.axis

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the units' entries themselves."""
        del shape
        return units

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Whether every set of m weights lies within one shard."""
        return shape[self._axis % len(shape)] % self.m == 0

    def fits_mesh(self, shape: tuple[int, ...], num_shards: tuple[int, ...]) -> bool:
        """Whether every set of m weights lies within one of the shards."""
        axis = self._axis % len(shape)
        is_sharded = num_shards[axis] > 1
        return not is_sharded or shape[axis] % (self.m * num_shards[axis]) == 0

    def unit_scores(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array] | None:
        """Return None: scores are computed in each pass and are not stored."""
        if type(self).scores is not NM.scores:
            # A derived class that overrides `scores` has unit scores of its own.
            return super().unit_scores(criterion, score_inputs, dtype)
        return None

    def protected(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array]:
        """Return the n weights with the largest scores of every m, in each leaf."""
        return _protected(self, criterion, score_inputs, dtype)

    def for_tpu(self) -> "NM":
        """Return the same structure with packed masks; itself for a derived class."""
        return PackedNM(self.n, self.m, self.axis) if type(self) is NM else self

    def protected_weights(
        self, leaf: jax.Array, inputs: Any, key: Callable[[Any], jax.Array]
    ) -> jax.Array:
        """Return the n weights with the largest keys of every m: bools like the leaf.

        Args:
          leaf: an array in the shape and the layout of the leaf.
          inputs: any tree of such arrays, the inputs of `key`.
          key: elementwise, from the inputs to integers of at least 0 in the order of
            the scores.
        """
        axis = self._axis % leaf.ndim
        length = min(self.m, leaf.shape[axis])
        if length <= self.n:
            return reshard_like(jnp.ones(leaf.shape, bool), leaf)
        if length > _MAX_SORTED:
            return self._protected_of_large_sets(leaf, inputs, key)

        def nth_largest(inputs: Any) -> tuple[jax.Array, jax.Array]:
            return _sorting_network.nth_largest(
                self.n, self._members(leaf, inputs, key)
            )

        limit, first_kept_tie = materialize(nth_largest, inputs)

        def of_weights(of_sets: jax.Array) -> jax.Array:
            """Return each weight's set's entry."""
            tiles = jnp.expand_dims(of_sets, 2 * axis + 1)
            shape = list(tiles.shape)
            shape[2 * axis + 1] = length
            return tiling.untile(jnp.broadcast_to(tiles, shape), leaf)

        # Compared in the leaf's own shape: XLA updates donated weights in place only
        # where they are read in the order in which they are written.
        keys = key(inputs)
        limit, first_kept_tie = of_weights(limit), of_weights(first_kept_tie)
        position = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, axis) % length
        first_kept_tie = first_kept_tie.astype(position.dtype)
        return (keys > limit) | ((keys == limit) & (position >= first_kept_tie))

    def _protected_of_large_sets(
        self, leaf: jax.Array, inputs: Any, key: Callable[[Any], jax.Array]
    ) -> jax.Array:
        """Return the same for m > _MAX_SORTED.

        The keys of a set are read some twenty times: a few rows of the leaf at a time
        stay in the processor's cache.
        """
        axis = self._axis % leaf.ndim

        def of_rows(rows: tuple[jax.Array, Any]) -> jax.Array:
            part, inputs = rows
            # The padding of the last set is less than every key, which is at least 0.
            keys = tiling.tile(key(inputs), self._set_lengths(part.shape), fill=-1)
            return tiling.untile(is_among_largest(self.n, keys, 2 * axis + 1), part)

        lies_along_rows = axis == packed_masks.row_axis(leaf)
        rows_per_unit = self.m if lies_along_rows else 1
        return row_chunks.map_rows(of_rows, (leaf, inputs), rows_per_unit)

    def _members(
        self, leaf: jax.Array, inputs: Any, key: Callable[[Any], jax.Array]
    ) -> list[jax.Array]:
        """Return the keys of the first member of each set, of the second, and so on.

        The inputs are sliced before `key` is applied: XLA:CPU (jaxlib 0.10) would store
        all keys if they were sliced themselves.
        """
        axis = self._axis % leaf.ndim
        lengths = self._set_lengths(leaf.shape)
        tiles = jax.tree.map(lambda array: tiling.tile(array, lengths), inputs)
        length = min(self.m, leaf.shape[axis])
        last_length = leaf.shape[axis] % length or length
        members = []
        for i in range(length):
            take = functools.partial(
                jax.lax.index_in_dim, index=i, axis=2 * axis + 1, keepdims=False
            )
            keys = key(jax.tree.map(take, tiles))
            if i >= last_length:  # padding of the last set
                set_number = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 2 * axis)
                is_last = set_number == keys.shape[2 * axis] - 1
                keys = jnp.where(is_last, -1, keys)
            members.append(keys)
        return members

    def _set_lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = self._axis % len(shape)
        return tuple(self.m if i == axis else 1 for i in range(len(shape)))


@dataclasses.dataclass(frozen=True, repr=False)
class PackedNM(NM):
    """`NM` for TPUs: its masks are packed, and computed for some rows at a time.

    XLA:TPU (libtpu 0.0.50) stores the members of sets that are sliced from the weights,
    and pads an axis of m weights. A step took 1.5 times the weights' memory.
    """

    def __repr__(self) -> str:
        return repr(NM(self.n, self.m, self.axis))

    def protected(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array]:
        """Return the n weights with the largest scores of every m.

        As packed masks, where the rows of a leaf fill words, and else as bools.
        """
        return [self._packed_mask(criterion, inputs, dtype) for inputs in score_inputs]

    def protected_mask(self, protected: jax.Array, leaf: jax.Array) -> jax.Array:
        """Return a packed mask as bools."""
        rows = packed_masks.rows_per_word(leaf)
        if rows is None:
            return protected
        return packed_masks.unpack(protected, leaf.shape, rows)

    def _packed_mask(
        self,
        criterion: _criterion.Criterion,
        score_inputs: _criterion.ScoreInputs,
        dtype: jnp.dtype,
    ) -> jax.Array:
        leaf, _, _ = score_inputs
        rows_per_word = packed_masks.rows_per_word(leaf)
        lies_along_rows = self._axis % leaf.ndim == packed_masks.row_axis(leaf)
        rows_of_set = self.m if lies_along_rows else 1
        rows_per_unit = math.lcm(rows_per_word or 1, rows_of_set)

        def pack_rows(rows: _criterion.ScoreInputs) -> jax.Array:
            [mask] = _protected(self, criterion, [rows], dtype)
            if rows_per_word is None:
                return mask
            return packed_masks.pack(mask, rows_per_word)

        words = _unit_scores.map_rows(pack_rows, criterion, score_inputs, rows_per_unit)
        # XLA would otherwise compute the words anew for every loop that reads them.
        return jax.lax.optimization_barrier(words)


@dataclasses.dataclass(frozen=True, repr=False)
class NMOfLeaves(LeafStructure):
    """`NM` along different axes of different leaves."""

    parts: tuple[NM, ...]
    """That of each leaf."""

    def __repr__(self) -> str:
        axes = ", ".join(str(part.axis) for part in self.parts)
        return f"NM({self.parts[0].n}, {self.parts[0].m}) along the axes {axes}"

    @property
    def max_sparsity(self) -> Fraction:
        """The fraction of the weights that is never kept."""
        return self.parts[0].max_sparsity

    def of_leaf(self, number: int) -> LeafStructure:
        """Return the structure of one leaf."""
        return self.parts[number]

    def for_tpu(self) -> "NMOfLeaves":
        """Return the same structure with packed masks."""
        return NMOfLeaves(tuple(part.for_tpu() for part in self.parts))

    def scores(self, scores: jax.Array) -> jax.Array:
        """Raise: the axis depends on the leaf."""
        raise NotImplementedError

    def sizes(self, shape: tuple[int, ...]) -> int:
        """Return 1: every weight is a unit."""
        del shape
        return 1

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the units' entries themselves."""
        del shape
        return units

    def unit_scores(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array] | None:
        """Return None, or the unit scores of a derived class."""
        scores: list[jax.Array] = []
        for part, inputs in zip(self.parts, score_inputs, strict=True):
            of_leaf = part.unit_scores(criterion, [inputs], dtype)
            if of_leaf is None:
                return None
            scores += of_leaf
        return scores

    def protected(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array]:
        """Return the n weights with the largest scores of every m, in each leaf."""
        masks: dict[int, jax.Array] = {}
        for part in dict.fromkeys(self.parts):
            numbers = [i for i, other in enumerate(self.parts) if other == part]
            inputs = [score_inputs[number] for number in numbers]
            of_part = part.protected(criterion, inputs, dtype)
            masks.update(zip(numbers, of_part, strict=True))
        return [masks[number] for number in range(len(self.parts))]

    def protected_mask(self, protected: jax.Array, leaf: jax.Array) -> jax.Array:
        """Return a leaf's entry of `protected` as bools, whatever its axis."""
        return self.parts[0].protected_mask(protected, leaf)


# Jitted as a whole, so that outside of jit no keys are stored.
@functools.partial(jax.jit, static_argnames=("structure", "criterion", "dtype"))
def _protected(
    structure: NM,
    criterion: _criterion.Criterion,
    score_inputs: list[_criterion.ScoreInputs],
    dtype: jnp.dtype,
) -> list[jax.Array]:
    masks = []
    for weights, statistic, extra_inputs in score_inputs:
        key = functools.partial(_sort_key, criterion, statistic, dtype)
        inputs = weights, extra_inputs
        if criterion.elementwise:
            masks.append(structure.protected_weights(weights, inputs, key))
        else:
            # A score that depends on the position cannot be computed from slices.
            keys = key(inputs)
            masks.append(structure.protected_weights(weights, keys, lambda keys: keys))
    return masks


def _sort_key(
    criterion: _criterion.Criterion,
    statistic: Any,
    dtype: jnp.dtype,
    inputs: tuple[jax.Array, _criterion.ExtraInputs],
) -> jax.Array:
    weights, extra_inputs = inputs
    return sort_keys.to_key(
        _criterion.nonnegative_scores(
            criterion, weights, statistic, extra_inputs, dtype
        )
    )
