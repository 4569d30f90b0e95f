"""Types for annotations: of configurations, of states, of one's own criteria."""

from swd_jax._allocation.prunable_leaves import Prunable as Prunable
from swd_jax._allocation.scopes import Scope as Scope
from swd_jax._allocation.sparsity_values import Sparsity as Sparsity
from swd_jax._arguments.validation import Number as Number
from swd_jax._arrays.manual_sharding import AxisName as AxisName
from swd_jax._arrays.manual_sharding import Shards as Shards
from swd_jax._pruning.keep_pruned import KeepPrunedState as KeepPrunedState
from swd_jax._targets.target import Targets as Targets
from swd_jax._transforms.threshold_state import ThresholdState as ThresholdState
