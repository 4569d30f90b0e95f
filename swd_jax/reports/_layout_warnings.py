"""Warnings of units that lie along another axis than they seem to."""

from collections.abc import Iterator

from swd_jax._targets.resolve import ResolvedTargets
from swd_jax.structures import _input_axes
from swd_jax.structures._channel import Channel


def layout_warnings(resolved: ResolvedTargets) -> Iterator[str]:
    """Warn of the default of `Channel` where the last axis is known to be the inputs.

    Only Equinox's layers are known: their classes are in the tree.
    """
    targets = [
        target
        for target in resolved.targets
        if isinstance(target.target.structure, Channel)
        and target.target.structure.axis == -1
    ]
    if not targets:
        return
    params = resolved.tree.rebuild({})
    input_axes = _input_axes.axes_in_equinox(params)
    for target in targets:
        paths = [
            leaf.path
            for leaf in target.leaves
            if leaf.weights.ndim > 1 and input_axes(leaf.path) == -1
        ]
        if paths:
            more = f" and of {len(paths) - 1} more" if len(paths) > 1 else ""
            yield (
                f"Channel(axis=-1) prunes inputs of {paths[0]!r}{more}: the weight of "
                "an Equinox layer is (outputs, inputs). To prune outputs, the filters, "
                "give Channel(0)."
            )
