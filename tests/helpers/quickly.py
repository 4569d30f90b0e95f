"""Quick compilation, for tests of the values that a program computes.

Tests of the program itself need XLA's own options: tests of its cost and memory, of its
sharding, or of bits that must be the same under any optimization.
"""

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


@functools.cache
def xla_defaults():
    """Return options that undo those flags of conftest.py which change programs."""
    name, value = "xla_cpu_use_fusion_emitters", True
    return {name: value} if is_known(name, value) else {}


def is_known(name, value):
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def set_optimization(is_optimized):
    """Set whether XLA optimizes what all of jax compiles from now on."""
    name = "jax_disable_most_optimizations"
    if jax.config.read(name) == (not is_optimized):
        return
    jax.config.update(name, not is_optimized)
    # Programs compiled the other way must not be found again.
    jax.clear_caches()
