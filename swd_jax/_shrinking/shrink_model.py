"""`shrink`: channels cut out of a model's parameters, and the smaller model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups
from swd_jax._coupling.channel_groups import ChannelGroups, Kept, get_analysis
from swd_jax._shrinking import (
    channels_to_positions,
    masks_to_channels,
    shrink_checks,
    shrink_framework_modules,
)
from swd_jax._shrinking.frameworks import module_trees
from swd_jax._shrinking.module_check import ModuleCheck
from swd_jax._shrinking.shrunk_apply import SmallerProgram


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A smaller model."""

    params: Any
    """The smaller parameters, in a tree of the same structure. Modules in it, or a
    module in place of the tree, are smaller modules that can be called as before."""
    apply: Callable[..., Any]
    """The model as a function of the smaller parameters and the other arguments.

    The function runs the traced program. For arguments of other shapes or dtypes, such
    as another batch or a symbolic one of `jax.export`, it traces the model again, once
    for each. It raises a `ValueError` if the model does not take them, or couples other
    channels then.
    """
    kept: tuple[np.ndarray, ...]
    """A vector per channel group: bools, shape (channels,), True = kept."""
    shapes: Mapping[str, tuple[int, ...]]
    """The new shape of each array by path, to build the model anew."""
    groups: ChannelGroups = dataclasses.field(repr=False)
    """The channel groups of the whole model."""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """New values, by path, of sizes that modules of your own keep, which were found by
    trying."""


def shrink(
    apply: Callable[..., Any],
    params: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *example_args: Any,
    multiple_of: int = 1,
    scores: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> Shrunk:
    """Cut channels out of a model: a smaller model with the same outputs.

    The smaller model computes what the whole model does with zeros in all members of
    the removed channels.

    Args:
      apply: the model, `apply(params, *example_args)`, as given to `channel_groups`.
        With the same function and the same shapes the model is not traced again.
      params: its parameters, with running statistics if it has some, or a module.
      groups: the result of `channel_groups` for them.
      kept: one vector of bools per channel group, shape (channels,), in the groups'
        order or by name. Or a tree of masks with the structure of the parameters, as
        from `prune_mask`: a channel is removed if all its producers and consumers are
        False, or all its scales and biases are.
      example_args: the model's other arguments, or their shapes.
      multiple_of: keep more channels, so that sizes are multiples of this number, or
        the full size.
      scores: one vector of numbers per channel group, shape (channels,): of the
        channels that `kept` removes, those with the highest scores fill up the
        multiples. By default the first ones.
      attributes: new values, by path, for sizes that modules of your own keep beside
        their arrays, as in `shrink_module`; others are found by trying.

    Returns:
      The smaller parameters or module, and a function that computes with them.

    Raises:
      ValueError: if the groups are those of another model, `kept` does not fit them,
        fits several parts of the model or empties a layer, a channel without scales
        and biases is not zero, or a smaller module fails or has other outputs than the
        cut model, and no sizes are found that mend it.

    Where it stands: after training and pruning, with the channels from
    `kept_channels`.

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
      >>> dict(small.shapes)
      {'first': (4, 5), 'second': (5, 3)}
      >>> small.apply(small.params, x).tolist()
      [[20.0, 20.0, 20.0]]
    """
    flat = tree_paths.flatten(params)
    channels_to_positions.check_shapes(groups, flat, "params")
    model_groups = find_channel_groups.groups_of_model(
        groups, apply, params, example_args
    )
    if model_groups is not groups:
        shrink_checks.check_groups(groups, model_groups)
    analysis: find_channel_groups.Analysis = get_analysis(model_groups)
    vectors = masks_to_channels.as_vectors(groups, kept, multiple_of, scores)
    positions = channels_to_positions.kept_positions(groups, vectors)
    cut = shrink_framework_modules.cut_tree(params, flat, positions, attributes or {})
    small = cut.tree
    shapes = {path: after for path, (_, after) in cut.shapes.items()}
    program = SmallerProgram(analysis, model_groups.tied, positions, shapes)
    sizes: Mapping[str, int] = {}
    if module_trees.has_modules(small):
        check = ModuleCheck(apply, analysis, program, example_args)
        sizes = shrink_framework_modules.set_own_sizes(cut, groups, vectors, check)
    pruned_by_scale = masks_to_channels.pruned_by_scale_only(groups, kept)
    if pruned_by_scale is not None:
        shrink_checks.check_pruned_channels_are_zero(
            analysis,
            groups,
            flat=flat,
            pruned=pruned_by_scale,
            program=program,
            small=small,
            example_args=example_args,
        )
    return Shrunk(small, program, tuple(vectors), shapes, model_groups, sizes)
