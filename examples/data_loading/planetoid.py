"""Cora, Citeseer and Pubmed, in the files `ind.<name>.*` of the Planetoid paper.

They are looked for in the folder, in `planetoid` and in `<name>/raw`. The split is the
one that papers use: 20 nodes of each class for training, the next 500 for validation,
1,000 for testing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from data_loading.dataset import Graph, as_labels
from data_loading.errors import reading
from data_loading.pickles import SparseRows, unpickle
from data_loading.search import Search

SOURCE = "https://github.com/kimiyoung/planetoid/tree/master/data"
# `x`, the first rows of `allx`, comes with them but is not needed.
PARTS = ["tx", "allx", "y", "ty", "ally", "graph"]
VALIDATION_NODES = 500
# How PyTorch Geometric spells the folders in which it keeps the files.
SPELLINGS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}


def read(name: str, search: Search, cache: Path | None) -> Graph | None:
    del cache
    places = ["", "planetoid", f"{name}/raw", f"{SPELLINGS[name]}/raw"]
    names = [f"ind.{name}.{part}" for part in [*PARTS, "test.index"]]
    files = search.files(places, names)
    if files is None:
        return None
    parts = {}
    for part in PARTS:
        path = files[f"ind.{name}.{part}"]
        parts[part] = unpickle(path.read_bytes(), path)
    index = files[f"ind.{name}.test.index"]
    with reading(index):
        test = as_labels([int(line) for line in index.read_text("ascii").split()])
    with reading(index.parent / f"ind.{name}.*"):
        return _assemble(name, parts, test)


def _assemble(name: str, parts: Mapping[str, Any], test: np.ndarray) -> Graph:
    if not isinstance(parts["graph"], dict):
        raise ValueError("graph is no dictionary of nodes and their neighbours")
    known, tested = _matrix(parts["allx"]), _matrix(parts["tx"])
    known_classes, tested_classes = np.asarray(parts["ally"]), np.asarray(parts["ty"])
    if known.shape[0] != len(known_classes):
        raise ValueError("allx and ally differ in their number of nodes")
    if not tested.shape[0] == len(tested_classes) == len(test):
        raise ValueError("tx, ty and test.index differ in their number of nodes")
    train, validation_end = len(parts["y"]), len(parts["y"]) + VALIDATION_NODES
    if validation_end > len(known_classes):
        raise ValueError(f"fewer than {VALIDATION_NODES} nodes left for validation")
    # Nodes that nothing is known of are in no file but the graph, or in none at all
    # (some of Citeseer's). They get no features and class 0, and no split has them.
    nodes = max(len(known_classes), len(parts["graph"]), int(test.max()) + 1)
    classes = np.zeros((nodes, known_classes.shape[1]), known_classes.dtype)
    classes[: len(known_classes)] = known_classes
    classes[test] = tested_classes
    rows = np.concatenate([known.row, test[tested.row]])
    values = np.concatenate([known.data, tested.data]).astype(np.float64)
    sums = np.bincount(rows, values, minlength=nodes)
    edge_rows, edge_columns, edge_values = normalised_adjacency(parts["graph"], nodes)
    return Graph(
        name=name,
        feature_rows=rows.astype(np.int32),
        feature_columns=np.concatenate([known.col, tested.col]).astype(np.int32),
        feature_values=(values / sums[rows]).astype(np.float32),
        nodes=nodes,
        feature_count=max(known.shape[1], tested.shape[1]),
        edge_rows=edge_rows,
        edge_columns=edge_columns,
        edge_values=edge_values,
        labels=as_labels(classes.argmax(axis=1)),
        classes=classes.shape[1],
        train_nodes=np.arange(train, dtype=np.int32),
        validation_nodes=np.arange(train, validation_end, dtype=np.int32),
        test_nodes=np.sort(test),
    )


def _matrix(stored: Any) -> sparse.coo_array:
    """The matrix that a file holds, checked, without the zeros it may spell out."""
    if not isinstance(stored, SparseRows):
        raise ValueError(f"a csr_matrix was expected, not {type(stored).__name__}")
    found = vars(stored)
    arrays = (found["data"], found["indices"], found["indptr"])
    matrix = sparse.csr_array(arrays, shape=found["_shape"])
    matrix.check_format(full_check=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix.tocoo()


def normalised_adjacency(
    neighbours: Mapping[int, Sequence[int]], nodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of D^-1/2 (A + I) D^-1/2, where D counts links.

    A link counts once, whichever end names it and however often, and so does a node's
    link to itself.
    """
    pairs = [(node, other) for node, others in neighbours.items() for other in others]
    rows, columns = np.array(pairs, np.int32).reshape(-1, 2).T
    ones = np.ones(len(pairs))
    links = sparse.csr_array((ones, (rows, columns)), shape=(nodes, nodes))
    linked = (links + links.T + sparse.eye_array(nodes, format="csr")).tocoo()
    degrees = np.bincount(linked.row, minlength=nodes)
    values = 1 / np.sqrt(degrees[linked.row] * degrees[linked.col])
    return (
        linked.row.astype(np.int32),
        linked.col.astype(np.int32),
        values.astype(np.float32),
    )
