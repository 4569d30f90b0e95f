"""The target: one value that says what is pruned."""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias, cast

import jax
import optax

from swd_jax._allocation import prunable_leaves, scopes, sparsity_values, weight_or_bias
from swd_jax._allocation.allocation import Allocation
from swd_jax._allocation.prunable_leaves import Prunable
from swd_jax._allocation.scopes import Scope
from swd_jax._allocation.sparsity_values import Sparsity
from swd_jax._arguments import short_text, validation
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax.criteria import _as_criterion
from swd_jax.criteria._criterion import Criterion
from swd_jax.criteria._magnitudes import magnitude
from swd_jax.structures import _leaf_structure
from swd_jax.structures._abstract_structure import AbstractStructure
from swd_jax.structures._unstructured import Unstructured


@dataclasses.dataclass(frozen=True, init=False)
class Target:
    """The weights to prune, as one value for training, pruning and reporting alike.

    The k = floor(s n) weights with the lowest scores are selected, among the n weights
    that are ranked together. The count is exact: s is read as the decimal that it
    prints as, so that 0.29 of 100 weights is 29.

    A target is a frozen value. It is hashable, and equal to any target with equal
    arguments, so that it may be a static argument of `jax.jit`. (Where the sparsity is
    a traced value, or a callable that is not hashable, it is not.) It can be pickled
    if its schedule and its functions can: the schedules of this package can, those of
    optax, which are closures, cannot.

    Args:
      sparsity: s, the fraction of the prunable weights to prune, in [0, 1); or an
        optax schedule of the optimizer step, such as `cubic_sparsity(...)`, whose
        value is read to seven decimal places.
      prunable: which leaves are pruned: a regular expression that is searched for in
        the leaf's path ("kernel", "^encoder/.*/kernel$"), a predicate
        `(path, leaf) -> bool`, or a tree of bools in the structure of the parameters
        or of their upper levels. By default `is_weight`: leaves of two or more
        dimensions that are neither biases nor normalisation scales. Arrays of integers
        and bools are left alone.
      structure: which weights are pruned together: `Unstructured()`, `Block(...)`,
        `NM(n, m)`, `Channel(axis)`, `CoupledChannels(groups)` across layers, or your
        own (see `structures.Structure`).
      scope: "global" ranks all prunable weights together, with one threshold; "local"
        ranks every leaf by itself, so that each loses the same fraction; "erk" ranks
        every leaf by itself too, with a fraction that follows from the leaf's shape
        and is larger for larger leaves. A mapping from patterns to sparsities,
        {"attention": 0.5, "mlp": 0.9}, ranks together the leaves whose paths match a
        pattern (the first that matches, if several do), and those that match none, at
        `sparsity`.
      criterion: `criteria.magnitude`, the paper's; `criteria.normalized_magnitude`,
        which divides by the leaf's L2 norm; another one of `criteria`; the name of
        one; or a plain function of the weights and of extra arguments by name, whose
        scores may have either sign. (Scores that differ only in their last bit then
        tie; `Criterion(..., signed=False)` is exact, and faster, for scores that are
        never negative.)
      min_kept: the number of weights that every leaf keeps at least, or a fraction of
        the leaf below 1. The other leaves of its pool lose more instead.

    Raises:
      ValueError: for a sparsity outside [0, 1), or one that `structure` rules out, a
        schedule that leaves this range and settles, an invalid regular
        expression, or an unknown structure, scope or criterion. What depends on the
        parameters (a pattern that matches nothing, a tree of bools that does not fit)
        is raised when the target meets them.

    Warns:
      UserWarning: for a schedule that falls and settles.

    Examples:
      >>> import swd_jax
      >>> target = swd_jax.Target(0.9, prunable="kernel", scope="local")
      >>> target.sparsity, target.criterion
      (0.9, swd_jax.criteria.magnitude)
      >>> two_of_four = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4))
      >>> by_layer = swd_jax.Target(0.5, scope={"attention": 0.7, "mlp": 0.9})

    Source: sections 3.1 and 3.3 of arXiv 2011.10520.
    """

    sparsity: Sparsity
    _: dataclasses.KW_ONLY
    prunable: Prunable
    structure: AbstractStructure
    scope: Scope
    criterion: Criterion
    min_kept: int | Fraction

    def __init__(
        self,
        sparsity: Sparsity,
        *,
        prunable: Prunable = weight_or_bias.is_weight,
        structure: Structure | AbstractStructure = Unstructured(),
        scope: Scope = "global",
        criterion: Criterion | Callable[..., jax.Array] | str = magnitude,
        min_kept: validation.Number = 0,
    ) -> None:
        # The arguments are converted here, once: the rest of the package reads fields
        # of one type each.
        fields = {
            "sparsity": sparsity_values.as_sparsity(sparsity),
            "prunable": prunable_leaves.as_prunable(prunable),
            "structure": _leaf_structure.as_structure(structure),
            "scope": scopes.as_scope(scope),
            "criterion": _as_criterion.as_criterion(criterion),
            "min_kept": validation.as_min_kept(
                "min_kept", min_kept, item_name="weights", whole_name="leaf"
            ),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self.structure.check_allocation(self.allocation)

    def __repr__(self) -> str:
        defaults = {
            "prunable": weight_or_bias.is_weight,
            "structure": Unstructured(),
            "scope": "global",
            "criterion": magnitude,
            "min_kept": 0,
        }
        chosen = [
            f"{name}={short_text.brief(getattr(self, name))}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        return f"Target({', '.join([short_text.brief(self.sparsity), *chosen])})"

    @property
    def allocation(self) -> Allocation:
        """The sparsity and how the leaves share it, for the structure."""
        return Allocation(self.sparsity, self.scope, self.min_kept)


Targets: TypeAlias = Target | Sequence[Target] | Sparsity
"""A target, several targets for different leaves, or just a sparsity."""


def as_target(target: Target | Any) -> Target:
    """Return a plain number or schedule as the target that has it as its sparsity.

    Raises:
      ValueError: for anything else, such as parameters in the place of a target.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, Sequence) and any(isinstance(t, Target) for t in target):
        raise ValueError(
            f"target must be one Target here, got {len(target)}. Different leaves may "
            "have different sparsities, by a mapping: Target(..., scope={...})"
        )
    # A module of Equinox or NNX is callable, as a schedule is.
    has_arrays = any(map(short_text.is_large_array, jax.tree.leaves(target)))
    if has_arrays and not short_text.is_large_array(target):
        raise ValueError(
            "sparsity must be a number, a schedule or a Target, got "
            f"{short_text.shown(target)}, as parameters are"
        )
    return Target(cast(Any, target))


def as_targets(target: Targets) -> tuple[Target, ...]:
    """Return one target or several as a tuple.

    Raises:
      ValueError: if there are none, or the sequence holds anything but targets.
    """
    # Transformations of optax are named tuples.
    no_targets = str | bytes | optax.GradientTransformation
    if not isinstance(target, Sequence) or isinstance(target, no_targets):
        return (as_target(target),)
    for entry in target:
        if not isinstance(entry, Target):
            raise ValueError(
                "target must be a Target, a sparsity, or a sequence of Target, got a "
                f"sequence with {short_text.shown(entry)} in it. Give each its leaves: "
                "[Target(0.5, prunable='attention'), Target(0.9, prunable='mlp')]"
            )
    if not target:
        raise ValueError("target must have at least one Target, got an empty sequence")
    return tuple(target)
