"""Pruned parameters in files, without their zeros."""

from swd_jax.io._sparse_file import load_sparse as load_sparse
from swd_jax.io._sparse_file import save_sparse as save_sparse
