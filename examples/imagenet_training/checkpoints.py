"""Checkpoints, from which a killed run goes on: state, position in the data, config."""

import contextlib
import dataclasses
import json
import logging
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

import whole_files
from imagenet_training.config import MAY_CHANGE, Config
from imagenet_training.trainer import TrainState


class OtherRun(ValueError):
    """The output folder holds another run than the one that was asked for."""


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be read or written, and what to do about it."""


class Checkpoints:
    """The checkpoints in a folder, written while training goes on.

    A leaf is named by its path, "network/params/stem/conv/kernel", so that they can be
    read by Orbax alone.

    Args:
      config: the run.
      data: fingerprint of the images, by which other data is noticed.
    """

    def __init__(self, config: Config, data: str) -> None:
        self.data = data
        self.folder = config.output.resolve() / "checkpoints"
        _check_same_run(config)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep_checkpoints,
            # A checkpoint that a kill left half written.
            cleanup_tmp_directories=True,
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def restore(self, abstract: TrainState, shardings: Any) -> TrainState | None:
        """The newest state, divided as `shardings` says; None if there is none."""
        step = self.manager.latest_step()
        if step is None:
            return None
        wanted = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            abstract,
            shardings,
        )
        try:
            restored = self.manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(by_path(wanted)),
                    position=ocp.args.JsonRestore(),
                ),
            )
        # Orbax raises whatever it meets in a damaged file: KeyError, ValueError, ...
        except Exception as error:
            # asyncio would log the same of every array, pages of it.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise BadCheckpoint(self._damaged(step, _shortened(error))) from error
        position, leaves = restored["position"], restored["state"]
        sums = bit_sums(leaves)
        if position.get("bit_sums", sums) != sums:
            raise BadCheckpoint(self._damaged(step, "its numbers have changed"))
        before = position.get("data")
        if before != self.data:
            raise OtherRun(
                f"data: {self.folder} was made with {before}, now there are "
                f"{self.data}. Give back the same images, or name another folder: "
                "--output DIR"
            )
        return jax.tree.unflatten(
            jax.tree.structure(abstract), [leaves[name] for name in by_path(abstract)]
        )

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write; training may go on at once.

        The next batch is always that of the number of steps made.
        """
        if step == self.manager.latest_step():
            return  # a run that was finished before
        leaves = by_path(state)
        # Orbax (0.12) has no checksum of arrays, and reads changed bits as they are.
        position = {
            "next_batch": step,
            "data": self.data,
            "bit_sums": bit_sums(leaves),
        }
        with self._writing():
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(leaves),
                    position=ocp.args.JsonSave(position),
                ),
            )

    def close(self) -> None:
        """Wait until all is written."""
        with self._writing():
            self.manager.wait_until_finished()
        self.manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        # TensorStore raises a ValueError for a full disk, from a later call.
        except (OSError, ValueError) as error:
            raise BadCheckpoint(
                f"a checkpoint could not be written to {self.folder}; those before it "
                f"are whole, and the same command goes on from them: "
                f"{_shortened(error)}"
            ) from error

    def _damaged(self, step: int, problem: str) -> str:
        older = [other for other in self.manager.all_steps() if other < step]
        place = f"step {max(older):,}" if older else "the beginning"
        return (
            f"{self.folder / str(step)} is damaged: {problem}. Delete it, and the run "
            f"goes on from {place}."
        )


def _shortened(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)


def bit_sums(leaves: dict[str, jax.Array]) -> dict[str, int]:
    """The bits of each array as integers, added up modulo 2**32.

    The sums are the same however the arrays are divided among devices and processes.
    """
    sums = np.array([_bit_sum(leaf) for leaf in leaves.values()], np.uint32)
    if jax.process_count() > 1:
        sums = multihost_utils.process_allgather(sums).sum(axis=0, dtype=np.uint32)
    return dict(zip(leaves, sums.tolist(), strict=True))


def _bit_sum(leaf: jax.Array) -> int:
    """The sum over the parts whose first copy this process has."""
    words = {1: np.uint8, 2: np.uint16}.get(leaf.dtype.itemsize, np.uint32)
    parts = [
        np.ascontiguousarray(shard.data).reshape(-1).view(words)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    ]
    return sum(int(part.sum(dtype=np.uint64)) for part in parts) % 2**32


def save_pruned(config: Config, network: Any) -> Path:
    """The pruned network by itself, as NumPy arrays, to be read on any machine."""
    place = config.output.resolve() / "pruned"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(place, by_path(jax.device_get(network)), force=True)
    return place


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        named[name.removesuffix("/value")] = leaf  # of the Flax variable
    return named


def _check_same_run(config: Config) -> None:
    """Raise if the folder's run has other settings; otherwise write them down."""
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
    }
    file = config.output / "config.json"
    if file.exists():
        try:
            before = dict(json.loads(file.read_bytes()))
        except (TypeError, ValueError) as error:
            raise OtherRun(
                f"{file} is damaged ({error}), so that it does not say which run is in "
                "the folder. Delete it if the settings are the same, or name another "
                "folder: --output DIR"
            ) from error
        for name, value in settings.items():
            if name not in MAY_CHANGE and before.get(name) != value:
                raise OtherRun(
                    f"{name}: {config.output} holds a run with {before.get(name)}, and "
                    f"{value} is asked for. Ask for the same, or name another folder: "
                    "--output DIR"
                )
    if jax.process_index() == 0:
        whole_files.write(file, json.dumps(settings, indent=2) + "\n")
