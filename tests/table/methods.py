"""The rows of the table: every public transformation, and how it meets an optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import swd_jax

STEPS = 10
HALF = 0.5
DECAY = {"weight_decay": 0.01, "a": 3.0}
Optimizer = optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      factory: the public function, without the optimizer and without a target.
      numbers: its numeric arguments.
      options: its other arguments.
      known_beforehand: those of the numbers that must not be traced.
      place: where it stands: "before", "after" or "around" an optimizer.
      wide_updates: whether an update has the weight's dtype where its own has fewer
        bits.
      has_axis_name: whether it can be told the mesh axes inside of `shard_map`.
    """

    factory: Callable[..., Optimizer]
    numbers: dict[str, Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    known_beforehand: tuple[str, ...] = ()
    place: str = "after"
    wide_updates: bool = False
    has_axis_name: bool = True

    def build(self, optimizer: Optimizer, params: Any, **options: Any) -> Optimizer:
        """Return the method and an optimizer, combined as they should be."""
        alone = self.alone(optimizer, params, **options)
        if self.place == "before":
            return optax.chain(alone, optimizer)
        return optax.chain(optimizer, alone) if self.place == "after" else alone

    def alone(self, optimizer: Optimizer, params: Any, **options: Any) -> Optimizer:
        """Return the method by itself; only one that goes around has the optimizer."""
        return self.call(optimizer, params)(**self.numbers, **options)

    def call(self, optimizer: Optimizer, params: Any) -> Callable[..., Optimizer]:
        """Return a function of the numeric arguments."""

        def make(**numbers: Any) -> Optimizer:
            if self.factory is swd_jax.keep_pruned:
                return self.factory(all_kept(params), **numbers)
            if self.place == "around":
                numbers = {"optimizer": optimizer, **numbers}
            return self.factory(**numbers, **self.options)

        return make


def all_kept(params: Any) -> Any:
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params)


def has_one_axis(path: str, leaf: Any) -> bool:
    """Say which leaves are scales, in containers that have no names."""
    del path
    return leaf.ndim == 1


def with_straight_through(
    target: Any, power: float, pruned_gradient_scale: float, axis_name: Any = None
) -> Optimizer:
    """Return updates that are gradients through `straight_through`."""

    def pull_back(updates: Any, params: Any) -> Any:
        def masked(params: Any) -> Any:
            return swd_jax.methods.straight_through(
                params,
                target,
                power=power,
                pruned_gradient_scale=pruned_gradient_scale,
                axis_name=axis_name,
            )

        cotangents = jax.tree.map(lambda u, w: u.astype(w.dtype), updates, params)
        [gradients] = jax.vjp(masked, params)[1](cotangents)
        return jax.tree.map(lambda g, u: g.astype(u.dtype), gradients, updates)

    return optax.stateless(pull_back)


# In the place of a method: what fails with it is a limit of optax.
NOTHING = Method(
    lambda number: optax.identity(),
    {"number": 1.0},
    place="before",
    has_axis_name=False,
)

_METHODS = swd_jax.methods
_TARGET = {"target": HALF}
_RATE = {"learning_rate": 0.1}
_TWO_OF_FOUR = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4))
_LOCAL = swd_jax.Target(0.5, scope="local", criterion="normalized_magnitude")

METHODS = {
    "swd": Method(swd_jax.swd, {**_TARGET, **DECAY, "update_every": 1}, place="before"),
    "swd, local, with a tolerance": Method(
        swd_jax.swd,
        {**DECAY, "update_every": 3},
        {"target": _LOCAL, "tolerance": 0.05},
        place="before",
    ),
    "swd, 2:4": Method(swd_jax.swd, DECAY, {"target": _TWO_OF_FOUR}, place="before"),
    "decoupled_swd": Method(
        swd_jax.decoupled_swd, {**_TARGET, **DECAY, **_RATE, "update_every": 1}
    ),
    "proximal_swd": Method(
        swd_jax.proximal_swd, {**_TARGET, **DECAY, **_RATE, "update_every": 1}
    ),
    "sparsify": Method(
        swd_jax.sparsify,
        {**_TARGET, "total_steps": STEPS, "begin": 1, "end": 5},
        known_beforehand=("total_steps", "begin", "end"),
        wide_updates=True,
    ),
    "sparsify, around": Method(
        swd_jax.sparsify,
        {**_TARGET, "total_steps": STEPS, "begin": 1, "end": 5},
        known_beforehand=("total_steps", "begin", "end"),
        place="around",
        wide_updates=True,
    ),
    "sparsify, 2:4": Method(
        swd_jax.sparsify,
        {"total_steps": STEPS},
        {"target": _TWO_OF_FOUR},
        known_beforehand=("total_steps",),
        wide_updates=True,
    ),
    "latent_pruning": Method(
        _METHODS.latent_pruning,
        {**_TARGET, "forgetting": 0.1, "power": 3.0, "max_rescale": 2.0},
        {"memory": "bfloat16"},
        known_beforehand=("power", "max_rescale"),
        wide_updates=True,
    ),
    "latent_pruning, around": Method(
        _METHODS.latent_pruning,
        {**_TARGET, "forgetting": 0.1, "pruned_gradient_scale": 0.5},
        place="around",
        wide_updates=True,
    ),
    "magnitude_pruning": Method(
        _METHODS.magnitude_pruning, {**_TARGET, "update_every": 2}
    ),
    "soft_pruning": Method(_METHODS.soft_pruning, {**_TARGET, "update_every": 2}),
    "rigl": Method(
        _METHODS.rigl,
        {**_TARGET, "until": 100, "update_every": 2, "drop_fraction": 0.3, "seed": 0},
        known_beforehand=("target", "drop_fraction"),
        place="around",
        has_axis_name=False,
    ),
    "sparse_evolution": Method(
        _METHODS.sparse_evolution,
        {**_TARGET, "update_every": 2, "drop_fraction": 0.3, "seed": 0},
        known_beforehand=("target", "drop_fraction"),
        place="around",
        has_axis_name=False,
    ),
    "network_slimming": Method(
        _METHODS.network_slimming,
        {"strength": 0.1},
        {"prunable": has_one_axis},
        place="before",
        has_axis_name=False,
    ),
    "keep_pruned": Method(swd_jax.keep_pruned, {}, has_axis_name=False),
    "straight_through": Method(
        with_straight_through,
        {**_TARGET, "power": 1.0, "pruned_gradient_scale": 0.5},
        known_beforehand=("power",),
        place="before",
    ),
}
