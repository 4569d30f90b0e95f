"""Reports on how sparse parameters are, and on what pruning them would remove."""

from swd_jax._ranking.channel_summary import ChannelSummary as ChannelSummary
from swd_jax._ranking.channel_summary import GroupSummary as GroupSummary
from swd_jax.reports._diagnose import diagnose as diagnose
from swd_jax.reports._summarize import summarize as summarize
from swd_jax.reports._summary import LeafSummary as LeafSummary
from swd_jax.reports._summary import Summary as Summary
