"""Graph convolutional network (Kipf & Welling 2017, arXiv 1609.02907), all sparse."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.layers import require_positive
from models.macs import leaf_name


class SparseGraph(NamedTuple):
    """A graph with a vector of features for every node, as coordinates of nonzeros.

    Features: matrix of nodes x features. Edges: matrix of nodes x nodes, normalised and
    with self loops, D^-1/2 (A + I) D^-1/2. The rows of both must be in ascending order.
    """

    feature_rows: jax.Array  # (nonzeros,), which node
    feature_columns: jax.Array  # (nonzeros,), which feature
    feature_values: jax.Array  # (nonzeros,)
    edge_rows: jax.Array  # (edges,), to which node
    edge_columns: jax.Array  # (edges,), from which node
    edge_values: jax.Array  # (edges,)


def sparse_product(
    rows: jax.Array, columns: jax.Array, values: jax.Array, dense: jax.Array, size: int
) -> jax.Array:
    """A sparse matrix with so many rows, in ascending order, times a dense matrix."""
    return jax.ops.segment_sum(
        values[:, None] * dense[columns],
        rows,
        num_segments=size,
        indices_are_sorted=True,
    )


class KernelAndBias(nnx.Module):
    """The parameters of one layer: (inputs, outputs) and (outputs,)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        glorot = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(glorot(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))


class GCN(nnx.Module):
    """Two layers: a `SparseGraph` to (nodes, classes).

    Seeds run side by side under `jax.vmap`, on a graph that they share: make the
    network with `nnx.Rngs(key)` of a mapped key, and leave the graph unmapped.
    """

    def __init__(
        self,
        nodes: int,
        features: int,
        *,
        classes: int,
        hidden: int = 16,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
    ) -> None:
        require_positive(nodes=nodes, features=features, classes=classes, hidden=hidden)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, not {dropout}.")
        self.nodes = nodes
        self.features = features
        self.first = KernelAndBias(features, hidden, rngs=rngs)
        self.second = KernelAndBias(hidden, classes, rngs=rngs)
        self.feature_dropout = nnx.Dropout(dropout, rngs=rngs)
        self.hidden_dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, graph: SparseGraph) -> jax.Array:
        def from_neighbours(x: jax.Array) -> jax.Array:
            edges = graph.edge_rows, graph.edge_columns, graph.edge_values
            return sparse_product(*edges, x, self.nodes)

        # Dropping a zero changes nothing, so only the nonzero features take part.
        features = self.feature_dropout(graph.feature_values)
        rows, columns = graph.feature_rows, graph.feature_columns
        x = sparse_product(rows, columns, features, self.first.kernel[...], self.nodes)
        x = nnx.relu(from_neighbours(x) + self.first.bias[None])
        x = self.hidden_dropout(x) @ self.second.kernel[...]
        return from_neighbours(x) + self.second.bias[None]

    def uses(self, graph: SparseGraph) -> dict[str, int | np.ndarray]:
        """Count the uses of weights in sparse products, which `macs.uses` cannot see.

        A row of the first kernel is used as often as its feature occurs, shape
        (features, 1); the second kernel once for every node; biases never. Sums over
        neighbours multiply no weight and are not counted.
        """
        columns = np.asarray(graph.feature_columns)
        occurrences = np.bincount(columns, minlength=self.features)[:, None]
        of_layer = {"first": occurrences, "second": self.nodes}
        counted = {}
        for path, _ in jax.tree_util.tree_leaves_with_path(nnx.state(self, nnx.Param)):
            name = leaf_name(path)
            layer, leaf = name.split("/")
            counted[name] = of_layer[layer] if leaf == "kernel" else 0
        return counted
