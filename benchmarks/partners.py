"""What each form does beside each optimizer: the tables of docs/chain.md.

    python benchmarks/partners.py
    python benchmarks/partners.py --only lion --only sophia

A network of two layers, 288 prunable weights and 256 examples trains for 400 steps,
dense and with the chain in question, which should prune three quarters of its weights.
Learning rates fall to zero along a cosine, except that of SGD. Each row has the loss of
the trained network before and after `prune`, the largest residual of a leaf, and the
warnings of `diagnose`. Writes JSON, unless `--only` leaves rows out.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import tyro
from environment import environment

import swd_jax

RESULTS = Path(__file__).parent / "results" / "partners-cpu.json"

STEPS, SPARSITY, WEIGHT_DECAY = 400, 0.75, 5e-4
A = swd_jax.exponential_growth(a_min=10, a_max=1e6, total_steps=STEPS)
A_SGD = swd_jax.exponential_growth(a_min=1, a_max=4e4, total_steps=STEPS)
KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[2], (256, 8))
Y = jnp.sin(X[:, 0]) + X[:, 1]
PARAMS = {
    "first": {"kernel": jax.random.normal(KEYS[0], (8, 32)), "bias": jnp.zeros(32)},
    "second": {"kernel": jax.random.normal(KEYS[1], (32, 1)), "bias": jnp.zeros(1)},
}

Chain = optax.GradientTransformation
ToParams = Callable[[Any, Any], Any]


def loss(params: Any) -> jax.Array:
    """Return the mean squared error."""
    hidden = jnp.tanh(X @ params["first"]["kernel"] + params["first"]["bias"])
    output = hidden @ params["second"]["kernel"] + params["second"]["bias"]
    return jnp.mean((output[:, 0] - Y) ** 2)


def cosine(rate: float) -> optax.Schedule:
    """Return a learning rate that falls to zero."""
    return optax.cosine_decay_schedule(rate, STEPS)


def train(
    tx: Chain, to_params: ToParams = lambda params, state: params, init: Any = PARAMS
) -> tuple[Any, Any]:
    """Return the parameters that are evaluated, and the state.

    Args:
      tx: the chain.
      to_params: from the trained parameters and the state to those to evaluate.
      init: the parameters before training.
    """
    tx = optax.with_extra_args_support(tx)

    def of_net(params: Any) -> jax.Array:
        is_double = isinstance(params, optax.LookaheadParams)
        return loss(params.fast if is_double else params)

    def has_hessian(node: Any) -> bool:
        return type(node).__name__ == "SophiaState"

    @jax.jit
    def run(params: Any, state: Any) -> tuple[Any, Any]:
        def step(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, state = carry
            value, gradients = jax.value_and_grad(of_net)(params)
            if isinstance(params, optax.LookaheadParams):
                gradients = gradients.fast
            # Line searches pass what they do not know on to the loss.
            nodes = jax.tree.leaves(state, is_leaf=has_hessian)
            hessian = {"obj_fn": of_net} if any(map(has_hessian, nodes)) else {}
            updates, state = tx.update(
                gradients,
                state,
                params,
                value=value,
                grad=gradients,
                value_fn=of_net,
                **hessian,
            )
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, STEPS, step, (params, state))

    params, state = run(init, jax.jit(tx.init)(init))
    return to_params(params, state), state


def swd(a: optax.Schedule = A) -> Chain:
    """Return the form of the paper."""
    return swd_jax.swd(SPARSITY, weight_decay=WEIGHT_DECAY, a=a)


def proximal(rate: float | optax.Schedule) -> Chain:
    """Return a form that goes last."""
    return swd_jax.proximal_swd(
        SPARSITY, weight_decay=WEIGHT_DECAY, a=A, learning_rate=rate
    )


def decoupled(rate: float | optax.Schedule) -> Chain:
    """Return the other form that goes last."""
    return swd_jax.decoupled_swd(
        SPARSITY, weight_decay=WEIGHT_DECAY, a=A, learning_rate=rate
    )


def sparsify(**arguments: Any) -> Chain:
    """Return `sparsify` for the whole run."""
    return swd_jax.sparsify(SPARSITY, STEPS, **arguments)


SGD_RATE = 0.05  # constant: one that falls takes the decay with it
OPTIMIZERS: dict[str, Callable[[], Chain]] = {
    "sgd": lambda: optax.sgd(SGD_RATE),
    "sign_sgd": lambda: optax.sign_sgd(cosine(1e-2)),
    "lion": lambda: optax.lion(cosine(1e-2)),
    "rprop": lambda: optax.rprop(1e-2),
    "adam": lambda: optax.adam(cosine(3e-2)),
    "adadelta": lambda: optax.adadelta(cosine(3.0)),
    "adafactor": lambda: optax.adafactor(
        cosine(3e-2), multiply_by_parameter_scale=False, min_dim_size_to_factor=8
    ),
    "lamb": lambda: optax.lamb(cosine(3e-2)),
    "lars": lambda: optax.lars(cosine(1.0)),
    "muon": lambda: optax.contrib.muon(cosine(3e-2)),
    "sophia": lambda: optax.contrib.sophia(cosine(3e-2)),
    "momo": lambda: optax.contrib.momo(0.1),
    "momo_adam": lambda: optax.contrib.momo_adam(3e-2),
    "polyak_sgd": lambda: optax.polyak_sgd(max_learning_rate=0.1),
    "prodigy": optax.contrib.prodigy,
    "dog": lambda: optax.contrib.dog(1.0),
    "lbfgs": optax.lbfgs,
}


def _swd_for(name: str) -> Chain:
    return swd(A_SGD if name == "sgd" else A)


def _x(params: Any, state: Any) -> Any:
    """Return the parameters that `schedule_free` evaluates."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, "z"))
    [found] = [node for node in nodes if hasattr(node, "z")]
    return optax.contrib.schedule_free_eval_params(found, params)


def _slow(params: Any, state: Any) -> Any:
    del state
    return params.slow


def _frozen(tx: Chain) -> Chain:
    labels = {"first": "trained", "second": "frozen"}
    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


BOTH = optax.LookaheadParams.init_synced(PARAMS)
# A second layer that begins at zero, as the second factor of LoRA does.
ZERO_START = {**PARAMS, "second": {**PARAMS["second"], "kernel": jnp.zeros((32, 1))}}
adam = OPTIMIZERS["adam"]
free = lambda tx: optax.contrib.schedule_free(tx, 3e-2)  # noqa: E731
CHAINS: dict[str, tuple[Any, ...]] = {
    "chain(adam, swd)": (lambda: optax.chain(adam(), swd()),),
    "chain(adam, proximal_swd)": (lambda: optax.chain(adam(), proximal(cosine(3e-2))),),
    "chain(adam, decoupled_swd)": (
        lambda: optax.chain(adam(), decoupled(cosine(3e-2))),
    ),
    "chain(proximal_swd, adam)": (lambda: optax.chain(proximal(cosine(3e-2)), adam()),),
    "chain(sparsify, adam)": (lambda: optax.chain(sparsify(), adam()),),
    "chain(swd, swd, adam)": (lambda: optax.chain(swd(), swd(), adam()),),
    "chain(swd, adam, sparsify)": (lambda: optax.chain(swd(), adam(), sparsify()),),
    "chain(adam, sparsify, sparsify)": (
        lambda: optax.chain(adam(), sparsify(), sparsify()),
    ),
    "chain(adam, proximal_swd, sparsify)": (
        lambda: optax.chain(adam(), proximal(cosine(3e-2)), sparsify()),
    ),
    "chain(swd, clip_by_global_norm, adam)": (
        lambda: optax.chain(swd(), optax.clip_by_global_norm(1.0), adam()),
    ),
    "chain(swd, clip_by_global_norm, sgd)": (
        lambda: optax.chain(swd(), optax.clip_by_global_norm(1.0), OPTIMIZERS["sgd"]()),
    ),
    "schedule_free(chain(swd, adam))": (
        lambda: free(optax.chain(swd(), optax.adam(3e-2, b1=0.0))),
        _x,
    ),
    "chain(swd, schedule_free(adam))": (
        lambda: optax.chain(swd(), free(optax.adam(3e-2, b1=0.0))),
        _x,
    ),
    "chain(schedule_free(adam), sparsify)": (
        lambda: optax.chain(free(optax.adam(3e-2, b1=0.0)), sparsify()),
        _x,
    ),
    "chain(schedule_free(adam), proximal_swd)": (
        lambda: optax.chain(free(optax.adam(3e-2, b1=0.0)), proximal(3e-2)),
        _x,
    ),
    "schedule_free(adam)": (lambda: free(optax.adam(3e-2, b1=0.0)), _x),
    "schedule_free(chain(adam, sparsify))": (
        lambda: free(optax.chain(optax.adam(3e-2, b1=0.0), sparsify())),
        _x,
    ),
    "lookahead(adam)": (lambda: optax.lookahead(adam(), 5, 0.5), _slow, BOTH),
    "lookahead(chain(swd, adam))": (
        lambda: optax.lookahead(optax.chain(swd(), adam()), 5, 0.5),
        _slow,
        BOTH,
    ),
    "lookahead(chain(adam, sparsify))": (
        lambda: optax.lookahead(optax.chain(adam(), sparsify()), 5, 0.5),
        _slow,
        BOTH,
    ),
    "MultiSteps(chain(swd, adam), 4), a and total_steps of all batches": (
        lambda: optax.MultiSteps(optax.chain(swd(), adam()), 4),
    ),
    "MultiSteps(chain(adam, sparsify), 4), total_steps of all batches": (
        lambda: optax.MultiSteps(optax.chain(adam(), sparsify()), 4),
    ),
    "chain(swd, MultiSteps(adam, 4))": (
        lambda: optax.chain(
            swd(), optax.MultiSteps(adam(), 4).gradient_transformation()
        ),
    ),
    "chain(MultiSteps(adam, 4), sparsify)": (
        lambda: optax.chain(
            optax.MultiSteps(adam(), 4).gradient_transformation(), sparsify()
        ),
    ),
    "chain(swd, partition(adam, set_to_zero))": (
        lambda: optax.chain(swd(), _frozen(adam())),
    ),
    "partition(chain(swd, adam), set_to_zero)": (
        lambda: _frozen(optax.chain(swd(), adam())),
    ),
    "chain(swd, adam), a leaf that begins at zero, small learning rate": (
        lambda: optax.chain(swd(), optax.adam(3e-3)),
        lambda params, state: params,
        ZERO_START,
    ),
    "chain(swd, adam), a leaf that begins at zero": (
        lambda: optax.chain(swd(), adam()),
        lambda params, state: params,
        ZERO_START,
    ),
    "chain(adam, sparsify), a leaf that begins at zero": (
        lambda: optax.chain(adam(), sparsify()),
        lambda params, state: params,
        ZERO_START,
    ),
    "inject_hyperparams(chain(swd, adam))": (
        lambda: optax.inject_hyperparams(
            lambda learning_rate: optax.chain(swd(), optax.adam(learning_rate))
        )(learning_rate=cosine(3e-2)),
    ),
}


# What the numbers show, in words.
EFFECTS = {
    "chain(adam, swd)": "diverges",
    "chain(proximal_swd, adam)": "harms",
    "chain(sparsify, adam)": "harms",
    "chain(swd, swd, adam)": "works, with twice the penalty",
    "chain(swd, adam, sparsify)": "works; `sparsify` alone does better",
    "chain(adam, sparsify, sparsify)": "works as one of them",
    "chain(adam, proximal_swd, sparsify)": "works; `sparsify` alone does better",
    "chain(swd, clip_by_global_norm, adam)": "works, since Adam normalises",
    "chain(swd, clip_by_global_norm, sgd)": (
        "works, but the gradients of all weights are clipped; clipping leaves "
        "no state that tells"
    ),
    "schedule_free(adam)": "dense",
    "schedule_free(chain(swd, adam))": "works",
    "chain(swd, schedule_free(adam))": "works",
    "schedule_free(chain(adam, sparsify))": "the average is not sparse",
    "chain(schedule_free(adam), sparsify)": "harms",
    "chain(schedule_free(adam), proximal_swd)": "harms",
    "lookahead(adam)": "dense",
    "lookahead(chain(swd, adam))": "harms",
    "lookahead(chain(adam, sparsify))": "harms, and the average is not sparse",
    "MultiSteps(chain(swd, adam), 4), a and total_steps of all batches": (
        "does too little, 100 steps of 400: count optimizer steps"
    ),
    "MultiSteps(chain(adam, sparsify), 4), total_steps of all batches": (
        "does too little, 100 steps of 400: count optimizer steps"
    ),
    "chain(swd, MultiSteps(adam, 4))": "prunes, after a quarter of the steps",
    "chain(MultiSteps(adam, 4), sparsify)": "works",
    "inject_hyperparams(chain(swd, adam))": "works",
    "chain(swd, partition(adam, set_to_zero))": "prunes frozen weights",
    "partition(chain(swd, adam), set_to_zero)": "prunes frozen weights",
    "chain(swd, adam), a leaf that begins at zero": "works: the leaf grows in time",
    "chain(swd, adam), a leaf that begins at zero, small learning rate": (
        "empties the leaf; `diagnose` warns before the first step"
    ),
    "chain(adam, sparsify), a leaf that begins at zero": "works",
    "chain(adam, proximal_swd)": "prunes, at a cost",
    "chain(adam, decoupled_swd)": "prunes, at a cost",
}


def rows() -> Iterator[tuple[dict[str, str], tuple[Any, ...]]]:
    """Yield for each row what it is, and the arguments of `measure`."""
    for name, arguments in CHAINS.items():
        yield {"chain": name, "effect": EFFECTS[name]}, arguments
    for name, make in OPTIMIZERS.items():
        places: dict[str, Callable[[], Chain]] = {
            "dense": make,
            "swd before it": lambda make=make, name=name: optax.chain(
                _swd_for(name), make()
            ),
            "proximal_swd after it": lambda make=make: optax.chain(
                make(), proximal(cosine(3e-2))
            ),
            "sparsify after it": lambda make=make: optax.chain(make(), sparsify()),
            "sparsify around it": lambda make=make: sparsify(optimizer=make()),
        }
        for place, make_chain in places.items():
            yield {"optimizer": name, "place": place}, (make_chain,)


def measure(make: Callable[[], Chain], *arguments: Any) -> dict[str, Any]:
    """Return losses before and after pruning, the worst residual, and warnings."""
    params, state = train(make(), *arguments)
    worst = swd_jax.summarize(params, SPARSITY).worst_leaf
    numbers = {
        "loss": loss(params),
        "loss_pruned": loss(swd_jax.prune(params, SPARSITY)),
        "residual": math.nan if worst is None else worst.residual,
    }
    try:
        warnings = swd_jax.diagnose(params, SPARSITY, state)
    except ValueError:  # a chain without one of ours
        warnings = ()
    # JSON has no NaN.
    finite = {
        name: float(f"{float(number):.4g}") if math.isfinite(number) else None
        for name, number in numbers.items()
    }
    return {**finite, "warnings": list(warnings)}


def main(only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()) -> None:
    """Measure what each form does beside each optimizer, print and write it.

    Args:
      only: parts of the names of the rows to measure. They are not written.
    """
    measured: list[dict[str, Any]] = []
    for row, arguments in rows():
        if not only or any(name in " ".join(row.values()) for name in only):
            measured.append({**row, **measure(*arguments)})
            print(json.dumps(measured[-1]), flush=True)
    if not only:
        results = {"environment": environment(), "rows": measured}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        print(f"Written: {RESULTS}")


if __name__ == "__main__":
    tyro.cli(main)
