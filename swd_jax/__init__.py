"""Selective weight decay for JAX: networks that become sparse while they train.

target = swd_jax.Target(0.9)
a = swd_jax.exponential_growth(a_min=10, a_max=1e6, total_steps=steps)
tx = optax.chain(swd_jax.swd(target, weight_decay=5e-4, a=a), optax.adam(1e-3))
...                                    # an ordinary, jitted optax loop
params = swd_jax.prune(params, target)
print(swd_jax.summarize(params, target))
"""

import importlib.metadata as _metadata

from swd_jax._after_optimizer import decoupled_swd as decoupled_swd
from swd_jax._after_optimizer import proximal_swd as proximal_swd
from swd_jax._blocks import Block as Block
from swd_jax._blocks import Channel as Channel
from swd_jax._channel_summary import ChannelSummary as ChannelSummary
from swd_jax._channel_summary import GroupSummary as GroupSummary
from swd_jax._channels._cost_report import CostReport as CostReport
from swd_jax._channels._cost_report import ModelCost as ModelCost
from swd_jax._channels._cost_report import cost_report as cost_report
from swd_jax._channels._coupled import CoupledChannels as CoupledChannels
from swd_jax._channels._find import channel_groups as channel_groups
from swd_jax._channels._groups import ChannelGroup as ChannelGroup
from swd_jax._channels._groups import ChannelGroups as ChannelGroups
from swd_jax._channels._groups import ChannelMember as ChannelMember
from swd_jax._channels._groups import FrozenAxis as FrozenAxis
from swd_jax._channels._modules import shrink_module as shrink_module
from swd_jax._channels._shrink import Shrunk as Shrunk
from swd_jax._channels._shrink import shrink as shrink
from swd_jax._channels._state import shrink_state as shrink_state
from swd_jax._criteria import magnitude as magnitude
from swd_jax._criteria import normalized_magnitude as normalized_magnitude
from swd_jax._criteria import random_scores as random_scores
from swd_jax._criteria import rms_normalized_magnitude as rms_normalized_magnitude
from swd_jax._criterion import Criterion as Criterion
from swd_jax._criterion import Tracked as Tracked
from swd_jax._dynamic_sparsity import DynamicState as DynamicState
from swd_jax._gradient_criteria import fisher as fisher
from swd_jax._gradient_criteria import mean_saliency as mean_saliency
from swd_jax._gradient_criteria import movement as movement
from swd_jax._gradient_criteria import saliency as saliency
from swd_jax._kept_channels import kept_channels as kept_channels
from swd_jax._lamp import lamp as lamp
from swd_jax._magnitude_pruning import PruningState as PruningState
from swd_jax._magnitude_pruning import magnitude_pruning as magnitude_pruning
from swd_jax._magnitude_pruning import soft_pruning as soft_pruning
from swd_jax._n_of_m import NM as NM
from swd_jax._prunable import is_weight as is_weight
from swd_jax._prune import keep_pruned as keep_pruned
from swd_jax._prune import prune as prune
from swd_jax._prune import prune_mask as prune_mask
from swd_jax._rigl import rigl as rigl
from swd_jax._rigl import sparse_evolution as sparse_evolution
from swd_jax._schedules import cubic_sparsity as cubic_sparsity
from swd_jax._schedules import exponential_growth as exponential_growth
from swd_jax._schedules import rewind as rewind
from swd_jax._schedules import staircase_sparsity as staircase_sparsity
from swd_jax._slimming import is_scale as is_scale
from swd_jax._slimming import network_slimming as network_slimming
from swd_jax._sparse_file import load_sparse as load_sparse
from swd_jax._sparse_file import save_sparse as save_sparse
from swd_jax._stability import bound_multiplier as bound_multiplier
from swd_jax._stability import largest_stable_multiplier as largest_stable_multiplier
from swd_jax._straight_through import straight_through as straight_through
from swd_jax._structures import Structure as Structure
from swd_jax._structures import Unstructured as Unstructured
from swd_jax._summarize import summarize as summarize
from swd_jax._summary import LeafSummary as LeafSummary
from swd_jax._summary import Summary as Summary
from swd_jax._swd import SwdState as SwdState
from swd_jax._swd import swd as swd
from swd_jax._target import Target as Target

__version__ = _metadata.version("swd-jax")
