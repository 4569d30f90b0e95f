"""The task of a text: which character comes next?"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from data_loading import Text
from experiments.run import Run
from experiments.task import Task, abstract_model, groups_of, steps_in
from models import macs
from models.thin import parameter_count
from models.transformer import Transformer


def text_task(run: Run, text: Text) -> Task:
    """The task of a run on a text, with the model "transformer-2x64": depth and width.

    An epoch reads windows of 64 characters from all over the text.
    """
    found = re.fullmatch(r"transformer-(\d+)x(\d+)", run.model)
    if found is None:
        raise ValueError(
            f"{text.name} is a text: its model is transformer-2x64 (any depth and "
            f"width), not {run.model!r}"
        )
    depth, width = map(int, found.groups())

    def make(rngs: nnx.Rngs) -> Transformer:
        return Transformer(len(text.vocabulary), depth=depth, width=width, rngs=rngs)

    context = abstract_model(make).context
    # A window less than fit, so that an epoch may begin anywhere in the first; and each
    # has one character more to predict.
    windows = (len(text.train) - 1) // context - 1
    tests = (len(text.test) - 1) // context
    if min(windows, tests) < 1:
        raise ValueError(
            f"{text.name} is too short: the held-out tenth must have more than "
            f"{context} characters"
        )
    steps, batch = steps_in(min(run.train_images or windows, windows), run.batch_size)
    tests = min(run.test_images or tests, tests)

    def batches(key: jax.Array) -> jax.Array:
        for_order, for_start = jax.random.split(key)
        order = jax.random.permutation(for_order, windows)[: steps * batch]
        first = jax.random.randint(for_start, (), 0, context)
        return (first + context * order).reshape(steps, batch)

    def losses(
        model: nnx.Module, characters: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the loss of each character of windows, and whether it was right."""
        window = characters[starts[:, None] + jnp.arange(context + 1)[None]]
        logits, following = model(window[:, :-1]), window[:, 1:]
        right = jnp.argmax(logits, -1) == following
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, following)
        return loss, right

    def loss(
        model: nnx.Module, data: Any, batch: jax.Array, key: jax.Array
    ) -> jax.Array:
        del key
        return losses(model, data["train"], batch)[0].mean()

    def accuracies(model: nnx.Module, data: Any) -> dict[str, jax.Array]:
        # In parts that fit beside everything else.
        loss, right = jax.lax.map(
            lambda start: [
                each[0] for each in losses(model, data["test"], start[None])
            ],
            context * jnp.arange(tests),
            batch_size=50,
        )
        bits = jnp.mean(loss) / np.log(2)
        return {"test": 100 * jnp.mean(right), "test_bits": bits}

    def uses() -> dict[str, Any]:
        abstract = abstract_model(make)
        definition, params = nnx.split(abstract)
        example = jnp.zeros((1, context), jnp.int32)
        return macs.uses(
            lambda params, x: nnx.merge(definition, params)(x), params, example
        )

    return Task(
        data=jax.device_put({"train": text.train, "test": text.test}),
        data_name=text.name,
        make=make,
        steps_per_epoch=steps,
        step_by_step=False,
        batches=batches,
        loss=loss,
        accuracies=accuracies,
        uses=functools.cache(uses),
        groups=groups_of(make, jnp.zeros((1, context), jnp.int32)),
        parameters=parameter_count(abstract_model(make)),
    )
