"""Measure what ranking coupled channels costs, next to single weights, in a ResNet-50.

    python benchmarks/channels.py

Prints a table and writes JSON. A step is that of swd followed by plain SGD, as in
structures.py. How long it takes to find the channels is there as well.
"""

import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import swd_jax

# For the network.
sys.path.append(str(Path(__file__).parents[1] / "examples"))

try:
    import tyro
    from flax import nnx
    from report import new_console, report
    from structures import BASE, NOTES, entry
    from timing import DTYPES, Config, chosen, measure

    from models.resnet import imagenet_resnet
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")


def targets(groups: swd_jax.channels.ChannelGroups, sparsity: float) -> dict[str, Any]:
    """Return the targets that are timed: each norm, and the two modes of the paper."""
    of = functools.partial(swd_jax.CoupledChannels, groups)
    structures = {
        "CoupledChannels, bn_scale": of(norm="bn_scale"),
        "CoupledChannels, bn_scale, scales only": of(norm="bn_scale", decays="scales"),
        "CoupledChannels, rms": of(norm="rms"),
        "CoupledChannels, mean": of(norm="mean"),
        "CoupledChannels, rms, multiples of 8": of(norm="rms", multiple_of=8),
    }
    return {BASE: swd_jax.Target(sparsity)} | {
        name: swd_jax.Target(sparsity, structure=structure)
        for name, structure in structures.items()
    }


def main(config: Config) -> None:
    # There is one network: the option `size` has no effect.
    config = dataclasses.replace(config, size="25.6M")
    console = new_console()
    model = nnx.eval_shape(lambda: imagenet_resnet(50, rngs=nnx.Rngs(0)))
    model.eval()
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    started = time.perf_counter()
    groups = swd_jax.channels.channel_groups(lambda model, x: model(x), model, images)
    seconds = time.perf_counter() - started
    shapes = nnx.state(model, nnx.Param)
    dtype = DTYPES[config.dtype]

    def weights(seed: int) -> Any:
        leaves, structure = jax.tree.flatten(shapes)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        made = [
            0.05 * jax.random.normal(key, leaf.shape, dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, made)

    gradients = weights(1)
    measured = [
        entry(name, target, functools.partial(weights, 0), gradients)
        for name, target in targets(groups, config.sparsity).items()
    ]
    measured = chosen(measured, config)
    measure(measured, config, console)
    report(
        "channels",
        config,
        measured,
        weights=jax.tree.leaves(gradients),
        console=console,
        notes=NOTES | {"seconds_to_find_groups": f"{seconds:.2f}"},
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
