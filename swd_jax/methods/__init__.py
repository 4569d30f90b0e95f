"""`sparsify` in its general form, and other methods to compare it and `swd` with."""

from swd_jax._transforms.latent_optimizer import (
    LatentOptimizerState as LatentOptimizerState,
)
from swd_jax._transforms.latent_pruning import LatentState as LatentState
from swd_jax._transforms.latent_pruning import latent_pruning as latent_pruning
from swd_jax.methods._drop_and_grow import DynamicState as DynamicState
from swd_jax.methods._magnitude_pruning import PruningState as PruningState
from swd_jax.methods._magnitude_pruning import magnitude_pruning as magnitude_pruning
from swd_jax.methods._magnitude_pruning import soft_pruning as soft_pruning
from swd_jax.methods._network_slimming import is_scale as is_scale
from swd_jax.methods._network_slimming import network_slimming as network_slimming
from swd_jax.methods._rigl import rigl as rigl
from swd_jax.methods._rigl import sparse_evolution as sparse_evolution
from swd_jax.methods._straight_through import straight_through as straight_through
