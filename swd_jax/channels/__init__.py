"""Coupled channels: found in a model's program, and cut out of it after training."""

from swd_jax._coupling.channel_groups import ChannelGroup as ChannelGroup
from swd_jax._coupling.channel_groups import ChannelGroups as ChannelGroups
from swd_jax._coupling.channel_groups import ChannelMember as ChannelMember
from swd_jax._coupling.channel_groups import FrozenAxis as FrozenAxis
from swd_jax._coupling.find_channel_groups import channel_groups as channel_groups
from swd_jax._shrinking.cost_report import CostReport as CostReport
from swd_jax._shrinking.cost_report import ModelCost as ModelCost
from swd_jax._shrinking.cost_report import cost_report as cost_report
from swd_jax._shrinking.cut_optimizer_state import shrink_state as shrink_state
from swd_jax._shrinking.shrink_framework_modules import shrink_module as shrink_module
from swd_jax._shrinking.shrink_model import Shrunk as Shrunk
from swd_jax._shrinking.shrink_model import shrink as shrink
from swd_jax._shrinking.target_to_channels import kept_channels as kept_channels
