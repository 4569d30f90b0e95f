"""Networks that become sparse while they train, in JAX and optax.

tx = optax.chain(optax.adam(1e-3), swd_jax.sparsify(0.95, total_steps))
...                                    # an ordinary, jitted optax loop
print(swd_jax.summarize(params, 0.95))

Selective weight decay, the rule of Tessier et al. (arXiv 2011.10520):

a = swd_jax.exponential_growth(a_min=10, a_max=1e6, total_steps=total_steps)
tx = optax.chain(swd_jax.swd(0.9, weight_decay=5e-4, a=a), optax.adam(1e-3))
...
params = swd_jax.prune(params, 0.9)
"""

import importlib.metadata as _metadata

from swd_jax import channels as channels
from swd_jax import criteria as criteria
from swd_jax import io as io
from swd_jax import methods as methods
from swd_jax import reports as reports
from swd_jax import schedules as schedules
from swd_jax import structures as structures
from swd_jax import typing as typing
from swd_jax._allocation.weight_or_bias import is_weight as is_weight
from swd_jax._pruning.keep_pruned import keep_pruned as keep_pruned
from swd_jax._pruning.prune import prune as prune
from swd_jax._pruning.prune import prune_mask as prune_mask
from swd_jax._pruning.scores_and_thresholds import scores as scores
from swd_jax._pruning.scores_and_thresholds import thresholds as thresholds
from swd_jax._targets.target import Target as Target
from swd_jax._transforms.selective_decay import SwdState as SwdState
from swd_jax._transforms.sparsify import sparsify as sparsify
from swd_jax._transforms.swd_after_optimizer import decoupled_swd as decoupled_swd
from swd_jax._transforms.swd_after_optimizer import proximal_swd as proximal_swd
from swd_jax._transforms.swd_before_optimizer import swd as swd
from swd_jax.reports import diagnose as diagnose
from swd_jax.reports import summarize as summarize
from swd_jax.schedules import bound_multiplier as bound_multiplier
from swd_jax.schedules import cubic_sparsity as cubic_sparsity
from swd_jax.schedules import exponential_growth as exponential_growth
from swd_jax.structures import NM as NM
from swd_jax.structures import Block as Block
from swd_jax.structures import Channel as Channel
from swd_jax.structures import CoupledChannels as CoupledChannels
from swd_jax.structures import Unstructured as Unstructured

__version__ = _metadata.version("swd-jax")
