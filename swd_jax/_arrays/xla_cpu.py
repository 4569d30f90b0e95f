"""Arrays that are worked out once and stored, whatever reads them."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from swd_jax._arrays.manual_sharding import vary_as

Made = TypeVar("Made")


def stored(make: Callable[[Any], Made], arrays: Any) -> Made:
    """What a function makes of arrays, worked out once for all that read it.

    XLA's CPU backend works out again whatever is elementwise, in each loop that reads
    it and for each number read, however long it takes. What comes out of a loop of
    which the compiler does not know how often it runs is stored. Compilers for
    GPU and TPU weigh that by themselves.
    """

    def once(arrays: Any) -> Made:
        empty = jax.tree.map(jnp.zeros_like, make(arrays))
        start = vary_as((jnp.zeros((), jnp.int32), empty), jax.tree.leaves(arrays))
        rounds = jax.lax.optimization_barrier(jnp.ones((), jnp.int32))

        def next_round(state: tuple[jax.Array, Made]) -> tuple[jax.Array, Made]:
            # Tied to the number of the round, or it would be made before the loop, and
            # copied.
            done, here = jax.lax.optimization_barrier((state[0], arrays))
            return done + 1, make(here)

        return jax.lax.while_loop(lambda state: state[0] < rounds, next_round, start)[1]

    return jax.lax.platform_dependent(arrays, cpu=once, default=make)
