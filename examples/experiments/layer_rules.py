"""Gradual pruning by layers: the first one dense, the last one pruned less."""

import dataclasses
import math
import re
from collections.abc import Iterable
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

import swd_jax
from experiments import choices
from experiments.method import Method, Training

# The first and the last layer of the networks in `models`, by the start of the path.
FIRST_LAYERS = ("stem/", "stages/0/0/", "conv1/", "first/", "characters/", "dense1/")
LAST_LAYERS = ("head/dense3/", "head/", "dense3/", "dense/", "second/")
MOST_OF_LAST = Fraction(4, 5)
# Among arrays of two or more dimensions; others are fixed.
TRAINED = "(kernel|embedding)$"


def gradual_layers(training: Training) -> Method:
    """Gradual pruning at one rate for all layers, with its first and last spared.

    The first layer stays dense, the last loses at most 80 %, and all others lose the
    one part that makes the number of weights the target's, to the last one. Every
    layer follows the same cubic rise to its own end, ranked by itself. That is Gale et
    al., "The state of sparsity in deep neural networks" (arXiv 1902.09574), for
    ResNet-50, whose first layer is a small part of it.

    Where it is not, little would be left for the others, or less than nothing. So the
    two exceptions together may be at most half of the weights that are kept: in the
    paper's sparsest network they are 47 %. Otherwise the larger of them is dropped, and
    its layer loses what the others lose; then perhaps the smaller one. In LeNet-300-100
    and the GCN, which are mostly first layer, only the last one is spared at hard
    targets.

    The first and the last layer are known by their names in `models`. Embeddings of
    characters are a first layer, those of places are not.
    """
    sizes = {
        path: math.prod(shape)
        for path, shape in training.groups().shapes.items()
        if re.search(TRAINED, path)
        and choices.prunable(
            path,
            jax.ShapeDtypeStruct(shape, jnp.float32),
            spared=training.run.spared,
        )
    }
    counts = layer_counts(sizes, training.sparsity)
    end = training.at(training.run.rise)
    # Half a weight more, which is rounded off, because a rate is read as a decimal.
    scope = {
        f"^{re.escape(path)}$": swd_jax.cubic_sparsity(
            (count + 0.5) / sizes[path], begin=0, end=end
        )
        if count
        else 0.0
        for path, count in counts.items()
    }
    target = dataclasses.replace(training.target(training.sparsity), scope=scope)
    pruning = swd_jax.methods.magnitude_pruning(
        target, update_every=training.run.update_every
    )
    return Method(optax.chain(training.optimizer(), pruning), target)


def layer_counts(sizes: dict[str, int], sparsity: float) -> dict[str, int]:
    """The number of weights that `gradual_layers` prunes in each layer.

    Args:
      sizes: the number of weights of each layer, by path.
      sparsity: the part of all weights to prune.
    """
    total = sum(sizes.values())
    pruned = math.floor(Fraction(str(sparsity)) * total)
    # What an exception may lose at most.
    most = {}
    first, last = _matching(FIRST_LAYERS, sizes), _matching(LAST_LAYERS, sizes)
    if last is not None:
        most[last] = math.floor(MOST_OF_LAST * sizes[last])
    if first is not None:
        most[first] = 0
    spared = {path: sizes[path] - count for path, count in most.items()}
    while 2 * sum(spared.values()) > total - pruned:
        largest = max(spared, key=spared.__getitem__)
        del spared[largest], most[largest]
    fixed = {path: count for path, count in most.items() if path != last}
    rate = _rate_of_others(sizes, fixed, pruned)
    if last is not None and last in most and rate * sizes[last] > most[last]:
        fixed, rate = most, _rate_of_others(sizes, most, pruned)
    exact = {path: rate * size for path, size in sizes.items() if path not in fixed}
    counts = fixed | {path: math.floor(count) for path, count in exact.items()}
    # Those come first that rounding down takes most from; each keeps a weight.
    room = [path for path in exact if counts[path] < sizes[path] - 1]
    room.sort(key=lambda path: counts[path] - exact[path])
    for path in room[: pruned - sum(counts.values())]:
        counts[path] += 1
    return counts


def _rate_of_others(
    sizes: dict[str, int], fixed: dict[str, int], pruned: int
) -> Fraction:
    """The part that the layers lose for which no number is fixed."""
    others = sum(size for path, size in sizes.items() if path not in fixed)
    return Fraction(pruned - sum(fixed.values()), others)


def _matching(patterns: tuple[str, ...], paths: Iterable[str]) -> str | None:
    """The path that the first of the patterns matches which matches any."""
    paths = list(paths)
    found = (path for name in patterns for path in paths if re.match(name, path))
    return next(found, None)
