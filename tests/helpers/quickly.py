"""Compiling quickly, for tests of what a program computes.

Not for tests of the program itself: of its costs and its memory, of how it is divided,
or of bits that are to be the same however it is compiled.
"""

import contextlib
import functools

import jax

# What takes longest, and least of it is for programs as small as those of the tests.
OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def jit(function, **options):
    """As `jax.jit`, but optimized less."""
    return jax.jit(function, compiler_options=known_options(), **options)


@functools.cache
def known_options():
    """Those of the options that there are: releases of jaxlib differ."""
    return {name: value for name, value in OPTIONS.items() if is_known(name, value)}


def is_known(name, value):
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextlib.contextmanager
def compiling():
    """What others compile meanwhile is optimized less as well, and then forgotten."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)
        # No program of the library's own stays for tests that may be about programs.
        jax.clear_caches()
