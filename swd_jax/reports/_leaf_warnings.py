"""Warnings of leaves that a chain cannot reach, or that should not be ranked."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import optax

from swd_jax._arguments.text_tables import first_leaves
from swd_jax._arrays import tree_paths
from swd_jax._transforms.selective_decay import SwdState
from swd_jax.reports._chain_order import PlacedState
from swd_jax.reports._run import Run
from swd_jax.structures._channel import Channel
from swd_jax.structures._leaf_structure import normalize_axis


def leaf_warnings(
    run: Run, placed_states: Sequence[PlacedState], state: optax.OptState
) -> Iterator[str]:
    """Warn of leaves, whatever the step."""
    yield from _not_finite(run, placed_states)
    if any(_is_new_penalty(placed.state) for placed in placed_states):
        yield from _begin_at_zero(run)
    yield from _frozen(run, state)
    yield from _stacked(run)


def _not_finite(run: Run, placed_states: Sequence[PlacedState]) -> Iterator[str]:
    paths = [row.path for row in run.leaves.rows if row.non_finite]
    if paths:
        number = sum(row.non_finite for row in run.leaves.rows)
        yield (
            f"{number:,} weights are NaN or infinite, in {_listing(paths)}; they are "
            "never pruned. Go back to parameters from before, and lower the learning "
            "rate, or the multiplier a if swd stands before SGD."
        )
    if run.leaves.non_finite_scores:
        number = sum(run.leaves.non_finite_scores.values())
        yield (
            f"The scores of {number:,} finite weights are NaN or infinite, in "
            f"{_listing(list(run.leaves.non_finite_scores))}; these weights are never "
            "pruned. Look for NaN in what the criterion reads."
        )
    for placed in placed_states:
        selection = getattr(placed.state, "selection", None)
        steps = getattr(selection, "steps_left_out", ())
        if not isinstance(steps, tuple) and int(steps) > 0:
            yield (
                f"At {int(steps):,} of {int(placed.state.count):,} steps gradients "
                "were NaN or infinite; what the criterion accumulates leaves them out."
            )


def _is_new_penalty(state: Any) -> bool:
    return isinstance(state, SwdState) and int(state.count) == 0


def _begin_at_zero(run: Run) -> Iterator[str]:
    """Warn of leaves that begin at zero, such as the second factor of LoRA.

    Where every leaf is ranked by itself, their weights tie, and ties are not selected.
    """
    shared = {
        leaf.path
        for ranked in run.ranked_targets
        if ranked.target.scope not in ("local", "erk")
        for leaf in ranked.leaves
    }
    rows = [row for row in run.leaves.rows if row.path in shared]
    paths = [row.path for row in rows if row.zeros == row.weights > 0]
    if paths and len(paths) < len(rows):
        yield (
            f"All weights of {_listing(paths)} are zero at the start, so that they are "
            "selected first, and decay to zero again unless they outgrow others before "
            "the multiplier is large. Rank every leaf by itself, scope='local', or "
            "leave such leaves out, Target(..., prunable=...)."
        )


def _frozen(run: Run, state: optax.OptState) -> Iterator[str]:
    """Warn of prunable leaves of which no optimizer has moments.

    Of leaves that `optax.set_to_zero` holds in a partition, or behind a mask, every
    other branch has a `MaskedNode`.
    """
    paths_of_moments = _paths_of_moments(state)
    if not paths_of_moments:
        return
    frozen = [
        row.path
        for row in run.leaves.rows
        if not any(path.endswith(f"/{row.path}") for path in paths_of_moments)
    ]
    if frozen:
        yield (
            f"No step reaches {_listing(frozen)}, whose updates are set to zero, but "
            "pruning does: it takes weights that no decay has made small, and that "
            "cannot make up for it. Leave frozen leaves out, Target(..., "
            "prunable=...)."
        )


def _paths_of_moments(state: optax.OptState) -> set[str]:
    """Return the paths of arrays within a state that has a branch without moments."""

    def is_masked_state(node: Any) -> bool:
        return type(node).__name__ == "MaskedState"

    nodes = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_masked_state)[0]
    branches = [(keys, node) for keys, node in nodes if is_masked_state(node)]
    if not any(isinstance(n.inner_state, optax.EmptyState) for _, n in branches):
        return set()
    arrays = jax.tree_util.tree_flatten_with_path([node for _, node in branches])[0]
    return {tree_paths.path_name(keys) for keys, _ in arrays}


def _stacked(run: Run) -> Iterator[str]:
    """Warn of channels that extend over the layers of a stack.

    A layer that `scan` repeats has its index in front of every parameter, of the bias
    (layers, outputs) too. That of an unstacked layer has the kernel's last axes.
    """
    arrays = {leaf.path: leaf.array for leaf in tree_paths.arrays(run.resolved.tree)}
    for ranked in run.ranked_targets:
        structure = ranked.target.structure
        if not isinstance(structure, Channel):
            continue
        for leaf in ranked.leaves:
            shape = leaf.weights.shape
            if len(shape) < 3 or normalize_axis(structure.axis, shape) == 0:
                continue
            parent = leaf.path.rpartition("/")[0]
            outer = (shape[0], shape[-1])
            if any(
                array.shape == outer != shape[1:]
                for path, array in arrays.items()
                if path != leaf.path and path.rpartition("/")[0] == parent
            ):
                block = ", ".join(map(str, (1, *shape[1:-1], 1)))
                yield (
                    f"{leaf.path!r} looks like {shape[0]} stacked layers, since beside "
                    f"it stands an array of {outer}: Channel({structure.axis}) prunes "
                    "the same channel in all of them. For channels of each layer take "
                    f"Block(({block})), or Channel(0) for whole layers."
                )


def _listing(paths: Sequence[str]) -> str:
    return first_leaves([repr(path) for path in paths])
