"""One compiled program for a method: seeds side by side, epochs under `scan`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import swd_jax
from experiments import choices
from experiments.method import Method, Training
from experiments.methods import SPARSE_FROM_THE_START, make_method
from experiments.run import Run
from experiments.task import Task, abstract_model
from models import macs

# About how often a training is looked at.
_POINTS = 30


class Carry(NamedTuple):
    """State that is carried from step to step."""

    params: Any
    rest: Any
    optimizer_state: Any
    kept: Any
    """Mask of the weights that pruning would have kept at the last look."""
    step: jax.Array
    key: jax.Array
    gradient: Any = ()
    """That of the last step, for criteria that look at it; else ()."""


class Trained(NamedTuple):
    """Networks after training, one for each seed along the first axis."""

    curves: dict[str, np.ndarray]
    """shape=(points, seeds)"""
    final: dict[str, np.ndarray]
    """shape=(seeds,)"""
    params: Any
    """Pruned."""


class Program:
    """Trains a method for any sparsity and any seeds, compiled once."""

    def __init__(self, task: Task, run: Run) -> None:
        self.task, self.run = task, run
        self.steps = run.epochs * task.steps_per_epoch
        # As near to the wanted number of points as divides the epochs.
        self.points = max(n for n in range(1, _POINTS + 1) if run.epochs % n == 0)
        abstract = abstract_model(task.make)
        self.definition, _, _ = nnx.split(abstract, nnx.Param, ...)
        self._start = jax.jit(jax.vmap(self._start_one, in_axes=(0, None)))
        self._batches = jax.jit(jax.vmap(self._batches_one))
        seeds_and_batches = (0, 0, None, None)
        step = jax.vmap(self._step_one, in_axes=seeds_and_batches)
        self._step = jax.jit(step, donate_argnums=0)
        epochs = jax.vmap(self._epochs_one, in_axes=(0, None, None))
        self._epochs = jax.jit(epochs, donate_argnums=0)
        look = jax.vmap(self._look_one, in_axes=(0, None, None))
        self._look = jax.jit(look, donate_argnums=0)
        self._end = jax.jit(jax.vmap(self._end_one, in_axes=(0, None, None)))

    def train(self, seeds: list[int], sparsity: float) -> Iterator[int | Trained]:
        """Train; tells after each part how many epochs it was, and what came of all."""
        known = np.asarray(sparsity, np.float32)
        carry = self._start(jnp.asarray(seeds), known)
        curves: list[dict[str, Any]] = []
        for _ in range(self.points):
            carry, loss = self._learn(carry, known)
            carry, point = self._look(carry, self.task.data, known)
            curves.append(jax.device_get(point | {"loss": loss}))
            yield self.run.epochs // self.points
        final, params = self._end(carry, self.task.data, known)
        yield Trained(
            {key: np.stack([point[key] for point in curves]) for key in curves[0]},
            jax.device_get(final),
            params,
        )

    def method(self, sparsity: Any) -> Method:
        """The method at a sparsity that may be traced."""
        known = self.run.method in SPARSE_FROM_THE_START
        return make_method(
            Training(
                self.run,
                self.run.sparsity if known else sparsity,
                self.steps,
                self.task.steps_per_epoch,
                self.task.groups,
            )
        )

    def _model(self, params: Any, rest: Any, *, training: bool) -> nnx.Module:
        model = nnx.merge(self.definition, params, rest, copy=True)
        model.train() if training else model.eval()
        return model

    def _start_one(self, seed: jax.Array, sparsity: jax.Array) -> Carry:
        for_model, key = jax.random.split(jax.random.key(seed))
        model = self.task.make(nnx.Rngs(for_model))
        _, params, rest = nnx.split(model, nnx.Param, ...)
        method = self.method(sparsity)
        kept = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
        names = method.target.criterion.extra_args
        gradient = jax.tree.map(jnp.zeros_like, params) if "gradient" in names else ()
        start = jnp.zeros((), jnp.int32)
        state = method.transform.init(params)
        return Carry(params, rest, state, kept, start, key, gradient)

    def _learn(self, carry: Carry, sparsity: np.ndarray) -> tuple[Carry, jax.Array]:
        """Some epochs, and the mean loss of the last."""
        if not self.task.step_by_step:
            return self._epochs(carry, self.task.data, sparsity)
        for _ in range(self.run.epochs // self.points):
            batches, losses = self._batches(carry), []
            for i in range(self.task.steps_per_epoch):
                batch = batches[:, i]
                carry, loss = self._step(carry, batch, self.task.data, sparsity)
                losses.append(loss)
        return carry, jnp.stack(losses).mean(0)

    def _epochs_one(
        self, carry: Carry, data: Any, sparsity: jax.Array
    ) -> tuple[Carry, jax.Array]:
        def step(carry: Carry, batch: jax.Array) -> tuple[Carry, jax.Array]:
            return self._step_one(carry, batch, data, sparsity)

        def epoch(carry: Carry, _: None) -> tuple[Carry, jax.Array]:
            carry, losses = jax.lax.scan(step, carry, self._batches_one(carry))
            return carry, losses.mean()

        epochs = self.run.epochs // self.points
        carry, losses = jax.lax.scan(epoch, carry, length=epochs)
        return carry, losses[-1]

    def _batches_one(self, carry: Carry) -> jax.Array:
        return self.task.batches(jax.random.fold_in(carry.key, -1 - carry.step))

    def _step_one(
        self, carry: Carry, batch: jax.Array, data: Any, sparsity: jax.Array
    ) -> tuple[Carry, jax.Array]:
        method = self.method(sparsity)
        key = jax.random.fold_in(carry.key, carry.step)

        def loss(params: Any) -> tuple[jax.Array, Any]:
            params = method.trained(params, carry.step)
            model = self._model(params, carry.rest, training=True)
            value = self.task.loss(model, data, batch, key)
            return value, nnx.split(model, nnx.Param, ...)[2]

        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(carry.params)
        criterion = method.target.criterion
        before = carry.optimizer_state
        update = optax.with_extra_args_support(method.transform).update
        updates, state = update(
            gradients,
            before,
            carry.params,
            **choices.update_args(criterion, gradients, before),
        )
        params = optax.apply_updates(carry.params, updates)
        moved = carry._replace(params=params, rest=rest, optimizer_state=state)
        if "gradient" in criterion.extra_args:
            moved = moved._replace(gradient=gradients)
        return moved._replace(step=carry.step + 1), value

    def _look_one(
        self, carry: Carry, data: Any, sparsity: jax.Array
    ) -> tuple[Carry, dict[str, jax.Array]]:
        """Measure the network now, and the effect of pruning it."""
        method, step = self.method(sparsity), carry.step
        params = method.trained(carry.params, step)
        criterion = method.target.criterion
        kept = swd_jax.prune_mask(
            carry.params,
            method.target,
            step=step,
            extra_args=choices.extra_args(
                criterion, carry.gradient, carry.optimizer_state
            ),
        )
        pruned = jax.tree.map(lambda w, k: jnp.where(k, w, 0), carry.params, kept)
        point = {"step": step} | self._accuracies(params, carry.rest, data)
        point["residual"] = _residual(carry.params, pruned, method.target)
        before, now = jax.tree.leaves(carry.kept), jax.tree.leaves(kept)
        pairs = list(zip(before, now, strict=True))
        leaves = prunable_leaves(carry.params, method.target)
        total = sum(weights.size for _, _, weights in leaves)
        point["migrated_in"] = sum(jnp.sum(old & ~new) for old, new in pairs) / total
        point["migrated_out"] = sum(jnp.sum(~old & new) for old, new in pairs) / total
        for name in ("multiplier", "threshold", "selected_fraction"):
            value = optax.tree_utils.tree_get(carry.optimizer_state, name)
            if value is not None:
                point[name] = value
        return carry._replace(kept=kept), point

    def _end_one(
        self, carry: Carry, data: Any, sparsity: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        method = self.method(sparsity)
        params = method.trained(carry.params, carry.step)
        # As `swd_jax.prune` has it: what was seen when the network was last looked at,
        # which was after this very step.
        pruned = jax.tree.map(lambda w, k: jnp.where(k, w, 0), params, carry.kept)
        before = self._accuracies(params, carry.rest, data)
        after = self._accuracies(pruned, carry.rest, data)
        final = {f"{part}_before": value for part, value in before.items()}
        final |= {f"{part}_after": value for part, value in after.items()}
        final["residual"] = _residual(params, pruned, method.target)
        return final, pruned

    def _accuracies(self, params: Any, rest: Any, data: Any) -> dict[str, jax.Array]:
        model = self._model(params, rest, training=False)
        return self.task.accuracies(model, data)


def _residual(params: Any, pruned: Any, target: swd_jax.Target) -> jax.Array:
    """The share of the norm of the prunable weights that pruning takes away."""
    after = jax.tree.leaves(pruned)
    pairs = [(weights, after[i]) for i, _, weights in prunable_leaves(params, target)]
    lost = sum(jnp.sum((before - left) ** 2) for before, left in pairs)
    whole = sum(jnp.sum(before**2) for before, _ in pairs)
    return jnp.sqrt(lost / jnp.maximum(whole, 1e-30))


def prunable_leaves(params: Any, target: swd_jax.Target) -> list[tuple[int, str, Any]]:
    """Position, path and weights of the leaves that a target prunes.

    Of a target of coupled channels, or with a predicate for its `prunable`.
    """
    named = [
        (i, macs.leaf_name(path), leaf)
        for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params))
    ]
    structure = target.structure
    if isinstance(structure, swd_jax.CoupledChannels):
        groups = [structure.groups[number] for number in structure.eligible]
        paths = {
            member.path
            for group in groups
            for member in group.members
            if member.role in structure.decayed_roles
        }
        return [each for each in named if each[1] in paths]
    return [each for each in named if target.prunable(each[1], each[2])]
