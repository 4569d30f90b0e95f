"""The task of a picture: which colour has the pixel at this place?"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from data_loading import Picture
from experiments.run import Run
from experiments.task import Task, abstract_model, groups_of, steps_in
from models import macs
from models.coordinates import CoordinateNetwork
from models.thin import parameter_count


def picture_task(run: Run, picture: Picture) -> Task:
    """The task of a run on a picture, with the model "coordinates-128": the width.

    What is measured is the peak signal-to-noise ratio, in decibels.
    """
    found = re.fullmatch(r"coordinates-(\d+)", run.model)
    if found is None:
        raise ValueError(
            f"{picture.name} is a picture: its model is coordinates-128 (any width), "
            f"not {run.model!r}"
        )
    width = int(found[1])
    count = len(picture.train_positions)
    steps, batch = steps_in(count, run.batch_size)
    example = jnp.zeros((1, 2), jnp.float32)

    def make(rngs: nnx.Rngs) -> CoordinateNetwork:
        return CoordinateNetwork(width=width, rngs=rngs)

    def batches(key: jax.Array) -> jax.Array:
        # Pixels that do not fill a batch are left out of this epoch.
        return jax.random.permutation(key, count)[: steps * batch].reshape(steps, batch)

    def loss(
        model: nnx.Module, data: Any, batch: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        positions, colours = data["train"]
        return jnp.mean((model(positions[batch]) - colours[batch]) ** 2)

    def accuracies(model: nnx.Module, data: Any) -> dict[str, jax.Array]:
        positions, colours = data["test"]
        return {"test": decibels(model(positions), colours)}

    def uses() -> dict[str, Any]:
        definition, params, rest = nnx.split(abstract_model(make), nnx.Param, ...)

        def apply(params: Any, rest: Any, example: jax.Array) -> jax.Array:
            return nnx.merge(definition, params, rest, copy=True)(example)

        return macs.uses(apply, params, rest, example)

    arrays = {
        "train": (picture.train_positions, picture.train_colours),
        "test": (picture.test_positions, picture.test_colours),
    }
    return Task(
        data=jax.device_put(arrays),
        data_name=picture.name,
        make=make,
        steps_per_epoch=steps,
        step_by_step=False,
        batches=batches,
        loss=loss,
        accuracies=accuracies,
        uses=functools.cache(uses),
        groups=groups_of(make, example),
        parameters=parameter_count(abstract_model(make)),
    )


def decibels(predicted: jax.Array, colours: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of colours from 0 to 1, the higher the better.

    0 for a network that has diverged, as bad as black for white.
    """
    error = jnp.mean((jnp.clip(predicted, 0, 1) - colours) ** 2)
    ratio = -10 * jnp.log10(jnp.maximum(error, 1e-10))
    return jnp.where(jnp.isfinite(ratio), ratio, 0)
