"""Checkpoints, from which a killed run goes on: state, position in the data, config."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from imagenet_training.config import MAY_CHANGE, Config
from imagenet_training.trainer import TrainState


class OtherRun(ValueError):
    """The output folder holds another run than the one that was asked for."""


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
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(by_path(wanted)),
                position=ocp.args.JsonRestore(),
            ),
        )
        position = restored["position"]
        if position["data"] != self.data:
            raise OtherRun(
                f"data: {self.folder} was made with {position['data']}, now there are "
                f"{self.data}. Give back the same images, or name another folder: "
                "--output DIR"
            )
        leaves = restored["state"]
        return jax.tree.unflatten(
            jax.tree.structure(abstract), [leaves[name] for name in by_path(abstract)]
        )

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write; training may go on at once.

        The next batch is always that of the number of steps made.
        """
        if step == self.manager.latest_step():
            return  # a run that was finished before
        self.manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(by_path(state)),
                position=ocp.args.JsonSave({"next_batch": step, "data": self.data}),
            ),
        )

    def close(self) -> None:
        """Wait until all is written."""
        self.manager.wait_until_finished()
        self.manager.close()


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
        before = json.loads(file.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if name not in MAY_CHANGE and before.get(name) != value:
                raise OtherRun(
                    f"{name}: {config.output} holds a run with {before.get(name)}, and "
                    f"{value} is asked for. Ask for the same, or name another folder: "
                    "--output DIR"
                )
    if jax.process_index() == 0:
        # Under another name first: a kill leaves the old file or the new one.
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, file)
