"""What the Explore λ tab says: progress, the best weights with their scores on `test`, both λ of two models."""

from collections.abc import Sequence
from html import escape

from components.explore_figures import objective_title, percent, weights_text
from components.jobs import Job
from components.style import TITLES
from components.tables import notice
from components.weight_sliders import slider_names
from merging.search import Trial

STOPPED = "Stopped. Everything tried so far is kept; “Go on” tries the rest."


def progress_html(job: Job | None) -> str:
    """How far the search is, with the time to go; or how it ended."""
    if job is None or job.state == "failed":
        return ""
    if job.state == "stopped":
        return notice(STOPPED)
    if job.state == "done":
        return f'<div role="status">{escape(job.message)} Took {job.ended_s - job.started_s:.1f} s.</div>'
    remaining = job.remaining_s()
    eta = "" if remaining is None else f", about {max(1, round(remaining))} s to go"
    text = "stopping" if job.asked_to_stop.is_set() else job.text
    percent_done = 100 * job.fraction
    return (
        f'<div role="status">{escape(text)} ({percent_done:.0f} %{eta})</div>'
        f'<div class="studio-progress" role="progressbar" aria-label="Exploring" aria-valuenow="{percent_done:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100"><div style="width:{percent_done:.0f}%"></div></div>'
    )


def best_html(
    rows: Sequence[tuple[Trial, Trial]],
    ensembles: tuple[Trial, Trial],
    *,
    objective: str,
    names: Sequence[str],
    count: int,
) -> str:
    """Each rule's best weights, with their scores on `validation`, where they were chosen, and on `test`."""
    what = objective_title(objective)
    body = "".join(
        f'<tr><th scope="row">{escape(TITLES[chosen.rule])}</th>'
        f"<td>{percent(chosen.score(objective))}</td><td>{percent(on_test.score(objective))}</td>"
        f'<td class="wrapped">{escape(weights_text(names, chosen.weights))}</td></tr>'
        for chosen, on_test in rows
    )
    chosen, on_test = ensembles
    body += (
        f'<tr><th scope="row">{escape(TITLES["ensemble"])}</th>'
        f"<td>{percent(chosen.score(objective))}</td><td>{percent(on_test.score(objective))}</td><td>–</td></tr>"
    )
    caption = (
        f"Best by {what} among {count} merges tried with each rule. Chosen on validation, reported on test: accuracy with "
        "95 % Wilson intervals. The score on validation is the highest of many and therefore too high; the one on test is not."
    )
    return (
        f'<p class="studio-source">{escape(caption)}</p>'
        '<div class="studio-scroll" tabindex="0" role="region" aria-label="The best weights"><table class="studio-table">'
        '<thead><tr><th scope="col">rule</th><th scope="col">on validation</th>'
        '<th scope="col">on test</th><th scope="col">best λ</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def odds_html(models: Sequence[str], weights: Sequence[float]) -> str:
    """Both λ of two models."""
    return f'<div role="status">λ: {escape(weights_text(slider_names(models), weights))}</div>'
