"""Train a residual network whose channels go, and cut them out: smaller and faster.

ResNet-8 on scikit-learn's handwritten digits, or what you ask for on CIFAR-10, is
trained with selective weight decay on coupled channels, pruned, and shrunk to a dense
network that computes the same; which `serve.py` runs without any of this:

    python examples/shrink.py
    python examples/shrink.py --sparsities 0.5 0.9 --count parameters --export
    python examples/shrink.py --data DIR --depth 20 --width 16 --multiple-of 8
"""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import swd_jax
import whole_files

try:
    import tyro
    from shrink_training import Images, accuracy, images_of, network, train

    from experiments.environment import environment
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")


@dataclasses.dataclass(frozen=True)
class Config:
    """Prune channels while training, and measure what is left.

    Every sparsity is trained from the same initial weights, with and without the
    selective decay. Prints a table and writes all the numbers.
    """

    data: Path | None = None
    """Folder with CIFAR-10, in the form in which people have it. The digits without."""
    train_images: int = 10_000
    """Training images of CIFAR-10, the same number of each class."""
    test_images: int = 2_000
    """Test images of CIFAR-10, the same number of each class."""
    depth: int = 8
    """Layers of the network: 6 n + 2."""
    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9)
    """Fractions to remove, each below 1."""
    count: Literal["parameters", "flops"] = "flops"
    """Quantity of which the sparsities are fractions."""
    norm: Literal["bn_scale", "rms"] = "bn_scale"
    """Makes the score of a channel from the scores of its weights."""
    decays: Literal["all", "scales"] = "all"
    """Whether filters get the decay too, or only scales and biases."""
    multiple_of: int = 1
    """Numbers of kept channels are multiples of this."""
    width: int = 32
    """Channels of the first stage."""
    epochs: int = 30
    """Passes through the training images."""
    batch_size: int = 64
    """Images per optimizer step."""
    learning_rate: float = 0.05
    """Learning rate of SGD with momentum 0.9; falls to a hundredth along a cosine."""
    a_max: float = 1e5
    """Multiplier of the selective decay at the last step. It grows from 0.1."""
    weight_decay: float = 5e-4
    """Strength of the selective decay, before the multiplier."""
    seed: int = 0
    """Seed of the initial weights and the order of the images."""
    export: bool = False
    """Whether to write the shrunk models as programs, and the test images."""
    output: Path = Path("results/shrink")
    """Folder to write to."""


def apply(model: Any, pixels: jax.Array) -> jax.Array:
    return model(pixels)


def trained(config: Config, images: Images, target: swd_jax.Target | None) -> Any:
    return train(
        network(config.depth, config.width, config.seed, images),
        images,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        target=target,
        weight_decay=config.weight_decay,
        a_max=config.a_max,
        seed=config.seed,
    )


def shrunk(
    model: Any, target: swd_jax.Target, test: Images
) -> tuple[Any, dict[str, Any]]:
    """Prune and shrink a trained model, and measure it."""
    structure = target.structure
    assert isinstance(structure, swd_jax.CoupledChannels)
    before = accuracy(model, test)
    params = nnx.state(model, nnx.Param)
    summary = swd_jax.summarize(params, target)
    pruned = nnx.clone(model)
    nnx.update(pruned, swd_jax.prune(params, target))
    # With pruned parameters, it is checked that what goes is zero.
    x = test.pixels[:32]
    small = swd_jax.channels.shrink(
        apply, pruned, structure.groups, nnx.state(pruned, nnx.Param), x
    )
    report = swd_jax.channels.cost_report(apply, pruned, small, x, runs=50)
    outputs = [model(test.pixels[:500]) for model in (pruned, small.params)]
    return small.params, {
        "accuracy_trained": before,
        "accuracy_pruned": accuracy(pruned, test),
        "accuracy_shrunk": accuracy(small.params, test),
        "largest_difference": float(jnp.abs(outputs[0] - outputs[1]).max()),
        "residual": summary.residual,
        **report.as_dict(),
    }


def write_program(model: Any, test: Images, file: Path) -> None:
    """A model as StableHLO with its weights, for batches of any size."""
    [batch] = jax.export.symbolic_shape("batch")
    pixels = jax.ShapeDtypeStruct((batch, *test.pixels.shape[1:]), test.pixels.dtype)
    program = jax.export.export(jax.jit(model), platforms=["cpu", "cuda", "tpu"])
    with whole_files.writing(file) as stream:
        stream.write(program(pixels).serialize())


def main(config: Config) -> None:
    if config.export and importlib.util.find_spec("flatbuffers") is None:
        raise ValueError("--export needs flatbuffers: pip install 'swd-jax[export]'")
    training, test = images_of(config.data, config.train_images, config.test_images)
    example = nnx.eval_shape(
        lambda: network(config.depth, config.width, config.seed, training)
    )
    example.eval()
    groups = swd_jax.channels.channel_groups(apply, example, test.pixels[:32])
    structure = swd_jax.CoupledChannels(
        groups,
        norm=config.norm,
        count=config.count,
        decays=config.decays,
        multiple_of=config.multiple_of,
    )
    config.output.mkdir(parents=True, exist_ok=True)
    with whole_files.alone(config.output):
        compare(config, structure, training, test)


def compare(
    config: Config,
    structure: swd_jax.CoupledChannels,
    training: Images,
    test: Images,
) -> None:
    """Train, prune and shrink for every sparsity; print and write what was found."""
    if config.export:
        with whole_files.writing(config.output / "test.npz") as stream:
            np.savez(stream, pixels=test.pixels, labels=test.labels)
    dense = trained(config, training, None)
    steps = config.epochs * (len(training.labels) // config.batch_size)
    runs = []
    print(f"{'':22}  target  accuracy: trained  pruned  shrunk  FLOPs left  speedup")
    for sparsity in config.sparsities:
        rising = swd_jax.cubic_sparsity(sparsity, begin=0, end=int(0.7 * steps))
        target = swd_jax.Target(rising, structure=structure)
        for name, model in (
            ("SWD", trained(config, training, target)),
            ("pruned at once", dense),
        ):
            small, found = shrunk(model, target, test)
            runs.append({"method": name, "sparsity": sparsity, **found})
            left = found["after/flops"] / found["before/flops"]
            print(
                f"{name:22}  {sparsity:6.1%}  {found['accuracy_trained']:17.1f}  "
                f"{found['accuracy_pruned']:6.1f}  {found['accuracy_shrunk']:6.1f}  "
                f"{left:10.1%}  {found['speedup']:7.2f}"
            )
            if config.export and name == "SWD":
                file = config.output / f"swd-{100 * sparsity:g}.bin"
                write_program(small, test, file)
    options = dataclasses.asdict(config) | {"output": str(config.output)}
    options["data"] = "digits" if config.data is None else "cifar10"
    images = {"train": len(training.labels), "test": len(test.labels)}
    results = {"config": options, "images": images, "runs": runs, **environment()}
    file = config.output / "shrink.json"
    whole_files.write(file, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    except (OSError, ValueError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
