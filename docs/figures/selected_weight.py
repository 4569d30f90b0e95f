"""docs/images/selected_weight.png: one selected weight under each form, simulated.

python docs/figures/selected_weight.py

The loss pulls the weight towards 0.1, with noise; the other weight is so large that it
is never selected. Everything else is as in training: a(t) grows from 0.1 to 1e6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from style import BLUE, GREEN, INK, ORANGE, PURPLE, new_figure, plain, save

import swd_jax

STEPS, MOMENTUM, WEIGHT_DECAY = 2000, 0.9, 5e-4
A = swd_jax.exponential_growth(a_min=0.1, a_max=1e6, total_steps=STEPS)
CURVATURE, NOISE = 0.01, 1e-3
WINDOW = 20  # steps, of which the root mean square is drawn


def follow(tx: optax.GradientTransformation) -> np.ndarray:
    """Return |w| of the selected weight after every step."""

    def step(carry, noise):
        params, state = carry
        pull = CURVATURE * (params["kernel"][0, 0] - 0.1) + NOISE * noise
        gradients = {"kernel": jnp.stack([pull, jnp.zeros(())])[None]}
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.abs(params["kernel"][0, 0])

    params = {"kernel": jnp.array([[0.1, 1e30]])}
    noise = jax.random.normal(jax.random.key(0), (STEPS,))
    _, path = jax.lax.scan(step, (params, tx.init(params)), noise)
    return np.asarray(path)


def before(optimizer: optax.GradientTransformation, a: optax.Schedule = A):
    return optax.chain(swd_jax.swd(0.5, weight_decay=WEIGHT_DECAY, a=a), optimizer)


def after(form, optimizer: optax.GradientTransformation, learning_rate: float):
    return optax.chain(
        optimizer,
        form(0.5, weight_decay=WEIGHT_DECAY, a=A, learning_rate=learning_rate),
    )


def draw(axes: Axes, tx: optax.GradientTransformation, colour: str, style="-") -> None:
    path = follow(tx)
    path = np.minimum(path.astype(np.float64), 1e6)
    rms = np.sqrt(np.mean(path.reshape(-1, WINDOW) ** 2, axis=1))
    axes.plot(WINDOW * (np.arange(len(rms)) + 0.5), rms, style, color=colour, lw=1.8)


def name(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    side = "left" if x > STEPS else "right"
    axes.text(x, y, text, color=colour, fontsize=9.5, ha=side, va="center")


def main() -> None:
    figure = new_figure(11, 4.1)
    with_sgd, with_adam = figure.subplots(1, 2, sharey=True, width_ratios=[1.27, 1])
    plain(with_sgd, "SGD, lr 0.1, momentum 0.9", "step", "|w| of one selected weight")
    plain(with_adam, "Adam, lr 0.001", "step", "")
    for axes in (with_sgd, with_adam):
        axes.set(yscale="log", ylim=(1e-6, 30), xticks=range(0, STEPS + 1, 500))
        axes.minorticks_off()
    with_sgd.set(xlim=(0, 1.27 * STEPS))
    with_adam.set(xlim=(0, STEPS))

    rate, sgd = 0.1, optax.sgd(0.1, momentum=MOMENTUM)
    # This weight stays selected, and diverges only where a constant decay does.
    limit = 2 * (1 + MOMENTUM) / (rate * WEIGHT_DECAY)
    crossed = STEPS * np.log(limit / 0.1) / np.log(1e6 / 0.1)
    with_sgd.axvline(crossed, color=INK, lw=1, ls=(0, (3, 2)))
    with_sgd.annotate(
        "lr · μ · a = 2 (1 + momentum)",
        (crossed, 1e-1),
        (crossed - 40, 6),
        ha="right",
        fontsize=9.5,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.7},
    )
    bounded = swd_jax.bound_multiplier(
        A, learning_rate=rate, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
    )
    draw(with_sgd, before(sgd), BLUE)
    draw(with_sgd, before(sgd, bounded), PURPLE, ":")
    draw(with_sgd, after(swd_jax.decoupled_swd, sgd, rate), ORANGE)
    draw(with_sgd, after(swd_jax.proximal_swd, sgd, rate), GREEN)

    name(with_sgd, 600, 1e-2, "swd before", BLUE)
    name(with_sgd, STEPS + 30, 10, "swd before\n(diverges)", BLUE)
    name(with_sgd, STEPS + 30, 1.2e-3, "decoupled_swd\nafter", ORANGE)
    name(with_sgd, STEPS + 30, 1.2e-2, "swd before, with\nbound_multiplier", PURPLE)
    name(with_sgd, STEPS + 30, 2e-5, "proximal_swd\nafter", GREEN)

    rate, adam = 1e-3, optax.adam(1e-3)
    middle = optax.chain(
        optax.scale_by_adam(),
        swd_jax.swd(0.5, weight_decay=WEIGHT_DECAY, a=A),
        optax.scale_by_learning_rate(rate),
    )
    draw(with_adam, before(adam), BLUE)
    draw(with_adam, after(swd_jax.decoupled_swd, adam, rate), ORANGE)
    draw(with_adam, after(swd_jax.proximal_swd, adam, rate), GREEN)
    draw(with_adam, middle, PURPLE, ":")
    name(with_adam, 900, 1.5e-3, "swd before", BLUE)
    name(with_adam, 1990, 1.1, "swd in the middle (dotted)", PURPLE)
    name(with_adam, 1990, 0.5, "decoupled_swd after", ORANGE)
    name(with_adam, 1990, 0.22, "proximal_swd after", GREEN)
    save(figure, "selected_weight")


main()
