"""What shrinking refuses: groups of another model, and what computes something else."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun, jaxprs_in_params

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_groups, trace_model
from swd_jax._coupling.channel_groups import ChannelGroups
from swd_jax._shrinking.smaller_model import SmallerModel


def check_groups(given: ChannelGroups, found: ChannelGroups) -> None:
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


def check_module(
    apply: Callable[..., Any],
    analysis: find_groups.Analysis,
    smaller: SmallerModel,
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
        program = trace_model.trace(apply, small, example_args)
    except ValueError as error:
        raise ValueError(
            f"The smaller module cannot be used. {advice} {error}"
        ) from error
    if _outline(program.jaxpr) == _outline(analysis.jaxpr.jaxpr):
        return
    arrays = [a for *_, a in tree_paths.arrays(tree_paths.flatten(small))]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in arrays):
        return
    arguments = jax.tree.map(made_up, tuple(example_args))
    wanted = jax.tree.leaves(smaller(small, *arguments))
    got = jax.tree.leaves(apply(small, *arguments))
    if not all(_close(a, b) for a, b in zip(wanted, got, strict=True)):
        raise ValueError(
            f"The smaller module does not compute what the cut model does. {advice}"
        )


def check_silent(
    analysis: find_groups.Analysis,
    groups: ChannelGroups,
    gone: Sequence[np.ndarray],
    smaller: SmallerModel,
    small: Any,
) -> None:
    """Raise where channels are something else than zero without scales and biases."""
    arrays = {path: leaf for _, path, leaf in tree_paths.arrays(analysis.params)}
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
    inputs = [a for a in jax.tree.leaves(arguments) if tree_paths.is_array(a)]
    in_order = [arrays[path] for _, path, _ in tree_paths.arrays(analysis.params)]
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
    if not tree_paths.is_array(leaf):
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
