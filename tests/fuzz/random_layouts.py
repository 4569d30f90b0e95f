"""Random trees with random layouts on a mesh of eight devices."""

from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

import swd_jax

MESH = {"x": 2, "y": 4}

SHAPES = [(8,), (16, 8), (8, 32), (4, 12), (5, 7), (0, 8), (2, 8, 16), (8, 4, 8)]


class RandomSharding:
    """Leaves, their layouts, and a target whose units lie within single shards."""

    def __init__(self, seed: int) -> None:
        self.generator = generator = np.random.default_rng(seed)
        count = int(generator.integers(1, 4))
        self.shapes = [SHAPES[generator.integers(len(SHAPES))] for _ in range(count)]
        self.specs = [self._random_spec(shape) for shape in self.shapes]
        # By hand, ties go by shard first: as in whole leaves where these are sharded
        # along their first axis.
        self.first_axis_specs = [
            spec if spec[1:] == (None,) * len(spec[1:]) else PartitionSpec()
            for spec in self.specs
        ]
        self.by_hand = bool(generator.random() < 0.5)
        structures = [swd_jax.Unstructured()] * 3
        if not self.by_hand:
            structures += [
                swd_jax.NM(1, 2, axis=-1),
                swd_jax.NM(2, 4, axis=0),
                swd_jax.Block((2,)),
                swd_jax.Block((3,), norm="l1"),
                swd_jax.Channel(-1),
                swd_jax.Channel(0, norm="mean"),
            ]
        criteria = ["magnitude", "magnitude", "normalized_magnitude"]
        if not self.by_hand:  # LAMP needs whole leaves
            criteria.append("lamp")
        self.target = swd_jax.Target(
            round(generator.uniform(0, 0.5), 3),
            prunable=lambda path, leaf: True,
            structure=structures[generator.integers(len(structures))],
            scope=["global", "local"][generator.integers(2)],
            criterion=criteria[generator.integers(len(criteria))],
            min_kept=[0, 0, 3, 0.6][generator.integers(4)],
        )

    def leaves(self) -> list[np.ndarray]:
        """Return random weights, of which many tie."""
        digits = int(self.generator.integers(0, 8))
        leaves = []
        for shape in self.shapes:
            values = self.generator.normal(size=shape).round(digits)
            if self.generator.random() < 0.3:
                values = np.where(self.generator.random(shape) < 0.1, np.inf, values)
            leaves.append(values.astype(np.float32))
        return leaves

    def __str__(self) -> str:
        leaves = ", ".join(
            f"{shape} {spec}"
            for shape, spec in zip(self.shapes, self.specs, strict=True)
        )
        return f"{leaves}; by hand: {self.by_hand}; {self.target}"

    def _random_spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        axes: list[Any] = ["x", "y", ("x", "y"), ("y", "x")]
        entries: list[Any] = [None] * len(shape)
        free = {*MESH}
        for place in self.generator.permutation(len(shape)):
            axis = axes[self.generator.integers(len(axes))]
            names = {axis} if isinstance(axis, str) else {*axis}
            size = int(np.prod([MESH[name] for name in names]))
            fits = names <= free and shape[place] % size == 0
            if fits and self.generator.random() < 0.7:
                entries[place] = axis
                free -= names
        return PartitionSpec(*entries)


def spread_out(leaves: list[np.ndarray], specs: list[Any], mesh: Any) -> list[Any]:
    """Return leaves laid out on the mesh."""
    return [
        jax.device_put(leaf, jax.sharding.NamedSharding(mesh, spec))
        for leaf, spec in zip(leaves, specs, strict=True)
    ]
