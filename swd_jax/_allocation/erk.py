"""Erdos-Renyi-kernel (ERK) sparsities: larger leaves become sparser."""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation import exact_counts


def erk_sparsities(
    sparsity: Fraction | jax.Array, shapes: Sequence[tuple[int, ...]]
) -> list[Fraction] | jax.Array:
    r"""Distribute a sparsity over leaves after Erdos and Renyi, with kernels.

    .. math:: 1 - s_l = \min(1, \epsilon\, r_l), \quad
              r_l = \frac{\sum_d n_{l,d}}{\prod_d n_{l,d}}

    with the lengths :math:`n_{l,d}` of the leaf's dimensions, and the
    :math:`\epsilon` for which the leaves together have the given sparsity. Leaves are
    made dense, those with the largest ratios first, until no other density exceeds 1.

    Args:
      sparsity: of all leaves together.
      shapes: of the leaves.

    Returns:
      The leaves' sparsities: a list of exact fractions if `sparsity` is one, else an
      array of shape (leaves,), rounded down to seven decimal places.

    Source: Evci et al., "Rigging the lottery" (arXiv 1911.11134), section 3, part 1.
    """
    sizes = [max(int(np.prod(shape, dtype=object)), 1) for shape in shapes]
    lengths = [max(sum(shape), 1) for shape in shapes]
    ratios = [Fraction(*pair) for pair in zip(lengths, sizes, strict=True)]
    order = sorted(range(len(shapes)), key=lambda i: -ratios[i])
    # With the first j leaves dense, epsilon is
    # (weights to keep - dense_weights[j]) / sparse_lengths[j].
    total, total_length = sum(sizes), sum(lengths)
    dense_weights = _running_sums(sizes[i] for i in order)
    dense_lengths = _running_sums(lengths[i] for i in order)
    sparse_lengths = [total_length - length for length in dense_lengths]
    if isinstance(sparsity, Fraction):
        budget = (1 - sparsity) * total

        def epsilon(num_dense: int) -> Fraction:
            return (budget - dense_weights[num_dense]) / sparse_lengths[num_dense]

        # Fits at the latest with all leaves but one dense.
        num_dense = next(j for j, i in enumerate(order) if epsilon(j) * ratios[i] <= 1)
        dense_leaves, factor = set(order[:num_dense]), epsilon(num_dense)
        return [
            Fraction(0) if i in dense_leaves else 1 - factor * ratio
            for i, ratio in enumerate(ratios)
        ]
    # Shares of the total, since counts of weights may exceed what float32 represents.
    shares = [Fraction(weights, total) for weights in dense_weights]
    divisors = [Fraction(length, total) for length in sparse_lengths]
    epsilons = ((1 - sparsity) - _float32(shares)) / _float32(divisors)
    fits = epsilons * _float32([ratios[i] for i in order]) <= 1
    first_fit = jnp.argmax(fits)
    densities = jnp.minimum(epsilons[first_fit] * _float32(ratios), 1)
    ranks = np.argsort(order)
    is_dense = (ranks < first_fit) | ~jnp.any(fits)
    places = exact_counts.PLACES
    return jnp.where(is_dense, 0, jnp.floor((1 - densities) * places) / places)


def _running_sums(values: Iterable[int]) -> list[int]:
    """Sum the values before each position."""
    return list(itertools.accumulate(values, initial=0))[:-1]


def _float32(numbers: Sequence[Fraction]) -> np.ndarray:
    return np.array([float(number) for number in numbers], np.float32)
