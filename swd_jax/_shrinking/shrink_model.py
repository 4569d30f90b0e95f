"""Channels cut out of parameters, and the model as a function of what is left."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_groups
from swd_jax._coupling.channel_groups import ChannelGroups, Kept
from swd_jax._shrinking import cut_arrays, shrink_checks, shrink_modules
from swd_jax._shrinking.run_at_size import Evaluation
from swd_jax._shrinking.smaller_model import SmallerModel


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A smaller model."""

    params: Any
    """The parameters that are left, in a tree of the same structure. Where the tree was
    or held modules, these are smaller modules, to be used as before."""
    apply: Callable[..., Any]
    """The model as a function of the smaller parameters and the other arguments.

    It is the program that was traced, so it takes arguments of the shapes that it was
    traced with. Another batch will do where the model treats all its examples alike and
    was traced with 2 or more: many operations treat an axis of size 1 in another way.
    """
    kept: tuple[np.ndarray, ...]
    """Which channels are left, by group."""
    widths: Mapping[str, tuple[int, ...]]
    """The new shape of each array, by its path: to build the model anew."""


def shrink(
    apply: Callable[..., Any],
    params: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *example_args: Any,
    round_to: int = 1,
    scores: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> Shrunk:
    """Cut channels out of a model: a smaller one that computes the same.

    What it computes is what the whole model does with zeros in all members of the
    channels that go.

    Args:
      apply: the model, `apply(params, *example_args)`, as given to `channel_groups`.
      params: its parameters, with running statistics if it has them, or a module.
      groups: what `channel_groups` gave for them.
      kept: one vector of bools per group, shape (channels,), in the groups' order or by
        name. Or a tree of masks with the structure of the parameters, as from
        `prune_mask`: a channel goes when all weights are False that compute it, and all
        that compute others from it.
      example_args: the model's other arguments, or their shapes.
      round_to: more channels are kept where that makes sizes multiples of it, as far as
        there are any.
      scores: one vector of numbers per group, shape (channels,): the best of the others
        are kept. By default the first.
      attributes: for modules of your own that keep sizes beside their arrays: new
        values by path, as in `shrink_module`.

    Returns:
      The smaller parameters or module, and a function that computes with them.

    Raises:
      ValueError: if the groups are those of another model, `kept` does not fit them or
        empties a layer, a channel without scales and biases is not zero, or a smaller
        module does not compute what it should.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["second"]
      >>> params = {"first": jnp.ones((4, 16)), "second": jnp.ones((16, 3))}
      >>> x = jnp.ones((1, 4))
      >>> groups = swd_jax.channels.channel_groups(model, params, x)
      >>> small = swd_jax.channels.shrink(
      ...     model, params, groups, [[True] * 5 + [False] * 11], x
      ... )
      >>> dict(small.widths)
      {'first': (4, 5), 'second': (5, 3)}
      >>> small.apply(small.params, x).tolist()
      [[20.0, 20.0, 20.0]]
    """
    analysis = find_groups.analyse(apply, params, example_args)
    cut_arrays.check_shapes(groups, analysis.params, "params")
    shrink_checks.check_groups(groups, analysis.groups)
    vectors = cut_arrays.vectors(groups, kept, round_to, scores)
    alive = np.ones(max(len(analysis.context.atoms), 1), np.bool_)
    for roots, vector in zip(analysis.channel_roots, vectors, strict=True):
        alive[roots[~vector]] = False
    alive = alive[analysis.context.atoms.roots(np.arange(len(alive)))]
    cuts = cut_arrays.cuts(groups, vectors)
    small = shrink_modules.cut_tree(params, analysis.params, cuts, attributes or {})
    widths = {
        path: tuple(leaf.shape)
        for _, path, leaf in tree_paths.arrays(tree_paths.flatten(small))
    }
    smaller = SmallerModel(analysis, Evaluation(alive), widths)
    if shrink_modules.has_modules(small):
        shrink_checks.check_module(apply, analysis, smaller, small, example_args)
    by_scales = cut_arrays.gone_by_scales(groups, kept)
    if by_scales is not None:
        shrink_checks.check_silent(analysis, groups, by_scales, smaller, small)
    return Shrunk(small, smaller, tuple(vectors), widths)
