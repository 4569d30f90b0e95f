"""Run the whole table; with --write, put the result into docs/results/table.json.

    python tests/table/whole_table.py                      # any two columns meet
    python tests/table/whole_table.py --columns 3          # any three: hours
    python tests/table/whole_table.py --columns 1 --write  # for the documentation

With two columns, each method meets every wrap with every container, and with one of the
dtypes in turn. `make test-table` runs that.
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


def run_method(method: str, columns: int) -> dict[str, Any]:
    """Return numbers of combinations, the failures, and the refusals."""
    warnings.simplefilter("error")
    failed, passed, limits, explained = [], 0, 0, 0
    for i, names in enumerate(cases.combinations(columns)):
        if i % 500 == 499:
            jax.clear_caches()  # a process cannot hold the traces of all of them
        error = error_of(method, names)
        if error is None:
            passed += 1
        elif error_of(None, names) is not None:
            limits += 1
        elif cases.is_explained(method, *names[:2]):
            explained += 1
        else:
            failed.append(f"{method}, {', '.join(names)}: {error}")
    return {
        "passed": passed,
        "limits of optax": limits,
        "explained": explained,
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
    parser.add_argument("--columns", type=int, default=2, choices=[1, 2, 3])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(given.workers, mp_context=spawn) as pool:
        jobs = {
            method: pool.submit(run_method, method, given.columns)
            for method in given.methods
        }
        for method, job in jobs.items():
            results[method] = job.result()
            print(f"{method}: {in_words(results[method])}", flush=True)
    print(*(line for each in results.values() for line in each["failed"]), sep="\n")
    total = {
        "passed": sum(each["passed"] for each in results.values()),
        "limits of optax": sum(each["limits of optax"] for each in results.values()),
        "explained": sum(each["explained"] for each in results.values()),
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
    if given.write:
        columns = {"wraps": WRAPS, "dtypes": DTYPES, "containers": CONTAINERS}
        table = {name: list(column) for name, column in columns.items()}
        FILE.write_text(
            json.dumps(
                {"columns": given.columns, **table, "methods": results}, indent=2
            )
            + "\n"
        )


def in_words(result: dict[str, Any]) -> str:
    failed = len(result["failed"])
    counted = ("passed", "limits of optax", "explained")
    number = sum(result[name] for name in counted) + failed
    return (
        f"{number} combinations: {result['passed']} pass, {failed} fail, "
        f"{result['limits of optax']} fail in optax by itself, "
        f"{result['explained']} as the documentation says; "
        f"{len(result['refused'])} arguments refused with a reason"
    )


if __name__ == "__main__":
    main()
