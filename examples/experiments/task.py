"""`Task`: data, a network, and how they are trained and measured."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

import swd_jax


class Task(NamedTuple):
    """A data set with a model."""

    data: Any
    """A tree of arrays, given to the functions below."""
    data_name: str
    make: Callable[[nnx.Rngs], nnx.Module]
    steps_per_epoch: int
    step_by_step: bool
    """Whether each step is a program of its own, and not a part of a `scan`: XLA's CPU
    backend is slow with convolutions in loops."""
    batches: Callable[[jax.Array], jax.Array]
    """random key -> what each step of an epoch learns from, (steps, ...)."""
    loss: Callable[[nnx.Module, Any, jax.Array, jax.Array], jax.Array]
    """(model, data, one of the batches, random key) -> mean loss."""
    accuracies: Callable[[nnx.Module, Any], dict[str, jax.Array]]
    """(model, data) -> percent (of a picture decibels), by the part of the data, and
    what else is measured."""
    uses: Callable[[], dict[str, Any]]
    """Number of multiply-adds in which each weight takes part, by leaf."""
    groups: Callable[[], swd_jax.channels.ChannelGroups]
    """The coupled channels of the network."""
    parameters: int
    """Number of parameters of the dense network, even where the task is that of a thin
    one."""
    thin: Callable[[float], "Task"] | None = None
    """sparsity -> the same for a network with as many maps fewer; None where none is
    to be had."""


def abstract_model(make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """A network of shapes, without arrays."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def groups_of(
    make: Callable[[nnx.Rngs], nnx.Module], example: Any
) -> Callable[[], swd_jax.channels.ChannelGroups]:
    """Finds the coupled channels of a network, once.

    Args:
      make: the network.
      example: what it is called with.
    """

    @functools.cache
    def groups() -> swd_jax.channels.ChannelGroups:
        model = abstract_model(make)
        model.eval()
        return swd_jax.channels.channel_groups(
            lambda model, x: model(x), model, example
        )

    return groups


def steps_in(count: int, batch: int | None) -> tuple[int, int]:
    """Return the number of batches in an epoch of so many examples, and their size.

    Raises:
      ValueError: if there is no such batch.
    """
    if batch is None or not 1 <= batch <= count:
        raise ValueError(f"batch_size must be from 1 to {count}, got {batch}")
    return count // batch, batch
