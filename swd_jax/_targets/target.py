"""The target: one value that says what is pruned."""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import jax

from swd_jax._allocation import exact_counts, prunable_leaves, scopes
from swd_jax._arguments import validation
from swd_jax.criteria import _by_name, _magnitudes
from swd_jax.criteria._criterion import Criterion
from swd_jax.structures import _structure
from swd_jax.structures._coupled_channels import CoupledChannels
from swd_jax.structures._n_of_m import NM


@dataclasses.dataclass(frozen=True)
class Target:
    """What is pruned, given once to training, pruning and reporting alike.

    Of the n weights that are ranked together, those with the k = floor(s n) lowest
    scores are selected, in exact integer arithmetic; s is the decimal that it prints
    as, so that 0.29 of 100 weights is 29.

    Args:
      sparsity: s, the fraction of the prunable weights to prune, in [0, 1); or an
        optax schedule of the optimizer step, such as `cubic_sparsity(...)`, whose
        value is read to seven decimal places.
      prunable: which leaves are pruned: a regular expression that is searched for in
        the leaf's path ("kernel", "^encoder/.*/kernel$"), a predicate
        `(path, leaf) -> bool`, or a tree of bools in the structure of the parameters
        or of their upper levels. By default `is_weight`: leaves of two or more
        dimensions that are neither biases nor normalisation scales.
      structure: which weights live and die together: `Unstructured()`, `Block(...)`,
        `NM(n, m)`, `Channel(axis)`, `CoupledChannels(groups)` across layers, or your
        own (see `Structure`).
      scope: "global" ranks all prunable weights together, with one threshold; "local"
        ranks every leaf by itself, so that each loses the same fraction; "erk" does
        too, with a fraction from the leaf's shape, larger for larger leaves. A mapping
        from patterns to sparsities, {"attention": 0.5, "mlp": 0.9}, ranks together the
        leaves whose paths match a pattern (the first that does, if several), and those
        that match none, at `sparsity`.
      criterion: `magnitude`, the paper's; `normalized_magnitude`, which divides by the
        leaf's L2 norm; another one of this library; the name of one; or a plain
        function of the weights.
      min_kept: what every leaf keeps at least: a number of weights, or a fraction of
        the leaf below 1. What a leaf does not lose then, others do.

    Raises:
      ValueError: for a sparsity outside [0, 1), an invalid regular expression, or an
        unknown structure, scope or criterion. What depends on the parameters (a
        pattern that matches nothing, a tree of bools that does not fit) is raised when
        the target meets them.

    Examples:
      >>> import swd_jax
      >>> target = swd_jax.Target(0.9, prunable="kernel", scope="local")
      >>> target.sparsity, target.criterion
      (0.9, swd_jax.criteria.magnitude)
      >>> two_of_four = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4))
      >>> by_layer = swd_jax.Target(0.5, scope={"attention": 0.7, "mlp": 0.9})

    Source: sections 3.1 and 3.3 of arXiv 2011.10520.
    """

    sparsity: exact_counts.Sparsity
    _: dataclasses.KW_ONLY
    prunable: prunable_leaves.Prunable = prunable_leaves.is_weight
    structure: _structure.Structure | CoupledChannels = _structure.Unstructured()
    scope: scopes.Scope = "global"
    criterion: Criterion | Callable[..., jax.Array] | str = _magnitudes.magnitude
    min_kept: validation.Number = 0

    def __post_init__(self) -> None:
        exact_counts.check_sparsity(self.sparsity)
        prunable_leaves.check_prunable(self.prunable)
        if not isinstance(self.structure, CoupledChannels):
            _structure.check_structure(self.structure)
        scopes.check_scope(self.scope)
        criterion = _by_name.as_criterion(self.criterion)
        object.__setattr__(self, "criterion", criterion)
        floor = validation.as_floor(
            "min_kept", self.min_kept, counted="weights", of="leaf"
        )
        object.__setattr__(self, "min_kept", floor)
        self._check_reachable()
        self._check_coupled()

    @property
    def known_criterion(self) -> Criterion:
        """The criterion, which may have been given by its name or as a function."""
        assert isinstance(self.criterion, Criterion)
        return self.criterion

    @property
    def known_floor(self) -> int | Fraction:
        """What every leaf keeps: a number of weights or a fraction of the leaf."""
        assert isinstance(self.min_kept, int | Fraction)
        return self.min_kept

    def _check_reachable(self) -> None:
        """Raise if the structure can never be as sparse as is known to be wanted."""
        if not isinstance(self.structure, NM):
            return
        most = Fraction(*self.structure.greatest_sparsity)
        wanted = [self.sparsity]
        if isinstance(self.scope, scopes.Mapping):
            wanted += self.scope.values()
        for sparsity in wanted:
            known = None
            if not callable(sparsity):
                known = validation.as_decimal("sparsity", sparsity)
            # Thirds and the like print as a little more or less than they are.
            if known is not None and known > most + Fraction(1, 10**12):
                raise ValueError(
                    f"sparsity is {sparsity!r}, and {self.structure!r} prunes at most "
                    f"{most} of the weights"
                )

    def _check_coupled(self) -> None:
        """Raise what makes no sense for channels that are ranked across leaves."""
        if not isinstance(self.structure, CoupledChannels):
            return
        if self.scope not in ("global", "local"):
            raise ValueError(
                "scope must be 'global' or 'local' with CoupledChannels, since what a "
                "channel takes away depends on all leaves, got "
                f"{self.scope!r}"
            )
        if self.min_kept != 0:
            raise ValueError(
                "min_kept counts weights of single leaves, got "
                f"{self.min_kept!r}: with CoupledChannels give it min_channels=..."
            )


Targets: TypeAlias = Target | Sequence[Target] | exact_counts.Sparsity
"""What is pruned: a target, several for different leaves, or just a sparsity."""


def as_target(target: Target | Any) -> Target:
    """A plain number or schedule as the target that has it for its sparsity."""
    return target if isinstance(target, Target) else Target(target)


def as_targets(target: Targets) -> tuple[Target, ...]:
    """One target or several.

    Raises:
      ValueError: if there are none, or something else among them.
    """
    if not isinstance(target, Sequence) or isinstance(target, str | bytes):
        return (as_target(target),)
    for each in target:
        if not isinstance(each, Target):
            raise ValueError(
                "sparsity must be a number or a schedule, and several targets a "
                f"sequence of Target: got {each!r} in a sequence"
            )
    if not target:
        raise ValueError("targets must be at least one Target, got none")
    return tuple(target)
