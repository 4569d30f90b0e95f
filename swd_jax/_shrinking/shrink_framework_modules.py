"""`shrink_module`: channels cut out of Flax NNX and Equinox modules."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups, type_aliases
from swd_jax._coupling.channel_groups import ChannelGroups, Kept, get_analysis
from swd_jax._shrinking import channels_to_positions, cut_arrays, masks_to_channels
from swd_jax._shrinking.find_sizes import SizeSearch
from swd_jax._shrinking.frameworks import layer_sizes, module_trees
from swd_jax._shrinking.frameworks.shapes_before_and_after import BeforeAndAfter, Shapes
from swd_jax._shrinking.module_check import ModuleCheck
from swd_jax._shrinking.possible_sizes import cut_lengths
from swd_jax._shrinking.shrunk_apply import SmallerProgram

_MAX_PATHS_NAMED = 8


def shrink_module(
    model: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *,
    attributes: Mapping[str, Any] | None = None,
    multiple_of: int = 1,
    scores: Any = None,
) -> Any:
    """Cut channels out of a Flax NNX or Equinox module.

    The smaller module is called as before. The sizes that layers of Flax and Equinox
    keep beside their arrays (`in_features`, `groups`, `num_heads`, ...) get new values.
    Sizes that modules of your own keep are found by trying, if the smaller module does
    not compute what it should with the function and the arguments that the groups were
    found with.

    Args:
      model: the module in which the groups were found, as `params` of
        `channel_groups`, or any tree with modules. It is not changed.
      groups: the result of `channel_groups`.
      kept: the kept channels, as in `shrink`.
      attributes: new values for attributes of the module, by path:
        `{"block/heads": 3}`. They are not tried.
      multiple_of: as in `shrink`.
      scores: as in `shrink`.

    Returns:
      A module of the same class.

    Raises:
      ValueError: if the groups are those of another model, `kept` does not fit them or
        empties a layer, the module has no such attribute, or it fails or has other
        outputs than the cut model, and no sizes are found that mend it.

    Where it stands: in place of `shrink`, where only the module is needed.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(
      ...     nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)
      ... )
      >>> x = jnp.ones((1, 4))
      >>> groups = swd_jax.channels.channel_groups(lambda model, x: model(x), model, x)
      >>> small = swd_jax.channels.shrink_module(model, groups, [[True, False] * 8])
      >>> small.layers[0].out_features, small(x).shape
      (8, (1, 3))
    """
    flat = tree_paths.flatten(model)
    channels_to_positions.check_shapes(groups, flat, "model")
    vectors = masks_to_channels.as_vectors(groups, kept, multiple_of, scores)
    positions = channels_to_positions.kept_positions(groups, vectors)
    cut = cut_tree(model, flat, positions, attributes or {})
    analysis: find_channel_groups.Analysis | None = get_analysis(groups)
    if analysis is not None and module_trees.has_modules(model):
        traced = analysis.inputs
        arguments = jax.tree.unflatten(traced.argument_tree, traced.arguments)
        shapes = {path: after for path, (_, after) in cut.shapes.items()}
        program = SmallerProgram(analysis, groups.tied, positions, shapes)
        check = ModuleCheck(traced.apply, analysis, program, arguments)
        set_own_sizes(cut, groups, vectors, check)
    return cut.tree


class CutTree(NamedTuple):
    """A tree with smaller arrays."""

    tree: Any
    shapes: Mapping[str, BeforeAndAfter]
    """Shapes of the arrays before and after the cut, by path."""
    known: frozenset[str]
    """Paths of the modules whose sizes are known, and of the attributes given."""


def cut_tree(
    tree: Any,
    flat: tree_paths.FlatTree,
    positions: Mapping[str, channels_to_positions.KeptPositions],
    attributes: Mapping[str, Any],
) -> CutTree:
    """Cut the arrays of a tree and set the sizes that its modules keep.

    Args:
      tree: the parameters.
      flat: the same, flattened.
      positions: the kept positions of the arrays that are cut, by path.
      attributes: new values of other attributes, by path.
    """
    arrays = {path: leaf for _, path, leaf in tree_paths.arrays(flat)}
    cut_leaves = cut_arrays.cut({path: arrays[path] for path in positions}, positions)
    if module_trees.has_flax_modules(tree):
        small = module_trees.replace_flax_arrays(tree, cut_leaves)
    else:
        replacements = {
            position: cut_leaves[path]
            for position, path, _ in tree_paths.arrays(flat)
            if path in cut_leaves
        }
        small = flat.rebuild(replacements)
    shapes = {
        path: (tuple(leaf.shape), tuple(cut_leaves.get(path, leaf).shape))
        for path, leaf in arrays.items()
    }
    known = set(attributes)
    unused = dict(attributes)
    for prefix, module in module_trees.iterate_modules(small):
        sizes = layer_sizes.new_sizes(module, _shapes_in(prefix, shapes))
        for name, value in sizes.items():
            # Equinox modules are frozen dataclasses.
            object.__setattr__(module, name, value)
        if sizes:
            known.add(prefix)
        for path in list(unused):
            layer, _, name = path.rpartition("/")
            if layer == prefix and hasattr(module, name):
                object.__setattr__(module, name, unused.pop(path))
    if unused:
        raise ValueError(
            f"attributes names {next(iter(unused))!r}, which is no attribute of a "
            "module in the model. A path leads to it by attributes and numbers, such "
            "as 'blocks/0/heads'."
        )
    return CutTree(small, shapes, frozenset(known))


def set_own_sizes(
    cut: CutTree,
    groups: ChannelGroups,
    vectors: Sequence[type_aliases.Bools],
    check: ModuleCheck,
) -> dict[str, int]:
    """Set sizes that modules of no known class keep, if the smaller model needs it.

    Args:
      cut: the smaller modules, whose sizes are set in place.
      groups: the channel groups.
      vectors: the kept channels of each.
      check: what compares them with the smaller program.

    Returns:
      The new sizes by path.

    Raises:
      ValueError: if the modules are wrong, and no new sizes mend them.
    """
    problem = check.problem(cut.tree)
    if problem is None:
        return {}
    search = SizeSearch(
        cut.tree,
        cut_lengths(cut.shapes, groups, vectors),
        lambda: check.problem(cut.tree) is None,
        known=cut.known,
    )
    sizes = search.run()
    if sizes is None:
        tried = ", ".join(map(repr, search.paths[:_MAX_PATHS_NAMED]))
        tried = f" Other values of {tried} were tried, in vain." if tried else ""
        raise ValueError(
            f"{problem.message}{tried} The module may keep a size beside its arrays, "
            "or compute a constant from a size: give such attributes new values in "
            "shrink(..., attributes={path: value}). Or split the module and give "
            "shrink its arrays as params (nnx.split, eqx.partition): the function that "
            "it returns needs no module."
        ) from problem.error
    return sizes


def _shapes_in(prefix: str, shapes: Mapping[str, BeforeAndAfter]) -> Shapes:
    return lambda name: shapes.get(f"{prefix}/{name}" if prefix else name)
