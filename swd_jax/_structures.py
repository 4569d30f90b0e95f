"""Structures: which weights live and die together."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Unstructured:
    """Every weight stands for itself.

    The structure of the paper's main results: any weight may be pruned whatever
    becomes of its neighbours. What remains is scattered, which saves memory in a
    sparse format but no time in a dense product.

    Examples:
      >>> import swd_jax
      >>> swd_jax.Target(0.9, structure=swd_jax.Unstructured()).structure
      Unstructured()

    Source: section 3.3 of arXiv 2011.10520.
    """


def check_structure(structure: object) -> None:
    """Raise if a target's structure is none that this library knows."""
    if not isinstance(structure, Unstructured):
        raise ValueError(f"structure must be Unstructured(), got {structure!r}")
