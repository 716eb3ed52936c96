"""What can be said about a recipe before any weight is downloaded or read: from configurations and headers alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from merging import hub
from merging.adapters import whole_header
from merging.alignment import align, is_generic
from merging.blueprints import blueprint, check_stored, size_differences
from merging.checkpoints import TEXT_TO_TEXT, TOWERS, require_mergeable
from merging.errors import CheckpointError, MergingError, RecipeError, StructureError
from merging.families import body_class
from merging.headers import Header, is_on_hub
from merging.limits import Limits, over_limits
from merging.parameters import check_same_structure
from merging.recipe import Recipe
from merging.references import short_name
from merging.tasks import Task, open_task

OK, NOTE, PROBLEM = "ok", "note", "problem"
EMBEDDED_LICENCE = "apache-2.0"  # of the embedded pools, which are a part of this project
BYTES_PER_NUMBER = 4  # everything is opened in float32
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class Check:
    """One thing that was compared: `level` is `ok`, `note` or `problem`, `text` a sentence for the user."""

    name: str
    level: str
    text: str
    error: MergingError | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """All checks of a recipe, and the headers that they were read from (None where one cannot be had)."""

    checks: tuple[Check, ...]
    headers: tuple[Header | None, ...] = field(default=(), repr=False)

    @property
    def problems(self) -> tuple[Check, ...]:
        """What makes the merge impossible."""
        return tuple(check for check in self.checks if check.level == PROBLEM)

    @property
    def notes(self) -> tuple[Check, ...]:
        """What the user should know."""
        return tuple(check for check in self.checks if check.level == NOTE)

    def require(self) -> "Report":
        """The report itself. Raises: the first problem as a MergingError."""
        for check in self.problems:
            raise check.error or RecipeError(check.text)
        return self


def preflight(recipe: Recipe, on_progress: OnProgress | None = None, *, limits: Limits | None = None) -> Report:
    """Compares the recipe's checkpoints and tasks with each other, with this machine, and with `limits` where there are
    some; downloads no weights.

    Never raises for what is wrong with the recipe's models: that is in the report.
    """
    report = on_progress or (lambda fraction, text: None)
    checks: list[Check] = []
    headers: list[Header | None] = []
    for index, model in enumerate(recipe.models):
        if is_on_hub(model.checkpoint):
            report(index / len(recipe.models), f"Reading the configuration of {short_name(model.checkpoint)}")
        headers.append(_read(model.checkpoint, checks))
    tasks = [_tried("task", checks, lambda model=model: open_task(model.task)) for model in recipe.models]
    there = [header for header in headers if header is not None]
    lender = _read(recipe.base, checks, is_base=True) if recipe.base and _needs_base(recipe, there) else None
    if len(there) == len(recipe.models):
        checks += _architecture_checks(there)
        checks += _label_checks(there, tasks, recipe)
        if not any(check.level == PROBLEM for check in checks):
            checks += _structure_checks(there, recipe)
        checks += [_dtype_check(there), _memory_check(there, recipe), _licence_check(there)]
        checks += _revision_checks(there)
        checks.append(_disk_check([*there, *([lender] if lender else [])]))
    if limits is not None:
        over = over_limits([*there, *([lender] if lender else [])], recipe, _memory_bytes(there, recipe), limits)
        checks += [Check(name, PROBLEM, str(problem), problem) for name, problem in over]
    return Report(tuple(checks), tuple(headers))


def unequal_heads(label_sets: Sequence[Sequence[str]]) -> RecipeError:
    """The error about heads that cannot be merged."""
    shown = sorted({tuple(names) for names in label_sets})
    return RecipeError(
        f"The heads cannot be merged: expected models with equal label sets, got {shown}. Choose heads: keep."
    )


def _read(reference: str, checks: list[Check], *, is_base: bool = False) -> Header | None:
    def read() -> Header:
        header = whole_header(reference)
        require_mergeable(header.config, reference, is_base=is_base)
        return header

    return _tried("checkpoint", checks, read)


def _tried(name: str, checks: list[Check], attempt: Callable[[], object]):
    """What `attempt` gives; where it fails, None and a problem among the checks."""
    try:
        return attempt()
    except MergingError as problem:
        checks.append(Check(name, PROBLEM, str(problem), problem))
        return None


def _needs_base(recipe: Recipe, headers: Sequence[Header]) -> bool:
    borrows = any(header.architecture in TOWERS + TEXT_TO_TEXT for header in headers)
    return borrows or recipe.needs_base


def _architecture_checks(headers: Sequence[Header]) -> list[Check]:
    first = headers[0]
    kinds = [body_class(header) for header in headers]
    checks = []
    for header, kind in zip(headers[1:], kinds[1:], strict=True):
        if kind != kinds[0]:
            problem = RecipeError(
                f'"{header.reference}" cannot be merged with "{first.reference}": expected the same architecture '
                f"({first.architecture}), got {header.architecture}. Pick checkpoints fine-tuned from one base."
            )
            checks.append(Check("architecture", PROBLEM, str(problem), problem))
    return checks or [Check("architecture", OK, f"All {len(headers)} are {first.architecture}.")]


def _structure_checks(headers: Sequence[Header], recipe: Recipe) -> list[Check]:
    """The body's parameters (all with merged heads) by their configurations, and what is stored against those."""
    checks: list[Check] = []
    body_only = recipe.heads == "keep"
    plans = [
        _tried("tensors", checks, lambda header=header: blueprint(header, body_only=body_only)) for header in headers
    ]
    if checks:
        return checks
    for header, plan in zip(headers[1:], plans[1:], strict=True):
        names = [short_name(headers[0].reference), short_name(header.reference)]
        names[1] += "-2" if names[0] == names[1] else ""
        try:
            check_same_structure([plans[0], plan], names)
        except StructureError as problem:
            sizes = size_differences(headers[0], header)
            text = str(problem) + (f" Their configurations differ: {sizes}." if sizes else "")
            checks.append(Check("tensors", PROBLEM, text, StructureError(text)))
    for header, plan in zip(headers, plans, strict=True):
        _tried("tensors", checks, lambda header=header, plan=plan: check_stored(header, plan))
    count = sum(tensor.numel() for tensor in plans[0].values())
    return checks or [Check("tensors", OK, f"{len(plans[0])} parameters with {count:,} numbers have the same shapes.")]


def _label_checks(headers: Sequence[Header], tasks: Sequence[Task | None], recipe: Recipe) -> list[Check]:
    checks: list[Check] = []
    own = [header.label_names for header in headers]
    if recipe.heads == "merge" and not any(header.architecture in TOWERS for header in headers):
        is_one_task = len({task.reference for task in tasks if task}) == 1
        if len(set(own)) > 1 or (is_generic(own[0]) and not is_one_task):
            problem = unequal_heads(own)
            checks.append(Check("labels", PROBLEM, str(problem), problem))
    for header, task in zip(headers, tasks, strict=True):
        if task is None or not task.labels or header.architecture in TOWERS + TEXT_TO_TEXT:
            continue
        found = _tried("labels", checks, lambda header=header, task=task: _aligned(header, task))
        if found is not None:
            level = OK if found.is_certain else NOTE
            checks.append(
                Check("labels", level, f'"{short_name(header.reference)}" on "{task.name}": {found.sentence}')
            )
    return checks


def _aligned(header: Header, task: Task):
    return align(task.labels, header.label_names, given=task.alignment, reference=task.shown_as)


def _dtype_check(headers: Sequence[Header]) -> Check:
    kinds = sorted({stored.dtype for header in headers for stored in header.tensors.values()})
    size = sum(header.size_bytes for header in headers)
    text = f"Stored as {', '.join(kinds)}, {size / 1e6:,.1f} MB together; merged in float32."
    return Check("data types", OK, text)


def _memory_bytes(headers: Sequence[Header], recipe: Recipe) -> int:
    """The models, one copy that takes the merged parameters, these, and a Fisher for each model."""
    numbers = max((sum(stored.count for stored in header.tensors.values()) for header in headers), default=0)
    # Factors take 1.7 times the parameters, and as much again in float64 while a layer is merged.
    copies = len(headers) * (4 if recipe.needs_factors else 2 if recipe.needs_fishers else 1) + 2
    return BYTES_PER_NUMBER * numbers * copies


def _memory_check(headers: Sequence[Header], recipe: Recipe) -> Check:
    needed, free = _memory_bytes(headers, recipe), psutil.virtual_memory().available
    text = f"About {needed / 1e9:.2f} GB of memory are needed, {free / 1e9:.2f} GB are free."
    return Check("memory", OK if needed <= free else NOTE, text)


def _revision_checks(headers: Sequence[Header]) -> list[Check]:
    commits = [f"{header.reference} at commit {header.commit[:10]}" for header in headers if header.commit]
    return [Check("revision", OK, f"From the Hub: {', '.join(commits)}.")] if commits else []


def _disk_check(headers: Sequence[Header]) -> Check:
    needed = sum(header.download_bytes for header in {header.reference: header for header in headers}.values())
    if not needed:
        return Check("disk", OK, "Nothing is to be downloaded.")
    free = hub.free_bytes()
    text = f"{needed / 1e6:,.1f} MB are to be downloaded, {free / 1e9:.2f} GB of disk are free."
    if needed <= free:
        return Check("disk", OK, text)
    problem = CheckpointError(
        f"The checkpoints cannot be downloaded: expected {needed / 1e9:.2f} GB of free disk, got {free / 1e9:.2f} GB. "
        "Free some space, or set HF_HOME to a folder on a larger disk."
    )
    return Check("disk", PROBLEM, str(problem), problem)


def _licence_check(headers: Sequence[Header]) -> Check:
    licences = {}
    for header in headers:
        embedded = EMBEDDED_LICENCE if header.reference.startswith("zoo:") else None
        licences[short_name(header.reference)] = header.licence or embedded or "not stated"
    kinds = set(licences.values())
    if len(kinds) == 1 and "not stated" not in kinds:
        return Check("licence", OK, f"All are under {kinds.pop()}.")
    listed = ", ".join(f"{name}: {licence}" for name, licence in licences.items())
    return Check("licence", NOTE, f"What is merged is bound by the licences of all ({listed}).")
