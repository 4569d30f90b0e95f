"""Criteria: the scores by which weights are ranked. The lowest are pruned."""

from swd_jax.criteria._criterion import Accumulator as Accumulator
from swd_jax.criteria._criterion import Criterion as Criterion
from swd_jax.criteria._gradient_criteria import fisher as fisher
from swd_jax.criteria._gradient_criteria import mean_saliency as mean_saliency
from swd_jax.criteria._gradient_criteria import movement as movement
from swd_jax.criteria._gradient_criteria import saliency as saliency
from swd_jax.criteria._lamp import lamp as lamp
from swd_jax.criteria._magnitudes import magnitude as magnitude
from swd_jax.criteria._magnitudes import normalized_magnitude as normalized_magnitude
from swd_jax.criteria._magnitudes import (
    rms_normalized_magnitude as rms_normalized_magnitude,
)
from swd_jax.criteria._random import random_scores as random_scores
