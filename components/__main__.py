"""`python -m components` makes the merge that the page opens on, so that its first visitor does not wait for it."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# Progress is what one reads here; of the log only what is wrong.
os.environ.setdefault("FISHER_LOG_LEVEL", "WARNING")

from components import logs
from components.job_panel import begin, first_recipe


def main() -> int:
    """Merges, keeps what the page opens on, and says how it went; returns the exit code."""
    logs.begin()
    job = begin(first_recipe())
    while not job.ended.wait(1.0):
        print(f"{100 * job.fraction:3.0f} % {job.text}", flush=True)
    print("The first merge is made." if job.state == "done" else job.message)
    return 0 if job.state == "done" else 2


if __name__ == "__main__":
    sys.exit(main())
