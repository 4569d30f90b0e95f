"""A data set with a model: batches, loss and accuracy, all of it on the device."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from data_loading import Images, Picture, Text, load
from experiments.picture_task import picture_task
from experiments.run import Run
from experiments.task import Task, abstract_model, groups_of, steps_in
from experiments.text_task import text_task
from models import macs
from models.gcn import GCN, SparseGraph
from models.lenet import LeNet5, LeNet300
from models.mobilenet import MobileNetV2
from models.resnet import cifar_resnet, imagenet_resnet
from models.thin import parameter_count, width_for
from models.vgg import VGG

IMAGE_MODELS: dict[str, Callable[[Images, nnx.Rngs], nnx.Module]] = {
    "lenet-300-100": lambda d, rngs: LeNet300(
        pixels=int(np.prod(d.train_images.shape[1:])), classes=d.classes, rngs=rngs
    ),
    "lenet-5": lambda d, rngs: LeNet5(
        size=d.train_images.shape[1],
        channels=d.train_images.shape[3],
        classes=d.classes,
        rngs=rngs,
    ),
    "vgg-16": lambda d, rngs: VGG(depth=16, form="cifar", classes=d.classes, rngs=rngs),
    "vgg-19": lambda d, rngs: VGG(depth=19, form="cifar", classes=d.classes, rngs=rngs),
    "mobilenet-v2": lambda d, rngs: MobileNetV2(
        form="cifar", classes=d.classes, rngs=rngs
    ),
    "resnet-18": lambda d, rngs: imagenet_resnet(18, classes=d.classes, rngs=rngs),
    "resnet-50": lambda d, rngs: imagenet_resnet(50, classes=d.classes, rngs=rngs),
}


def make_task(run: Run, data: Path | None, cache: Path | None) -> Task:
    """The task of a run.

    Raises:
      FileNotFoundError: if the data is not there.
      ValueError: if it is broken, or the model is unknown or of another kind of data.
    """
    loaded = load(run.data, data, cache)
    if isinstance(loaded, Images):
        loaded = loaded.head(run.train_images, run.test_images)
    if run.held_out:
        loaded = loaded.held_out()
    if isinstance(loaded, Images):
        return _image_task(run, loaded)
    if isinstance(loaded, Text):
        return text_task(run, loaded)
    if isinstance(loaded, Picture):
        return picture_task(run, loaded)
    if run.model != "gcn":
        raise ValueError(f"{run.data} is a graph: its model is gcn, not {run.model!r}")
    return _graph_task(loaded)


def _image_task(run: Run, images: Images) -> Task:
    channels = images.train_images.astype(np.float32)
    mean, deviation = channels.mean((0, 1, 2)), channels.std((0, 1, 2)) + 1e-6
    count = len(images.train_labels)
    steps, batch = steps_in(count, run.batch_size)
    make = _image_model(run.model, images)
    augment = run.data.startswith("cifar")
    arrays = {
        "train": (images.train_images, images.train_labels),
        "test": (images.test_images, images.test_labels),
    }
    parameters = parameter_count(abstract_model(make))

    example = jnp.zeros((1, *images.train_images.shape[1:]), jnp.float32)

    def normal(pixels: jax.Array) -> jax.Array:
        return (pixels.astype(jnp.float32) - mean) / deviation

    def batches(key: jax.Array) -> jax.Array:
        # Examples that do not fill a batch are left out of this epoch.
        return jax.random.permutation(key, count)[: steps * batch].reshape(steps, batch)

    def loss(
        model: nnx.Module, data: Any, batch: jax.Array, key: jax.Array
    ) -> jax.Array:
        pixels, labels = data["train"][0][batch], data["train"][1][batch]
        pixels = normal(pixels)
        if augment:
            pixels = _cropped_and_flipped(key, pixels, run.shift)
        logits = model(pixels)
        if run.label_smoothing == 0:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        else:
            certain = jax.nn.one_hot(labels, logits.shape[-1])
            smooth = optax.smooth_labels(certain, run.label_smoothing)
            losses = optax.softmax_cross_entropy(logits, smooth)
        return losses.mean()

    def accuracies(model: nnx.Module, data: Any) -> dict[str, jax.Array]:
        pixels, labels = data["test"]
        # In parts that fit beside everything else.
        logits = jax.lax.map(
            lambda one: model(normal(one[None]))[0], pixels, batch_size=500
        )
        return {"test": 100 * jnp.mean(jnp.argmax(logits, -1) == labels)}

    def uses() -> dict[str, Any]:
        definition, params, rest = nnx.split(abstract_model(make), nnx.Param, ...)

        def apply(params: Any, rest: Any, example: jax.Array) -> jax.Array:
            model = nnx.merge(definition, params, rest, copy=True)
            model.eval()
            return model(example)

        return macs.uses(apply, params, rest, example)

    def thin(sparsity: float) -> Task:
        model = _thinned(run.model, sparsity, images, parameters)
        narrow = _image_task(dataclasses.replace(run, model=model), images)
        return narrow._replace(parameters=parameters)

    return Task(
        data=jax.device_put(arrays),
        data_name=images.name,
        make=make,
        steps_per_epoch=steps,
        step_by_step=jax.default_backend() == "cpu" and run.model != "lenet-300-100",
        batches=batches,
        loss=loss,
        accuracies=accuracies,
        uses=functools.cache(uses),
        groups=groups_of(make, example),
        parameters=parameters,
        thin=None if run.model in IMAGE_MODELS else thin,
    )


def _image_model(name: str, images: Images) -> Callable[[nnx.Rngs], nnx.Module]:
    if name in IMAGE_MODELS:
        return lambda rngs: IMAGE_MODELS[name](images, rngs)
    # "resnet-20x16": the depth, and how many maps the first layers have. "half-" before
    # it: the first convolution halves height and width.
    halved = name.removeprefix("half-")
    depth, _, width = halved.removeprefix("resnet-").partition("x")
    if not (halved.startswith("resnet-") and depth.isdigit() and width.isdigit()):
        resnets = ("resnet-20x16 (any depth and width)", "half-resnet-8x32 (the same)")
        known = ", ".join([*IMAGE_MODELS, *resnets, "gcn"])
        raise ValueError(f"model must be one of {known}; got {name!r}")
    return lambda rngs: cifar_resnet(
        int(depth),
        width=int(width),
        stem_stride=1 if halved == name else 2,
        classes=images.classes,
        channels=images.train_images.shape[3],
        rngs=rngs,
    )


def _thinned(name: str, sparsity: float, images: Images, parameters: int) -> str:
    """The name of the same network with so much fewer parameters."""
    stem, _, _ = name.rpartition("x")
    maps = width_for(
        math.floor((1 - sparsity) * parameters),
        lambda maps: _image_model(f"{stem}x{maps}", images)(nnx.Rngs(0)),
    )
    return f"{stem}x{maps}"


def _cropped_and_flipped(key: jax.Array, images: jax.Array, shift: int) -> jax.Array:
    """Shifted by up to so many pixels, grey beyond the edge; half of them mirrored."""
    count, height, width, channels = images.shape
    for_shift, for_flip = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    corners = jax.random.randint(for_shift, (count, 2), 0, 2 * shift + 1)

    def cropped(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    images = jax.vmap(cropped)(padded, corners)
    flipped = jax.random.bernoulli(for_flip, shape=(count, 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def _graph_task(graph: Any) -> Task:
    sparse = SparseGraph(
        graph.feature_rows,
        graph.feature_columns,
        graph.feature_values,
        graph.edge_rows,
        graph.edge_columns,
        graph.edge_values,
    )
    measured = {"test": graph.test_nodes}
    if len(graph.validation_nodes):
        measured["validation"] = graph.validation_nodes
    parts = {"train": graph.train_nodes, **measured}
    arrays = {"graph": sparse, "labels": graph.labels, "parts": parts}

    def make(rngs: nnx.Rngs) -> nnx.Module:
        return GCN(graph.nodes, graph.feature_count, classes=graph.classes, rngs=rngs)

    def loss(
        model: nnx.Module, data: Any, batch: jax.Array, key: jax.Array
    ) -> jax.Array:
        del batch, key  # the whole graph; dropout has keys of its own
        train = data["parts"]["train"]
        logits, labels = model(data["graph"])[train], data["labels"][train]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    def accuracies(model: nnx.Module, data: Any) -> dict[str, jax.Array]:
        right = jnp.argmax(model(data["graph"]), -1) == data["labels"]
        return {part: 100 * jnp.mean(right[data["parts"][part]]) for part in measured}

    return Task(
        data=jax.device_put(arrays),
        data_name=graph.name,
        make=make,
        steps_per_epoch=1,
        step_by_step=False,
        batches=lambda key: jnp.zeros((1, 0), jnp.int32),
        loss=loss,
        accuracies=accuracies,
        uses=functools.cache(lambda: make(nnx.Rngs(0)).uses(sparse)),
        groups=groups_of(make, sparse),
        parameters=parameter_count(abstract_model(make)),
    )
