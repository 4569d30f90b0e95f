"""Warnings of leaves of which pruning would leave nothing, or nearly so."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arguments.text_tables import first_leaves
from swd_jax._arrays import sort_keys
from swd_jax._targets.resolve import rank
from swd_jax._transforms.latent_pruning import LatentState
from swd_jax._transforms.selective_decay import SwdState
from swd_jax.reports._chain_order import PlacedState
from swd_jax.reports._measure_leaves import measure_leaves, pruned_fraction
from swd_jax.reports._run import SETTLED_PART, Run
from swd_jax.reports._summary import LeafSummary
from swd_jax.structures._coupled_channels import CoupledChannels

# The density of a leaf over that of its target. Layers that train well differ by a
# factor of ten or so.
_STARVED = 0.01
# Of the final sparsity, where leaves that would be emptied are named: a cubic rise has
# come as far after 37 % of its steps.
_MOST = 0.75


def emptied_warnings(run: Run, placed_states: Sequence[PlacedState]) -> Iterator[str]:
    """Warn of leaves of which the final target would leave nothing, or nearly so."""
    if not any(_is_imminent(run, placed.state) for placed in placed_states):
        return
    rows = _latent_rows(run, placed_states)
    paths_of_coupled = {
        leaf.path
        for ranked in run.ranked_targets
        if isinstance(ranked.target.structure, CoupledChannels)
        for leaf in ranked.leaves
    }
    kept = sum(row.weights - row.pruned for row in rows)
    density = kept / max(run.weights, 1)
    for is_coupled in (False, True):
        found = [
            row
            for row in rows
            if row.weights > 0 and (row.path in paths_of_coupled) == is_coupled
        ]
        way_out = (
            "Keep some channels of every group, CoupledChannels(..., min_channels=...)"
            if is_coupled
            else "Keep some of every leaf, Target(..., min_kept=0.01)"
        ) + ", or take another criterion or scope."
        emptied = [row for row in found if row.emptied]
        if emptied:
            names = [f"{row.path!r} ({row.weights:,} weights)" for row in emptied]
            yield (
                "The whole target, with the weights as they are now, leaves nothing of "
                f"{first_leaves(names)}. {way_out}"
            )
        for row in found:
            left = row.weights - row.pruned
            if 0 < left < _STARVED * density * row.weights:
                yield (
                    "The whole target, with the weights as they are now, leaves "
                    f"{left:,} of the {row.weights:,} weights of {row.path!r}, but "
                    f"{density:.2%} of all prunable ones. {way_out}"
                )


def _is_imminent(run: Run, state: Any) -> bool:
    """Whether most of what the final target prunes is pruned already, or at once.

    Before, the ranking may still change: layers of random weights differ in scale by
    their initializers only.
    """
    if "count" not in state._fields:  # keep_pruned, which ranks nothing
        return True
    count = int(state.count)
    if isinstance(state, SwdState):
        return count > 0 and count >= SETTLED_PART * (run.total or 0)
    if isinstance(state, LatentState):
        fraction = float(state.selection.selected_fraction)
    else:
        at_count = [ranked.budgets(count) for ranked in run.ranked_targets]
        fraction = pruned_fraction(run.ranked_targets, at_count)
    is_settled = count >= SETTLED_PART * (run.total or 0)
    return is_settled and fraction >= _MOST * run.final_fraction > 0


def _latent_rows(
    run: Run, placed_states: Sequence[PlacedState]
) -> tuple[LeafSummary, ...]:
    """Measure the latent weights, which the next pruning ranks; zeros would tie."""
    states = [p.state for p in placed_states if isinstance(p.state, LatentState)]
    leaves = run.leaves.leaves
    memory = jax.tree.leaves(states[0].memory) if len(states) == 1 else []
    shapes = [array.shape for array in memory]
    if not memory or shapes != [leaf.weights.shape for leaf in leaves]:
        return run.leaves.rows
    latents = {}
    for leaf, array in zip(leaves, memory, strict=True):
        dtype = sort_keys.score_dtype(leaf.weights.dtype)
        parts = (jnp.asarray(leaf.weights), jnp.asarray(array))
        weights, remembered = (sort_keys.widen(part, dtype) for part in parts)
        latents[leaf.position] = weights + remembered
    ranked = rank(run.resolved.with_weights(latents), extra_args=run.extra_args)
    return measure_leaves(ranked, run.budgets).rows
