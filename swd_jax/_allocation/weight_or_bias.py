"""`is_weight`: the default choice of leaves, by their dimensions and names."""

import re
from typing import Any

_BIAS_OR_SCALE_WORDS = {
    *("bias", "biases", "offset", "offsets", "beta"),
    *("scale", "scales", "gamma", "gain"),
}
# Haiku's bias, and the scale of weight normalisation.
_BIAS_OR_SCALE_NAMES = {"b", "g"}
_NORMALISATION_WORDS = {"norms", "normalization", "normalisation", "bn", "gn", "ln"}


def is_weight(path: str, leaf: Any) -> bool:
    """Tell whether a leaf is a weight, by its number of dimensions and its name.

    The default of `Target(prunable=...)`, and a building block for predicates of your
    own. A weight has two or more dimensions and is neither a bias nor the scale of a
    normalisation layer. Biases and scales have two dimensions as well where layers are
    stacked by `scan` or `vmap`, and in attention heads. So names count too: the last
    key ("bias", "b", "scale", "offset", "gamma", ...) and, for a leaf called "weight"
    or "w", the layer that contains it ("norm1", "layer_norm", "ln_f", "bn2", ...).

    As the default it also excludes the leaves of modules whose class is a
    normalisation layer (Equinox, NNX). A path does not show the class: exclude such
    layers by name in a predicate of your own.

    Args:
      path: the keys that lead to the leaf, joined by "/": "Dense_0/kernel".
      leaf: anything with `ndim`, such as an array or a `jax.ShapeDtypeStruct`.

    Returns:
      True for a weight.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> swd_jax.is_weight("Dense_0/kernel", jnp.zeros((8, 4)))
      True
      >>> swd_jax.is_weight("attention/query/bias", jnp.zeros((8, 4)))
      False

      All weights but those of the last layer:

      >>> target = swd_jax.Target(
      ...     0.9,
      ...     prunable=lambda path, w: (
      ...         swd_jax.is_weight(path, w) and "head" not in path
      ...     ),
      ... )
    """
    if getattr(leaf, "ndim", 0) < 2:
        return False
    *parents, name = path.split("/")
    words = _words(name)
    if (
        _BIAS_OR_SCALE_WORDS.intersection(words)
        or "".join(words) in _BIAS_OR_SCALE_NAMES
    ):
        return False
    layer = next((key for key in reversed(parents) if not key.isdigit()), "")
    return name not in {"weight", "w"} or not any(
        word.endswith("norm") or word in _NORMALISATION_WORDS for word in _words(layer)
    )


def _words(name: str) -> list[str]:
    """Split a name into lower-case words: "LayerNorm_0" -> ["layer", "norm"]."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [word.lower() for word in words]
