"""The compiled programs: the first state, a step, an evaluation, and pruning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

import swd_jax
from imagenet_training import placement
from imagenet_training.config import Config
from imagenet_training.optimizers import (
    learning_rate,
    make_optimizer,
    pruning_target,
)
from models.resnet import ResNet, cifar_resnet, imagenet_resnet

# Mean and deviation of the colours of ImageNet's training images, from 0 to 255.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)


class Network(NamedTuple):
    """Parameters and statistics with which a network is evaluated."""

    params: Any
    statistics: Any
    """Batch norm's running means and variances."""


class TrainState(NamedTuple):
    """All that training goes on from, but the position in the data."""

    step: jax.Array
    network: Network
    optimizer_state: optax.OptState
    average: Network | None
    """Exponential moving average of the network, if there is one."""


class Sums(NamedTuple):
    """Over the images of an evaluation."""

    images: jax.Array | float = 0.0
    loss: jax.Array | float = 0.0
    top1: jax.Array | float = 0.0
    top5: jax.Array | float = 0.0


def make_network(config: Config, classes: int, rngs: nnx.Rngs) -> ResNet:
    make = imagenet_resnet if config.depth in (18, 50) else cifar_resnet
    dtype = jnp.bfloat16 if config.bfloat16 else jnp.float32
    return make(
        config.depth, width=config.width, classes=classes, dtype=dtype, rngs=rngs
    )


class Trainer:
    """The programs of one run, on one mesh.

    Args:
      config: the run.
      mesh: of `placement.make_mesh`.
      classes: of images.
      steps: optimizer steps in all.
      steps_per_epoch: of them.
    """

    def __init__(
        self, config: Config, mesh: Mesh, classes: int, steps: int, steps_per_epoch: int
    ) -> None:
        self.config, self.mesh, self.classes = config, mesh, classes
        self.target = pruning_target(config, steps)
        self.learning_rate = learning_rate(config, steps, steps_per_epoch)
        self.optimizer = make_optimizer(config, steps, steps_per_epoch)
        abstract = nnx.eval_shape(lambda: make_network(config, classes, nnx.Rngs(0)))
        self.definition = nnx.split(abstract, nnx.Param, ...)[0]
        self.abstract = jax.eval_shape(self._start)
        self.shardings = placement.state_shardings(config, mesh, self.abstract)
        everywhere = placement.replicated(mesh)
        self.start = jax.jit(self._start, out_shardings=self.shardings)
        self.step = jax.jit(
            self._step, donate_argnums=0, out_shardings=(self.shardings, everywhere)
        )
        self.evaluate = jax.jit(self._evaluate, out_shardings=everywhere)
        self.prune = jax.jit(
            lambda params: swd_jax.prune(params, self.target, step=steps),
            out_shardings=self.shardings.network.params,
        )
        self.gather = jax.jit(lambda tree: tree, out_shardings=everywhere)

    def _start(self) -> TrainState:
        rngs = nnx.Rngs(self.config.seed)
        model = make_network(self.config, self.classes, rngs)
        network = Network(*nnx.split(model, nnx.Param, ...)[1:])
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            network=network,
            optimizer_state=self.optimizer.init(network.params),
            average=network if self.config.average else None,
        )

    def _step(
        self, state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        statistics = state.network.statistics

        def loss(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
            # Under FSDP this gathers the weights, and adds up and divides their
            # gradients again. Left to choose, the compiler might divide the activations
            # by their channels, which costs more than the weights.
            params = jax.lax.with_sharding_constraint(
                params, placement.replicated(self.mesh)
            )
            model = nnx.merge(self.definition, params, statistics, copy=True)
            model.train()
            logits = model(self._inputs(batch["images"]))
            value = self._losses(logits, batch["labels"]).mean()
            return value, (nnx.split(model, nnx.Param, ...)[2], logits)

        params = state.network.params
        (value, (statistics, logits)), gradients = jax.value_and_grad(
            loss, has_aux=True
        )(params)
        updates, optimizer_state = self.optimizer.update(
            gradients, state.optimizer_state, params
        )
        network = Network(optax.apply_updates(params, updates), statistics)
        average = state.average
        if average is not None:
            share = 1 - self.config.average
            average = optax.incremental_update(network, average, share)
        metrics = {
            "loss": value,
            "top1": (logits.argmax(-1) == batch["labels"]).mean(),
            "gradient_norm": optax.tree_utils.tree_norm(gradients),
        }
        return TrainState(state.step + 1, network, optimizer_state, average), metrics

    def _evaluate(self, network: Network, batch: dict[str, jax.Array]) -> Sums:
        model = nnx.merge(self.definition, *network, copy=True)
        model.eval()
        logits = model(self._inputs(batch["images"]))
        labels, weights = batch["labels"], batch["weights"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        best = jax.lax.top_k(logits, min(5, self.classes))[1]
        hits = best == labels[:, None]
        return Sums(
            images=weights.sum(),
            loss=(weights * losses).sum(),
            top1=(weights * hits[:, 0]).sum(),
            top5=(weights * hits.any(-1)).sum(),
        )

    def _inputs(self, images: jax.Array) -> jax.Array:
        """Bytes are moved to the devices, a quarter of what numbers would be."""
        shape = (1, 1, 1, 3)
        mean = jnp.array(MEAN, jnp.float32).reshape(shape)
        deviation = jnp.array(DEVIATION, jnp.float32).reshape(shape)
        return (images.astype(jnp.float32) - mean) / deviation

    def _losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        wanted = jax.nn.one_hot(labels, self.classes)
        smoothed = optax.smooth_labels(wanted, self.config.label_smoothing)
        return optax.softmax_cross_entropy(logits, smoothed)


def best_network(state: TrainState) -> Network:
    """The network to evaluate and to prune: the average, if there is one."""
    return state.network if state.average is None else state.average
