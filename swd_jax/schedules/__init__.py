"""Schedules of the optimizer step: the decay's growth, the rise of the sparsity."""

from swd_jax.schedules._exponential_growth import (
    exponential_growth as exponential_growth,
)
from swd_jax.schedules._rewind import rewind as rewind
from swd_jax.schedules._rising_sparsity import cubic_sparsity as cubic_sparsity
from swd_jax.schedules._rising_sparsity import staircase_sparsity as staircase_sparsity
from swd_jax.schedules._stable_multiplier import bound_multiplier as bound_multiplier
from swd_jax.schedules._stable_multiplier import (
    largest_stable_multiplier as largest_stable_multiplier,
)
