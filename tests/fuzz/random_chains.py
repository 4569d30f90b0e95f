"""Random chains of transformations: one of this library's among those of optax."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import swd_jax

SHAPES = {"first/kernel": (6, 4), "first/bias": (4,), "second/kernel": (4, 8)}

Transformation = optax.GradientTransformation


class RandomChain:
    """A chain, parameters for it and gradients for every step."""

    def __init__(self, seed: int) -> None:
        self.generator = generator = np.random.default_rng(seed)
        self.names: list[str] = []
        self.steps = int(generator.integers(1, 6))
        # Some leaves of bfloat16, and no injected numbers then: optax (0.2.8) injects
        # float32 numbers, which widen what Adam computes from bfloat16 gradients.
        is_narrow = generator.random(3) < 0.2
        self.dtypes = {
            path: jnp.bfloat16 if narrow else jnp.float32
            for path, narrow in zip(SHAPES, is_narrow, strict=True)
        }
        self.has_float32 = not is_narrow.any()
        self.target = self._random_target()
        self.tx = self._random_chain()

    def params(self) -> dict[str, Any]:
        """Return parameters, the same in every call."""
        return self._tree(np.random.default_rng(0), 1.0)

    def gradients(self, step: int) -> dict[str, Any]:
        """Return the gradients of a step, which may be infinite."""
        generator = np.random.default_rng([1, step])
        tree = self._tree(generator, 0.1)
        if "apply_if_finite" in self.names and generator.random() < 0.3:
            tree["first"]["bias"] = tree["first"]["bias"].at[0].set(jnp.inf)
        return tree

    def __str__(self) -> str:
        dtypes = [jnp.dtype(dtype).name for dtype in self.dtypes.values()]
        chain = ", ".join(self.names)
        return f"{self.steps} steps of {chain}; {dtypes}; {self.target}"

    def _tree(self, generator: np.random.Generator, scale: float) -> dict[str, Any]:
        tree: dict[str, Any] = {"first": {}, "second": {}}
        for path, shape in SHAPES.items():
            layer, name = path.split("/")
            values = scale * generator.normal(size=shape)
            tree[layer][name] = jnp.asarray(values, self.dtypes[path])
        return tree

    def _pick(self, choices: Mapping[str, Any]) -> Any:
        name = str(self.generator.choice(list(choices)))
        self.names.append(name)
        return choices[name]

    def _random_target(self) -> swd_jax.Target:
        generator = self.generator
        structures = [
            swd_jax.Unstructured(),
            swd_jax.Unstructured(),
            swd_jax.NM(1, 4),
            swd_jax.Block((2, 2)),
            swd_jax.Channel(-1),
        ]
        criteria = [
            "magnitude",
            "normalized_magnitude",
            "lamp",
            swd_jax.criteria.random_scores(3),
        ]
        rising = swd_jax.cubic_sparsity(0.7, begin=0, end=4)
        return swd_jax.Target(
            [0.5, 0.3, rising][generator.integers(3)],
            structure=structures[generator.integers(len(structures))],
            scope=["global", "local", {"second": 0.25}][generator.integers(3)],
            criterion=criteria[generator.integers(len(criteria))],
            min_kept=[0, 0, 2, 0.1][generator.integers(4)],
        )

    def _random_chain(self) -> Transformation:
        a = swd_jax.exponential_growth(a_min=1.0, a_max=10.0, total_steps=6)
        decay = {"weight_decay": 0.05, "a": [3.0, a][self.generator.integers(2)]}
        every = int(self.generator.integers(1, 4))
        target = self.target
        before: Mapping[str, Callable[[], Transformation]] = {
            "swd": lambda: swd_jax.swd(target, **decay, update_every=every),
            "swd tolerant": lambda: swd_jax.swd(target, **decay, tolerance=0.05),
            "swd injected": lambda: optax.inject_hyperparams(
                swd_jax.swd, static_args=("target", "update_every")
            )(target, **decay, update_every=every),
        }
        after: Mapping[str, Callable[[], Transformation]] = {
            "decoupled": lambda: swd_jax.decoupled_swd(
                target, **decay, learning_rate=0.1, update_every=every
            ),
            "proximal": lambda: swd_jax.proximal_swd(
                target, **decay, learning_rate=0.1
            ),
            "sparsify": lambda: swd_jax.sparsify(target, total_steps=6),
            "magnitude_pruning": lambda: swd_jax.methods.magnitude_pruning(
                target, update_every=every
            ),
            "keep_pruned": lambda: swd_jax.keep_pruned(
                swd_jax.prune_mask(self.params(), target)
            ),
        }
        first: Mapping[str, Callable[[], Transformation]] = {
            "nothing": optax.identity,
            "clip": lambda: optax.clip(0.15),
            "clip_by_global_norm": lambda: optax.clip_by_global_norm(0.5),
            "add_decayed_weights": lambda: optax.add_decayed_weights(1e-2),
            "ema": lambda: optax.ema(0.9),
            "trace": lambda: optax.trace(0.9),
        }
        optimizers: Mapping[str, Callable[[], Transformation]] = {
            "adam": lambda: optax.adam(1e-2),
            "adam injected": lambda: (
                optax.inject_hyperparams(optax.adam)(
                    optax.linear_schedule(1e-2, 1e-3, 5)
                )
                if self.has_float32
                else optax.adam(1e-2)
            ),
            "adamw": lambda: optax.adamw(1e-2),
            "sgd": lambda: optax.sgd(0.1, momentum=0.9),
            "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
            "rmsprop": lambda: optax.rmsprop(1e-2),
            "lion": lambda: optax.lion(1e-2),
        }
        parts = [self._pick(first)()]
        if self.generator.random() < 0.5:
            parts += [
                self._wrapped_part(self._pick(before)()),
                self._pick(optimizers)(),
            ]
        else:
            parts += [self._pick(optimizers)(), self._pick(after)()]
        return self._wrapped_chain(optax.chain(*parts))

    def _wrapped_part(self, tx: Transformation) -> Transformation:
        mask = {"first": {"kernel": True, "bias": False}, "second": {"kernel": True}}
        labels = jax.tree.map(lambda on: "on" if on else "off", mask)
        wrappers: Mapping[str, Callable[[], Transformation]] = {
            "as it is": lambda: tx,
            "masked": lambda: optax.masked(tx, mask),
            "multi_transform": lambda: optax.multi_transform(
                {"on": tx, "off": optax.identity()}, labels
            ),
        }
        return self._pick(wrappers)()

    def _wrapped_chain(self, tx: Transformation) -> Transformation:
        wrappers: Mapping[str, Callable[[], Transformation]] = {
            "alone": lambda: tx,
            "MultiSteps": lambda: optax.MultiSteps(tx, 2).gradient_transformation(),
            "apply_if_finite": lambda: optax.apply_if_finite(tx, 2),
            "named_chain": lambda: optax.named_chain(("all", tx)),
        }
        return self._pick(wrappers)()
