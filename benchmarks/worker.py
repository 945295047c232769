"""One side of a comparison in a process of its own: it makes itself ready, says so, and works whenever it is told.
It is started by `benchmarks.pairs`.
"""

import importlib
import json
import os
import resource
import sys
import time


def main() -> None:
    """Serve one side: `MODULE FUNCTION ARGUMENTS`, the arguments in JSON; a line in is a turn, a line out its time."""
    module, function, arguments = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What libraries print is not an answer.
    os.dup2(2, 1)

    def say(answer: dict[str, object]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        work = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    except ImportError as error:
        say({"missing": str(error)})
        return
    say({})
    for _ in sys.stdin:
        started = time.perf_counter()
        done = work()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say({"seconds": seconds, "done": done, "peak_bytes": peak})


if __name__ == "__main__":
    main()
