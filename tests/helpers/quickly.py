"""Quick compilation, for tests of the values that a program computes.

Tests of the program itself need XLA's own options: tests of its cost and memory, of its
sharding, or of bits that must be the same under any optimization.
"""

import contextlib
import functools

import jax

# The options that save most of the time of compiling a small program on a CPU (jaxlib
# 0.10): 0.6 s with none of them, 0.2 s with the first three, 0.15 s with all.
OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def jit(function, **options):
    """Return `jax.jit(function)` with less optimization by XLA."""
    return jax.jit(function, compiler_options=known_options(), **options)


@functools.cache
def known_options():
    """Return the options that this release of jaxlib has."""
    return {name: value for name, value in OPTIONS.items() if is_known(name, value)}


def flags():
    """Return the options as XLA_FLAGS of a program that runs in its own process."""
    pairs = known_options().items()
    return " ".join(f"--{name}={str(value).lower()}" for name, value in pairs)


def is_known(name, value):
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextlib.contextmanager
def compiling():
    """Make XLA optimize less in all of jax; drop the compiled programs at the end."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)
        # Later tests may be about programs: the library must compile its own anew.
        jax.clear_caches()
