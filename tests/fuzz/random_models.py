"""Random small models from the operations that the channel analysis has rules for."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 2

Step = Callable[[dict[str, Any], list[Any]], Any]
"""Returns an array from the parameters and the arrays computed before."""


class RandomModel:
    """A model whose steps are drawn at random: `apply(params, x)`.

    Each step adds an array to those that later steps may read. Sizes come from the
    arrays themselves where the batch is concerned, so that any batch will do.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps: list[Step] = []
        self.names: list[str] = []
        features = int(generator.integers(2, 6))
        inner = [(), (5,), (4, 4)][generator.choice(3, p=[0.5, 0.3, 0.2])]
        self.input_shape = (BATCH, *inner, features)
        self.known = [self.input_shape]
        for _ in range(int(generator.integers(2, 9))):
            self._add_random_step()
        self._add("output", _output(self, len(self.known) - 1))

    def params(self) -> dict[str, np.ndarray]:
        """Return random parameters."""
        return {name: self._random(shape) for name, shape in self.shapes.items()}

    def inputs(self, batch: int = BATCH) -> np.ndarray:
        """Return a random input."""
        return self._random((batch, *self.input_shape[1:]))

    def _random(self, shape: Sequence[int]) -> np.ndarray:
        return self.generator.normal(size=shape).astype(np.float32)

    def apply(self, params: dict[str, Any], x: Any) -> Any:
        """Compute the last array."""
        arrays = [x]
        for step in self.steps:
            arrays.append(step(params, arrays))
        return arrays[-1]

    def __str__(self) -> str:
        lines = [f"input {self.input_shape}"]
        lines += [
            f"{number} {name} {shape}"
            for number, (name, shape) in enumerate(
                zip(self.names, self.known[1:], strict=True), 1
            )
        ]
        return "\n".join([*lines, str(self.shapes)])

    def new_param(self, *shape: int) -> str:
        """Add a parameter and return its name."""
        name = f"p{len(self.shapes)}"
        self.shapes[name] = shape
        return name

    def _add_random_step(self) -> None:
        """Add a step that can be traced; try others where one cannot."""
        for _ in range(20):
            name = str(self.generator.choice(list(MAKERS)))
            # Mostly the last array, so that the model becomes deep.
            last = len(self.known) - 1
            source = last if self.generator.random() < 0.8 else self.pick(last + 1)
            shapes = dict(self.shapes)
            try:
                if self._add(name, MAKERS[name](self, source)):
                    return
            except (_Unfit, TypeError, ValueError, ZeroDivisionError):
                pass
            self.shapes = shapes

    def _add(self, name: str, step: Step) -> bool:
        params = {
            n: jax.ShapeDtypeStruct(s, np.float32) for n, s in self.shapes.items()
        }
        arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in self.known]
        result = jax.eval_shape(step, params, arrays)
        # Later steps treat the first axis as the batch.
        if result.shape[:1] != (BATCH,) or result.size > 4096 or result.ndim > 5:
            return False
        self.steps.append(step)
        self.names.append(name)
        self.known.append(result.shape)
        return True

    def pick(self, size: int) -> int:
        """Return a random number below `size`."""
        if size < 1:
            raise _Unfit
        return int(self.generator.integers(size))

    def axis(self, source: int) -> int:
        """Return a random axis of an array, but not the batch."""
        return 1 + self.pick(len(self.known[source]) - 1)


class _Unfit(Exception):
    """Raised by a step that does not fit the array that was drawn for it."""


MAKERS: dict[str, Callable[[RandomModel, int], Step]] = {}


def maker(function: Callable[[RandomModel, int], Step]) -> Any:
    """Add a function that makes a step from the number of the array that it reads."""
    MAKERS[function.__name__.strip("_")] = function
    return function


def _unary(function: Callable[[Any], Any], source: int) -> Step:
    return lambda params, arrays: function(arrays[source])


ACTIVATIONS: Sequence[Callable[[Any], Any]] = [
    jax.nn.relu,
    jax.nn.sigmoid,
    jnp.tanh,
    jax.nn.gelu,
    jax.nn.silu,
    jax.nn.softplus,
    jnp.square,
    jnp.abs,
    jnp.cos,
    jnp.floor,
    lambda h: jnp.exp(jnp.minimum(h, 1)),
    lambda h: 1 / (1 + jnp.square(h)),
    lambda h: jnp.log(jnp.abs(h)),
    lambda h: jnp.sqrt(jnp.abs(h)),
    lambda h: jax.lax.rsqrt(jnp.abs(h)),
    lambda h: jnp.abs(h) ** 1.5,
    lambda h: jnp.clip(h, -1, 1),
    lambda h: jnp.where(h > 0, h, 0.1 * h),
    jax.jit(lambda h: h * 2 + 1),
    jax.checkpoint(jnp.tanh),
    jax.nn.relu6,
    jax.lax.stop_gradient,
    lambda h: h.astype(jnp.bfloat16).astype(jnp.float32),
]


@maker
def activation(model: RandomModel, source: int) -> Step:
    return _unary(ACTIVATIONS[model.pick(len(ACTIVATIONS))], source)


def _output(model: RandomModel, source: int) -> Step:
    size = int(np.prod(model.known[source][1:], dtype=int))
    name = model.new_param(size, 2)
    return lambda params, arrays: (
        arrays[source].reshape(arrays[source].shape[0], size) @ params[name]
    )


@maker
def dense(model: RandomModel, source: int) -> Step:
    size = model.known[source][-1]
    width = int(model.generator.integers(2, 9))
    kernel = model.new_param(size, width)
    bias = model.new_param(width) if model.pick(2) else None
    kind = model.pick(6)

    def step(params: Any, arrays: Any) -> Any:
        w = params[kernel]
        norm = jnp.sqrt(jnp.square(w).sum(0))
        if kind == 0:
            w = w / norm[None]
        elif kind == 1:
            w = w / jnp.maximum(norm, 0.1)[None]
        h = arrays[source] @ w
        if bias:
            h = h + jnp.expand_dims(params[bias], tuple(range(h.ndim - 1)))
        return jax.nn.relu(h)

    return step


@maker
def dense_axis(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    kernel = model.new_param(
        model.known[source][axis], int(model.generator.integers(2, 7))
    )
    return lambda params, arrays: jnp.moveaxis(
        jnp.tensordot(arrays[source], params[kernel], (axis, 0)), -1, axis
    )


@maker
def conv(model: RandomModel, source: int) -> Step:
    shape = model.known[source]
    if len(shape) not in (3, 4):
        raise _Unfit
    window = [2] * (len(shape) - 2)
    spec = ("NHWC", "HWIO", "NHWC") if len(shape) == 4 else ("NWC", "WIO", "NWC")
    groups = [g for g in (1, 2, 3, shape[-1]) if shape[-1] % g == 0]
    count = groups[model.pick(len(groups))]
    kernel = model.new_param(*window, shape[-1] // count, count * (1 + model.pick(3)))
    padding = ["SAME", "VALID"][model.pick(2)]
    return lambda params, arrays: jax.lax.conv_general_dilated(
        arrays[source],
        params[kernel],
        [1 + (padding == "SAME")] * len(window),
        padding,
        dimension_numbers=spec,
        feature_group_count=count,
    )


@maker
def scale(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    shape = [1] * len(model.known[source])
    shape[axis] = model.known[source][axis]
    name = model.new_param(shape[axis])
    operation = [jnp.add, jnp.multiply, jnp.divide, jnp.maximum][model.pick(4)]
    return lambda params, arrays: operation(arrays[source], params[name].reshape(shape))


@maker
def binary(model: RandomModel, source: int) -> Step:
    same = [i for i, shape in enumerate(model.known) if shape == model.known[source]]
    other = same[model.pick(len(same))]
    operation = [jnp.add, jnp.multiply, jnp.maximum, jnp.subtract, jnp.arctan2][
        model.pick(5)
    ]
    return lambda params, arrays: operation(arrays[source], arrays[other])


@maker
def reshape(model: RandomModel, source: int) -> Step:
    shape = model.known[source]
    axis = model.axis(source)
    kind = model.pick(3)
    if kind == 0 and len(shape) > 2:
        first = 1 + model.pick(len(shape) - 2)
        new = (*shape[1:first], shape[first] * shape[first + 1], *shape[first + 2 :])
    elif kind == 1:
        factors = [f for f in (2, 3, 4) if shape[axis] % f == 0]
        if not factors:
            raise _Unfit
        factor = factors[model.pick(len(factors))]
        new = (*shape[1:axis], factor, shape[axis] // factor, *shape[axis + 1 :])
    else:
        new = (int(np.prod(shape[1:], dtype=int)),)
    return _unary(lambda h: h.reshape(h.shape[0], *new), source)


@maker
def transpose(model: RandomModel, source: int) -> Step:
    rank = len(model.known[source])
    order = [0, *(1 + model.generator.permutation(rank - 1)).tolist()]
    return _unary(lambda h: jnp.transpose(h, order), source)


@maker
def slice_axis(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size = model.known[source][axis]
    start = model.pick(size + 1)
    part = slice(start, start + model.pick(size + 1), 1 + model.pick(2))
    index = (slice(None),) * axis + (part,)
    return _unary(lambda h: h[index], source)


@maker
def concatenate(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)

    def rest(shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:axis], *shape[axis + 1 :])

    rank = len(model.known[source])
    fitting = [
        i
        for i, shape in enumerate(model.known)
        if len(shape) == rank and rest(shape) == rest(model.known[source])
    ]
    other = fitting[model.pick(len(fitting))]
    fill = model.pick(3)

    def step(params: Any, arrays: Any) -> Any:
        parts = [arrays[source], arrays[other]]
        if fill == 0:
            parts[1] = jnp.full_like(parts[1], 0.5)
        return jnp.concatenate(parts, axis)

    return step


@maker
def split(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size = model.known[source][axis]
    if size % 2:
        at = model.pick(size + 1)
        return (
            _unary(lambda h: jnp.split(h, [at], axis)[model_part], source)
            if (model_part := model.pick(2))
            else _unary(lambda h: jnp.split(h, [at], axis)[0], source)
        )
    return _unary(lambda h: jnp.multiply(*jnp.split(h, 2, axis)), source)


@maker
def pad(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    config = [(0, 0, 0)] * len(model.known[source])
    config[axis] = (model.pick(4) - 1, model.pick(4) - 1, int(model.pick(5) == 0))
    value = float(model.pick(2))
    return _unary(lambda h: jax.lax.pad(h, value, config), source)


@maker
def reduce(model: RandomModel, source: int) -> Step:
    axis, keep = model.axis(source), bool(model.pick(2))
    if len(model.known[source]) < 3:
        raise _Unfit
    function = [jnp.mean, jnp.sum, jnp.max, jnp.min, jnp.prod, jnp.var][model.pick(6)]
    return _unary(lambda h: function(h, axis=axis, keepdims=keep), source)


@maker
def normalize(model: RandomModel, source: int) -> Step:
    axis, floor = model.axis(source), [0.0, 0.1][model.pick(2)]

    def standard(h: Any) -> Any:
        deviation = jnp.sqrt(h.var(axis, keepdims=True) + floor)
        return (h - h.mean(axis, keepdims=True)) / deviation

    def unit(h: Any) -> Any:
        return h / jnp.sqrt(jnp.square(h).sum(axis, keepdims=True) + floor)

    functions = [standard, unit, functools.partial(jax.nn.softmax, axis=axis)]
    return _unary(functions[model.pick(3)], source)


@maker
def gather(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size = model.known[source][axis]
    if not size:
        raise _Unfit
    indices = model.generator.integers(0, size, model.pick(size) + 1)
    return _unary(lambda h: jnp.take(h, indices, axis=axis), source)


@maker
def along_axis(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    functions = [jnp.cumsum, jnp.flip, jnp.sort, jax.lax.cummax, jnp.cumprod]
    function = functions[model.pick(len(functions))]
    return _unary(lambda h: function(h, axis=axis), source)


@maker
def roll(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    return _unary(lambda h: jnp.roll(h, 1, axis), source)


@maker
def tile(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    if model.pick(2):
        return _unary(lambda h: jnp.repeat(h, 2, axis), source)
    reps = [1] * len(model.known[source])
    reps[axis] = 2
    return _unary(lambda h: jnp.tile(h, reps), source)


@maker
def mask(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size, rank = model.known[source][axis], len(model.known[source])
    shape = [1] * rank
    shape[axis] = size
    at = model.pick(size + 1)
    return _unary(
        lambda h: jnp.where((jnp.arange(size) < at).reshape(shape), h, 0.5), source
    )


@maker
def broadcast(model: RandomModel, source: int) -> Step:
    size = 1 + model.pick(3)
    axis = model.axis(source)
    return _unary(
        lambda h: jnp.broadcast_to(
            jnp.expand_dims(h, axis), (*h.shape[:axis], size, *h.shape[axis:])
        ),
        source,
    )


@maker
def pool(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    window = [1] * len(model.known[source])
    window[axis] = 2
    init, operation = [(-jnp.inf, jax.lax.max), (0.0, jax.lax.add)][model.pick(2)]
    padding = ["SAME", "VALID"][model.pick(2)]
    return _unary(
        lambda h: jax.lax.reduce_window(h, init, operation, window, window, padding),
        source,
    )


@maker
def scan(model: RandomModel, source: int) -> Step:
    shape = model.known[source]
    if len(shape) != 3:
        raise _Unfit
    width = int(model.generator.integers(2, 6))
    names = model.new_param(shape[-1], width), model.new_param(width, width)
    start, kind = float(model.pick(2)), model.pick(3)

    def step(params: Any, arrays: Any) -> Any:
        kernel, recurrent = (params[name] for name in names)

        def body(h: Any, y: Any) -> Any:
            new = jnp.tanh(y @ kernel + h @ recurrent)
            if kind == 1:
                new = new / jnp.sqrt(jnp.square(h).sum(0, keepdims=True) + 0.1)
            return (new, new) if kind else (new, h)

        h = arrays[source].swapaxes(0, 1)
        carry = jnp.full((h.shape[1], width), start)
        last, stacked = jax.lax.scan(body, carry, h)
        return last if kind == 2 else stacked.swapaxes(0, 1)

    return step


@maker
def cond(model: RandomModel, source: int) -> Step:
    name = model.new_param(model.known[source][-1], model.known[source][-1])
    kind = model.pick(2)
    return lambda params, arrays: jax.lax.cond(
        arrays[0].sum() > 0,
        lambda h: h @ params[name] if kind else h + 1,
        lambda h: h if kind else jnp.zeros_like(h),
        arrays[source],
    )


@maker
def attention(model: RandomModel, source: int) -> Step:
    shape = model.known[source]
    if len(shape) != 3:
        raise _Unfit
    heads, size = 1 + model.pick(3), 1 + model.pick(3)
    names = [model.new_param(shape[-1], heads * size) for _ in range(3)]
    merged = bool(model.pick(2))

    def step(params: Any, arrays: Any) -> Any:
        h = arrays[source]
        q, k, v = (
            (h @ params[name]).reshape(*h.shape[:2], heads, size) for name in names
        )
        scores = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        out = jnp.einsum("bhts,bshd->bthd", scores, v)
        return out.reshape(*h.shape[:2], heads * size) if merged else out

    return step


@maker
def group_norm(model: RandomModel, source: int) -> Step:
    size = model.known[source][-1]
    counts = [c for c in (1, 2, 3, size) if c and size % c == 0]
    if not counts:
        raise _Unfit
    count = counts[model.pick(len(counts))]

    def function(h: Any) -> Any:
        groups = h.reshape(*h.shape[:-1], count, size // count)
        mean = groups.mean(-1, keepdims=True)
        deviation = jnp.sqrt(groups.var(-1, keepdims=True) + 0.1)
        return ((groups - mean) / deviation).reshape(h.shape)

    return _unary(function, source)


@maker
def stack(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    if model.pick(2):
        return _unary(lambda h: jnp.stack([h, jnp.abs(h)], axis), source)
    if not model.known[source][axis] or len(model.known[source]) < 3:
        raise _Unfit
    return _unary(lambda h: jnp.unstack(h, axis=axis)[0], source)


@maker
def update(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size = model.known[source][axis]
    if not size:
        raise _Unfit
    index = (slice(None),) * axis + (model.pick(size),)
    return [
        _unary(lambda h: h.at[index].set(0.5), source),
        _unary(lambda h: h.at[index].add(h[index]), source),
        _unary(
            lambda h: jax.lax.dynamic_update_slice_in_dim(
                h, jnp.zeros_like(h[:, :1]), 1, 1
            ),
            source,
        ),
    ][model.pick(3)]


@maker
def dynamic_slice(model: RandomModel, source: int) -> Step:
    axis = model.axis(source)
    size = model.known[source][axis]
    start, length = model.pick(size), 1 + model.pick(size)
    depends = bool(model.pick(2))

    def step(params: Any, arrays: Any) -> Any:
        where = start
        if depends:
            where = jnp.abs(arrays[0].sum()).astype(int) % size
        return jax.lax.dynamic_slice_in_dim(arrays[source], where, length, axis)

    return step


@maker
def low_rank(model: RandomModel, source: int) -> Step:
    size = model.known[source][-1]
    a, b = model.new_param(size, 3), model.new_param(3, 4)
    return lambda params, arrays: arrays[source] @ (params[a] @ params[b])
