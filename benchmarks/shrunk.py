"""Measure the latency of networks whose channels are cut out.

    python benchmarks/shrunk.py
    python benchmarks/shrunk.py --networks resnet20 --batch-size 128

Weights are random: what is measured depends on the sizes alone.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from flax import nnx

import swd_jax

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from experiments.environment import environment
from models.resnet import cifar_resnet, imagenet_resnet

Network = Literal["resnet20", "resnet50"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the latency of shrunk networks."""

    networks: tuple[Network, ...] = ("resnet20", "resnet50")
    removed: tuple[float, ...] = (0.5, 0.75)
    """Fractions of the operations (FLOPs) that are removed."""
    scope: Literal["global", "local"] = "local"
    """Channels are ranked together, or every channel group loses the same share."""
    batch_size: int = 32
    runs: int = 10
    """Number of times that each network is measured."""
    multiple_of: int = 1
    """Sizes are multiples of this, where it is more than 1."""
    output: Path = Path("benchmarks/results/shrunk-cpu.json")


def made(network: Network) -> tuple[Any, tuple[int, ...]]:
    """A network for evaluation, and the shape of an image."""
    if network == "resnet20":
        model, shape = cifar_resnet(20, rngs=nnx.Rngs(0)), (32, 32, 3)
    else:
        model, shape = imagenet_resnet(50, rngs=nnx.Rngs(0)), (224, 224, 3)
    model.eval()
    return model, shape


def apply(model: Any, images: jax.Array) -> jax.Array:
    return model(images)


def main(config: Config) -> None:
    entries = []
    for network in config.networks:
        model, shape = made(network)
        images = jax.random.normal(jax.random.key(0), (config.batch_size, *shape))
        groups = swd_jax.channels.channel_groups(apply, model, images)
        structure = swd_jax.CoupledChannels(
            groups, count="flops", multiple_of=config.multiple_of
        )
        for removed in config.removed:
            target = swd_jax.Target(removed, structure=structure, scope=config.scope)
            kept = swd_jax.channels.kept_channels(nnx.state(model, nnx.Param), target)
            small = swd_jax.channels.shrink(apply, model, groups, kept, images)
            report = swd_jax.channels.cost_report(
                apply, model, small, images, runs=config.runs
            )
            entries.append({"network": network, "removed": removed, **report.as_dict()})
            print(f"{network}, {removed:.0%} of the operations removed\n{report}\n")
    results = {
        "config": dataclasses.asdict(config) | {"output": str(config.output)},
        "environment": environment(),
        "entries": entries,
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
