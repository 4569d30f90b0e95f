"""The network, the images and the training of `shrink.py`."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits_training import Images, load_images
from flax import nnx

import data_loading
import swd_jax
from models.resnet import cifar_resnet


def images_of(
    data: Path | None, train_images: int, test_images: int
) -> tuple[Images, Images]:
    """Training and test images: handwritten digits, or part of CIFAR-10 in a folder."""
    if data is None:
        return load_images()
    found = data_loading.load("cifar10", data)
    assert isinstance(found, data_loading.Images)
    found = found.head(train_images, test_images)
    mean = found.train_images.mean((0, 1, 2)) / 255
    deviation = found.train_images.std((0, 1, 2)) / 255

    def normal(pixels: np.ndarray, labels: np.ndarray) -> Images:
        normal = ((pixels / 255 - mean) / deviation).astype(np.float32)
        return Images(jnp.asarray(normal), jnp.asarray(labels))

    return (
        normal(found.train_images, found.train_labels),
        normal(found.test_images, found.test_labels),
    )


def network(depth: int, width: int, seed: int, images: Images) -> Any:
    channels = images.pixels.shape[-1]
    return cifar_resnet(depth, width=width, channels=channels, rngs=nnx.Rngs(seed))


# Compiled once for all networks of the same sizes.
@nnx.jit
def predicted(model: Any, pixels: jax.Array) -> jax.Array:
    return model(pixels).argmax(1)


def accuracy(model: Any, images: Images) -> float:
    """In percent."""
    model.eval()
    parts = range(0, len(images.labels), 500)
    found = [predicted(model, images.pixels[i : i + 500]) for i in parts]
    return 100 * float((jnp.concatenate(found) == images.labels).mean())


def train(
    model: Any,
    images: Images,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    target: swd_jax.Target | None = None,
    weight_decay: float = 0.0,
    a_max: float = 1.0,
    seed: int = 0,
) -> Any:
    """The trained model, and not yet pruned.

    Args:
      model: with its initial weights.
      images: to learn from.
      epochs: how often training goes through the images.
      batch_size: images per optimizer step.
      learning_rate: of SGD with momentum 0.9. It falls to a hundredth along a cosine.
      target: of the selective decay; without one there is none.
      weight_decay: strength of the selective decay, before the multiplier.
      a_max: its multiplier at the last step. It grows from 0.1.
      seed: of the order of the images.
    """
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    steps_per_epoch = len(images.labels) // batch_size
    steps = epochs * steps_per_epoch
    rate = optax.cosine_decay_schedule(learning_rate, steps, alpha=0.01)
    tx = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9, nesterov=True)
    )
    if target is not None:
        a = swd_jax.exponential_growth(0.1, a_max, total_steps=steps)
        selective = swd_jax.proximal_swd(
            target, weight_decay=weight_decay, a=a, learning_rate=rate
        )
        tx = optax.chain(tx, selective)

    def loss(params: Any, rest: Any, batch: Images) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(batch.pixels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), nnx.split(model, nnx.Param, ...)[2]

    # A step at a time: in a loop that is compiled, a CPU is slow at convolutions.
    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, batch: Images) -> Any:
        params, rest, state = carry
        gradients, rest = jax.grad(loss, has_aux=True)(params, rest, batch)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), rest, state

    random = np.random.default_rng(seed)
    shape = steps_per_epoch, batch_size
    carry = jax.tree.map(jnp.array, (params, rest, tx.init(params)))
    for _ in range(epochs):
        order = random.permutation(len(images.labels))[: np.prod(shape)].reshape(shape)
        for batch in order:
            carry = step(carry, Images(images.pixels[batch], images.labels[batch]))
    return nnx.merge(graph, *carry[:2])
