"""Many cases, each drawn from a seed of its own, and a report on all that fail.

SWD_FUZZ_SEED and SWD_FUZZ_COUNT choose the cases of the long run (`make test-fuzz`). A
failure names the seed of its case: SWD_FUZZ_SEED=<seed> SWD_FUZZ_COUNT=1 repeats it.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

log = logging.getLogger(__name__)


def seeds(default_count: int) -> range:
    """Return the seeds of the long run, as many as a test has by default."""
    start = int(os.environ.get("SWD_FUZZ_SEED", "0"))
    return range(start, start + int(os.environ.get("SWD_FUZZ_COUNT", default_count)))


def check_all(
    draw: Callable[[int], Any], check: Callable[[Any], Any], seeds: Iterable[int]
) -> list[Any]:
    """Check the case of each seed, and raise for all that fail together.

    Args:
      draw: from a seed to a case, whose `str` describes it.
      check: raises for a case that fails.
      seeds: of the cases.

    Returns:
      What `check` returns for each case.
    """
    failures, results, start = [], [], time.monotonic()
    for seed in seeds:
        case = draw(seed)
        log.info("seed %d: %s", seed, case)
        try:
            results.append(check(case))
        except Exception as error:
            log.exception("seed %d\n%s", seed, case)
            # The last lines of long differences between arrays say little.
            text = str(error)[:600]
            where = traceback.format_exc(limit=-1).splitlines()[1:3]
            failures.append(f"seed {seed}: {case}\n{where}\n{text}")
    seconds = time.monotonic() - start
    log.info("%d cases in %.1f s, seeds %s", len(results), seconds, seeds)
    assert not failures, "\n".join([f"{len(failures)} cases:", *failures])
    return results
