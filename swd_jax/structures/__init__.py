"""Structures: which weights are pruned together, as one unit."""

from swd_jax._coupling.summed_axes import SummedAxes as SummedAxes
from swd_jax._coupling.summed_axes import summed_axes as summed_axes
from swd_jax._ranking.user_structure_protocol import Structure as Structure
from swd_jax.structures._block import Block as Block
from swd_jax.structures._channel import Channel as Channel
from swd_jax.structures._coupled_channels import CoupledChannels as CoupledChannels
from swd_jax.structures._n_of_m import NM as NM
from swd_jax.structures._unstructured import Unstructured as Unstructured
