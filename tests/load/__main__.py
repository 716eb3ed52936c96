"""Many visitors at once: `python -m tests.load [--visitors 50] [--seconds 300] [--hosted]`.

Prints what each event took, errors by kind, and the server's memory after warm-up and at the end; ends with 1 where
there was an error that is no clear "busy", where somebody saw numbers that were not theirs, or where a limit was missed.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import argparse
import sys
import tempfile
from pathlib import Path

from tests.load.run import MEMORY_GROWTH, MOVE_S, run


def main() -> int:
    """Runs, prints, judges."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--visitors", type=int, default=50)
    asked.add_argument("--seconds", type=float, default=300)
    asked.add_argument("--pause", type=float, default=10, help="mean seconds between what a visitor does")
    asked.add_argument("--hosted", action="store_true", help="as a Space, for strangers")
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        settings = {"visitors": given.visitors, "seconds": given.seconds, "pause_s": given.pause, "seed": given.seed}
        outcome = run(Path(folder), hosted=given.hosted, **settings)
    print("\n".join(outcome.lines()))
    failures = outcome.failures()
    if outcome.move_p95_s() > MOVE_S:
        failures.append(f"the 95th percentile of a move is {outcome.move_p95_s():.2f} s, the limit {MOVE_S:.0f} s")
    if outcome.memory_growth() > MEMORY_GROWTH:
        failures.append(f"memory grew by {100 * outcome.memory_growth():.1f} %, the limit {100 * MEMORY_GROWTH:.0f} %")
    print("\n".join(f"FAILED: {failure}" for failure in failures) or "all limits held")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
