"""The axes that a model's products sum over, worked out by hand for each program."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import swd_jax

INPUT = jnp.ones((2, 8))


def axes_of(model, shapes, *inputs) -> dict[str, int | None]:
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    found = swd_jax.structures.summed_axes(model, params, *(inputs or (INPUT,)))
    return dict(found.axes)


@pytest.mark.parametrize(
    ("model", "shapes", "expected"),
    [
        # Inputs first, inputs last.
        (lambda p, x: x @ p["w"], {"w": (8, 3)}, -2),
        (lambda p, x: x @ p["w"].T, {"w": (3, 8)}, -1),
        (lambda p, x: jax.vmap(lambda v: p["w"] @ v)(x), {"w": (3, 8)}, -1),
        # The outputs have heads; the heads are summed over with their features, or
        # only the features of each.
        (lambda p, x: jnp.einsum("bi,ihd->bhd", x, p["w"]), {"w": (8, 2, 3)}, -3),
        (
            lambda p, x: jnp.einsum("bhd,hdo->bo", x.reshape(2, 2, 4), p["w"]),
            {"w": (2, 4, 3)},
            -2,
        ),
        (
            lambda p, x: jnp.einsum("bhd,hdo->bho", x.reshape(2, 2, 4), p["w"]),
            {"w": (2, 4, 3)},
            -2,
        ),
        (
            lambda p, x: jnp.einsum("bhd,dho->bo", x.reshape(2, 2, 4), p["w"]),
            {"w": (4, 2, 3)},
            -2,
        ),
        # Merged before the product, and split.
        (lambda p, x: x @ p["w"].reshape(8, 3), {"w": (2, 4, 3)}, -2),
        (lambda p, x: x @ p["w"].reshape(8, 3), {"w": (8, 1, 3)}, -3),
        (
            lambda p, x: jnp.einsum(
                "bhd,hdo->bho", x.reshape(2, 2, 4), p["w"].reshape(2, 4, 3)
            ),
            {"w": (8, 3)},
            -2,
        ),
        # What is computed from parameters alone.
        (
            lambda p, x: x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)),
            {"w": (8, 3)},
            -2,
        ),
        (
            lambda p, x: x @ jnp.where(p["w"] > 0, p["w"], 0).astype(jnp.float16),
            {"w": (8, 3)},
            -2,
        ),
        (
            lambda p, x: x @ jnp.concatenate([p["w"], p["w"]], axis=1)[:, :4],
            {"w": (8, 3)},
            -2,
        ),
        (
            lambda p, x: sum(x @ part for part in jnp.split(p["w"], 2, axis=1)),
            {"w": (8, 4)},
            -2,
        ),
        # Stacked layers, in a loop and one by one.
        (
            lambda p, x: lax.scan(lambda x, w: (x @ w.T, None), x, p["w"])[0],
            {"w": (5, 8, 8)},
            -1,
        ),
        (
            lambda p, x: lax.fori_loop(0, 5, lambda i, x: x @ p["w"][i], x),
            {"w": (5, 8, 8)},
            -2,
        ),
        (
            lambda p, x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ p["w"], x),
            {"w": (8, 8)},
            -2,
        ),
        (
            lambda p, x: lax.cond(x[0, 0] > 0, lambda: x @ p["w"], lambda: x),
            {"w": (8, 8)},
            -2,
        ),
        (
            lambda p, x: jax.checkpoint(jax.jit(jnp.matmul))(x, p["w"]),
            {"w": (8, 3)},
            -2,
        ),
        # Experts, each with inputs of its own.
        (
            lambda p, x: jnp.einsum("bei,eio->beo", x.reshape(2, 2, 4), p["w"]),
            {"w": (2, 4, 3)},
            -2,
        ),
        # Low rank: the first product sums over the rank.
        (lambda p, x: x @ (p["w"] @ jnp.ones((2, 3))), {"w": (8, 2)}, -1),
    ],
)
def test_by_hand(model, shapes, expected):
    assert axes_of(model, shapes) == {"w": expected}


@pytest.mark.parametrize(
    ("layout", "shape", "groups", "expected"),
    [
        ("HWIO", (3, 3, 8, 4), 1, -2),
        ("OIHW", (4, 8, 3, 3), 1, -3),
        ("HWIO", (3, 3, 4, 4), 2, -2),
        ("OIHW", (8, 1, 3, 3), 8, -3),
    ],
)
def test_of_convolutions_it_is_that_of_the_channels(layout, shape, groups, expected):
    def model(params, images):
        return lax.conv_general_dilated(
            *(images, params["w"], (1, 1), "SAME"),
            dimension_numbers=("NHWC", layout, "NHWC"),
            feature_group_count=groups,
        )

    assert axes_of(model, {"w": shape}, jnp.ones((1, 5, 5, 8))) == {"w": expected}


def test_of_a_tied_embedding_it_is_that_of_the_product():
    def model(params, tokens):
        return params["table"][tokens] @ params["w"] @ params["table"].T

    shapes = {"table": (16, 8), "w": (8, 8)}
    assert axes_of(model, shapes, jnp.zeros(3, int)) == {"table": -1, "w": -2}


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            lambda p, x: (x @ p["w"]) @ p["w"].T,
            (8, 4),
            r"sum over different axes: 0 in dot_general.*; 1 in dot_general",
        ),
        # The heads are summed over; neighbours along the axis are features.
        (
            lambda p, x: jnp.einsum("bh,hdo->bdo", x[:, :2], p["w"].reshape(2, 4, 3)),
            (8, 3),
            "no whole axis in dot_general",
        ),
        (lambda p, x: x @ p["other"] * p["w"].sum(), (8, 4), "no product"),
        (lambda p, x: x @ p["other"] @ jnp.linalg.inv(p["w"]), (8, 8), "no product"),
    ],
)
def test_where_there_is_none_nm_says_why(model, shape, message):
    params = {"w": jnp.ones(shape), "other": jnp.ones((8, 8))}
    axes = swd_jax.structures.summed_axes(model, params, INPUT)
    assert dict(axes.axes)["w"] is None
    target = swd_jax.Target(0.5, prunable="^w$", structure=swd_jax.NM(2, 4, axis=axes))
    with pytest.raises(ValueError, match=message) as caught:
        swd_jax.prune(params, target)
    assert "the parameter 'w'" in str(caught.value)


def test_of_a_function_that_ignores_its_params_is_an_error():
    with pytest.raises(ValueError, match="those that it closes over"):
        axes_of(lambda p, x: x @ INPUT.T, {"w": (8, 8)})


def test_of_other_params_is_an_error():
    axes = swd_jax.structures.summed_axes(
        lambda p, x: x @ p["params"]["w"], {"params": {"w": jnp.ones((8, 3))}}, INPUT
    )
    target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=axes))
    with pytest.raises(ValueError, match="no parameter with this path"):
        swd_jax.prune({"w": jnp.ones((8, 3))}, target)


def test_is_equal_and_hashable():
    def find():
        return swd_jax.structures.summed_axes(
            lambda p, x: x @ p["w"], {"w": jnp.ones((8, 3))}, INPUT
        )

    targets = [
        swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=find())) for _ in range(2)
    ]
    assert targets[0] == targets[1]
    assert hash(targets[0]) == hash(targets[1])
