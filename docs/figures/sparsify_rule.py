"""docs/images/sparsify_rule.png: the rule of sparsify, and weights under it.

python docs/figures/sparsify_rule.py

Right: 40 weights, of which 30 are pruned in the end, by SGD on a quadratic loss with
noise in its gradients. "comes back" starts near zero and has a minimum far from zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from style import BLUE, GREEN, GREY, INK, ORANGE, new_figure, plain, save

import swd_jax

STEPS, END, WEIGHTS = 600, 420, 40
# The followed weights: start, minimum and curvature of the loss.
FOLLOWED = {
    "stays": ((1.0, 1.2, 1.0), GREEN),
    "comes back": ((0.02, 1.2, 0.03), BLUE),
    "is pruned": ((0.6, 0.0, 0.35), ORANGE),
}


def loss_of_weights() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return start, minimum and curvature: 9 minima are far from zero."""
    keys = jax.random.split(jax.random.key(1), 2)
    start = jax.random.uniform(keys[0], (WEIGHTS,), minval=-0.6, maxval=0.6)
    minimum = jnp.where(jnp.arange(WEIGHTS) < 9, 1.0, 0.0)
    curvature = jax.random.uniform(keys[1], (WEIGHTS,), minval=0.2, maxval=0.6)
    table = jnp.stack([jnp.where(minimum == 1, 1.0, start), minimum, curvature], axis=1)
    followed = jnp.array([numbers for numbers, _ in FOLLOWED.values()])
    return tuple(table.at[jnp.array([0, 1, 20])].set(followed).T[:, None])


def follow() -> dict[str, np.ndarray]:
    """Return values and latent weights after every step."""
    start, minimum, curvature = loss_of_weights()
    tx = optax.chain(optax.sgd(0.03), swd_jax.sparsify(0.75, STEPS, end=END))

    def step(carry, noise):
        params, state = carry
        gradients = curvature * (params - minimum) + 0.1 * noise
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        memory = optax.tree_utils.tree_get(state, "memory")
        return (params, state), {
            "weights": params[0],
            "latents": (params + memory)[0],
        }

    noise = jax.random.normal(jax.random.key(0), (STEPS, *start.shape))
    _, path = jax.lax.scan(step, (start, tx.init(start)), noise)
    return {name: np.asarray(values) for name, values in path.items()}


def draw_threshold(axes: Axes) -> None:
    plain(axes, "The value of a latent weight l", "l / σ", "value / σ")
    latents = np.linspace(-3, 3, 1201)
    above = np.abs(latents) > 1
    hard = np.where(above, latents, 0)
    hard[np.flatnonzero(np.diff(above))] = np.nan  # no line across the jumps
    axes.plot(latents, hard, color=ORANGE, lw=1.8, ls=(0, (4, 2)))
    smooth = np.sign(latents) * np.sqrt(np.maximum(latents**2 - 1, 0))
    axes.plot(latents, smooth, color=BLUE, lw=2)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=range(-3, 4), yticks=range(-3, 4))
    axes.set_aspect("equal")
    axes.text(
        0.9, 2.2, "hard zeros:\na jump at σ", color=ORANGE, fontsize=9.5, ha="right"
    )
    axes.text(1.5, 0.3, "sparsify:\n√(l² − σ²)", color=BLUE, fontsize=9.5)


def draw_weights(axes: Axes) -> None:
    plain(axes, "Three of 40 weights in a training", "step", "")
    path = follow()
    steps = np.arange(1, STEPS + 1)
    is_pruned = path["weights"] == 0
    largest = np.max(np.where(is_pruned, np.abs(path["latents"]), 0), axis=1)
    axes.fill_between(steps, -largest, largest, color=GREY, alpha=0.22, lw=0)
    for i, (name, (_, colour)) in zip((0, 1, 20), FOLLOWED.items(), strict=True):
        latents, weights = path["latents"][:, i], path["weights"][:, i]
        axes.plot(steps, latents, color=colour, lw=1.1, ls=(0, (3, 2)))
        axes.plot(steps, weights, color=colour, lw=2)
        axes.text(
            *(STEPS + 8, weights[-1], name), color=colour, fontsize=9.5, va="center"
        )
    axes.axvline(END, color=INK, lw=1, ls=(0, (3, 2)))
    axes.text(END + 8, -0.42, "the whole target\nfrom here on", color=INK, fontsize=9.5)
    axes.text(
        70,
        -0.4,
        "grey: up to σ, the largest\nmagnitude pruned",
        color=INK,
        fontsize=9.5,
    )
    axes.text(
        8, 1.52, "values (solid) and latent weights (dashed)", color=INK, fontsize=9.5
    )
    axes.set(xlim=(0, STEPS), ylim=(-0.5, 1.6))


def main() -> None:
    figure = new_figure(11, 4)
    threshold, weights = figure.subplots(1, 2, width_ratios=[1, 1.7])
    draw_threshold(threshold)
    draw_weights(weights)
    save(figure, "sparsify_rule")


main()
