"""Selective weight decay for JAX: networks that become sparse while they train.

target = swd_jax.Target(0.9)
a = swd_jax.exponential_growth(a_min=10, a_max=1e6, total_steps=steps)
tx = optax.chain(swd_jax.swd(target, weight_decay=5e-4, a=a), optax.adam(1e-3))
...                                    # an ordinary, jitted optax loop
params = swd_jax.prune(params, target)
print(swd_jax.summarize(params, target))
"""

import importlib.metadata as _metadata

from swd_jax._allocation.prunable_leaves import is_weight as is_weight
from swd_jax._coupling.channel_groups import ChannelGroup as ChannelGroup
from swd_jax._coupling.channel_groups import ChannelGroups as ChannelGroups
from swd_jax._coupling.channel_groups import ChannelMember as ChannelMember
from swd_jax._coupling.channel_groups import FrozenAxis as FrozenAxis
from swd_jax._coupling.find_groups import channel_groups as channel_groups
from swd_jax._pruning.prune import keep_pruned as keep_pruned
from swd_jax._pruning.prune import prune as prune
from swd_jax._pruning.prune import prune_mask as prune_mask
from swd_jax._ranking.channel_summary import ChannelSummary as ChannelSummary
from swd_jax._ranking.channel_summary import GroupSummary as GroupSummary
from swd_jax._shrinking.cost_report import CostReport as CostReport
from swd_jax._shrinking.cost_report import ModelCost as ModelCost
from swd_jax._shrinking.cost_report import cost_report as cost_report
from swd_jax._shrinking.optimizer_state import shrink_state as shrink_state
from swd_jax._shrinking.shrink_model import Shrunk as Shrunk
from swd_jax._shrinking.shrink_model import shrink as shrink
from swd_jax._shrinking.shrink_modules import shrink_module as shrink_module
from swd_jax._shrinking.target_to_channels import kept_channels as kept_channels
from swd_jax._targets.target import Target as Target
from swd_jax._transforms.after_optimizer import decoupled_swd as decoupled_swd
from swd_jax._transforms.after_optimizer import proximal_swd as proximal_swd
from swd_jax._transforms.swd import SwdState as SwdState
from swd_jax._transforms.swd import swd as swd
from swd_jax.criteria._criterion import Criterion as Criterion
from swd_jax.criteria._criterion import Tracked as Tracked
from swd_jax.criteria._gradients import fisher as fisher
from swd_jax.criteria._gradients import mean_saliency as mean_saliency
from swd_jax.criteria._gradients import movement as movement
from swd_jax.criteria._gradients import saliency as saliency
from swd_jax.criteria._lamp import lamp as lamp
from swd_jax.criteria._magnitudes import magnitude as magnitude
from swd_jax.criteria._magnitudes import normalized_magnitude as normalized_magnitude
from swd_jax.criteria._magnitudes import random_scores as random_scores
from swd_jax.criteria._magnitudes import (
    rms_normalized_magnitude as rms_normalized_magnitude,
)
from swd_jax.io._sparse_file import load_sparse as load_sparse
from swd_jax.io._sparse_file import save_sparse as save_sparse
from swd_jax.methods._drop_and_grow import DynamicState as DynamicState
from swd_jax.methods._magnitude_pruning import PruningState as PruningState
from swd_jax.methods._magnitude_pruning import magnitude_pruning as magnitude_pruning
from swd_jax.methods._magnitude_pruning import soft_pruning as soft_pruning
from swd_jax.methods._network_slimming import is_scale as is_scale
from swd_jax.methods._network_slimming import network_slimming as network_slimming
from swd_jax.methods._rigl import rigl as rigl
from swd_jax.methods._rigl import sparse_evolution as sparse_evolution
from swd_jax.methods._straight_through import straight_through as straight_through
from swd_jax.reports._summarize import summarize as summarize
from swd_jax.reports._summary import LeafSummary as LeafSummary
from swd_jax.reports._summary import Summary as Summary
from swd_jax.schedules._schedules import cubic_sparsity as cubic_sparsity
from swd_jax.schedules._schedules import exponential_growth as exponential_growth
from swd_jax.schedules._schedules import rewind as rewind
from swd_jax.schedules._schedules import staircase_sparsity as staircase_sparsity
from swd_jax.schedules._stable_multiplier import bound_multiplier as bound_multiplier
from swd_jax.schedules._stable_multiplier import (
    largest_stable_multiplier as largest_stable_multiplier,
)
from swd_jax.structures._blocks import Block as Block
from swd_jax.structures._blocks import Channel as Channel
from swd_jax.structures._coupled_channels import CoupledChannels as CoupledChannels
from swd_jax.structures._n_of_m import NM as NM
from swd_jax.structures._structure import Structure as Structure
from swd_jax.structures._structure import Unstructured as Unstructured

__version__ = _metadata.version("swd-jax")
