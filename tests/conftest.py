"""Settings that every test shares."""

import hypothesis
import jax

# The same cases in every run: a failure is the change's, not the day's.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Arrays of different ranks meet only where the code says so.
jax.config.update("jax_numpy_rank_promotion", "raise")
