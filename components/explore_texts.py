"""What the Explore λ tab says: progress, the best weights with their scores on `test`, both λ of two models."""

from collections.abc import Sequence
from html import escape

from components.explore_figures import objective_title, percent, weights_text
from components.job_panel import progress_html
from components.jobs import Job
from components.style import TITLES
from components.weight_sliders import slider_names
from merging.search import Trial

STOPPED = "Stopped. Everything tried so far is kept; “Go on” tries the rest."


def search_progress(job: Job | None) -> str:
    """How far the search is, with the time to go; or how it ended. Why it failed stands above the buttons."""
    if job is None or job.state == "failed":
        return ""
    return progress_html(job, name="Exploring", stopped=STOPPED)


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
