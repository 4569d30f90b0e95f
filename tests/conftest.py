"""Settings that every test shares."""

import gc
import tempfile

import hypothesis
import jax
import pytest

from tests.helpers import quickly

# The same cases in every run: a failure is the change's, not the day's.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Arrays of different ranks meet only where the code says so.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects that live on: looking through them is often in vain.
gc.set_threshold(50_000)


def pytest_configure(config):
    """Compile what is the same in many tests once, however small it is.

    Each process has a folder of its own, since jax reads programs that another
    process may not have finished writing, and begins with an empty one: no program
    outlives the run.
    """
    folder = tempfile.TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def compiled_quickly():
    """For modules whose tests are about values, and not about programs."""
    with quickly.compiling():
        yield
