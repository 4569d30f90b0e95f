"""The target: one value that says what is pruned."""

import dataclasses
from typing import Any, Literal

from swd_jax import _criteria, _prunable, _sparsity, _structures

Scope = Literal["global", "local"]
_SCOPES = ("global", "local")


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
      structure: which weights live and die together: `Unstructured()`.
      scope: "global" ranks all prunable weights together, with one threshold; "local"
        ranks every leaf by itself, so that each loses the same fraction.
      criterion: `magnitude`, the paper's, or `normalized_magnitude`, which divides by
        the leaf's L2 norm; or the name of one.

    Raises:
      ValueError: for a sparsity outside [0, 1), an invalid regular expression, or an
        unknown structure, scope or criterion. What depends on the parameters (a
        pattern that matches nothing, a tree of bools that does not fit) is raised when
        the target meets them.

    Examples:
      >>> import swd_jax
      >>> target = swd_jax.Target(0.9, prunable="kernel", scope="local")
      >>> target.sparsity, target.criterion
      (0.9, swd_jax.magnitude)

    Source: sections 3.1 and 3.3 of arXiv 2011.10520.
    """

    sparsity: _sparsity.Sparsity
    _: dataclasses.KW_ONLY
    prunable: _prunable.Prunable = _prunable.is_weight
    structure: _structures.Unstructured = _structures.Unstructured()
    scope: Scope = "global"
    criterion: _criteria.Criterion | str = _criteria.magnitude

    def __post_init__(self) -> None:
        _sparsity.check_sparsity(self.sparsity)
        _prunable.check_prunable(self.prunable)
        _structures.check_structure(self.structure)
        if self.scope not in _SCOPES:
            raise ValueError(f"scope must be one of {_SCOPES}, got {self.scope!r}")
        criterion = _criteria.as_criterion(self.criterion)
        object.__setattr__(self, "criterion", criterion)


def as_target(target: Target | Any) -> Target:
    """A plain number or schedule as the target that has it for its sparsity."""
    return target if isinstance(target, Target) else Target(target)
