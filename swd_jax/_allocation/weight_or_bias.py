"""`is_weight`: the default choice of leaves, by their dimensions and names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from swd_jax._arguments.short_text import shown

# Words of biases, of scales, and of what shifts or scales channels.
_BIAS_OR_SCALE_WORDS = {
    *("bias", "biases", "offset", "offsets", "beta"),
    *("scale", "scales", "gamma", "gain", "gains"),
}
# Words that count only where they are the whole name.
_BIAS_OR_SCALE_NAMES = {"shift"}
# Haiku's bias, and the scale of weight normalisation.
_LETTERS = {"b", "g"}
_NORMALISATION_WORDS = {"norms", "normalization", "normalisation", "bn", "gn", "ln"}
_MATRIX_WORDS = {
    *("w", "weight", "weights", "kernel", "kernels", "matrix", "matrices", "lora"),
    *("proj", "projection", "projections", "embed", "embedding", "embeddings"),
    *("linear", "dense", "conv", "filter", "filters"),
}
# Words after which "b" and "g" are factors of a matrix: "lora_b", "kernel/b".
_FACTORED_WORDS = {"lora", "w", "kernel", "weight", "matrix"}
# Fields that wrap the array of a parameter, in Flax, haliax, Penzai and others.
_WRAPPER_FIELDS = {"value", "raw_value", "array", "data", "param", "parameter"}
# Collections of batch normalisation and of NNX's WeightNorm.
_COLLECTIONS = {"batch_stats", "scales"}
_STATISTICS = {"mean", "var"}

Kind: TypeAlias = Literal["weight", "bias or scale", "letter", "capital letter"]


def is_weight(path: str, leaf: Any) -> bool:
    """Tell whether a leaf is a weight, by its number of dimensions and its name.

    The default of `Target(prunable=...)`, and a building block for predicates of your
    own. A weight has two or more dimensions and is neither a bias nor the scale of a
    normalisation layer. Biases and scales have two dimensions as well where layers are
    stacked by `scan` or `vmap`, and in attention heads. So names count too, word by
    word ("hidden_bias" and "hiddenBias" are "hidden bias"):

    - A bias or a scale has such a word in its name: "bias", "offset", "beta", "scale",
      "gamma", "gain", "norm", "ln", ... A word for a matrix after it ("gain_proj",
      "multi_scale_kernel"), or a capital W before it ("W_beta"), makes it a weight.
    - "b" and "g", also in "b_in" or "conv_b", are a bias and a scale; "B" and "G" are
      matrices, and so are "lora_b" and "kernel/b".
    - A "weight" or "w" in a layer called "norm1", "layer_norm", "ln_f", "bn2", ... is a
      scale, and a "mean" or "var" in it is a statistic.

    Numbers and the fields of wrappers do not name a leaf: "bias/0" and "bias/value"
    are biases.

    As the default it knows more than one path. It also excludes the leaves of modules
    whose class is a normalisation layer (Equinox, NNX), and parameters called a bias or
    a scale inside any other wrapper of one array. It tells what "b", "g", "B" and "G"
    are by the leaves beside them: a bias has fewer dimensions than its weight, and
    factors of a matrix have as many. It leaves integers alone. In a predicate of your
    own, exclude such leaves by name.

    Args:
      path: the keys that lead to the leaf, joined by "/": "Dense_0/kernel".
      leaf: anything with `ndim`, such as an array or a `jax.ShapeDtypeStruct`.

    Returns:
      True for a weight.

    Raises:
      ValueError: if the path is not a string.

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
    if not isinstance(path, str):
        raise ValueError(
            f"path must be a string, got {shown(path)}. It comes first, (path, leaf)"
        )
    return getattr(leaf, "ndim", 0) >= 2 and is_named_weight(path)


def is_named_weight(path: str, siblings: Mapping[str, Any] | None = None) -> bool:
    """Tell whether a leaf of two or more dimensions is a weight by its name.

    Args:
      path: the keys that lead to the leaf.
      siblings: the arrays of the node that holds the leaf, by path, the leaf among
        them, which decide on names of one letter; None if they are unknown.
    """
    name, layer, collections = split_path(path)
    kind = _kind(name)
    words = split_words(name)
    if collections or kind == "bias or scale" or _is_statistic(name, siblings or {}):
        return False
    if _is_normalisation(layer):
        is_of_layer = name in {"weight", "w", *_STATISTICS} or len(name) == 1
        return not is_of_layer
    if kind == "weight":
        return True
    if siblings and (decided := _decide_by_siblings(path, kind, siblings)) is not None:
        return decided
    return (
        kind == "capital letter"
        or words[0] in _FACTORED_WORDS
        or not _FACTORED_WORDS.isdisjoint(split_words(layer)[-1:])
        or not _MATRIX_WORDS.isdisjoint(words[1:])  # "b_proj"
    )


def says_matrix(path: str) -> bool:
    """Whether the last key has a word for a matrix, such as "weight"."""
    return not _MATRIX_WORDS.isdisjoint(split_words(path.rsplit("/", maxsplit=1)[-1]))


def split_path(path: str) -> tuple[str, str, bool]:
    """Return the key that names a leaf, that of its layer, and if it is a collection.

    Keys that are numbers, and fields of wrappers, name nothing.
    """
    keys = [key for key in path.split("/") if not key.isdigit()]
    while len(keys) > 1 and keys[-1] in _WRAPPER_FIELDS:
        keys.pop()
    name = keys[-1] if keys else ""
    layer = keys[-2] if len(keys) > 1 else ""
    return name, layer, not _COLLECTIONS.isdisjoint(keys[:-1])


def _kind(name: str) -> Kind:
    """Return what a name alone says."""
    spelled = _spelled_words(name)
    words = split_words(name)
    if not words or spelled[0] == "W":
        return "weight"
    named = [i for i, word in enumerate(words) if _is_bias_or_scale(word)]
    if named:
        last = named[-1]
        has_matrix_after = not _MATRIX_WORDS.isdisjoint(words[last + 1 :])
        is_subscript = words[0] == "w" and words[last] in {"beta", "gamma"}
        return "weight" if has_matrix_after or is_subscript else "bias or scale"
    if "".join(words) in _BIAS_OR_SCALE_NAMES:
        return "bias or scale"
    for letter in (spelled[0], spelled[-1]):
        if letter.lower() in _LETTERS:
            return "letter" if letter.islower() else "capital letter"
    return "weight"


def _is_bias_or_scale(word: str) -> bool:
    return word in _BIAS_OR_SCALE_WORDS or _is_normalisation_word(word)


def _is_normalisation_word(word: str) -> bool:
    return word.endswith("norm") or word in _NORMALISATION_WORDS


def _is_normalisation(layer: str) -> bool:
    """Whether a layer's name is that of a normalisation, not of "norm_conv"."""
    words = split_words(layer)
    named = [i for i, word in enumerate(words) if _is_normalisation_word(word)]
    return bool(named) and _MATRIX_WORDS.isdisjoint(words[named[-1] + 1 :])


def _is_statistic(name: str, siblings: Mapping[str, Any]) -> bool:
    """Whether a leaf is the mean or the variance of a normalisation, by its scale."""
    if name not in _STATISTICS:
        return False
    names = {split_path(path)[0] for path in siblings}
    return names >= _STATISTICS and not names.isdisjoint({"scale", "bias", "offset"})


def _decide_by_siblings(
    path: str, kind: Kind, siblings: Mapping[str, Any]
) -> bool | None:
    """Tell what a letter stands for by the arrays beside it; None if they do not say.

    A bias has fewer dimensions than its weight, or dimensions of length 1 where the
    weight has not.
    """
    own = siblings[path].shape
    weights = {
        other: array.shape
        for other, array in siblings.items()
        if other != path and array.ndim >= 2 and _kind(split_path(other)[0]) == "weight"
    }
    partners = [
        shape
        for other, shape in weights.items()
        if kind == "letter" or says_matrix(other)
    ]
    if any(_has_more_dimensions(shape, own) for shape in partners):
        return False
    return True if weights else None


def _has_more_dimensions(shape: Sequence[int], other: Sequence[int]) -> bool:
    num_long = [sum(length > 1 for length in lengths) for lengths in (shape, other)]
    return len(shape) > len(other) or num_long[0] > num_long[1]


def split_words(name: str) -> list[str]:
    """Split a name into lower-case words: "LayerNorm_0" -> ["layer", "norm"]."""
    return [word.lower() for word in _spelled_words(name)]


def _spelled_words(name: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
