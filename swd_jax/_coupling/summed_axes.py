"""`summed_axes`: over which axis of each parameter the model's products sum.

The model is traced. Every array of its program that is computed from parameters alone
has *views* of the parameters: for each axis of the array, the parts of the parameter's
axes that lie along it. Products note which of them they sum over.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from jax.extend.core import Literal

from swd_jax._coupling import tied_leaves, trace_model, type_aliases
from swd_jax._coupling.current_equation import ProgramPosition
from swd_jax._coupling.rules import elementwise, function_calls, scan
from swd_jax._coupling.rules.reshape import match_axes
from swd_jax._coupling.rules.rule_interface import unwrap_closed_jaxpr


@dataclasses.dataclass(frozen=True)
class SummedAxes:
    """The axes of a model's parameters that its products sum over.

    `summed_axes` finds them, and `NM(n, m, axis=...)` takes them. Hashable, and equal
    to any value with equal axes.
    """

    axes: tuple[tuple[str, int | None], ...]
    """Path and axis of each array among the parameters, the axis counted from the end.
    None where no axis is summed over in all products."""
    reasons: tuple[tuple[str, str], ...] = dataclasses.field(compare=False, repr=False)
    """Path, and why there is no axis."""

    def axis_of(self, path: str, num_dims: int) -> int:
        """Return the axis of a parameter, counted from the end.

        Raises:
          ValueError: if it has none, or has not been among the model's parameters.
        """
        axes = dict(self.axes)
        if path not in axes:
            raise ValueError(
                "summed_axes found no parameter with this path: give it the tree that "
                "is pruned as the model's params"
            )
        axis = axes[path]
        if axis is None:
            raise ValueError(f"summed_axes found no axis: {dict(self.reasons)[path]}")
        if axis < -num_dims:
            raise ValueError(
                f"summed_axes found axis {axis}, of a parameter with more dimensions"
            )
        return axis


def summed_axes(
    apply: Callable[..., Any], params: Any, *example_args: Any
) -> SummedAxes:
    """Find over which axis of each parameter the model's products sum.

    The model is traced, not run. Matrix products and convolutions are followed through
    reshapes, transposes, slices, elementwise operations on parameters alone, and the
    loops and calls of JAX.

    - Of several axes that one product sums over, such as the heads and their features
      in the output of an attention, it is the last: its weights are neighbours when the
      product is laid out as a matrix.
    - In a convolution it is the axis of the input channels, also of a grouped one, not
      the window.
    - A parameter that two products sum over different axes, such as an embedding tied
      to two layers in two ways, has no axis; nor has one that is only looked up.

    Args:
      apply: the model, `apply(params, *example_args)`, as for
        `channels.channel_groups`.
      params: the tree that will be pruned: arrays or their shapes.
      example_args: the model's other arguments, or their shapes.

    Returns:
      The axes, for `NM(n, m, axis=...)`. `NM` raises an error where a leaf that is
      pruned has no axis, and says why.

    Raises:
      ValueError: if the model cannot be traced, or no product sums over a parameter.

    Where it stands: once, before training.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     hidden = x @ params["inner"]  # (inputs, outputs)
      ...     return jnp.einsum("oi,bi->bo", params["outer"], hidden)
      >>> params = {"inner": jnp.ones((4, 8)), "outer": jnp.ones((4, 8))}
      >>> axes = swd_jax.structures.summed_axes(model, params, jnp.ones((1, 4)))
      >>> dict(axes.axes)
      {'inner': -2, 'outer': -1}
      >>> structure = swd_jax.NM(2, 4, axis=axes)

    Source: Mishra et al. (arXiv 2104.08378), section 3, for why it is this axis.
    """
    inputs = trace_model.model_inputs(apply, params, example_args)
    jaxpr, _ = trace_model.trace(inputs)
    follower = _Follower()
    values = [
        _leaf_value(number, tuple(leaf.shape))
        for number, (_, _, leaf) in enumerate(inputs.entries)
    ]
    values += [_Value(is_weight=False)] * len(inputs.input_arrays)
    follower.follow(jaxpr, values)
    if not follower.uses:
        raise ValueError(
            "no product in apply sums over any of its params: apply must use the "
            "params that it is given, not those that it closes over"
        )
    paths = [path for _, path, _ in inputs.entries]
    first = tied_leaves.first_of_tied(paths, tied_leaves.shared_in_container(params))
    uses: dict[str, dict[tuple[int, ...], str]] = collections.defaultdict(dict)
    for number, path in enumerate(paths):
        uses[first[path]].update(follower.uses[number])
    axes: list[tuple[str, int | None]] = []
    reasons: list[tuple[str, str]] = []
    for _, path, leaf in inputs.entries:
        axis, reason = _choose(uses[first[path]], tuple(leaf.shape))
        axes.append((path, axis))
        if axis is None:
            reasons.append((path, reason))
    return SummedAxes(tuple(axes), tuple(reasons))


def _choose(
    uses: dict[tuple[int, ...], str], shape: tuple[int, ...]
) -> tuple[int | None, str]:
    """Return the last axis that all products sum over, from the end; or why none."""
    if not uses:
        return None, "no product sums over it"
    common = set.intersection(*map(set, uses))
    if common:
        long_axes = {axis for axis in common if shape[axis] > 1}
        return max(long_axes or common) - len(shape), ""
    products = [
        f"{' and '.join(map(str, axes)) or 'no whole axis'} in {description}"
        for axes, description in uses.items()
    ]
    return None, f"its products sum over different axes: {'; '.join(products)}"


class _Part(NamedTuple):
    """A part of a parameter's axis: its indices are `stride` apart."""

    axis: int
    size: int
    stride: int


_NOT_OF_LEAF = -1
"""The axis of a part along which the values of the parameter are repeated."""

_Axis: TypeAlias = tuple[_Part, ...] | None
"""The parts along an axis of an array, the outermost first; None where not known."""


class _View(NamedTuple):
    """A parameter as an array of the program shows it."""

    leaf: int
    axes: tuple[_Axis, ...]


class _Value(NamedTuple):
    """What is known of an array of the program."""

    views: tuple[_View, ...] = ()
    is_weight: bool = True
    """Whether it is computed from parameters and constants alone."""


def _leaf_value(leaf: int, shape: Sequence[int]) -> _Value:
    axes = tuple((_Part(axis, size, 1),) for axis, size in enumerate(shape))
    return _Value((_View(leaf, axes),))


def _repeated(size: int) -> _Axis:
    return (_Part(_NOT_OF_LEAF, size, 0),)


class _Follower:
    """Follows parameters through a program and notes the products that use them."""

    def __init__(self) -> None:
        self.uses: dict[int, dict[tuple[int, ...], str]] = collections.defaultdict(dict)
        """By leaf: the axes that a product sums over, and where the product is."""
        self._position = ProgramPosition()

    def follow(self, jaxpr: Any, arguments: Sequence[_Value]) -> list[_Value]:
        """Return what is known of a jaxpr's results."""
        program, _ = unwrap_closed_jaxpr(jaxpr)
        values: dict[Any, _Value] = dict.fromkeys(program.constvars, _Value())
        values.update(zip(program.invars, arguments, strict=True))

        def read(atom: Any) -> _Value:
            return _Value() if isinstance(atom, Literal) else values[atom]

        for equation in program.eqns:
            operands = [read(atom) for atom in equation.invars]
            with self._position.equation(equation):
                results = self._apply(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in program.outvars]

    def _apply(
        self, equation: type_aliases.Equation, operands: list[_Value]
    ) -> list[_Value]:
        name = equation.primitive.name
        is_weight = all(operand.is_weight for operand in operands)
        if name in _CALLS:
            return self._call(equation, operands)
        if name in _PRODUCTS:
            _PRODUCTS[name](self, equation, operands)
        elif name in _IDENTITIES and len(operands) == len(equation.outvars):
            return operands
        elif name in elementwise.RULES or name in _SAME_AXES:
            shape = _shape(equation.outvars[0])
            views = tuple(
                view
                for atom, operand in zip(equation.invars, operands, strict=True)
                for view in operand.views
                if is_weight and _shape(atom) == shape
            )
            return [_Value(views, is_weight)] * len(equation.outvars)
        elif name in _MOVES and is_weight:
            return [
                _Value(
                    tuple(
                        _move(equation, atom, view, _shape(result))
                        for atom, operand in zip(equation.invars, operands, strict=True)
                        for view in operand.views
                        if _shape(atom)  # no index, and no value of padding
                    )
                )
                for result in equation.outvars
            ]
        return [_Value((), is_weight)] * len(equation.outvars)

    def note_sum(self, operand: _Value, dims: Sequence[int]) -> None:
        """Note that a product sums over some axes of an operand."""
        for view in operand.views:
            along = [view.axes[dim] for dim in dims]
            parts = [part for axis in along for part in axis or ()]
            is_of_leaf = any(part.axis != _NOT_OF_LEAF for part in parts)
            if is_of_leaf or None in along:
                # Neighbours along the axis are summed over together.
                summed = {
                    part.axis
                    for part in parts
                    if part.stride == 1 and part.axis != _NOT_OF_LEAF
                }
                known = tuple(sorted(summed)) if None not in along else ()
                self.uses[view.leaf].setdefault(known, self._position.description)

    def _call(
        self, equation: type_aliases.Equation, operands: list[_Value]
    ) -> list[_Value]:
        name, params = equation.primitive.name, equation.params
        with self._position.called_jaxpr():
            if name == "scan":
                return self._scan(equation, operands)
            if name == "while":
                num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
                constants = operands[num_cond : num_cond + num_body]
                carry = operands[num_cond + num_body :]
                return self._loop(params["body_jaxpr"], constants, carry, [])
            if name == "cond":
                index, *rest = operands
                branches = [self.follow(branch, rest) for branch in params["branches"]]
                return [
                    _Value((), index.is_weight and all(v.is_weight for v in results))
                    for results in zip(*branches, strict=True)
                ]
            called = function_calls.called_jaxpr(equation)
            return self.follow(called, operands)

    def _scan(
        self, equation: type_aliases.Equation, operands: list[_Value]
    ) -> list[_Value]:
        num_constants, num_carry = scan.num_consts_and_carry(equation)
        slices = [
            value._replace(
                views=tuple(_View(view.leaf, view.axes[1:]) for view in value.views)
            )
            for value in operands[num_constants + num_carry :]
        ]
        carry = operands[num_constants : num_constants + num_carry]
        return self._loop(
            equation.params["jaxpr"], operands[:num_constants], carry, slices
        )

    def _loop(
        self,
        body: Any,
        constants: list[_Value],
        carry: list[_Value],
        slices: list[_Value],
    ) -> list[_Value]:
        """Follow a loop's body until it is known what its carry depends on."""
        are_weights = [value.is_weight for value in carry]
        before = {leaf: dict(uses) for leaf, uses in self.uses.items()}
        while True:
            carry = [_Value((), is_weight) for is_weight in are_weights]
            results = self.follow(body, [*constants, *carry, *slices])
            after = [
                old and new.is_weight
                for old, new in zip(are_weights, results, strict=False)
            ]
            if after == are_weights:
                return [_Value((), value.is_weight) for value in results]
            are_weights = after
            # Products of what was taken for a parameter are noted anew.
            self.uses = collections.defaultdict(
                dict, {leaf: dict(uses) for leaf, uses in before.items()}
            )


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


# Products.


def _note_dot_general(
    follower: _Follower, equation: type_aliases.Equation, operands: list[_Value]
) -> None:
    numbers = equation.params.get("dimension_numbers")
    if numbers is None:  # that of ragged_dot_general
        ragged = equation.params["ragged_dot_dimension_numbers"]
        numbers = ragged.dot_dimension_numbers
    (left_sum, right_sum), _ = numbers
    follower.note_sum(operands[0], left_sum)
    follower.note_sum(operands[1], right_sum)


def _note_convolution(
    follower: _Follower, equation: type_aliases.Equation, operands: list[_Value]
) -> None:
    numbers = equation.params["dimension_numbers"]
    follower.note_sum(operands[0], [numbers.lhs_spec[1]])
    follower.note_sum(operands[1], [numbers.rhs_spec[1]])


_PRODUCTS: dict[
    str, Callable[[_Follower, type_aliases.Equation, list[_Value]], None]
] = {
    "dot_general": _note_dot_general,
    "ragged_dot_general": _note_dot_general,
    "conv_general_dilated": _note_convolution,
}


# Operations that move axes: from the axes of an operand to those of the result.

_Axes: TypeAlias = tuple[_Axis, ...]
_Shape: TypeAlias = tuple[int, ...]


def _move(
    equation: type_aliases.Equation, operand: Any, view: _View, shape: _Shape
) -> _View:
    move = _MOVES[equation.primitive.name]
    return view._replace(axes=move(equation.params, view.axes, _shape(operand), shape))


def _transpose(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    del old_shape, shape
    return tuple(axes[dim] for dim in params["permutation"])


def _squeeze(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    del old_shape, shape
    squeezed = {dim % len(axes) for dim in params["dimensions"]}
    return tuple(axis for dim, axis in enumerate(axes) if dim not in squeezed)


def _reduce(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    del old_shape, shape
    return tuple(axis for dim, axis in enumerate(axes) if dim not in params["axes"])


def _broadcast(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    results = [_repeated(size) for size in shape]
    for dim, new in enumerate(params["broadcast_dimensions"]):
        if old_shape[dim] == shape[new]:
            results[new] = axes[dim]
    return tuple(results)


def _cut(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    """Slices, padding and concatenation change sizes, and leave axes in place."""
    del params
    results: list[_Axis] = []
    for axis, old_size, size in zip(axes, old_shape, shape, strict=True):
        if old_size == size:
            results.append(axis)
        elif axis is not None and len(axis) == 1:
            results.append((axis[0]._replace(size=size),))
        else:
            results.append(None)
    return tuple(results)


def _reshape(params: Any, axes: _Axes, old_shape: _Shape, shape: _Shape) -> _Axes:
    if params.get("dimensions") is not None or 0 in shape:
        return tuple(None for _ in shape)
    results: list[_Axis] = [()] * len(shape)
    for old, new in match_axes(old_shape, shape):
        if len(old) == len(new) == 1:
            results[new[0]] = axes[old[0]]
        elif old and new:
            parts = _regroup([axes[dim] for dim in old], [shape[dim] for dim in new])
            for dim, axis in zip(new, parts, strict=True):
                results[dim] = axis
    return tuple(results)


def _regroup(axes: Sequence[_Axis], sizes: Sequence[int]) -> list[_Axis]:
    """Divide the parts along neighbouring axes into new axes of these sizes."""
    unknown: list[_Axis] = [None] * len(sizes)
    if None in axes:
        return unknown
    parts = [part for axis in axes for part in axis or () if part.size > 1]
    results: list[_Axis] = []
    for size in sizes:
        taken: list[_Part] = []
        remaining = size
        while remaining > 1:
            if not parts:
                return unknown
            part = parts.pop(0)
            if remaining % part.size and part.size % remaining:
                return unknown
            if part.size > remaining:
                inner = part.size // remaining
                parts.insert(0, part._replace(size=inner))
                part = part._replace(size=remaining, stride=part.stride * inner)
            remaining //= part.size
            taken.append(part)
        results.append(_merged(taken))
    return results


def _merged(parts: list[_Part]) -> _Axis:
    """Join neighbouring parts of one axis."""
    merged: list[_Part] = []
    for part in parts:
        outer = merged[-1] if merged else None
        if (
            outer is not None
            and outer.axis == part.axis
            and outer.stride == part.stride * part.size
        ):
            merged[-1] = part._replace(size=outer.size * part.size)
        else:
            merged.append(part)
    return tuple(merged)


_MOVES: dict[str, Callable[[Any, _Axes, _Shape, _Shape], _Axes]] = {
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    **dict.fromkeys("slice dynamic_slice split pad concatenate".split(), _cut),
    **dict.fromkeys("reduce_sum reduce_max reduce_min reduce_prod".split(), _reduce),
}
_IDENTITIES = frozenset("optimization_barrier sharding_constraint device_put".split())
_SAME_AXES = frozenset("rev cumsum cumprod cummax cummin reshard".split())
_CALLS = frozenset([*function_calls.RULES, "scan", "while", "cond", "shard_map"])
