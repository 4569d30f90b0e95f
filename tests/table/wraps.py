"""The columns of the table: what is put round an update, and which types must fit.

A wrap is a function of a case (a method with parameters). It raises an `AssertionError`
where something that the loops of users rely on does not hold.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from tests.table.dtypes import Dtypes
from tests.table.methods import Method

SGD = optax.sgd(0.125)


@dataclasses.dataclass(frozen=True)
class Case:
    """A method and what it is applied to. Arrays are abstract."""

    method: Method
    params: Any
    dtypes: Dtypes

    def gradients(self, params: Any) -> Any:
        dtype = self.dtypes.gradients
        return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)

    def build(self, optimizer: Any = SGD, **options: Any) -> Any:
        return self.method.build(optimizer, self.params, **options)


def step_of(tx: Any, case: Case) -> Callable[..., Any]:
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(case.gradients(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def types_of(tree: Any) -> Any:
    return jax.eval_shape(lambda tree: tree, tree)


def assert_same_types(found: Any, expected: Any, what: str) -> None:
    """Compare structures, shapes, dtypes and whether dtypes are weak."""
    found, expected = types_of(found), types_of(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected), (
        f"{what}: {jax.tree.structure(found)} is not {jax.tree.structure(expected)}"
    )
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        types = [(leaf.shape, leaf.dtype.name, leaf.weak_type) for leaf in (a, b)]
        assert types[0] == types[1], f"{what}: {types[0]} is not {types[1]}"


def check_step(tx: Any, case: Case) -> None:
    """Check that types after a step are those before: then no step is traced anew."""
    params = case.params

    def step(params: Any) -> Any:
        state = tx.init(params)
        gradients = case.gradients(params)
        updates, after = tx.update(gradients, state, params)
        new_params = optax.apply_updates(params, updates)
        return state, after, gradients, updates, new_params

    state, after, gradients, updates, new_params = jax.eval_shape(step, params)
    assert_same_types(new_params, params, "parameters")
    assert_same_types(after, state, "state")
    if case.dtypes.gradients is None or not case.method.wide_updates:
        assert_same_types(updates, gradients, "updates")


# Transformations of functions.


def start_and_step(case: Case, **options: Any) -> tuple[Any, Callable[..., Any]]:
    tx = case.build(**options)
    state = jax.eval_shape(tx.init, case.params)
    return (case.params, state), step_of(tx, case)


def check_carried(case: Case, loop: Callable[[Any, Any], Any]) -> None:
    start, step = start_and_step(case)
    after = jax.eval_shape(functools.partial(loop, step), start)
    assert_same_types(after, start, "carry")


def under_jit(case: Case) -> None:
    check_step(jit_of(case.build()), case)


def jit_of(tx: Any) -> Any:
    return optax.GradientTransformationExtraArgs(jax.jit(tx.init), jax.jit(tx.update))


def under_vmap(case: Case) -> None:
    tx = case.build()

    def stack(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)

    stacked = jax.eval_shape(stack, case.params)
    state = jax.eval_shape(jax.vmap(tx.init), stacked)
    after = jax.eval_shape(jax.vmap(step_of(tx, case)), stacked, state)
    assert_same_types(after, (stacked, state), "carry")


def under_scan(case: Case) -> None:
    check_carried(
        case,
        lambda step, start: jax.lax.scan(
            lambda carry, _: (step(*carry), None), start, None, length=3
        )[0],
    )


def under_cond(case: Case) -> None:
    check_carried(
        case,
        lambda step, start: jax.lax.cond(
            jnp.asarray(True), lambda carry: step(*carry), lambda carry: carry, start
        ),
    )


def under_while_loop(case: Case) -> None:
    def loop(step: Any, start: Any) -> Any:
        return jax.lax.while_loop(
            lambda carry: carry[0] < 3,
            lambda carry: (carry[0] + 1, step(*carry[1])),
            (jnp.zeros((), jnp.int32), start),
        )[1]

    check_carried(case, loop)


def under_remat(case: Case) -> None:
    check_carried(case, lambda step, start: jax.checkpoint(step)(*start))


def through_the_update(case: Case) -> None:
    """Differentiate what a step returns, as in learning to learn."""
    (params, state), step = start_and_step(case)

    def loss(params: Any, state: Any) -> Any:
        after, _ = jax.checkpoint(step)(params, state)
        squares = [
            jnp.sum(jnp.square(leaf.astype(jnp.float32)))
            for leaf in jax.tree.leaves(after)
        ]
        return sum(squares[1:], squares[0])

    found = jax.eval_shape(jax.grad(loss), params, state)
    assert_same_types(found, params, "gradients")


def with_donation(case: Case) -> None:
    """Every argument's buffer must be one that a result can have."""
    start, step = start_and_step(case)
    # A buffer that no result can have is a warning, and in tests an error.
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*start)
    assert_same_types(lowered.out_info, start, "carry")


def under_shard_map(case: Case) -> None:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), ("x",), axis_types=auto)
    options = {"axis_name": "x"} if case.method.has_axis_name else {}
    start, step = start_and_step(case, **options)

    def spec(leaf: Any) -> PartitionSpec:
        is_sharded = case.method.has_axis_name and leaf.ndim == 2
        return PartitionSpec("x", None) if is_sharded else PartitionSpec()

    specs = jax.tree.map(spec, start)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=specs)
    assert_same_types(jax.eval_shape(mapped, *start), start, "carry")


# Transformations of optax.


def in_multi_steps(case: Case) -> None:
    every = optax.MultiSteps(case.build(), every_k_schedule=2)
    check_step(every.gradient_transformation(), case)


def injected(case: Case) -> None:
    """All numeric arguments become numbers in the state, except those that cannot."""
    method = case.method
    make = _with_signature(method.call(SGD, case.params), method.numbers)
    inject = optax.inject_hyperparams(make, static_args=method.known_beforehand)
    tx = inject(**method.numbers)
    assert set(jax.eval_shape(tx.init, case.params).hyperparams) == (
        set(method.numbers) - set(method.known_beforehand)
    )
    check_step(tx, case)


def refusals(case: Case) -> dict[str, str]:
    """Return the error for every numeric argument that cannot be injected."""
    method = case.method
    make = _with_signature(method.call(SGD, case.params), method.numbers)
    errors = {}
    for name in method.known_beforehand:
        static = [other for other in method.numbers if other != name]
        tx = optax.inject_hyperparams(make, static_args=static)(**method.numbers)
        with pytest.raises(ValueError, match="traced") as caught:
            check_step(tx, case)
        errors[name] = str(caught.value)
    return errors


def masked(case: Case) -> None:
    keep = jax.tree.map(lambda leaf: leaf.shape != (8, 6), case.params)
    check_step(optax.masked(_for_part(case, keep), keep), case)


def partitioned(case: Case) -> None:
    labels = jax.tree.map(
        lambda leaf: "dense" if leaf.shape == (8, 6) else "sparse", case.params
    )
    keep = jax.tree.map(lambda label: label == "sparse", labels)
    parts = {"sparse": _for_part(case, keep), "dense": SGD}
    check_step(optax.partition(parts, labels), case)
    check_step(optax.multi_transform(parts, lambda _: labels), case)


def _for_part(case: Case, keep: Any) -> Any:
    part = jax.tree.map(
        lambda leaf, kept: leaf if kept else optax.MaskedNode(), case.params, keep
    )
    return case.method.build(SGD, part)


NEIGHBOURS = {
    "adam": optax.adam(1e-2),
    "SGD with momentum": optax.sgd(1e-2, momentum=0.875),
    "weight decay": optax.add_decayed_weights(1e-2),
    "clipping": optax.chain(optax.clip_by_global_norm(1.0), optax.clip(1.0)),
}


def chained_with(name: str) -> Callable[[Case], None]:
    """Return a column: before, after and on both sides of another transformation."""
    other = NEIGHBOURS[name]

    def check(case: Case) -> None:
        tx = case.method.alone(SGD, case.params)
        for order in ([other, tx], [tx, other], [other, tx, other]):
            check_step(optax.chain(*order), case)

    return check


def if_finite(case: Case) -> None:
    check_step(optax.apply_if_finite(case.build(), 3), case)


def if_small(case: Case) -> None:
    tx = optax.conditionally_transform(case.build(), lambda step, **_: step % 2 == 0)
    check_step(tx, case)


def with_lookahead(case: Case) -> None:
    params = optax.LookaheadParams(case.params, case.params)
    tx = optax.lookahead(case.build(), sync_period=2, slow_step_size=0.5)
    state = jax.eval_shape(tx.init, params)

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(case.gradients(params.fast), state, params)
        return optax.apply_updates(params, updates), state

    after = jax.eval_shape(step, params, state)
    assert_same_types(after, (params, state), "carry")


def schedule_free(case: Case) -> None:
    check_step(optax.contrib.schedule_free(case.build(), learning_rate=0.125), case)


def with_muon(case: Case) -> None:
    check_step(case.build(optax.contrib.muon(1e-2)), case)


def with_lbfgs(case: Case) -> None:
    params = case.params

    def value(params: Any) -> Any:
        leaves = jax.tree.leaves(params)
        return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in leaves)

    tx = case.build(optax.lbfgs(memory_size=2))
    state = jax.eval_shape(tx.init, params)

    def step(params: Any, state: Any) -> Any:
        gradients = case.gradients(params)
        updates, state = tx.update(
            gradients,
            state,
            params,
            value=value(params),
            grad=gradients,
            value_fn=value,
        )
        return optax.apply_updates(params, updates), state

    # The first step of optax's L-BFGS makes a weak type of its count.
    first = jax.eval_shape(step, params, state)
    second = jax.eval_shape(step, *first)
    assert_same_types(second, first, "carry")


def _with_signature(function: Any, numbers: Any) -> Any:
    """Return a function whose parameters have names, as inject_hyperparams needs."""
    names = ", ".join(numbers)
    passed = ", ".join(f"{name}={name}" for name in numbers)
    return eval(f"lambda {names}: function({passed})", {"function": function})  # noqa: S307


WRAPS: dict[str, Callable[[Case], None]] = {
    "jit": under_jit,
    "vmap": under_vmap,
    "scan": under_scan,
    "cond": under_cond,
    "while_loop": under_while_loop,
    "checkpoint": under_remat,
    "grad": through_the_update,
    "donation": with_donation,
    "shard_map": under_shard_map,
    "MultiSteps": in_multi_steps,
    "inject_hyperparams": injected,
    "masked": masked,
    "partition": partitioned,
    **{f"chain with {name}": chained_with(name) for name in NEIGHBOURS},
    "apply_if_finite": if_finite,
    "conditionally_transform": if_small,
    "lookahead": with_lookahead,
    "schedule_free": schedule_free,
    "muon": with_muon,
    "lbfgs": with_lbfgs,
}
