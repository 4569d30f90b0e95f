"""Channels cut out of parameters, and the model as a function of what is left."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun, jaxprs_in_params

from swd_jax import _paths
from swd_jax._channels import _find, _kept, _modules, _trace
from swd_jax._channels._evaluate import Evaluation
from swd_jax._channels._groups import ChannelGroups, Kept


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
      >>> groups = swd_jax.channel_groups(model, params, x)
      >>> small = swd_jax.shrink(model, params, groups, [[True] * 5 + [False] * 11], x)
      >>> dict(small.widths)
      {'first': (4, 5), 'second': (5, 3)}
      >>> small.apply(small.params, x).tolist()
      [[20.0, 20.0, 20.0]]
    """
    analysis = _find.analyse(apply, params, example_args)
    _kept.check_shapes(groups, analysis.params, "params")
    _check_groups(groups, analysis.groups)
    vectors = _kept.vectors(groups, kept, round_to, scores)
    alive = np.ones(max(len(analysis.context.atoms), 1), np.bool_)
    for roots, vector in zip(analysis.channel_roots, vectors, strict=True):
        alive[roots[~vector]] = False
    alive = alive[analysis.context.atoms.roots(np.arange(len(alive)))]
    cuts = _kept.cuts(groups, vectors)
    small = _modules.cut_tree(params, analysis.params, cuts, attributes or {})
    widths = {
        path: tuple(leaf.shape)
        for _, path, leaf in _paths.arrays(_paths.flatten(small))
    }
    smaller = _SmallerModel(analysis, Evaluation(alive), widths)
    if _modules.has_modules(small):
        _check_module(apply, analysis, smaller, small, example_args)
    by_scales = _kept.gone_by_scales(groups, kept)
    if by_scales is not None:
        _check_silent(analysis, groups, by_scales, smaller, small)
    return Shrunk(small, smaller, tuple(vectors), widths)


class _SmallerModel:
    """The traced program at the sizes that are left."""

    def __init__(
        self,
        analysis: _find.Analysis,
        evaluation: Evaluation,
        widths: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._analysis = analysis
        self._evaluation = evaluation
        self._widths = widths

    def __call__(self, params: Any, *args: Any) -> Any:
        analysis = self._analysis
        arrays = self._checked(params)
        leaves, structure = jax.tree.flatten(args)
        if structure != analysis.argument_tree:
            raise ValueError(
                "The smaller model takes arguments of the structure that it was traced "
                f"with, {analysis.argument_tree}, and got {structure}."
            )
        inputs: list[Any] = []
        for given, example in zip(leaves, analysis.arguments, strict=True):
            if _paths.is_array(example):
                inputs.append(jnp.asarray(given))
            elif given is not example and given != example:
                raise ValueError(
                    f"The smaller model was traced with {example!r} as an argument "
                    f"that is no array, and cannot take {given!r} for it. Shrink again "
                    "with this value among the example_args."
                )
        examples = [a for a in analysis.arguments if _paths.is_array(a)]
        traced = [tuple(example.shape) for example in examples]
        given = [array.shape for array in inputs]
        try:
            outputs = self._evaluation.call(
                analysis.jaxpr, analysis.frame, [*arrays, *inputs]
            )
        except (TypeError, ValueError) as error:
            if given == traced:
                raise
            raise ValueError(
                f"The smaller model was traced with arguments of the shapes {traced}, "
                f"and does not take {given}. Shrink with example_args of these shapes; "
                "a batch of 1 is traced as a special case, so give 2 for any."
            ) from error
        filled = [
            self._evaluation.filled(value, labels, range(labels.rank))
            for value, labels in zip(outputs, analysis.results, strict=True)
        ]
        return jax.tree.unflatten(analysis.result_tree, filled)

    def _checked(self, params: Any) -> list[Any]:
        found = _paths.arrays(_paths.flatten(params))
        shapes = {path: tuple(leaf.shape) for _, path, leaf in found}
        if shapes != dict(self._widths):
            path = next(
                p
                for p in (*self._widths, *shapes)
                if shapes.get(p) != self._widths.get(p)
            )
            raise ValueError(
                f"params must be those of the smaller model: at {path!r} it has "
                f"{self._widths.get(path, 'nothing')}, and these have "
                f"{shapes.get(path, 'nothing')}."
            )
        by_path = {path: leaf for _, path, leaf in found}
        return [by_path[path] for _, path, _ in _paths.arrays(self._analysis.params)]


def _check_groups(given: ChannelGroups, found: ChannelGroups) -> None:
    same = len(given) == len(found) and all(
        one.name == other.name
        and one.size == other.size
        and len(one.members) == len(other.members)
        and all(
            (a.path, a.axis) == (b.path, b.axis)
            and np.array_equal(a.indices, b.indices)
            for a, b in zip(one.members, other.members, strict=True)
        )
        for one, other in zip(given, found, strict=True)
    )
    if not same:
        raise ValueError(
            "groups are not those of this model: its parameters have the same shapes, "
            "but it couples other channels. Find its groups with channel_groups, with "
            "the same apply and example_args."
        )


def _check_module(
    apply: Callable[..., Any],
    analysis: _find.Analysis,
    smaller: _SmallerModel,
    small: Any,
    example_args: Sequence[Any],
) -> None:
    """Raise where a smaller module computes something else than it should.

    Sizes that a module of the user's keeps beside its arrays are not known here.
    """
    advice = (
        "It may keep a size beside its arrays, or compute a constant from a size: give "
        "such attributes new values in shrink(..., attributes={path: value}). Or split "
        "the module and give shrink its arrays as params (nnx.split, eqx.partition): "
        "the function that it returns needs no module."
    )
    try:
        program = _trace.trace(apply, small, example_args)
    except ValueError as error:
        raise ValueError(
            f"The smaller module cannot be used. {advice} {error}"
        ) from error
    if _outline(program.jaxpr) == _outline(analysis.jaxpr.jaxpr):
        return
    arrays = [a for *_, a in _paths.arrays(_paths.flatten(small))]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in arrays):
        return
    arguments = jax.tree.map(made_up, tuple(example_args))
    wanted = jax.tree.leaves(smaller(small, *arguments))
    got = jax.tree.leaves(apply(small, *arguments))
    if not all(_close(a, b) for a, b in zip(wanted, got, strict=True)):
        raise ValueError(
            f"The smaller module does not compute what the cut model does. {advice}"
        )


def _check_silent(
    analysis: _find.Analysis,
    groups: ChannelGroups,
    gone: Sequence[np.ndarray],
    smaller: _SmallerModel,
    small: Any,
) -> None:
    """Raise where channels are something else than zero without scales and biases."""
    arrays = {path: leaf for _, path, leaf in _paths.arrays(analysis.params)}
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in arrays.values()):
        return
    for group, vector in zip(groups, gone, strict=True):
        for member in group.members:
            if member.role in ("scale", "bias"):
                array = np.array(arrays[member.path])
                np.moveaxis(array, member.axis, 0)[member.indices[vector].ravel()] = 0
                arrays[member.path] = array
    arguments = jax.tree.map(
        made_up, jax.tree.unflatten(analysis.argument_tree, analysis.arguments)
    )
    inputs = [a for a in jax.tree.leaves(arguments) if _paths.is_array(a)]
    in_order = [arrays[path] for _, path, _ in _paths.arrays(analysis.params)]
    wanted = jaxpr_as_fun(analysis.jaxpr)(*in_order, *inputs)
    got = jax.tree.leaves(smaller(small, *arguments))
    if not all(_close(a, b) for a, b in zip(wanted, got, strict=True)):
        names = [g.name for g, v in zip(groups, gone, strict=True) if v.any()]
        raise ValueError(
            f"kept has zeros for the scales and biases of channels in {names}, and "
            "these are not zero all the same: not every layer that computes them has a "
            "batch norm after it. Prune their filters too, with decays='all', or leave "
            "the group out with prunable=..."
        )


def made_up(leaf: Any) -> Any:
    """An array in the shape of one, or of a description: random numbers, or zeros."""
    if not _paths.is_array(leaf):
        return leaf
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        numbers = np.random.default_rng(0).standard_normal(leaf.shape)
        return jnp.asarray(numbers, leaf.dtype)
    return leaf if isinstance(leaf, jax.Array) else jnp.zeros(leaf.shape, leaf.dtype)


def _close(wanted: Any, got: Any) -> bool:
    wanted, got = np.asarray(wanted, np.float64), np.asarray(got, np.float64)
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-6)
    return wanted.shape == got.shape and bool(
        (np.abs(wanted - got) <= 1e-3 * scale).all()
    )


def _outline(jaxpr: Any) -> list[Any]:
    """Operations and numbers of a program, without sizes."""
    found: list[Any] = []
    for equation in jaxpr.eqns:
        found.append(equation.primitive.name)
        found.extend(
            np.asarray(atom.val).tolist()
            for atom in equation.invars
            if isinstance(atom, Literal)
        )
        for inner in jaxprs_in_params(equation.params):
            found.append(_outline(inner))
    return found
