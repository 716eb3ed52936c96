"""The command line: `python -m merging pools | fisher | run | stream | evaluate | push`."""

import argparse
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence

# Threads that wait for work must not spin: beside other work on few cores that is many times slower.
# It is read when torch is first imported, which none of the imports below does at the top.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from merging.errors import Cancelled, MergingError

DONE, BUG, WRONG_INPUT, STOPPED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 the input is at fault, 130 stopped."""
    options = _parser().parse_args(arguments)
    _quieten()
    warnings.formatwarning = _warned
    try:
        options.command(options)
    except MergingError as problem:
        print(problem, file=sys.stderr)
        return WRONG_INPUT
    except (KeyboardInterrupt, Cancelled):
        print(
            "Stopped. What is estimated so far is in the cache: the same command goes on from there.", file=sys.stderr
        )
        return STOPPED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m merging", description="Fisher-weighted model merging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pools = commands.add_parser("pools", help="what is embedded")
    pools.add_argument("--json", action="store_true", help="print one JSON object")
    pools.add_argument("--recipe", metavar="POOL/PRESET", help="print the recipe of a preset")
    pools.set_defaults(command=_pools)
    for name, command, text in (
        ("fisher", _fisher, "estimate and cache the Fishers of a recipe"),
        ("run", _run, "merge, evaluate, export"),
        ("stream", _stream, "merge and export from file to file, without scores: memory for one model at most"),
        ("evaluate", _evaluate, "the same scores without writing a model"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("recipe", metavar="RECIPE", help="a recipe's YAML file")
        sub.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        sub.set_defaults(command=command)
        if name == "run":
            sub.add_argument("--output", metavar="DIR", help="where the merged model is written")
        if name == "stream":
            sub.add_argument("--output", metavar="DIR", required=True, help="where the merged model is written")
    push = commands.add_parser("push", help="upload an exported model to the Hugging Face Hub")
    push.add_argument("folder", metavar="DIR", help="what run --output wrote")
    push.add_argument("repository", metavar="ORG/NAME", help="a new repository, or one that an earlier push made")
    push.add_argument("--public", action="store_true", help="open to all; private otherwise")
    push.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    push.set_defaults(command=_push)
    return parser


def _pools(options: argparse.Namespace) -> None:
    from merging.pools import open_pool
    from merging.recipe import preset_recipe
    from merging.zoo import names

    if options.recipe:
        pool, _, preset = options.recipe.partition("/")
        print(preset_recipe(open_pool(pool), preset).to_yaml(), end="")
        return
    pools = [open_pool(name) for name in names()]
    if options.json:
        print(
            json.dumps(
                {
                    pool.name: {
                        "title": pool.title,
                        "models": {m.name: m.title for m in pool.models},
                        "presets": {p.name: list(p.models) for p in pool.presets},
                    }
                    for pool in pools
                }
            )
        )
        return
    for pool in pools:
        print(f"{pool.name}: {pool.title}. {pool.description}")
        for model in pool.models:
            print(f"  zoo:{pool.name}/{model.name:12} {model.title}")
        for preset in pool.presets:
            print(f"  preset {pool.name}/{preset.name}: {', '.join(preset.models)}")


def _fisher(options: argparse.Namespace) -> None:
    from merging.pipeline import prepare
    from merging.recipe import Recipe

    prepared = prepare(Recipe.load(options.recipe), _reporter())
    if options.json:
        print(json.dumps({"models": prepared.names, "timings": prepared.timings}))
    else:
        print(f"{len(prepared.fishers)} Fishers are in the cache: {', '.join(prepared.names)}")


def _run(options: argparse.Namespace) -> None:
    from merging.export import export, require_exportable

    if options.output:
        require_exportable(options.output)
    result = _result(options)
    output = None
    if options.output:
        started = time.perf_counter()
        output = str(export(result, options.output))
        result.timings["export"] = time.perf_counter() - started
    _print_result(result, output, options.json)


def _stream(options: argparse.Namespace) -> None:
    from merging.recipe import Recipe
    from merging.streamed import stream

    done = stream(Recipe.load(options.recipe), options.output, _reporter())
    if options.json:
        timings = {phase: round(seconds, 4) for phase, seconds in done.timings.items()}
        print(json.dumps({"scores": {}, "timings": timings, "output": str(done.output)}))
    else:
        print(f"{', '.join(done.names)}: written to {done.output}")


def _evaluate(options: argparse.Namespace) -> None:
    _print_result(_result(options), None, options.json)


def _push(options: argparse.Namespace) -> None:
    from merging.publish import push

    address = push(options.folder, options.repository, private=not options.public, on_progress=_reporter())
    print(json.dumps({"repository": options.repository, "address": address}) if options.json else address)


def _result(options: argparse.Namespace) -> object:
    from merging.pipeline import run
    from merging.recipe import Recipe

    return run(Recipe.load(options.recipe), _reporter())


def _print_result(result: object, output: str | None, as_json: bool) -> None:
    from merging.export import scores_as_dict

    for note in result.notes:
        print(note, file=sys.stderr)
    if as_json:
        timings = {phase: round(seconds, 4) for phase, seconds in result.timings.items()}
        print(json.dumps({"scores": scores_as_dict(result), "timings": timings, "output": output}, allow_nan=False))
        return
    methods = list(result.scores)
    print(f"{'accuracy on ' + result.recipe.evaluation.split:24}" + "".join(f"{method:>12}" for method in methods))
    for task in result.scores[methods[0]]:
        print(f"{task:24}" + "".join(f"{100 * result.scores[method][task].value:11.1f}%" for method in methods))
    print(f"{'mean':24}" + "".join(f"{100 * result.mean(method):11.1f}%" for method in methods))
    if output:
        print(f"written to {output}")


def _reporter() -> Callable[[float, str], None]:
    """Progress on standard error, at most once a second, and only on a terminal as one changing line."""
    last = 0.0

    def report(fraction: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1.0:
            last = now
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{100 * fraction:3.0f} % {text:70}", end=end, file=sys.stderr, flush=True)

    return report


def _warned(message: object, *details: object) -> str:
    return f"{message}\n"


def _quieten() -> None:
    """Progress bars of libraries would mix with ours."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
