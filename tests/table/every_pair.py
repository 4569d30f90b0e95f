"""Run the whole table, and write what became of it to docs/results/table.json.

    python tests/table/every_pair.py               # any two columns meet
    python tests/table/every_pair.py --all-dtypes  # and any three: hours

Each method meets every wrap with every container, and with one of the dtypes in turn,
so that any two columns meet. `make test-table` runs it.
"""

import argparse
import json
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402

from tests.helpers.containers import CONTAINERS  # noqa: E402
from tests.table import cases  # noqa: E402
from tests.table.dtypes import DTYPES  # noqa: E402
from tests.table.methods import METHODS  # noqa: E402
from tests.table.wraps import WRAPS, refusals  # noqa: E402

FILE = ROOT / "docs" / "results" / "table.json"


def run_method(method: str, num_dtypes: int) -> dict[str, Any]:
    """Return numbers of combinations, the failures, and the refusals."""
    warnings.simplefilter("error")
    failed, passed, limits = [], 0, 0
    for i, names in enumerate(cases.combinations(num_dtypes)):
        if i % 500 == 499:
            jax.clear_caches()  # a process cannot hold the traces of all of them
        error = error_of(method, names)
        if error is None:
            passed += 1
        elif error_of(None, names) is not None:
            limits += 1
        else:
            failed.append(f"{method}, {', '.join(names)}: {error}")
    return {
        "passed": passed,
        "limits of optax": limits,
        "failed": failed,
        "refused": refusals(cases.case(method)),
    }


def error_of(method: str | None, names: tuple[str, str, str]) -> str | None:
    try:
        cases.check(method, *names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all-dtypes", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    num_dtypes = len(DTYPES) if given.all_dtypes else 1
    spawn = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(given.workers, mp_context=spawn) as pool:
        jobs = {
            method: pool.submit(run_method, method, num_dtypes)
            for method in given.methods
        }
        for method, job in jobs.items():
            results[method] = job.result()
            print(f"{method}: {in_words(results[method])}", flush=True)
    print(*(line for each in results.values() for line in each["failed"]), sep="\n")
    total = {
        "passed": sum(each["passed"] for each in results.values()),
        "limits of optax": sum(each["limits of optax"] for each in results.values()),
        "failed": [line for each in results.values() for line in each["failed"]],
        "refused": {
            f"{method}: {name}": error
            for method, each in results.items()
            for name, error in each["refused"].items()
        },
    }
    print(in_words(total))
    if total["failed"]:
        sys.exit(1)
    if given.methods == list(METHODS) and not given.all_dtypes:
        columns = {"wraps": WRAPS, "dtypes": DTYPES, "containers": CONTAINERS}
        table = {name: list(column) for name, column in columns.items()}
        FILE.write_text(json.dumps({**table, "methods": results}, indent=2) + "\n")


def in_words(result: dict[str, Any]) -> str:
    failed = len(result["failed"])
    number = result["passed"] + result["limits of optax"] + failed
    return (
        f"{number} combinations: {result['passed']} pass, {failed} fail, "
        f"{result['limits of optax']} fail in optax by itself; "
        f"{len(result['refused'])} arguments refused with a reason"
    )


if __name__ == "__main__":
    main()
