"""`kept_channels`: from a target of coupled channels to the channels kept."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from swd_jax._arguments.short_text import shown
from swd_jax._targets.extra_arguments import check_extra_args
from swd_jax._targets.resolve import rank, resolve
from swd_jax._targets.target import Target
from swd_jax.structures._coupled_channels import CoupledChannels


def kept_channels(
    params: Any,
    target: Target,
    *,
    step: ArrayLike | None = None,
    extra_args: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
    """The channels that `prune` keeps under a target, for `shrink`.

    Args:
      params: the parameters that the target prunes, pruned already or not.
      target: a target with `structure=CoupledChannels(groups, ...)`.
      step: as for `prune`.
      extra_args: as for `prune`.

    Returns:
      A vector of bools for every channel group by its name, shape (channels,), True =
      kept. The channels of groups that the target leaves out are all True.

    Raises:
      ValueError: as `prune`; or if the target has another structure.

    Where it stands: after training, between `prune` and `shrink`. It can be jitted.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["second"]
      >>> params = {
      ...     "first": jnp.array([[0.1, 3.0, 0.2, 2.0]]),
      ...     "second": jnp.ones((4, 1)),
      ... }
      >>> groups = swd_jax.channels.channel_groups(model, params, jnp.ones((2, 1)))
      >>> target = swd_jax.Target(0.5, structure=swd_jax.CoupledChannels(groups))
      >>> print(swd_jax.channels.kept_channels(params, target))
      {'first': Array([False,  True, False,  True], dtype=bool)}
    """
    if not isinstance(target, Target) or not isinstance(
        target.structure, CoupledChannels
    ):
        raise ValueError(
            "target must be a Target with structure=CoupledChannels(groups, ...), got "
            f"{shown(target)}"
        )
    check_extra_args([target], extra_args)
    kept = {g.name: jnp.ones(g.size, bool) for g in target.structure.groups}
    for ranked in rank(resolve([target], params), extra_args=extra_args):
        kept |= ranked.ranking.kept_channels(ranked.budgets(step))
    return kept
