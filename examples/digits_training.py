"""The network, the images and the training of `digits.py`: an ordinary optax loop."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TRAINING_IMAGES = 1437  # of 1,797; the other 360 are for testing


class Images(NamedTuple):
    pixels: jax.Array  # (images, 8, 8, 1), from 0 to 1
    labels: jax.Array  # (images,), from 0 to 9


def load_images() -> tuple[Images, Images]:
    """The training and the test images: always the same split, whatever the seed."""
    digits = load_digits()
    pixels = (digits.images[..., None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels, labels, train_size=TRAINING_IMAGES, stratify=labels, random_state=0
    )
    return (
        Images(jnp.asarray(train_pixels), jnp.asarray(train_labels)),
        Images(jnp.asarray(test_pixels), jnp.asarray(test_labels)),
    )


class LeNet(nnx.Module):
    """LeNet-5, with one pooling instead of two: these images are small already."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 6, (5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * 16, 120, rngs=rngs)
        self.dense2 = nnx.Linear(120, 84, rngs=rngs)
        self.dense3 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv1(pixels)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.dense3(x)


def initial_network(seed: int) -> tuple[Any, Any]:
    """The network's definition, and its weights as an ordinary tree of arrays."""
    return nnx.split(LeNet(nnx.Rngs(seed)))


class Measure(NamedTuple):
    """Loss and accuracy of a network on images."""

    loss: Any  # mean cross-entropy
    accuracy: Any  # in percent


def measure(definition: Any, params: Any, images: Images) -> Measure:
    logits = nnx.merge(definition, params)(images.pixels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, images.labels)
    recognised = logits.argmax(axis=-1) == images.labels
    return Measure(loss.mean(), 100 * recognised.mean())


class Snapshot(NamedTuple):
    """A network in training."""

    params: Any
    optimizer_state: Any
    seconds: float  # of training, so far


class Trained(NamedTuple):
    """A network after training, and how it got there."""

    params: Any
    seconds: float
    accuracies: list[float]  # before training and after every epoch
    residuals: list[float]  # the same
    returned: list[int]  # weights that are back after having been zero; the same


def magnitudes(params: Any) -> np.ndarray:
    """The magnitudes of all prunable weights: by default, all but the biases."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    return np.concatenate([np.abs(leaf).ravel() for leaf in leaves])


class Returns:
    """Counts weights of a network that were zero, and are not any more."""

    def __init__(self) -> None:
        self._was_zero: np.ndarray | None = None

    def count(self, params: Any) -> int:
        """Their number now; zeros of the earlier calls are known."""
        is_zero = magnitudes(params) == 0
        if self._was_zero is None:
            self._was_zero = is_zero
        returned = self._was_zero & ~is_zero
        self._was_zero = self._was_zero | is_zero
        return int(returned.sum())


class Trainer:
    """Trains networks with one optimizer. Compiles once, for all seeds."""

    def __init__(
        self, optimizer: optax.GradientTransformation, batch_size: int
    ) -> None:
        definition, params = initial_network(seed=0)
        train_images, self._test_images = load_images()

        def step(carry: Any, batch: Images) -> tuple[Any, None]:
            params, state = carry
            gradient = jax.grad(lambda p: measure(definition, p, batch).loss)(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        @jax.jit
        def train_epoch(params: Any, state: Any, key: jax.Array, images: Images) -> Any:
            order = jax.random.permutation(key, len(images.labels))
            # The few images that fill no batch sit out: other ones every epoch.
            steps = len(order) // batch_size
            order = order[: steps * batch_size].reshape(steps, batch_size)
            batches = jax.tree.map(lambda array: array[order], images)
            return jax.lax.scan(step, (params, state), batches)[0]

        self._optimizer = optimizer
        self._images = train_images
        self._measure = jax.jit(
            lambda params, images: measure(definition, params, images)
        )
        # Compiled here, so that the time it takes is no part of any network's.
        self._train_epoch = train_epoch.lower(
            params, optimizer.init(params), jax.random.key(0), train_images
        ).compile()

    def train(self, seed: int, epochs: int) -> Iterator[Snapshot]:
        """A network of that seed: as it begins, then after every epoch."""
        _, params = initial_network(seed)
        state = self._optimizer.init(params)
        seconds = 0.0
        yield Snapshot(params, state, seconds)
        for epoch in range(epochs):
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            started = time.perf_counter()
            params, state = jax.block_until_ready(
                self._train_epoch(params, state, key, self._images)
            )
            seconds += time.perf_counter() - started
            yield Snapshot(params, state, seconds)

    def test(self, params: Any) -> Measure:
        """Loss and accuracy on all test images."""
        loss, accuracy = jax.device_get(self._measure(params, self._test_images))
        return Measure(float(loss), float(accuracy))
