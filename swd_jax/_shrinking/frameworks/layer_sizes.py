"""New values of the sizes that layers of Flax NNX and Equinox keep beside arrays."""

from collections.abc import Mapping
from typing import Any

from swd_jax._shrinking.frameworks import equinox_layer_sizes, flax_layer_sizes
from swd_jax._shrinking.frameworks.shapes_before_and_after import Rule, Shapes

_RULES: Mapping[str, Mapping[str, Rule]] = {
    "flax.nnx": flax_layer_sizes.RULES,
    "equinox": equinox_layer_sizes.RULES,
}


def new_sizes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """New values of a layer's attributes; none for a class without a rule."""
    rule = _find_rule(module)
    sizes = rule(module, shapes) if rule else {}
    return {name: value for name, value in sizes.items() if hasattr(module, name)}


def has_rule(module: Any) -> bool:
    """Whether a module is a layer of Flax or Equinox that keeps sizes."""
    return _find_rule(module) is not None


def _find_rule(module: Any) -> Rule | None:
    for base in type(module).__mro__:
        for package, rules in _RULES.items():
            if base.__name__ in rules and base.__module__.startswith(package):
                return rules[base.__name__]
    return None
