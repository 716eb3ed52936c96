"""The house rules that a parser can check: the direction of imports, sizes, docstrings, the lock."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 250  # lines

# A module of `merging` imports modules of a strictly lower level only; inside one package, also of its own level.
# `a.b` names a module, `a.*` all other modules in package a, `a` a module, or a package with what is not named.
LEVELS = {
    "errors": 0,
    "zoo": 0,  # its __init__: where the embedded files lie
    "parameters": 0.5,
    "devices": 0.5,
    "claims": 0.5,  # of configurations, against what is stored
    "documents": 0.5,  # YAML and JSON that strangers wrote
    "once": 0.5,
    "references": 0.5,
    "rules": 1,
    "scales": 1,
    "gradients": 1,
    "ensemble": 1,
    "metrics": 1,
    "readers": 0.5,  # of the Hub: in whose name
    "refusals": 1,  # of the Hub, as messages
    "downloads": 1.1,
    "hub": 1.2,
    "headers": 1.4,  # of checkpoints, before their weights are read
    "leftovers": 0.5,  # of killed processes
    "cache_space": 1.3,
    "cache": 1.4,
    "tensor_files": 1.4,
    "chunks": 1.6,
    "shards": 1.6,
    "folders": 1.4,
    "adapters": 1.6,  # merged into their bases
    "checkpoints": 2,
    "processors": 1,  # opens tokenizers and image processors
    "zero_shot": 1,  # CLIP's towers as classifiers
    "text_to_text": 1,  # T5 as a classifier
    "alignment": 1,  # of a dataset's labels with a model's outputs
    "dataset_library": 0.5,
    "own_data": 1,  # of files and datasets: nothing that they only name
    "hub_datasets": 1.2,
    "shares": 1,  # of rows that are cut into splits
    "upload_references": 0.5,
    "sources": 1.5,  # of a task's rows
    "uploads": 1.6,
    "device_memory": 2,
    "columns": 2.3,  # of a task's dataset, as its checkpoint needs them
    "encoding": 2.3,  # of a task's rows, by its checkpoint's processor
    "task_fields": 2.35,
    "tasks": 2.4,
    "summaries": 2.7,  # of tasks, for the page to show
    "pools": 2.5,
    "families": 2.6,  # a checkpoint and its task as one model
    "suggestions": 3.2,  # of an alignment, from predictions
    "fisher": 3,
    "weights": 1.5,  # and settings of a merge
    "layer_factors": 1,
    "whole_fisher": 3,
    "layer_merge": 2,
    "merge": 3,
    "streaming": 3.2,
    "flat": 3.2,  # small models as one tensor
    "stored_names": 3.6,
    "evaluation": 3,
    "forward_passes": 1,
    "evaluation_tasks": 3,
    "recipe": 3.5,  # checks a recipe's words against merge's
    "recipe_checks": 3.4,
    "blueprints": 3.5,  # of models, without their weights
    "limits": 3.55,  # of what strangers may ask for
    "preflight": 3.6,
    "lending": 3.6,  # what is asked of a device that is lent
    "merger": 3.65,  # with any weights
    "opened": 3.65,  # what a recipe names
    "targets": 3.65,  # what they are written into
    "prepared": 3.7,
    "drift": 3.7,  # of a merge from its models' mean
    "diagnostics": 4.5,  # its modules stand a level lower, some on the pipeline's result
    "diagnostics.*": 4,
    "search": 4.5,
    "search.*": 4,
    "estimates": 4,
    "pipeline": 5,
    "advice": 5.2,  # which rule to try
    "lent_work": 5.2,  # what is done there
    "publish": 1.5,  # an exported folder on the Hub
    "model_card": 5.3,
    "streamed": 5.7,  # an export without a model in memory
    "export": 5.5,  # writes the pipeline's result
    "__init__": 6,
    "zoo.*": 6.2,  # the scripts that rebuild the pools
    "__main__": 6.5,
}
# Pairs (importer, imported) that LEVELS forbids and that are right nevertheless, with the reason beside each.
ALLOWED: set[tuple[str, str]] = set()

MERGING_NEVER_IMPORTS = {"gradio", "plotly", "components", "app"}
WITHOUT_GRADIO = ("figures", "form", "jobs", "style")
MAY_PRINT = ("merging/__main__.py", "merging/zoo/build")


def test_merging_knows_nothing_of_the_page():
    violations = [
        f"{_shown(path)}:{line} imports {name}"
        for path in _sources("merging")
        for name, line in _imports(path)
        if name.split(".")[0] in MERGING_NEVER_IMPORTS
    ]
    assert not violations, _listed(violations)


def test_components_do_not_import_the_app():
    violations = [
        f"{_shown(path)}:{line} imports {name}"
        for path in _sources("components")
        for name, line in _imports(path)
        if name.split(".")[0] == "app"
    ]
    assert not violations, _listed(violations)


def test_every_module_of_merging_has_a_level():
    homeless = [_shown(path) for path in _sources("merging") if _level(_module(path)) is None]
    assert not homeless, "Give these a line in LEVELS (tests/test_structure.py):" + _listed(homeless)


def test_merging_imports_only_downward():
    violations = []
    for path in _sources("merging"):
        importer = _module(path).removeprefix("merging.")
        for name, line in _imports(path):
            if name.split(".")[0] != "merging":
                continue
            imported = name.removeprefix("merging.") if name != "merging" else "__init__"
            if not _may_import(importer, imported):
                levels = f"level {_level(importer)} -> {_level(imported)}"
                violations.append(f"{_shown(path)}:{line} imports {imported} ({levels})")
    assert not violations, _listed(violations)


def test_pure_components_do_not_import_gradio():
    violations = []
    for leaf in WITHOUT_GRADIO:
        for path in _reached(f"components.{leaf}"):
            violations += [
                f"{_shown(path)}:{line} imports {name}, reached from components/{leaf}.py"
                for name, line in _imports(path)
                if name.split(".")[0] == "gradio"
            ]
    assert not violations, _listed(violations)


def test_files_stay_short():
    lengths = {_shown(path): len(path.read_text("utf-8").splitlines()) for path in _sources()}
    too_long = [f"{name}: {length} lines" for name, length in lengths.items() if length > LONGEST_FILE]
    assert not too_long, f"Longest allowed: {LONGEST_FILE} lines." + _listed(too_long)


def test_merging_does_not_print():
    violations = [
        f"{_shown(path)}:{node.lineno}"
        for path in _sources("merging")
        if not _shown(path).startswith(MAY_PRINT)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not violations, _listed(violations)


def test_public_functions_have_docstrings():
    bare = [
        f"{_shown(path)}:{node.lineno} {node.name}"
        for path in _sources()
        for node in _tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, _listed(bare)


def test_torch_is_a_range_for_the_app_and_pinned_in_the_lock():
    ranges = _requirements("requirements.txt")
    assert "torch" in ranges
    assert "==" not in ranges["torch"], "ZeroGPU brings its own torch: never pin it in requirements.txt."
    assert re.fullmatch(r"==[\d.]+", _requirements("tests/constraints.txt")["torch"])


def test_the_lock_pins_every_requirement_exactly_and_portably():
    lock = _requirements("tests/constraints.txt")
    loose = [f"{name}{version}" for name, version in lock.items() if not re.fullmatch(r"==[\w.]+", version)]
    assert not loose, "Expected NAME==VERSION: no URL, no path, no local version such as +cpu." + _listed(loose)
    assert "torchvision" not in lock
    needed = {**_requirements("requirements.txt"), **_requirements("tests/requirements.txt")}
    missing = sorted(set(needed) - set(lock))
    assert not missing, "Pin these in tests/constraints.txt:" + _listed(missing)


def _may_import(importer: str, imported: str) -> bool:
    above, below = _level(importer), _level(imported)
    if above is None or below is None or (importer, imported) in ALLOWED:
        return True  # a module without a level fails its own test
    same_package = importer.split(".")[0] == imported.split(".")[0]
    return below < above or (same_package and below == above)


def _level(module: str) -> float | None:
    module = module.removeprefix("merging.")
    package = module.split(".")[0]
    for key in (module, f"{package}.*" if "." in module else package, package):
        if key in LEVELS:
            return LEVELS[key]
    return None


def _sources(*roots: str) -> Iterator[Path]:
    for root in roots or ("app.py", "merging", "components"):
        path = ROOT / root
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def _module(path: Path) -> str:
    """The dotted name; a package's is its folder's, but that of merging/__init__.py is merging.__init__."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, wherever in the file; `from package import module` gives the module."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            inner = (f"{source}.{alias.name}" for alias in node.names)
            yield from {(name if _file(name) else source, node.lineno) for name in inner}


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_name(path.name + ".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _reached(module: str) -> set[Path]:
    """The files of `components` that importing a module runs, its own and the package's __init__ included."""
    waiting, reached = [module, "components"], set()
    while waiting:
        path = _file(waiting.pop())
        if path and path not in reached:
            reached.add(path)
            waiting += [name for name, _ in _imports(path) if name.split(".")[0] == "components"]
    return reached


def _requirements(name: str) -> dict[str, str]:
    """Package -> what stands behind its name, from a requirements file; names normalised as PEP 503 says."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    split = (re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", line) for line in lines if line)
    return {re.sub(r"[-_.]+", "-", found[1]).lower(): found[2].replace(" ", "") for found in split if found}


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _listed(violations: list[str]) -> str:
    return "\n  " + "\n  ".join(violations)
