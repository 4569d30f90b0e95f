"""What stands before and after the states of this package in an optimizer's state."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax

from swd_jax._transforms.latent_optimizer import LatentOptimizerState
from swd_jax._transforms.latent_pruning import LatentState
from swd_jax._transforms.selective_decay import SwdState

Link: TypeAlias = Literal[
    "ours",
    "moments",
    "normalised",
    "whole matrices",
    "loss values",
    "averages",
    "learning rate",
    "stateless",
    "unknown",
]
"""What is known of a link of a chain by its state. A stateless one may be anything:
a learning rate, clipping, weight decay, nothing at all. Beside "moments" stand

- "normalised", where updates do not grow with the gradients;
- "whole matrices", where an update depends on more gradients than its own;
- "loss values", where the length of a step depends on the loss;
- "averages", where the parameters to evaluate are others than those that train."""

# States of other packages of this layer, which are not imported here.
_OURS_BY_NAME = ("PruningState", "KeepPrunedState", "DynamicState")

# Names that optax and its like give to the moments of the gradients in their states.
_MOMENTS = frozenset(
    "mu nu trace ema exp_avg exp_avg_sq v_row sum_of_squares grad_sum_sq e_g m1 n "
    "prev_updates diff_updates_memory".split()
)

# Names of moments of squared gradients, among these.
_SQUARES = frozenset("nu exp_avg_sq v_row sum_of_squares grad_sum_sq e_g n".split())

# States, by name, of optimizers that read the signs of gradients only.
_OF_SIGNS = ("ScaleByLionState", "ScaleByRpropState")

# States, by name, of optimizers that combine the gradients of a matrix.
_OF_WHOLE_MATRICES = ("MuonState",)

# States, by name, of transformations that compare values of the loss with gradients.
_OF_LOSS_VALUES = (
    "ScaleByLBFGSState",
    "ScaleByZoomLinesearchState",
    "ScaleByBacktrackingLinesearchState",
    "MomoState",
    "MomoAdamState",
)

# States, by name, of optimizers that have a state of their own and no state of a
# learning rate after it.
_WITH_LEARNING_RATE = (
    "MomoState",
    "MomoAdamState",
    "ProdigyState",
    "DAdaptAdamWState",
    "COCOBState",
)

# Where a transformation keeps the state of the one that it wraps.
_INNER_STATES = (
    "inner_state inner_states inner_opt_state inner base_optimizer_state fast_state"
).split()

# Wrappers, by name, that pass on a part of the parameters.
_HIDING_STATES = ("MaskedState", "PartitionState", "MultiTransformState")


class PlacedState(NamedTuple):
    """A state of this package, and the links around it, the outermost chain's too."""

    state: Any
    before: tuple[Link, ...]
    after: tuple[Link, ...]
    sees_all: bool
    """Whether no wrapper hides parameters from it."""
    wrappers: tuple[str, ...]
    """The names of the states of the wrappers that it is inside of."""

    @property
    def is_last(self) -> bool:
        """Whether nothing stands after it but states of this package."""
        return all(link == "ours" for link in self.after)

    @property
    def follows_an_optimizer(self) -> bool:
        """Whether the updates before it have been scaled by a learning rate already."""
        if "learning rate" in self.before:
            return True
        # Moments, and something after them: the learning rate of adam(0.1).
        before = self.before
        return "moments" in before and "stateless" in before[before.index("moments") :]

    @property
    def precedes_an_optimizer(self) -> bool:
        """Whether what it returns is taken for a gradient, or scaled."""
        return "moments" in self.after or "learning rate" in self.after

    @property
    def is_before_sgd(self) -> bool:
        """Whether all that is known to stand after it is SGD, or nothing is."""
        return {"normalised", "loss values", "whole matrices"}.isdisjoint(self.after)


def type_name(state: Any) -> str:
    """Return the class of a state by name, "" if it is none of this package."""
    if isinstance(state, SwdState):
        return "SwdState"
    if isinstance(state, LatentState):
        return "LatentState"
    kind = type(state)
    is_ours = kind.__module__.split(".")[0] == "swd_jax"
    return kind.__name__ if is_ours and kind.__name__ in _OURS_BY_NAME else ""


def placed_states(state: Any) -> list[PlacedState]:
    """Find the states of this package in an optimizer's state, at any depth.

    The states of `optax.chain` are a plain tuple in the order of its links. Wrappers
    are looked through. Where the order is not known (a dict, an unknown container),
    "unknown" stands on both sides.
    """
    return list(_placed(state, PlacedState(None, (), (), True, ())))


def _placed(node: Any, place: PlacedState) -> Iterator[PlacedState]:
    """Find the states in a node.

    Args:
      node: a part of an optimizer's state.
      place: its own place.
    """
    before, after = place.before, place.after
    if type_name(node):
        yield place._replace(state=node)
    if isinstance(node, LatentOptimizerState):
        # The optimizer inside knows of the latent weights.
        inner: list[Link] = [
            link for link in _links(node.inner) if link != "whole matrices"
        ]
        yield from _placed(node.pruning, place._replace(before=(*before, *inner)))
    elif _is_chain(node):
        links = [_links(child) for child in node]
        for i, child in enumerate(node):
            yield from _placed(
                child,
                place._replace(
                    before=(*before, *_flat(links[:i])),
                    after=(*_flat(links[i + 1 :]), *after),
                ),
            )
    elif inner := _inner_states(node):
        # The branches of a partition, each of which sees a part of the parameters.
        is_masked = (
            hasattr(node, "inner_states") or type(node).__name__ == "MaskedState"
        )
        inside = place._replace(
            sees_all=place.sees_all and not is_masked,
            wrappers=(*place.wrappers, type(node).__name__),
        )
        for child in inner:
            yield from _placed(child, inside)
    elif not type_name(node):
        for child in _children(node):
            unknown = place._replace(
                before=(*before, "unknown"), after=("unknown", *after)
            )
            yield from _placed(child, unknown)


def _links(node: Any) -> list[Link]:
    """Return the links of a transformation that stands beside another one."""
    if type_name(node) or isinstance(node, LatentOptimizerState):
        return ["ours"]
    if _is_chain(node):
        inner = _flat(map(_links, node))
        # sgd(0.1), which has nothing to remember: its momentum and its learning rate.
        return ["stateless", "learning rate"] if inner == ["stateless"] * 2 else inner
    if children := _inner_states(node):
        inner: list[Link] = _flat(map(_links, children))
        if type(node).__name__ == "ScheduleFreeState":
            inner.append("averages")
        names = getattr(node, "hyperparams", None)
        if isinstance(names, Mapping) and "learning_rate" in names:
            return inner if "ours" in inner else [*inner, "learning rate"]
        return inner
    fields: Any = getattr(node, "_fields", None)
    if fields == ():
        return ["stateless"]
    if fields is None:
        return [] if node is None else ["unknown"]
    if type(node).__name__ == "ScaleByScheduleState":
        return ["learning rate"]
    name = type(node).__name__
    links: list[Link] = ["moments"] if _MOMENTS & set(fields) else []
    if _SQUARES & set(fields) or name in _OF_SIGNS:
        links.append("normalised")
    if name in _OF_WHOLE_MATRICES:
        links.extend(("moments", "whole matrices"))
    if name in _OF_LOSS_VALUES:
        links.append("loss values")
    if name in _WITH_LEARNING_RATE:
        links.extend(("moments", "learning rate"))
    return links or ["unknown"]


def _is_chain(node: Any) -> bool:
    return type(node) in (tuple, list)


def _inner_states(node: Any) -> list[Any]:
    """Return what a wrapper wraps: one state, or one of every branch."""
    if not hasattr(node, "_fields"):
        return []
    for name in _INNER_STATES:
        if name in node._fields:
            inner = getattr(node, name)
            return list(inner.values()) if isinstance(inner, Mapping) else [inner]
    return []


def _children(node: Any) -> Sequence[Any]:
    """Return the children of any container; none of an array."""
    children = jax.tree.leaves(node, is_leaf=lambda child: child is not node)
    return [child for child in children if child is not node]


def _flat(links: Any) -> list[Link]:
    return [link for part in links for link in part]
