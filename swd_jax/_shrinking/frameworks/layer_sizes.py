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
    bases = type(module).__mro__
    rules = next(
        (
            rules
            for base in bases
            for package, rules in _RULES.items()
            if base.__name__ in rules and base.__module__.startswith(package)
        ),
        None,
    )
    if rules is None:
        return {}
    rule = next(rules[base.__name__] for base in bases if base.__name__ in rules)
    sizes = rule(module, shapes)
    return {name: value for name, value in sizes.items() if hasattr(module, name)}
