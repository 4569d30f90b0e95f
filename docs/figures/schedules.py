"""docs/images/schedules.png: the ready-made schedules of the target and of a(t).

python docs/figures/schedules.py
"""

import jax.numpy as jnp
import numpy as np
from style import BLUE, GREY, INK, ORANGE, new_figure, plain, save

import swd_jax

STEPS = 1000
steps = jnp.arange(STEPS + 1)
share = np.linspace(0, 1, STEPS + 1)
figure = new_figure(9.5, 3.2)
target, multiplier = figure.subplots(1, 2)

plain(target, "cubic_sparsity(0.9, begin=0, end=0.7 T)", "t / T", "target sparsity s")
sparsity = swd_jax.cubic_sparsity(0.9, begin=0, end=round(0.7 * STEPS))
target.plot(share, sparsity(steps), color=BLUE, lw=2)
target.axvline(0.7, color=GREY, lw=1, ls=(0, (3, 2)))
target.text(0.72, 0.05, "from here on\nthe target is final", fontsize=9.5, color=INK)
target.set(xlim=(0, 1), ylim=(0, 1), yticks=[0, 0.3, 0.6, 0.9])

plain(multiplier, "exponential_growth(0.1, 4e4, T)", "t / T", "multiplier a")
a = swd_jax.exponential_growth(a_min=0.1, a_max=4e4, total_steps=STEPS)
multiplier.plot(share, a(steps), color=ORANGE, lw=2)
multiplier.set(xlim=(0, 1), yscale="log", ylim=(0.05, 1e5))
multiplier.minorticks_off()
save(figure, "schedules")
