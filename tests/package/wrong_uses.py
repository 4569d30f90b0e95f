"""Wrong uses of the library, each with the message that it gives.

The table of docs/troubleshooting.md is made of this list by `docs/fill_tables.py`, and
tests/package/test_wrong_uses.py checks that every message is given.
"""

from typing import NamedTuple


class WrongUse(NamedTuple):
    code: str
    """What a user writes, with the names of `test_wrong_uses.py`."""
    message: str
    """The message: its first line, or all of it up to "..."."""
    error: type[Exception] = ValueError
    """The exception's type; UserWarning for a warning."""


SPARSITY_RANGE = "sparsity, the fraction of weights to prune, must be in [0, 1), got "
NO_SPARSITY = "sparsity must be a number in [0, 1) or a schedule of the step, got "
OWN_STATE = (
    " needs the state that its own init returns. Call init again; or, for a "
    "transformation in a chain, call the update of the chain"
)
OTHER_TARGET = (
    "It was made for another target, or for other parameters: call init again, with "
    "these parameters, or give the target that it was made with"
)
NO_AXIS = (
    "axis_name is 'data', but there is no such axis here: it names mesh axes inside "
    "shard_map or pmap. Under jit alone leave it out: the counts are of whole arrays "
    "there"
)
TO_UPDATE = (
    "give it as an extra argument, update(updates, state, params, gradient=...). (The "
    "apply_gradients of flax's TrainState passes none: call state.tx.update instead)"
)
NO_PREDICATE = "prunable must be a predicate (path, leaf) -> bool, and "
NO_GROUPS = "groups must be what channel_groups(...) returns, got a dict of 4 arrays"

WRONG_USES: dict[str, list[WrongUse]] = {
    "The target": [
        WrongUse("Target(90)", SPARSITY_RANGE + "90. Is it 0.9?"),
        WrongUse("Target(1.0)", SPARSITY_RANGE + "1.0"),
        WrongUse("Target(-0.1)", SPARSITY_RANGE + "-0.1"),
        WrongUse('Target("0.9")', NO_SPARSITY + "'0.9', which is a string: give 0.9"),
        WrongUse('Target(float("nan"))', "sparsity must be finite, got nan"),
        WrongUse("Target(None)", NO_SPARSITY + "None"),
        WrongUse("Target([0.5, 0.9])", NO_SPARSITY + "[0.5, 0.9]"),
        WrongUse("Target(params)", NO_SPARSITY + "a dict of 4 arrays"),
        WrongUse(
            "Target(optax.linear_schedule(0, 90, 100))",
            SPARSITY_RANGE + "a schedule that is 1.8 at step 2. Is it 0.9?",
        ),
        WrongUse(
            "Target(optax.linear_schedule(0.9, 0.0, 100))",
            "The sparsity's schedule falls from 0.9 to 0.891 by step 1, and settles on "
            "0: weights that were pruned come back, and prune uses the final value.",
            UserWarning,
        ),
        WrongUse(
            "Target(lambda step, epoch: 0.9)",
            "sparsity must be a number or a function of the optimizer step alone, "
            "lambda step: ..., and a lambda does not take one argument: missing a "
            "required argument: 'epoch'",
        ),
        WrongUse(
            'Target(0.9, criterion="l1")',
            "criterion must be 'magnitude', 'normalized_magnitude', "
            "'rms_normalized_magnitude', 'lamp', 'saliency', 'movement', 'fisher', "
            "another one of swd_jax.criteria, or a function of the weights, got 'l1'",
        ),
        WrongUse(
            "Target(0.9, criterion=criteria.random_scores)",
            "criterion is the function random_scores, and must be what it returns: "
            "swd_jax.criteria.random_scores(...)",
        ),
        WrongUse(
            "Target(0.9, criterion=lambda: 1)",
            "criterion '<lambda>' must be a function of the weights, such as lambda "
            "weights: ..., or of weights and extra arguments by name, such as lambda "
            "weights, gradient: ...",
        ),
        WrongUse(
            "prune(params, Target(0.5, criterion=lambda weights: 1.0))",
            "criterion '<lambda>' must give scores in the shape of the weights, "
            "(4, 8), and gave 1.0",
        ),
        WrongUse(
            'Target(0.9, scope="layer")',
            "scope must be 'global', 'local', 'erk' or a mapping from patterns of "
            "paths to sparsities, such as {'attention': 0.5, 'mlp': 0.9}, got 'layer'",
        ),
        WrongUse(
            'Target(0.9, scope={"dense": 90})',
            "scope['dense'], the fraction of weights to prune, must be in [0, 1), got "
            "90. Is it 0.9?",
        ),
        WrongUse(
            'Target(0.9, scope={"dense(": 0.5})',
            "scope has 'dense(', which is not a regular expression: missing ), "
            "unterminated subpattern at position 5",
        ),
        WrongUse(
            'prune(params, Target(0.9, scope={"conv": 0.5}))',
            "scope has the pattern 'conv', which matches none of the prunable leaves. "
            "These are:",
        ),
        WrongUse(
            'prune(params, Target(0.9, scope={"kernel": 0.5, "head": 0.9}))',
            "scope has the pattern 'head', which matches only leaves that earlier "
            "patterns have taken. Put it before them. It matches:",
        ),
        WrongUse(
            "Target(0.9, structure=Block)",
            "structure must be Unstructured(), Block(...), NM(...), Channel(...), "
            "CoupledChannels(...) or your own, with the methods scores, sizes and "
            "expand, got the class Block",
        ),
        WrongUse(
            'Target(0.9, prunable=["kernel"])',
            "prunable must be a regular expression on the path ('kernel|embedding'), a "
            "predicate (path, leaf) -> bool or a tree of bools, got ['kernel']",
        ),
        WrongUse(
            'Target(0.9, prunable="conv(")',
            "prunable='conv(' is not a regular expression: missing ), unterminated "
            "subpattern at position 4",
        ),
        WrongUse(
            "Target(0.9, prunable=lambda path: True)",
            NO_PREDICATE + "a lambda does not take two arguments: too many positional "
            "arguments",
        ),
        WrongUse(
            "prune(params, Target(0.9, prunable=lambda path, leaf: leaf > 0))",
            NO_PREDICATE + "answered an array of shape (8,) and dtype bool for "
            "'dense/bias'",
        ),
        WrongUse(
            'prune(params, Target(0.9, prunable="conv"))',
            "prunable='conv' matches none of the parameters. Their paths are:",
        ),
        WrongUse(
            'prune(params, Target(0.9, prunable={"dense": True}))',
            "prunable has no bool for the parameter 'head/bias'. Give it the structure "
            "of the parameters, or of their upper levels.",
        ),
        WrongUse(
            'prune({"bias": jnp.ones(3)}, 0.5)',
            "prunable=is_weight (two or more dimensions, no bias, no scale) matches "
            "none of the parameters. Their paths are:",
        ),
        WrongUse(
            'prune({"kernel": jnp.ones((4, 4), int)}, 0.5)',
            "prunable matches 'kernel', which holds int32 numbers, and no "
            "floating-point weights. It matches:",
        ),
        WrongUse(
            "Target(0.9, min_kept=1.5)",
            "min_kept must be a number of weights, 0 or more, or a fraction of a leaf "
            "below 1, got 1.5",
        ),
        WrongUse(
            'is_weight(params["head"]["kernel"], "head/kernel")',
            "path must be a string, got an array of shape (8, 2) and dtype float32. It "
            "comes first, (path, leaf)",
        ),
    ],
    "Parameters, several targets, and the steps of schedules": [
        WrongUse(
            "prune(0.9, params)",
            "params must be a tree of arrays, and has none: got 0.9. The parameters "
            "come first, (params, target)",
        ),
        WrongUse(
            "prune(train_state, 0.9)",
            "params is a TrainState with an optimizer's state in it. Give the "
            "parameters alone: state.params",
        ),
        WrongUse(
            "prune(adam_state, 0.9)",
            "params has at '0' the state of an optimizer, ScaleByAdamState. Give the "
            "parameters alone, such as state.params of a TrainState",
        ),
        WrongUse(
            "prune(params, [0.5, 0.9])",
            "target must be a Target, a sparsity, or a sequence of Target, got a "
            "sequence with 0.5 in it. Give each its leaves: [Target(0.5, "
            "prunable='attention'), Target(0.9, prunable='mlp')]",
        ),
        WrongUse(
            'prune(params, [Target(0.5), Target(0.9, prunable="head")])',
            "two targets prune 'head/kernel': Target(0.5) and Target(0.9, "
            "prunable='head'). Give each its own leaves, with prunable=...",
        ),
        WrongUse(
            "prune(params, sparsify(0.9, 100))", NO_SPARSITY + "an optax transformation"
        ),
        WrongUse(
            "prune(params, optax.cosine_decay_schedule(0.9, 10**12))",
            "sparsity is a schedule that never settles on a final value. Give the step "
            "at which sparsity is to be evaluated, as step=...",
        ),
        WrongUse(
            "prune(params, cubic_sparsity(0.9, 0, 100), step=-1)",
            "step must be a whole number of at least 0, got -1",
        ),
        WrongUse(
            'prune(params, Target(0.5, criterion="saliency"))',
            "criterion swd_jax.criteria.saliency needs gradient, a tree like the "
            "parameters: give extra_args={'gradient': ...}",
        ),
        WrongUse(
            'prune(params, 0.5, extra_args={"gradient": gradients})',
            "extra_args has 'gradient', which the criterion does not read: it reads "
            "the weights only",
        ),
        WrongUse(
            'scores(params, Target(0.5, criterion="saliency"), extra_args=[gradients])',
            "extra_args must map names to trees like the parameters, such as "
            "{'gradient': gradients}, got a list of 4 arrays",
        ),
        WrongUse('prune_mask(params, 0.5, axis_name="data")', NO_AXIS),
        WrongUse(
            "thresholds(params, 0.9, axis_name=3)",
            "axis_name must be the name of a mesh axis, or a tuple of names, got 3",
        ),
        WrongUse(
            "jax.jit(lambda params: summarize(params, 0.9))(params)",
            "params are traced, and a report needs their values: call summarize "
            "outside jit, or log the state of swd instead",
        ),
        WrongUse(
            "diagnose(params, 0.9, adam_state)",
            "state holds no state of swd, of sparsify or of another transformation of "
            "swd_jax: give the optimizer state of a chain with one of them in it",
        ),
        WrongUse(
            'diagnose(params, Target(0.9, scope="local"), sparsify_state)',
            "state has thresholds of shape (), and the target has (2,) for these "
            "parameters. " + OTHER_TARGET,
        ),
        WrongUse(
            "diagnose(params, 0.9, sparsify_state, total_steps=0)",
            "total_steps must be a whole number of at least 1, got 0",
        ),
    ],
    "Transformations": [
        WrongUse(
            "swd(0.9)",
            "swd() missing 2 required keyword-only arguments: 'weight_decay' and 'a'",
            TypeError,
        ),
        WrongUse(
            "swd(0.9, weight_decay=-1e-4, a=1.0)",
            "weight_decay must be at least 0, got -0.0001",
        ),
        WrongUse(
            "swd(0.9, weight_decay=1e-4, a=(0.1, 4e4))",
            "a must be a number or a schedule of the step, got (0.1, 40000.0)",
        ),
        WrongUse(
            "swd(0.9, weight_decay=1e-4, a=optax.linear_schedule(1, -1, 10))",
            "a must be at least 0, got a schedule that is -0.2 at step 6",
        ),
        WrongUse(
            "swd(0.9, weight_decay=1e-4, a=1.0, update_every=0)",
            "update_every must be a whole number of at least 1, got 0",
        ),
        WrongUse(
            "swd(0.9, weight_decay=1e-4, a=1.0, tolerance=1)",
            "tolerance must be a number in [0, 1), got 1",
        ),
        WrongUse(
            "swd(params, weight_decay=1e-4, a=1.0)",
            "sparsity must be a number, a schedule or a Target, got a dict of 4 "
            "arrays, as parameters are",
        ),
        WrongUse(
            "decoupled_swd(0.9, weight_decay=1e-4, a=1.0, learning_rate=optax.sgd(1))",
            "learning_rate must be a number or a schedule of the step, got an optax "
            "transformation",
        ),
        WrongUse(
            "proximal_swd(0.9, weight_decay=1e-4, a=1.0, learning_rate=-0.1)",
            "learning_rate must be at least 0, got -0.1",
        ),
        WrongUse(
            "tx = swd(0.9, weight_decay=1e-4, a=1.0)\n"
            "tx.update(gradients, tx.init(params))",
            "params is None, but selective weight decay needs the weights: call "
            "update(updates, state, params)",
        ),
        WrongUse(
            "tx = swd(0.9, weight_decay=1e-4, a=1.0)\n"
            'tx.update(gradients["dense"], tx.init(params), params)',
            "updates must have the structure of the parameters, but there is no array "
            "at 'dense/bias'. The parameters' paths are:",
        ),
        WrongUse(
            "tx = swd(0.9, weight_decay=1e-4, a=1.0)\n"
            "tx.update(gradients, adam_state, params)",
            "state is a tuple, and selective weight decay" + OWN_STATE,
        ),
        WrongUse(
            "tx = swd(0.9, weight_decay=1e-4, a=1.0)\ntx.init(train_state)",
            "params is a TrainState with an optimizer's state in it. Give the "
            "parameters alone: state.params",
        ),
        WrongUse(
            'tx = swd(0.9, weight_decay=1e-4, a=1.0, axis_name="data")\n'
            "tx.update(gradients, tx.init(params), params)",
            NO_AXIS,
        ),
        WrongUse(
            'target = Target(0.9, criterion="saliency")\n'
            "tx = decoupled_swd(target, weight_decay=1e-4, a=1.0, learning_rate=0.1)\n"
            "tx.update(gradients, tx.init(params), params)",
            "criterion swd_jax.criteria.saliency needs gradient, a tree like the "
            "parameters: " + TO_UPDATE,
        ),
        WrongUse(
            'tx = sparsify(Target(0.9, criterion="movement"), 100)\n'
            "tx.update(gradients, tx.init(params), params)",
            "criterion swd_jax.criteria.movement accumulates gradients: " + TO_UPDATE,
        ),
        WrongUse(
            "sparsify(0.9)",
            "sparsify() missing 1 required positional argument: 'total_steps'",
            TypeError,
        ),
        WrongUse(
            "sparsify(0.9, 99.5)",
            "total_steps must be a whole number of at least 1, got 99.5",
        ),
        WrongUse(
            "sparsify(0.9, optax.adam(0.1))",
            "total_steps must be a whole number of at least 1, got an optax "
            "transformation",
        ),
        WrongUse(
            "sparsify(0.9, 100, begin=100)",
            "begin must be less than total_steps, 100, got 100",
        ),
        WrongUse(
            "sparsify(0.9, 100, begin=50, end=50)",
            "end must be a step after begin, 50, got 50",
        ),
        WrongUse(
            "sparsify(0.9, 100, end=101)",
            "end must be at most total_steps, 100, got 101: the run would be over "
            "before the target is reached",
        ),
        WrongUse(
            "sparsify(cubic_sparsity(0.9, 0, 50), 100, end=70)",
            "begin is 0 and end 70, and the sparsity is a schedule, which says itself "
            "when it rises: leave them out, or give sparsify a number, got "
            "cubic_sparsity(final=0.9, begin=0, end=50)",
        ),
        WrongUse(
            "sparsify(lambda step: jnp.where(step < 100, 0.0, 0.9), 200)",
            "The sparsity's schedule rises by 0.9 in one step, that to 100: the "
            "network has no time to make up for what is pruned. Give sparsify a "
            "number, which rises along a cubic, or a schedule that rises over many "
            "steps.",
            UserWarning,
        ),
        WrongUse(
            'sparsify(0.9, 100, memory="bf16")',
            "memory must be a dtype, such as 'bfloat16', got 'bf16'",
        ),
        WrongUse(
            "sparsify(0.9, 100, optimizer=optax.adam)",
            "optimizer must be a transformation, such as optax.adam(1e-3), got the "
            "function adam",
        ),
        WrongUse(
            'tx = sparsify(Target(0.9, prunable="head"), 100)\n'
            "tx.update(gradients, sparsify_state, params)",
            "state.memory has arrays at other leaves than the target prunes, or in "
            "another order: at",
        ),
        WrongUse(
            "tx = sparsify(0.9, 100)\n"
            "tx.update(gradients, sparsify_state, wide_params)",
            "updates must have the shapes of the parameters, but has (8,) at "
            "'dense/bias', where they have (16,).",
        ),
    ],
    "Structures": [
        WrongUse("NM(4, 2)", "NM(n, m) needs 1 <= n < m <= 256, got n=4, m=2"),
        WrongUse('NM("2:4", 4)', "n of NM must be a whole number, got '2:4'"),
        WrongUse(
            "Target(0.9, structure=NM(2, 4))",
            "sparsity is 0.9, and NM(n=2, m=4, axis=None) prunes at most 1/2 of the "
            "weights. Ask for less, or choose another structure",
        ),
        WrongUse(
            'prune({"weight": jnp.ones((8, 4))}, Target(0.5, structure=NM(2, 4)))',
            "NM(2, 4) must lie along the axis that a product sums over, and of the "
            "parameter 'weight' of shape (8, 4) it is not known: a 'weight' has its "
            "inputs last in some libraries. Give the axis, as in NM(2, 4, axis=-1), or "
            "let the model tell: axis=swd_jax.structures.summed_axes(apply, params, "
            "inputs). Or give prunable to leave the parameter out",
        ),
        WrongUse("Block(4)", "shape of Block must be a tuple of lengths, got 4"),
        WrongUse(
            "Block((0, 4))",
            "shape of Block must have whole numbers of at least 1, or None for a whole "
            "dimension, got (0, 4)",
        ),
        WrongUse(
            'Block((4, 4), norm="max")',
            "norm of Block must be 'rms', 'l2', 'mean' or 'l1', got 'max'",
        ),
        WrongUse(
            "prune(params, Target(0.5, structure=Block((2, 2, 2))))",
            "Block(shape=(2, 2, 2), norm='rms') does not fit the parameter "
            "'dense/kernel' of shape (4, 8): a block of (2, 2, 2) has more dimensions. "
            "Give prunable to leave it out",
        ),
        WrongUse('Channel("out")', "axis of Channel must be a whole number, got 'out'"),
        WrongUse(
            "prune(params, Target(0.5, structure=Channel(3)))",
            "Channel(axis=3, size=1, norm='rms') does not fit the parameter "
            "'dense/kernel' of shape (4, 8): there is no axis 3 in 2 dimensions. Give "
            "prunable to leave it out",
        ),
        WrongUse(
            "prune(params, Target(0.5, structure=Channel(-1, size=3)))",
            "Channel(axis=-1, size=3, norm='rms') does not fit the parameter "
            "'dense/kernel' of shape (4, 8): size 3 does not divide the 8 indices of "
            "axis -1. Give prunable to leave it out",
        ),
        WrongUse(
            "CoupledChannels(params)",
            "groups of CoupledChannels must be what channel_groups(...) returns, got a "
            "dict of 4 arrays",
        ),
        WrongUse(
            'CoupledChannels(groups, norm="bn_scale")',
            "groups has no channels that can be removed: none of the groups has a "
            "batch norm for norm='bn_scale'. Give norm='rms'",
        ),
        WrongUse(
            'CoupledChannels(groups, decays="scales")',
            "decays='scales' needs norm='bn_scale', got 'rms': channels that are "
            "ranked by their filters must lose these",
        ),
        WrongUse(
            'Target(0.5, structure=CoupledChannels(groups), scope="erk")',
            "scope must be 'global' or 'local' with CoupledChannels, since what a "
            "channel's removal saves depends on all leaves, got 'erk'",
        ),
        WrongUse(
            "Target(0.5, structure=CoupledChannels(groups), min_kept=4)",
            "min_kept counts weights of single leaves, got 4: with CoupledChannels "
            "give it min_channels=...",
        ),
        WrongUse(
            "prune(wide_params, Target(0.5, structure=CoupledChannels(groups)))",
            "groups do not fit params: at 'dense/bias' there is (16,), and the groups "
            "were found where there was (8,). Find the groups of this model with "
            "channel_groups",
        ),
    ],
    "Schedules": [
        WrongUse(
            "exponential_growth(0, 1e4, 100)", "a_min must be greater than 0, got 0"
        ),
        WrongUse(
            "exponential_growth(10, 1, 100)", "a_max must be at least a_min=10, got 1"
        ),
        WrongUse(
            "cubic_sparsity(90, 0, 100)",
            "final must be in [0, 1), got 90. Is it 0.9?",
        ),
        WrongUse(
            "cubic_sparsity(0.9, 100, 50)",
            "end must be a step after begin, 100, got 50",
        ),
        WrongUse(
            "schedules.staircase_sparsity(0.9, 100)",
            "steps must be a list of steps in ascending order, such as [1000, 2000], "
            "got 100",
        ),
        WrongUse(
            "schedules.rewind(0.1, [10], 2)",
            "schedule must be a schedule of the step, such as "
            "optax.cosine_decay_schedule(...), got 0.1",
        ),
        WrongUse(
            "schedules.rewind(optax.linear_schedule(1.0, 0.0, 30), [10], 20)",
            "to must be a step before the first of steps, 10, to go back to it, got 20",
        ),
        WrongUse(
            "bound_multiplier(\n"
            "    1e5, learning_rate=0.1, weight_decay=5e-4, momentum=0.9\n)",
            "The multiplier a reaches 1e+05, where SGD with swd before it is sure to "
            "be stable up to 211: from about step 0 on it is held at 95% of that. For "
            "the whole growth choose a smaller a_max, a learning rate that falls, or "
            "proximal_swd, which has no such limit.",
            UserWarning,
        ),
        WrongUse(
            "bound_multiplier(1.0, learning_rate=0.1, weight_decay=5e-4, momentum=1)",
            "momentum must be in [0, 1), got 1",
        ),
        WrongUse(
            "bound_multiplier(1.0, learning_rate=optax.sgd(1), weight_decay=5e-4)",
            "learning_rate must be a number or a schedule of the step, got an optax "
            "transformation",
        ),
        WrongUse(
            "schedules.largest_stable_multiplier(\n"
            "    learning_rate=optax.constant_schedule(0.1), weight_decay=5e-4\n)",
            "learning_rate must be a number, got a schedule. bound_multiplier takes "
            "schedules, and finds the limit at every step",
        ),
    ],
    "Criteria of your own": [
        WrongUse("criteria.mean_saliency(1.0)", "decay must be in [0, 1), got 1.0"),
        WrongUse(
            "criteria.random_scores(jax.random.key(0))",
            "seed must be a whole number, got a key of random numbers",
        ),
        WrongUse(
            'criteria.Criterion("mine", lambda weights: weights)',
            "score of Criterion('mine') must be a function of (weights, statistic), "
            "got a lambda: too many positional arguments",
        ),
        WrongUse(
            'criteria.Criterion("mine", score, extra_args="gradient")',
            "extra_args of Criterion('mine') must be a tuple of names, got the string "
            "'gradient': give ('gradient',)",
        ),
    ],
    "Other methods": [
        WrongUse(
            "methods.latent_pruning(0.9, forgetting=-1)",
            "forgetting must be at least 0, got -1",
        ),
        WrongUse(
            "methods.latent_pruning(0.9, forgetting=0.05, power=0)",
            "power must be a number greater than 0, got 0",
        ),
        WrongUse(
            "methods.latent_pruning(0.9, forgetting=0.05, max_rescale=0.5)",
            "max_rescale must be a number of at least 1, got 0.5",
        ),
        WrongUse(
            "methods.latent_pruning(\n"
            "    0.9, forgetting=0.05, pruned_gradient_scale=0.5\n)",
            "pruned_gradient_scale is 0.5, but without optimizer there are no "
            "gradients to scale: give the optimizer, latent_pruning(..., "
            "optimizer=...)",
        ),
        WrongUse(
            "methods.magnitude_pruning(0.9, update_every=0)",
            "update_every must be a whole number of at least 1, got 0",
        ),
        WrongUse(
            "tx = methods.soft_pruning(0.9, update_every=2)\n"
            "tx.update(gradients, swd_state, params)",
            "state is a BeforeOptimizerState, and soft_pruning" + OWN_STATE,
        ),
        WrongUse(
            "methods.rigl(0.9, optax.adam(0.1), until=1000)",
            "optimizer must be a transformation, such as optax.adam(1e-3), got 0.9",
        ),
        WrongUse(
            "methods.rigl(optax.adam(0.1), 0.9, until=100, update_every=200)",
            "The masks of rigl never change: update_every is 200, and until 100, the "
            "step from which they stay as they are. Give a smaller update_every, or a "
            "later until.",
            UserWarning,
        ),
        WrongUse(
            "methods.rigl(optax.adam(0.1), 0.9, until=1000, drop_fraction=1.0)",
            "drop_fraction must be in (0, 1), got 1.0",
        ),
        WrongUse(
            "methods.rigl(optax.adam(0.1), cubic_sparsity(0.9, 0, 10), until=1000)",
            "sparsity must be a number for rigl, which is sparse from the first step "
            "on, got cubic_sparsity(final=0.9, begin=0, end=10)",
        ),
        WrongUse(
            "target = Target(0.9, structure=Block((2, 2)))\n"
            "methods.rigl(optax.adam(0.1), target, until=1000)",
            "structure must be Unstructured() for rigl, got Block(shape=(2, 2), "
            "norm='rms')",
        ),
        WrongUse(
            "methods.sparse_evolution(\n"
            "    optax.sgd(0.1), [Target(0.9)], update_every=10\n)",
            "target must be one Target here, got 1. Different leaves may have "
            "different sparsities, by a mapping: Target(..., scope={...})",
        ),
        WrongUse(
            "methods.network_slimming(1e-4).init(params)",
            "prunable=is_scale matches none of the parameters. Their paths are:",
        ),
        WrongUse(
            "methods.straight_through(params, 0.9, power=2, soft=False)",
            "power must be 1 with soft=False, which shrinks no weight, got 2",
        ),
        WrongUse(
            'methods.straight_through(params, 0.9, soft="yes")',
            "soft must be True or False, got 'yes'",
        ),
        WrongUse(
            "keep_pruned(params)",
            "mask must be a tree of bools, True = kept, as prune_mask returns, and has "
            "an array of shape (8,) and dtype float32 at 'dense/bias'. For masks of "
            "numbers: jax.tree.map(lambda m: m != 0, mask)",
        ),
        WrongUse(
            "keep_pruned(0.9)",
            "mask must be a tree of bools, True = kept, as prune_mask returns, and has "
            "0.9. For masks of numbers: jax.tree.map(lambda m: m != 0, mask)",
        ),
        WrongUse(
            'keep_pruned(mask["dense"]).init(params)',
            "mask must have the structure of the parameters, but there is no array at "
            "'dense/bias'. The parameters' paths are:",
        ),
    ],
    "Coupled channels, and shrinking": [
        WrongUse(
            "channel_groups(params, apply, inputs)",
            "apply must be the model, a function of (params, *example_args), got a "
            "dict of 4 arrays. It comes first, (apply, params, *example_args)",
        ),
        WrongUse(
            "channel_groups(linen_model, params, inputs)",
            "apply must be the model, a function of (params, *example_args), got a "
            "Dense, a module of flax.linen. Give its apply, model.apply",
        ),
        WrongUse(
            "channel_groups(apply, params)",
            "apply(params, *example_args) cannot be traced with example_args without "
            "arrays. Give them the shapes that the model takes, with the batch. The "
            "model's own message: apply() missing 1 required positional argument: 'x'",
        ),
        WrongUse(
            "channel_groups(lambda params, x: x, params, inputs)",
            "apply does not use any of its params, whose paths are:",
        ),
        WrongUse(
            'channel_groups(\n    apply, params, inputs, tied=["dense/kernel"]\n)',
            "tied must have pairs of different paths, such as [('embed/kernel', "
            "'logits/kernel')], got 'dense/kernel'",
        ),
        WrongUse(
            'groups["conv"]',
            "\"no channel group is called 'conv': they are ['dense']\"",
            KeyError,
        ),
        WrongUse(
            "kept_channels(params, 0.5)",
            "target must be a Target with structure=CoupledChannels(groups, ...), got "
            "0.5",
        ),
        WrongUse("shrink(apply, params, params, kept, inputs)", NO_GROUPS),
        WrongUse(
            "shrink(apply, params, groups, 0.5, inputs)",
            "kept must have one vector of bools per channel group, as kept_channels "
            "returns, or be a tree of masks with the structure of the parameters, got "
            "0.5. The channel groups are ['dense'], the parameters' paths:",
        ),
        WrongUse(
            'shrink(apply, params, groups, {"dense": jnp.ones(8)}, inputs)',
            "kept must have 8 bools for the channel group 'dense', got shape (8,) and "
            "dtype float32.",
        ),
        WrongUse(
            'shrink(apply, params, groups, {"dense": [False] * 8}, inputs)',
            "kept leaves nothing of 'dense/kernel' along axis 1: it removes all "
            "channels of 'dense'. Keep at least one, or take the layer out of the "
            "model.",
        ),
        WrongUse(
            "shrink(apply, params, groups, kept, inputs, multiple_of=0)",
            "multiple_of must be a whole number of at least 1, got 0",
        ),
        WrongUse(
            "shrink(apply, wide_params, groups, kept, inputs)",
            "groups do not fit params: at 'dense/bias' it has (16,), and the groups "
            "were found where there was (8,). Find the groups of this model with "
            "channel_groups.",
        ),
        WrongUse("shrink_module(params, params, kept)", NO_GROUPS),
        WrongUse("shrink_state(adam_state, params, kept)", NO_GROUPS),
        WrongUse(
            'shrink_state(adam_state, groups, kept, prefix="model")',
            "prefix='model' leads to none of the parameters, whose paths are:",
        ),
        WrongUse(
            "cost_report(apply, params, groups, inputs)",
            "small must be what shrink(...) returns, got ...",
        ),
    ],
    "Files": [
        WrongUse(
            'io.save_sparse("model.npz", {})',
            "params must be a tree of arrays, and has none: got {}",
        ),
        WrongUse(
            'io.load_sparse(params, "model.npz")',
            "file must be a path, got a dict of 4 arrays. It comes first, (file, like)",
        ),
        WrongUse(
            'io.load_sparse("no_archive.npz", params)',
            "'no_archive.npz' is no .npz file, or only a part of one: File is not a "
            "zip file",
        ),
        WrongUse(
            'io.load_sparse("saved.npz", wide_params)',
            "'saved.npz' has an array of shape (8,) for 'dense/bias', and like has "
            "(16,). Give like the shapes of what was saved",
        ),
        WrongUse(
            'io.load_sparse("saved.npz", {"conv": params["head"]})',
            "'saved.npz' has nothing for 'conv/bias'. It holds:",
        ),
    ],
}
