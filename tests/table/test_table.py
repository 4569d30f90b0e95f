"""Every public transformation in whatever optax, jax and users put round it.

Types only, by tracing: structures, shapes and dtypes after a step are those before.
`tests/transforms/test_transformations.py` compares values, and is left out here what
it has. `make test-table` runs what is marked `table`: every two columns together.
"""

import functools

import pytest

from tests.table import cases
from tests.table.dtypes import DTYPES
from tests.table.methods import METHODS
from tests.table.wraps import WRAPS, refusals

# Other tests run the same lines of the library.
pytestmark = pytest.mark.no_cover

# All but a few lines of these are the code of other rows.
ALIKE = {
    "swd, 2:4",
    "proximal_swd",
    "sparsify, 2:4",
    "latent_pruning",
    "latent_pruning, around",
    "soft_pruning",
    "sparse_evolution",
}
every_method = pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else [])
        for name in METHODS
    ],
)

ELSEWHERE = {
    "jit",
    "vmap",
    "scan",
    "cond",
    "donation",
    "MultiSteps",
    "masked",
    "partition",
    "apply_if_finite",
}
FRAMEWORKS = (
    "FrozenDict",
    "tuple",
    "dataclass",
    "eqx.Module",
    "nnx.State",
    "nnx.Module",
    "linen boxes",
    "named arrays",
    "labelled values",
    "without keys",
)


@every_method
def test_in_every_wrap_types_stay(method):
    check = functools.partial(cases.check, method)
    failed = cases.failures(check, [wrap for wrap in WRAPS if wrap not in ELSEWHERE])
    assert not failed, "\n".join(failed)


@every_method
def test_with_all_dtypes_types_stay(method):
    def check(dtypes):
        cases.check(method, dtypes=dtypes)

    failed = cases.failures(check, DTYPES)
    assert not failed, "\n".join(failed)


@every_method
def test_in_every_framework_types_stay(method):
    def check(container):
        cases.check(method, container=container)

    failed = cases.failures(check, FRAMEWORKS)
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_that_cannot_be_injected_are_named(method):
    refused = refusals(cases.case(method))
    assert list(refused) == list(METHODS[method].known_beforehand)
    for name, error in refused.items():
        # A target that is a number is its sparsity.
        assert error.startswith("sparsity" if name == "target" else name)
