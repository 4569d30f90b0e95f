"""Unsupported equations freeze what they read; bugs in rules are raised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

import swd_jax
from swd_jax._coupling import axis_labels, coupling_analysis, propagate_labels
from swd_jax._coupling.rules import all_rules, fallback
from swd_jax._coupling.rules.rule_interface import Rule, UnsupportedPrimitive

X = np.ones((3, 6), np.float32)
PARAMS = {
    "a": np.ones((6, 5), np.float32),
    "b": np.ones((5, 4), np.float32),
    "o": np.ones((4, 2), np.float32),
}

looped = Primitive("looped")
looped.def_abstract_eval(lambda x: x)
BODY = jax.make_jaxpr(lambda h: jnp.tanh(h @ np.ones((5, 5), np.float32)))(
    np.ones((3, 5), np.float32)
)


def with_looped(params, x):
    hidden = looped.bind(x @ params["a"])
    return jax.nn.relu(hidden @ params["b"]) @ params["o"]


def label_looped_unfinished(analysis, equation, inputs):
    """Go through a body that runs 5 times, then meet something unsupported in it."""
    del equation
    with analysis.position.repeated(5):
        analysis.call(BODY, inputs)
        raise UnsupportedPrimitive


@pytest.fixture
def unfinished_rule(monkeypatch):
    rule = Rule(label_looped_unfinished, fallback.run_unsupported)
    monkeypatch.setitem(all_rules.RULES, "looped", rule)


def start_analysis(params):
    analysis = coupling_analysis.CouplingAnalysis(propagate_labels.propagate)
    labels = [
        analysis.add_leaf(number, leaf.shape)
        for number, leaf in enumerate(params.values())
    ]
    analysis.end_leaves()
    return analysis, [*labels, axis_labels.fixed_size_labels(X.shape)]


def in_a_scan(params, x):
    hidden, _ = jax.lax.scan(
        lambda h, _: (jnp.tanh(h @ np.eye(5, dtype=np.float32)), None),
        x @ params["a"],
        length=5,
    )
    return hidden @ params["b"] @ params["o"]


def at_the_top(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"] @ params["o"]


class TestBugsInRules:
    @pytest.mark.parametrize("model", [at_the_top, in_a_scan])
    @pytest.mark.parametrize(
        "error", [AttributeError, IndexError, KeyError, NotImplementedError, TypeError]
    )
    def test_are_raised(self, monkeypatch, model, error):
        def label(analysis, equation, inputs):
            raise error("dimension_nubmers")

        rule = all_rules.RULES["tanh"]._replace(label=label)
        monkeypatch.setitem(all_rules.RULES, "tanh", rule)
        with pytest.raises(error, match="dimension_nubmers"):
            swd_jax.channels.channel_groups(model, PARAMS, X)

    def test_leave_the_position_at_the_top(self, monkeypatch):
        def label(analysis, equation, inputs):
            assert analysis.position.num_runs == 5
            assert analysis.position.description.startswith("tanh, test_propagate")
            raise KeyError

        rule = all_rules.RULES["tanh"]._replace(label=label)
        monkeypatch.setitem(all_rules.RULES, "tanh", rule)
        analysis, labels = start_analysis(PARAMS)
        jaxpr = jax.make_jaxpr(in_a_scan)(PARAMS, X)
        with pytest.raises(KeyError):
            propagate_labels.propagate(analysis, jaxpr, labels)
        assert analysis.position.num_runs == 1
        assert analysis.position.description == ""


class TestUnsupportedEquations:
    def test_freeze_what_they_read(self):
        groups = swd_jax.channels.channel_groups(with_looped, PARAMS, X)
        reasons = {(axis.path, axis.axis): axis.reason for axis in groups.frozen}
        assert "not supported (looped" in reasons["a", 1]
        assert [group.name for group in groups] == ["b"]

    @pytest.mark.usefixtures("unfinished_rule")
    def test_whose_rule_is_unfinished_count_once_and_not_at_all(self):
        groups = swd_jax.channels.channel_groups(with_looped, PARAMS, X)
        # 3 x 6 x 5, 3 x 5 x 4 and 3 x 4 x 2 multiply-adds; 5 times the body's
        # 3 x 5 x 5 are those of an equation without a rule, which do not count.
        assert groups.flops() == 2 * 3 * (6 * 5 + 5 * 4 + 4 * 2)

    @pytest.mark.usefixtures("unfinished_rule")
    def test_whose_rule_is_unfinished_leave_no_frames_and_no_runs(self):
        analysis, labels = start_analysis(PARAMS)
        jaxpr = jax.make_jaxpr(with_looped)(PARAMS, X)
        _, frame = propagate_labels.propagate(analysis, jaxpr, labels)
        [number] = [
            number
            for number, equation in enumerate(jaxpr.eqns)
            if equation.primitive is looped
        ]
        assert frame.unsupported == {number}
        assert number not in frame.called
        assert analysis.position.num_runs == 1

    @pytest.mark.parametrize("name", ["dimension_numbers", "axes"])
    def test_are_those_whose_parameter_another_release_of_jax_renames(self, name):
        def model(params, x):
            return jnp.tanh(x @ params["a"]).sum(0) @ params["b"] @ params["o"]

        jaxpr = jax.make_jaxpr(model)(PARAMS, X).jaxpr
        renamed = [
            equation.replace(
                params={
                    key + "_renamed" * (key == name): value
                    for key, value in equation.params.items()
                }
            )
            for equation in jaxpr.eqns
        ]
        expected = {
            number
            for number, equation in enumerate(jaxpr.eqns)
            if name in equation.params
        }
        analysis, labels = start_analysis(PARAMS)
        _, frame = propagate_labels.propagate(
            analysis, jaxpr.replace(eqns=renamed), labels
        )
        assert expected
        assert frame.unsupported == expected
