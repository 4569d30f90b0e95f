"""`channel_groups` against channel groups and costs worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import swd_jax
from tests.helpers import channel_models
from tests.helpers.channel_models import CASES

ROLES = {
    "producer": "p",
    "consumer": "c",
    "scale": "s",
    "bias": "b",
    "statistic": "m",
    "other": "o",
}


@pytest.fixture(autouse=True)
def _allow_rank_promotion():
    # Equinox and haiku add biases that have fewer axes than the activations.
    with jax.numpy_rank_promotion("allow"):
        yield


def describe(groups):
    """Return size and members of each channel group, in the notation of `CASES`."""
    description = {}
    for group in groups:
        members = set()
        for member in group.members:
            assert len(member.indices) == group.size
            num_positions = member.indices.shape[1]
            members.add(
                f"{member.path}.{member.axis}"
                f"{f'*{num_positions}' if num_positions > 1 else ''}"
                f"{ROLES[member.role]}"
            )
        assert len(members) == len(group.members)
        description[group.name] = group.size, members
    return description


class TestGroups:
    @pytest.mark.parametrize("name", CASES)
    def test_are_those_worked_out_by_hand(self, name):
        case = CASES[name]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        assert describe(groups) == channel_models.parse_groups(case.groups)

    @pytest.mark.parametrize("name", CASES)
    def test_and_frozen_axes_cover_each_position_once(self, name):
        case = CASES[name]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        counts = {
            (path, axis): np.zeros(size, int)
            for path, shape in groups.shapes.items()
            for axis, size in enumerate(shape)
            if size > 1
        }
        for group in groups:
            for member in group.members:
                counts[member.path, member.axis][member.indices] += 1
        for axis in groups.frozen:
            counts[axis.path, axis.axis][axis.indices] += 1
            assert axis.reason
        assert all((count == 1).all() for count in counts.values())


def linear(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"]


LINEAR = {"first": jnp.ones((6, 5)), "second": jnp.ones((5, 2))}
X = jnp.ones((3, 6))


def groups_of(apply, params, *args):
    """Return each channel group as "name size members"."""
    groups = swd_jax.channels.channel_groups(apply, params, *args)
    return {
        " ".join([name, str(size), *sorted(members)])
        for name, (size, members) in describe(groups).items()
    }


def random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def convolve(x, kernel, feature_groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=feature_groups,
    )


def attention(q, k, v):
    scores = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
    return jnp.einsum("bhts,bshd->bthd", scores, v)


def squeeze_and_excite(p, h):
    return h * jax.nn.sigmoid(jax.nn.relu(h @ p["s"]) @ p["e"])


def dropout(h):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, h.shape)
    return jnp.where(keep, h, 0)


def norms(w):
    return jnp.sqrt(jnp.square(w).sum(0, keepdims=True))


def safe_quotient(w, norm):
    """Weights over their norm, 0 where both are 0; 0 / 0 is computed and masked."""
    return jnp.where(norm == 0, 0, w / norm)


def standardize(w, variance_floor):
    variance = w.var(0, keepdims=True) + variance_floor
    return (w - w.mean(0, keepdims=True)) * jax.lax.rsqrt(variance)


def recurrence(p, x, step):
    """Run three steps from zeros."""
    return jax.lax.scan(lambda h, _: (step(h), None), jnp.zeros((2, 5)), length=3)[0]


def add_zeros(p, x):
    zeros = jnp.zeros((2, 5))
    return jax.nn.relu(x @ p["a"] + zeros) @ p["o"] + (x @ p["b"] + zeros) @ p["q"]


# Model of {name: array} and x, shapes of the arrays, shape of x, channel groups.
OPERATIONS = {
    "depthwise with a multiplier, groups of 2 before it": (
        # "g" has 4 feature groups of 2 inputs and 3 outputs, and "d" makes 2 outputs
        # from each of these 12: 2, 3 and 6 positions in each of 4 channels.
        lambda p, x: (
            convolve(convolve(convolve(x, p["a"]), p["g"], 4), p["d"], 12).mean((1, 2))
            @ p["o"]
        ),
        {"a": (1, 1, 3, 8), "g": (1, 1, 2, 12), "d": (1, 1, 1, 24), "o": (24, 2)},
        (2, 4, 4, 3),
        {"a 4 a.3*2p d.3*6p g.3*3p o.0*6c"},
    ),
    "halves of one axis that gate each other": (
        lambda p, x: jax.nn.glu(x @ p["a"]) @ p["o"],
        {"a": (6, 8), "o": (4, 2)},
        (2, 6),
        {"a 4 a.1*2p o.0c"},
    ),
    "neighbours on one axis that gate each other": (
        lambda p, x: (
            jnp.multiply(*jnp.moveaxis((x @ p["a"]).reshape(-1, 4, 2), 2, 0)) @ p["o"]
        ),
        {"a": (6, 8), "o": (4, 2)},
        (2, 6),
        {"a 4 a.1*2p o.0c"},
    ),
    "heads, three parts in each": (
        lambda p, x: (
            attention(
                *jnp.split((x @ p["qkv"] + p["b"]).reshape(2, 5, 3, 12), 3, axis=-1)
            ).reshape(2, 5, 12)
            @ p["o"]
        ),
        {"qkv": (6, 36), "b": (36,), "o": (12, 6)},
        (2, 5, 6),
        {"qkv 3 b.0*12b o.0*4c qkv.1*12p"},
    ),
    "two heads of keys for six of queries": (
        lambda p, x: (
            jnp.einsum(
                "bghts,bsgd->btghd",
                jax.nn.softmax(
                    jnp.einsum(
                        "btghd,bsgd->bghts",
                        (x @ p["q"]).reshape(2, 5, 2, 3, 4),
                        (x @ p["k"]).reshape(2, 5, 2, 4),
                    )
                ),
                (x @ p["v"]).reshape(2, 5, 2, 4),
            ).reshape(2, 5, 24)
            @ p["o"]
        ),
        {"q": (6, 24), "k": (6, 8), "v": (6, 8), "o": (24, 6)},
        (2, 5, 6),
        {"q 2 k.1*4p o.0*12c q.1*12p v.1*4p"},
    ),
    "a channel shuffle": (
        lambda p, x: (x @ p["a"]).reshape(2, 2, 4).mT.reshape(2, 8) @ p["o"],
        {"a": (6, 8), "o": (8, 2)},
        (2, 6),
        # The first reshape splits the channels to (2, 4), the second one merges them
        # transposed, so only the first axis keeps its channels.
        {"a 2 a.1*4p o.0*4c"},
    ),
    "squeeze and excite": (
        lambda p, x: squeeze_and_excite(p, x @ p["a"]) @ p["o"],
        {"a": (6, 8), "s": (8, 3), "e": (3, 8), "o": (8, 2)},
        (2, 6),
        {"a 8 a.1p e.1p o.0c s.0c", "s 3 e.0c s.1p"},
    ),
    "a recurrent network": (
        lambda p, x: (
            jax.lax.scan(
                lambda h, y: (jnp.tanh(y @ p["in"] + h @ p["h"] + p["b"]), None),
                jnp.zeros((2, 5)),
                x.swapaxes(0, 1),
            )[0]
            @ p["o"]
        ),
        {"in": (6, 5), "h": (5, 5), "b": (5,), "o": (5, 2)},
        (2, 4, 6),
        {"in 5 b.0b h.0c h.1p in.1p o.0c"},
    ),
    "branches": (
        lambda p, x: (
            jax.lax.cond(
                x[0, 0] > 0,
                lambda h: h @ p["a"],
                lambda h: jnp.ones((2, 4)),
                x @ p["i"],
            )
            @ p["o"]
        ),
        {"i": (6, 5), "a": (5, 4), "o": (4, 2)},
        (2, 6),
        {"i 5 a.0c i.1p", "a 4 a.1p o.0c"},
    ),
    "functions that are jitted, and computed twice": (
        lambda p, x: (
            jax.checkpoint(lambda h: jax.jit(jax.nn.gelu)(h @ p["i"]) @ p["a"])(x)
            @ p["o"]
        ),
        {"i": (6, 5), "a": (5, 4), "o": (4, 2)},
        (2, 6),
        {"i 5 a.0c i.1p", "a 4 a.1p o.0c"},
    ),
    "a table looked up": (
        lambda p, x: p["table"][x.astype(int)] @ p["o"],
        {"table": (9, 5), "o": (5, 2)},
        (2, 4),
        {"table 5 o.0c table.1p"},
    ),
    "dropout": (
        lambda p, x: dropout(x @ p["a"]) @ p["o"],
        {"a": (6, 8), "o": (8, 2)},
        (2, 6),
        {"a 8 a.1p o.0c"},
    ),
    "low rank": (
        lambda p, x: jax.nn.relu(x @ (p["w"] + p["a"] @ p["b"])) @ p["o"],
        {"w": (6, 5), "a": (6, 3), "b": (3, 5), "o": (5, 2)},
        (2, 6),
        {"a 3 a.1p b.0c", "b 5 b.1p o.0c w.1p"},
    ),
    "rotations, and norms of heads": (
        lambda p, x: (
            attention(
                *[
                    jnp.flip(y, -1) / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1)
                    for y in ((x @ p[n]).reshape(2, 5, 3, 4) for n in "qkv")
                ]
            ).reshape(2, 5, 12)
            @ p["o"]
        ),
        {"q": (6, 12), "k": (6, 12), "v": (6, 12), "o": (12, 6)},
        (2, 5, 6),
        {"q 3 k.1*4p o.0*4c q.1*4p v.1*4p"},
    ),
    "a part taken by a position of the run": (
        lambda p, x: (
            jax.lax.dynamic_slice_in_dim(
                x @ p["a"], x[0, 0, 0].astype(int), 2, axis=1
            ).mean(1)
            @ p["o"]
        ),
        {"a": (6, 8), "o": (8, 2)},
        (2, 4, 6),
        {"a 8 a.1p o.0c"},
    ),
    "halves taken by positions": (
        lambda p, x: (
            (
                jax.lax.dynamic_slice_in_dim(x @ p["a"], 0, 4, axis=1)
                * jax.lax.dynamic_slice_in_dim(x @ p["a"], 4, 4, axis=1)
            )
            @ p["o"]
        ),
        {"a": (6, 8), "o": (4, 2)},
        (2, 6),
        {"a 4 a.1*2p o.0c"},
    ),
    "a cache that is written to": (
        lambda p, x: (
            jax.lax.dynamic_update_slice_in_dim(
                jnp.zeros((2, 4, 8)), (x @ p["a"])[:, None], x[0, 0].astype(int), axis=1
            ).sum(1)
            @ p["o"]
        ),
        {"a": (6, 8), "o": (8, 2)},
        (2, 6),
        {"a 8 a.1p o.0c"},
    ),
    "sums over the neighbours in a graph": (
        lambda p, x: jnp.zeros((4, 8)).at[x[:, 0].astype(int)].add(x @ p["a"]) @ p["o"],
        {"a": (6, 8), "o": (8, 2)},
        (3, 6),
        {"a 8 a.1p o.0c"},
    ),
    "the same zeros added to two": (
        add_zeros,
        {"a": (6, 5), "b": (6, 5), "o": (5, 2), "q": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c", "b 5 b.1p q.0c"},
    ),
}

OPERATIONS |= {
    # Layers that divide each channel by its own norm. A channel whose parameters are 0
    # is a finite number: 0 / (0 + 1), 0 / max(0, 1), 0 / 1, and 0 for 0 / 0.
    "weights divided by their norm and a constant": (
        lambda p, x: jax.nn.relu(x @ (p["a"] / (norms(p["a"]) + 1))) @ p["o"],
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "weights divided by their norm, but at least 1": (
        lambda p, x: jax.nn.relu(x @ (p["a"] / jnp.maximum(norms(p["a"]), 1))) @ p["o"],
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "weights divided by their norm where it is not 0": (
        lambda p, x: x @ safe_quotient(p["a"], norms(p["a"])) @ p["o"],
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "standardized weights": (
        lambda p, x: jax.nn.relu(x @ standardize(p["a"], 0.1)) @ p["o"],
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "activations divided by their norm over the batch": (
        lambda p, x: standardize(jax.nn.sigmoid(x @ p["a"]), 0.1) @ p["o"],
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "a recurrence with a norm, from zeros": (
        lambda p, x: (
            recurrence(p, x, lambda h: x @ p["a"] + h / (norms(h) + 1)) @ p["o"]
        ),
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    # Parts and layers without channels.
    "a part of size 0": (
        lambda p, x: (
            jnp.concatenate(jnp.split(jax.nn.relu(x @ p["a"]), [0], axis=-1), -1)
            @ p["o"]
        ),
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "an empty slice, reshaped, pooled and added": (
        lambda p, x: (
            x @ p["a"] @ p["o"]
            + (x @ p["a"])[:, :0].reshape(0, 3).sum()
            + jnp.cumsum((x @ p["a"])[:, 5:], 0).max(initial=0)
        ),
        {"a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "a layer of size 0": (
        lambda p, x: x @ p["e"] @ p["f"] + jax.nn.relu(x @ p["a"]) @ p["o"],
        {"e": (6, 0), "f": (0, 2), "a": (6, 5), "o": (5, 2)},
        (2, 6),
        {"a 5 a.1p o.0c"},
    ),
    "a kernel of ones": (
        lambda p, x: (
            convolve(convolve(x, p["a"]), jnp.ones((1, 1, 5, 1))).sum((1, 2))
            + convolve(x, p["a"]).sum((1, 2)) @ p["o"]
        ),
        {"a": (1, 1, 3, 5), "o": (5, 2)},
        (2, 4, 4, 3),
        {"a 5 a.3p o.0c"},
    ),
}

PROJECTION = random(6, 2)

# Model of p and x that freezes axis 1 of "a", and a part of the reason.
FREEZING = {
    "layer norm": (lambda p, x: jax.nn.standardize(x @ p["a"]) @ p["o"], "over all"),
    "softmax": (lambda p, x: jax.nn.softmax(x @ p["a"]) @ p["o"], "over all"),
    "mean": (lambda p, x: (x @ p["a"]).mean(1), "over all"),
    "sort": (lambda p, x: jnp.sort(x @ p["a"], 1) @ p["o"], "along its channels (sort"),
    "running sum": (lambda p, x: jnp.cumsum(x @ p["a"], 1) @ p["o"], "cumsum"),
    "fft": (lambda p, x: jnp.fft.fft(x @ p["a"]).real @ p["o"], "(fft"),
    "output": (lambda p, x: x @ p["a"], "an output of the model"),
    "the input": (
        lambda p, x: (x @ p["a"] + x) @ p["o"],
        "meets an axis of fixed size",
    ),
    "a position": (
        lambda p, x: jnp.where(jnp.arange(6)[None] > 2, x @ p["a"], 0) @ p["o"],
        "fixed size",
    ),
    "an index": (lambda p, x: (x @ p["a"])[:, np.array([0, 2, 5])], "looked up"),
    "a loop of unknown length": (
        lambda p, x: (
            jax.lax.while_loop(
                lambda c: c[0] < x.sum(), lambda c: (c[0] + 1, -c[1]), (0, x @ p["a"])
            )[1]
            @ p["o"]
        ),
        "not supported (while",
    ),
    "weights that are not zero where the parameters are": (
        lambda p, x: jax.nn.sigmoid(x @ p["a"]) @ jnp.exp(p["o"]),
        "need not be 0",
    ),
    "a fixed projection": (
        lambda p, x: jax.nn.sigmoid(x @ p["a"]) @ PROJECTION,
        "need not be 0",
    ),
    "a product of activations": (
        lambda p, x: (x @ p["a"]) @ (x @ p["a"]).T,
        "product of two activations",
    ),
    # 0 / 0, 0 * inf, -inf and 1 / 0 where a channel's parameters are 0.
    "weights divided by their norm": (
        lambda p, x: x @ (p["a"] / norms(p["a"])) @ p["o"],
        "NaN or infinite where its parameters are 0, as pruning makes them (div,",
    ),
    "standardized weights": (
        lambda p, x: x @ standardize(p["a"], 0) @ p["o"],
        "NaN or infinite",
    ),
    "weights rounded to multiples of the largest": (
        lambda p, x: x @ jnp.round(p["a"] / abs(p["a"]).max(0, keepdims=True)) @ p["o"],
        "NaN or infinite",
    ),
    "a variance of a constant": (
        lambda p, x: standardize(jax.nn.sigmoid(x @ p["a"]), 0) @ p["o"],
        "NaN or infinite where its parameters are 0, as pruning makes them (rsqrt,",
    ),
    "a logarithm": (
        lambda p, x: jnp.log(jax.nn.relu(x @ p["a"])) @ p["o"],
        "NaN or infinite where its parameters are 0, as pruning makes them (log,",
    ),
    "a negative power": (
        lambda p, x: abs(x @ p["a"]) ** -0.5 @ p["o"],
        "NaN or infinite where its parameters are 0, as pruning makes them (pow,",
    ),
    "a function without a rule of its own": (
        lambda p, x: jax.scipy.special.digamma(x @ p["a"]) @ p["o"],
        "NaN or infinite where its parameters are 0, as pruning makes them (digamma,",
    ),
    "weights after it divided by their norm": (
        lambda p, x: x @ p["a"] @ (p["o"] / norms(p["o"].T).T),
        "NaN or infinite",
    ),
    "a norm in a later step of a recurrence": (
        lambda p, x: (
            jax.lax.scan(
                lambda c, _: ((c[0] / norms(c[1]), x @ p["a"]), None),
                (x @ p["a"], jnp.ones((3, 6))),
                length=3,
            )[0][0]
            @ p["o"]
        ),
        "NaN or infinite",
    ),
}


class TestOperations:
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_couple_what_they_should(self, name):
        apply, shapes, x, expected = OPERATIONS[name]
        params = {key: random(*shape) for key, shape in shapes.items()}
        assert groups_of(apply, params, jnp.ones(x)) == expected

    @pytest.mark.parametrize("name", FREEZING)
    def test_freeze_what_they_must(self, name):
        apply, reason = FREEZING[name]
        params = {"a": random(6, 6), "o": random(6, 2)}
        groups = swd_jax.channels.channel_groups(apply, params, jnp.ones((3, 6)))
        member_axes = [(m.path, m.axis) for group in groups for m in group.members]
        assert ("a", 1) not in member_axes
        [axis] = [axis for axis in groups.frozen if (axis.path, axis.axis) == ("a", 1)]
        assert reason in axis.reason

    def test_freeze_with_the_line_of_the_user(self):
        def apply(params, x):
            return jnp.sort(x @ params["first"], 1) @ params["second"]

        groups = swd_jax.channels.channel_groups(apply, LINEAR, X)
        line = apply.__code__.co_firstlineno + 1
        reasons = {(axis.path, axis.axis): axis.reason for axis in groups.frozen}
        assert f"sort, test_channel_groups.py:{line}" in reasons["first", 1]

    def test_of_tied_weights_that_are_two_leaves_couple_them(self):
        tied = random(5, 5)
        params = {"in": random(6, 5), "a": tied, "b": tied, "o": random(5, 2)}

        def apply(p, x):
            h = jax.nn.relu(jax.nn.relu(x @ p["in"]) @ p["a"])
            return jax.nn.relu(h) @ p["b"] @ p["o"]

        groups = swd_jax.channels.channel_groups(apply, params, X, tied=[("a", "b")])
        assert [group.size for group in groups] == [5]
        # 6 x 5, 5 x 5 counted once, 5 x 2.
        assert groups.parameters() == 30 + 25 + 10


class TestValuesThatAreNotUsed:
    """Flax's `sow` computes values that `apply` does not return."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.relu(nn.Dense(8)(x))
            self.sow("losses", "mean", h.mean())
            self.sow("features", "hidden", h)
            return nn.Dense(3)(h)

    def test_freeze_nothing_and_are_no_parameters(self):
        x = jnp.ones((2, 4))
        variables = self.Net().init(jax.random.key(0), x)
        assert variables["features"]["hidden"][0].shape == (2, 8)
        groups = swd_jax.channels.channel_groups(self.Net().apply, variables, x)
        assert [(group.name, group.size) for group in groups] == [("params/Dense_0", 8)]
        assert groups.parameters() == 4 * 8 + 8 + 8 * 3 + 3

    def test_beside_the_parameters_of_a_part_are_none(self):
        x = jnp.ones((2, 4))
        params = {"part": self.Net().init(jax.random.key(0), x), "head": random(3, 2)}

        def apply(params, x):
            return self.Net().apply(params["part"], x) @ params["head"]

        groups = swd_jax.channels.channel_groups(apply, params, x)
        assert groups.parameters() == 4 * 8 + 8 + 8 * 3 + 3 + 3 * 2

    def test_of_nnx_are_no_parameters(self):
        model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        model.hidden = nnx.Intermediate(jnp.ones((2, 8)))
        call = lambda model, x: model(x)
        groups = swd_jax.channels.channel_groups(call, model, jnp.ones((2, 4)))
        assert groups.parameters() == 4 * 3 + 3

    def test_of_parameters_do_count(self):
        params = {**LINEAR, "other": jnp.ones(7)}
        groups = swd_jax.channels.channel_groups(linear, params, X)
        assert groups.parameters() == 6 * 5 + 5 * 2 + 7


class TestCosts:
    def test_of_lenet_are_those_worked_out_by_hand(self):
        case = CASES["lenet"]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        kept = [
            np.arange(group.size) < count
            for group, count in zip(groups, (2, 7, 30, 11), strict=True)
        ]
        # Kernels and biases; 1 input map, and 1 pixel before the dense layers.
        assert groups.parameters(kept) == (
            25 * 2 + 2 + 25 * 2 * 7 + 7 + 7 * 30 + 30 + 30 * 11 + 11 + 11 * 3 + 3
        )
        # The first convolution pads 12 pixels by 2: of 12 x 5 products along an axis
        # 2 + 1 are with padding at either end, which leaves 54. The second convolution
        # has 2 x 2 windows and no padding.
        multiply_adds = 2 * (
            54**2 * 2 + 4 * 25 * 2 * 7 + 7 * 30 + 30 * 11 + 11 * 3
        )  # a batch of 2
        assert groups.flops(kept) == 2 * multiply_adds

    def test_of_one_channel_are_those_of_its_row_and_column(self):
        groups = swd_jax.channels.channel_groups(linear, LINEAR, X)
        [group] = groups
        assert group.parameters.tolist() == [6 + 2] * 5
        assert group.flops.tolist() == [2 * 3 * (6 + 2)] * 5

    def test_of_a_recurrent_channel_count_its_row_and_column_once(self):
        def apply(p, x):
            return (
                jnp.tanh(jnp.tanh(x @ p["in"]) @ p["h"] + x @ p["in"]) @ p["h"] @ p["o"]
            )

        params = {"in": random(6, 5), "h": random(5, 5), "o": random(5, 2)}
        [group] = swd_jax.channels.channel_groups(apply, params, X)
        assert group.parameters.tolist() == [6 + (25 - 16) + 2] * 5

    def test_under_jit_are_the_same(self):
        groups = swd_jax.channels.channel_groups(linear, LINEAR, X)
        kept = [jnp.array([True, False, True, False, False])]
        parameters, flops = jax.jit(lambda k: (groups.parameters(k), groups.flops(k)))(
            kept
        )
        assert parameters.dtype == flops.dtype == jnp.float32
        assert parameters == groups.parameters(kept) == 2 * (6 + 2)
        assert flops == groups.flops(kept) == 2 * 2 * 3 * (6 + 2)

    def test_agree_with_xla(self):
        from models.resnet import cifar_resnet

        model = nnx.eval_shape(lambda: cifar_resnet(20, width=16, rngs=nnx.Rngs(0)))
        model.eval()
        x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        groups = swd_jax.channels.channel_groups(channel_models.call, model, x)
        graph, state = nnx.split(model)
        lowered = jax.jit(lambda s, x: nnx.merge(graph, s)(x)).lower(state, x)
        assert groups.flops() == pytest.approx(
            lowered.cost_analysis()["flops"], rel=0.02
        )

    def test_of_a_scan_count_every_step(self):
        def apply(p, x):
            return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

        groups = swd_jax.channels.channel_groups(apply, {"w": random(4, 6, 6)}, X)
        assert groups.flops() == 2 * 4 * 3 * 6 * 6


class TestPrinting:
    def test_lists_groups_members_and_reasons(self):
        text = str(swd_jax.channels.channel_groups(linear, LINEAR, X))
        assert "first: 5 channels, 8 parameters each" in text
        assert "second  axis 0  consumer" in text
        assert "an output of the model" in text

    def test_groups_are_a_sequence_with_names(self):
        groups = swd_jax.channels.channel_groups(linear, LINEAR, X)
        assert len(groups) == 1
        assert groups[0] is groups["first"] is next(iter(groups))
        with pytest.raises(KeyError):
            groups["second"]


class TestErrors:
    def test_python_that_depends_on_values(self):
        def apply(params, x):
            return x @ params["first"] if x.sum() > 0 else x

        with pytest.raises(ValueError, match="depends on the values"):
            swd_jax.channels.channel_groups(apply, LINEAR, X)

    def test_arguments_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match=r"example_args of the shapes \(3, 7\)"):
            swd_jax.channels.channel_groups(linear, LINEAR, jnp.ones((3, 7)))

    def test_a_model_that_closes_over_its_parameters(self):
        with pytest.raises(ValueError, match="does not use any of its params"):
            swd_jax.channels.channel_groups(lambda p, x: linear(LINEAR, x), LINEAR, X)

    def test_a_model_that_closes_over_most_of_its_parameters(self):
        def apply(params, x):
            return x @ LINEAR["first"] @ params["second"]

        with pytest.raises(ValueError, match="closes over"):
            swd_jax.channels.channel_groups(apply, {"second": LINEAR["second"]}, X)

    def test_no_arrays(self):
        with pytest.raises(ValueError, match="tree of arrays, and has none"):
            swd_jax.channels.channel_groups(linear, {}, X)

    @pytest.mark.parametrize(
        "kept",
        [[], [[True] * 4], [np.ones(5)], {"first": [True] * 5, "x": []}, {}],
        ids=["none", "short", "numbers", "unknown", "missing"],
    )
    def test_vectors_that_do_not_fit(self, kept):
        groups = swd_jax.channels.channel_groups(linear, LINEAR, X)
        with pytest.raises(ValueError, match="kept must"):
            groups.parameters(kept)
