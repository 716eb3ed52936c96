"""What can be said of a choice of models before anything is downloaded: under the list of models, at a glance."""

from html import escape

from components import logs
from components.form import Form, recipe_of
from components.modes import is_hosted, limits
from merging.errors import MergingError
from merging.preflight import NOTE, OK, PROBLEM, Check, Report, preflight
from merging.refusals import HubUnreachable

MARKS = {OK: "✓", NOTE: "!", PROBLEM: "✗"}
FEWEST = 2


def checked(*values: object) -> str:
    """The checks of what the page shows; empty for fewer than two models, or where the form itself is wrong."""
    form = Form.of(*values)
    if len(form.models or ()) < FEWEST:
        return ""
    try:
        recipe = recipe_of(form, hosted=is_hosted())
    except MergingError:
        return ""
    return report_html(without_repeats(preflight(recipe, limits=limits())))


def without_repeats(report: Report) -> Report:
    """Where the Hub cannot be reached, one check says so instead of one for each checkpoint."""
    lost = [check for check in report.checks if isinstance(check.error, HubUnreachable)]
    if len(lost) < FEWEST:
        return report
    text = (
        f"The Hugging Face Hub cannot be reached, and {len(lost)} checkpoints of this choice lie there and not on this "
        "machine. Check the connection, or pick an embedded pool or folders."
    )
    return Report((Check("Hub", PROBLEM, text), *[check for check in report.checks if check not in lost]))


def report_html(report: Report) -> str:
    """One line that sums up, which opens to all checks; problems stand open."""
    problems, notes = len(report.problems), len(report.notes)
    if problems:
        head, kind = f"{problems} of {len(report.checks)} checks failed", "error"
    else:
        head = f"{len(report.checks)} checks passed" + (f", {notes} to note" if notes else "")
        kind = "" if notes else "good"
    order = {PROBLEM: 0, NOTE: 1, OK: 2}
    lines = "".join(
        f'<li class="{check.level}"><span aria-hidden="true">{MARKS[check.level]}</span> <b>{escape(check.name)}</b> '
        f"{escape(logs.told(check.text))}</li>"
        for check in sorted(report.checks, key=lambda check: order[check.level])
    )
    return (
        f'<details class="studio-notice studio-checks {kind}"{" open" if problems else ""}><summary>{head}</summary>'
        f"<ul>{lines}</ul></details>"
    )
