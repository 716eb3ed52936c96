"""Rebuild an embedded pool from seeds: `python -m merging.zoo.build POOL [--seed 0] [--output FOLDER] [--only STAGE]`.

How a pool is made, what its runs reached and what was chosen by which split stands at the top of its own module.
"""

import os

# Threads that wait for work must not spin: beside other work on few cores that is many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import datasets
import torch
import transformers

from merging.errors import PoolError, require_choice
from merging.zoo import ZOO_FOLDER

# Each offers `build(output, *, seed, only, on_progress)` and `stages()`, and is imported only when it is asked for.
BUILDERS = {
    "digits": "merging.zoo.build_digits",
    "digits-clip": "merging.zoo.build_clip",
    "sentences-gpt2": "merging.zoo.build_sentences",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and rebuild, printing one line for each finished checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m merging.zoo.build", description=__doc__.splitlines()[0])
    parser.add_argument("pool", metavar="POOL", help=", ".join(BUILDERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a folder; without it the embedded pool is overwritten")
    parser.add_argument(
        "--only", metavar="STAGE", help="`data`, or one checkpoint, which needs its start in the folder"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    started = time.perf_counter()

    def report(fraction: float, text: str) -> None:
        print(f"{fraction:4.0%}  {time.perf_counter() - started:5.0f} s  {text}", flush=True)

    try:
        builder = import_module(BUILDERS[require_choice("pool", options.pool, BUILDERS, error=PoolError)])
        if options.only is not None:
            require_choice("stage", options.only, builder.stages(), error=PoolError)
        output = options.output or ZOO_FOLDER / options.pool
        builder.build(output, seed=options.seed, only=options.only, on_progress=report)
    except PoolError as problem:
        parser.error(str(problem))


if __name__ == "__main__":
    main()
