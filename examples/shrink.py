"""Train a residual network whose channels go, and cut them out: smaller and faster.

On scikit-learn's handwritten digits, ResNet-8 is trained with selective weight decay on
coupled channels, pruned, and shrunk to a dense network that computes the same:

    python examples/shrink.py
    python examples/shrink.py --sparsities 0.5 0.9 --count parameters
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from digits_training import TRAINING_IMAGES, Images, load_images
from flax import nnx

import swd_jax
from models.resnet import cifar_resnet


@dataclasses.dataclass(frozen=True)
class Config:
    """Prune channels while training, and measure what is left.

    Every sparsity is trained from the same initial weights, with and without the
    selective decay. Prints a table and writes all the numbers.
    """

    sparsities: tuple[float, ...] = (0.5, 0.75, 0.9)
    """Fractions that shall disappear, each below 1."""
    count: Literal["parameters", "flops"] = "flops"
    """Of what they are fractions."""
    score: Literal["bn_scale", "rms"] = "bn_scale"
    """What channels are ranked by."""
    decays: Literal["all", "scales"] = "all"
    """Whether filters get the decay too, or only scales and biases."""
    width: int = 32
    """Channels of the first stage."""
    epochs: int = 30
    """How often training goes through the images."""
    batch_size: int = 64
    """Images per optimizer step."""
    learning_rate: float = 0.05
    """Of SGD with momentum 0.9. It falls to a hundredth along a cosine."""
    a_max: float = 1e5
    """Multiplier of the selective decay at the last step. It grows from 0.1."""
    weight_decay: float = 5e-4
    """Strength of the selective decay, before the multiplier."""
    seed: int = 0
    """Of the initial weights and the order of the images."""
    output: Path = Path("results/shrink")
    """Folder to write shrink.json to."""


def network(config: Config) -> Any:
    return cifar_resnet(8, width=config.width, channels=1, rngs=nnx.Rngs(config.seed))


def apply(model: Any, pixels: jax.Array) -> jax.Array:
    return model(pixels)


def accuracy(model: Any, images: Images) -> float:
    model.eval()
    return 100 * float((model(images.pixels).argmax(1) == images.labels).mean())


def train(config: Config, images: Images, target: swd_jax.Target | None) -> Any:
    """The trained model, and not yet pruned."""
    graph, params, rest = nnx.split(network(config), nnx.Param, ...)
    steps_per_epoch = TRAINING_IMAGES // config.batch_size
    steps = config.epochs * steps_per_epoch
    rate = optax.cosine_decay_schedule(config.learning_rate, steps, alpha=0.01)
    tx = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9, nesterov=True)
    )
    if target is not None:
        a = swd_jax.exponential_growth(0.1, config.a_max, total_steps=steps)
        selective = swd_jax.proximal_swd(
            target, weight_decay=config.weight_decay, a=a, learning_rate=rate
        )
        tx = optax.chain(tx, selective)

    def loss(params: Any, rest: Any, batch: Images) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(batch.pixels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), nnx.split(model, nnx.Param, ...)[2]

    @partial(jax.jit, donate_argnums=0)
    def epoch(carry: Any, batches: Images) -> Any:
        def step(carry: Any, batch: Images) -> tuple[Any, None]:
            params, rest, state = carry
            gradients, rest = jax.grad(loss, has_aux=True)(params, rest, batch)
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), rest, state), None

        return jax.lax.scan(step, carry, batches)[0]

    random = np.random.default_rng(config.seed)
    shape = steps_per_epoch, config.batch_size
    carry = params, rest, tx.init(params)
    for _ in range(config.epochs):
        order = random.permutation(TRAINING_IMAGES)[: np.prod(shape)].reshape(shape)
        carry = epoch(carry, Images(images.pixels[order], images.labels[order]))
    return nnx.merge(graph, *carry[:2])


def shrunk(model: Any, target: swd_jax.Target, test: Images) -> dict[str, float]:
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
    small = swd_jax.shrink(
        apply, pruned, structure.groups, nnx.state(pruned, nnx.Param), x
    )
    report = swd_jax.cost_report(apply, pruned, small, x, runs=50)
    outputs = [model(test.pixels) for model in (pruned, small.params)]
    return {
        "accuracy_trained": before,
        "accuracy_pruned": accuracy(pruned, test),
        "accuracy_shrunk": accuracy(small.params, test),
        "largest_difference": float(jnp.abs(outputs[0] - outputs[1]).max()),
        "residual": summary.residual,
        **report.as_dict(),
    }


def main(config: Config) -> None:
    training, test = load_images()
    example = nnx.eval_shape(lambda: network(config))
    example.eval()
    groups = swd_jax.channel_groups(apply, example, test.pixels[:32])
    structure = swd_jax.CoupledChannels(
        groups, score=config.score, count=config.count, decays=config.decays
    )
    dense = train(config, training, None)
    steps = config.epochs * (TRAINING_IMAGES // config.batch_size)
    runs = []
    print(f"{'':22}  target  accuracy: trained  pruned  shrunk  FLOPs left  speedup")
    for sparsity in config.sparsities:
        rising = swd_jax.cubic_sparsity(sparsity, begin=0, end=int(0.7 * steps))
        target = swd_jax.Target(rising, structure=structure)
        for name, model in (
            ("SWD", train(config, training, target)),
            ("pruned at once", dense),
        ):
            found = shrunk(model, target, test)
            runs.append({"method": name, "sparsity": sparsity, **found})
            left = found["after/flops"] / found["before/flops"]
            print(
                f"{name:22}  {sparsity:6.1%}  {found['accuracy_trained']:17.1f}  "
                f"{found['accuracy_pruned']:6.1f}  {found['accuracy_shrunk']:6.1f}  "
                f"{left:10.1%}  {found['speedup']:7.2f}"
            )
    config.output.mkdir(parents=True, exist_ok=True)
    results = {
        "config": dataclasses.asdict(config) | {"output": str(config.output)},
        "device": jax.devices()[0].device_kind,
        "runs": runs,
    }
    file = config.output / "shrink.json"
    file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
