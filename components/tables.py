"""Numbers and sentences: a result in, HTML and text out. Everything that users named is escaped."""

from collections.abc import Sequence
from html import escape
from uuid import uuid4

from components import logs
from components.picture import joined, save_buttons
from components.style import MODEL_COLOURS, TITLES, ordered
from merging.advice import BEWARE, advise
from merging.pipeline import Result
from merging.pools import published_for

MOST_ADVICE = 4
# In the head of a narrow column.
SHORT = {"fisher": "Fisher", "kfac": "K-FAC"}
# Marks a sentence about a sample of the rows.
PREVIEW = "studio-preview"


def score_table(result: Result) -> str:
    """The chart's numbers: accuracy with 95 % intervals, the page's rule − isotropic, McNemar's p, forward passes."""
    methods, rule = ordered(result.scores), result.recipe.rule
    paired = "isotropic" in methods and rule != "isotropic"
    head = "".join(f'<th scope="col">{escape(TITLES[method])}</th>' for method in methods)
    head += (
        f'<th scope="col">{SHORT.get(rule, TITLES[rule])} − isotropic</th><th scope="col">McNemar p</th>'
        if paired
        else ""
    )
    rows = "".join(_task_row(result, task, methods, paired) for task in result.scores[methods[0]])
    means = "".join(f"<td>{100 * result.mean(method):.1f}</td>" for method in methods)
    if paired:
        means += f"<td>{100 * (result.mean(rule) - result.mean('isotropic')):+.1f}</td><td></td>"
    passes = "".join(f"<td>{len(result.recipe.models) if method == 'ensemble' else 1}</td>" for method in methods)
    caption = (
        f"Accuracy in % on the {escape(result.recipe.evaluation.split)} split, with 95 % Wilson intervals. "
        "McNemar: exact two-sided test on the same examples."
    )
    return (
        '<div class="studio-saved" data-frame="score-chart" data-name="accuracy per task">'
        '<div class="studio-scroll" tabindex="0" role="region" aria-label="Scores as a table"><table class="studio-table">'
        f'<caption><span>{caption}</span></caption><thead><tr><th scope="col">task</th>{head}</tr></thead><tbody>{rows}'
        f'<tr class="mean"><th scope="row">mean</th>{means}</tr>'
        f"{_published_row(result, methods, paired)}"
        f'<tr><th scope="row">forward passes per input</th>{passes}{"<td></td><td></td>" if paired else ""}</tr>'
        f"</tbody></table></div>{save_buttons()}</div>{_published_others(result, methods)}"
    )


def _published_row(result: Result, methods: Sequence[str], paired: bool) -> str:
    published = published_for([entry.checkpoint for entry in result.recipe.models])
    if published is None:
        return ""
    mean = published.mean
    cells = "".join(f"<td>{mean[method]:.1f}</td>" if method in mean else "<td>–</td>" for method in methods)
    if paired:
        rule = result.recipe.rule
        there = rule in mean and "isotropic" in mean
        cells += f"<td>{mean[rule] - mean['isotropic']:+.1f}</td><td></td>" if there else "<td>–</td><td></td>"
    what = f"published, {published.task}" if published.task else "published mean"
    return f'<tr class="published"><th scope="row">{escape(what)}</th>{cells}</tr>'


def _published_others(result: Result, methods: Sequence[str]) -> str:
    """Where the published row is from, and what else was measured there."""
    published = published_for([entry.checkpoint for entry in result.recipe.models])
    if published is None:
        return ""
    others = ", ".join(f"{name} {value:.1f}" for name, value in published.mean.items() if name not in methods)
    text = f"Published: {published.source}." + (f" There also: {others}." if others else "")
    return f'<p class="studio-source">{escape(text)}</p>'


def _task_row(result: Result, task: str, methods: Sequence[str], paired: bool) -> str:
    cells = ""
    for method in methods:
        score = result.scores[method][task]
        interval = f'<span class="interval">{100 * score.low:.1f} – {100 * score.high:.1f}</span>'
        cells += f'<td data-value="{100 * score.value!r}">{100 * score.value:.1f}{interval}</td>'
    if paired:
        rule = result.recipe.rule
        difference = 100 * (result.scores[rule][task].value - result.scores["isotropic"][task].value)
        p_value = result.compare(rule, "isotropic", task).p_value
        better = ' class="better"' if p_value < 0.05 else ""
        cells += f"<td{better}>{difference:+.1f}</td><td{better}>{_p_text(p_value)}</td>"
    return f'<tr><th scope="row">{escape(task)}</th>{cells}</tr>'


def _p_text(p_value: float) -> str:
    return "&lt; 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def score_sentence(result: Result) -> str:
    """What the chart shows, also where the page's rule loses."""
    rule, count = result.recipe.rule, len(result.recipe.models)
    text = f"At these weights the <b>{escape(TITLES[rule])}</b> is right on <b>{100 * result.mean(rule):.1f} %</b> on average"
    text += f"{_verdict(result)}.{_best(result)}"
    if "ensemble" in result.scores:
        kind = "own outputs averaged" if result.prepared.equal_labels else "each task’s head on every body"
        text += (
            f" The output ensemble ({kind}) reaches {100 * result.mean('ensemble'):.1f} %, "
            f"at {count} forward passes instead of one."
        )
    if "experts" in result.scores:
        text += f" The single models reach {100 * result.mean('experts'):.1f} %."
    notes = "".join(f" {escape(note)}" for note in result.notes)
    return f'<div class="studio-sentence">{joined(text + notes)}</div>{_advised(result)}'


def _verdict(result: Result) -> str:
    """The page's rule beside isotropic averaging."""
    rule = result.recipe.rule
    if rule == "isotropic" or "isotropic" not in result.scores:
        return ""
    plain = 100 * result.mean("isotropic")
    gap = 100 * result.mean(rule) - plain
    if abs(gap) < 0.05:
        return ", the same as isotropic averaging"
    return f", {abs(gap):.1f} points {'above' if gap > 0 else 'below'} isotropic averaging ({plain:.1f} %)"


def _best(result: Result) -> str:
    """Which of the rules beside it is better, if one is."""
    others = [rule for rule in result.recipe.rules[1:] if rule != "isotropic"]
    if not others:
        return ""
    best = max(others, key=result.mean)
    gap = 100 * (result.mean(best) - result.mean(result.recipe.rule))
    if gap < 0.05:
        return f" No rule beside it is better; the nearest is {escape(TITLES[best])} ({100 * result.mean(best):.1f} %)."
    return f" Best beside it: <b>{escape(TITLES[best])}</b> with {100 * result.mean(best):.1f} %."


def preview_sentence(result: Result) -> str:
    """What stands before the sentence of a result on a sample of the rows."""
    rows = result.recipe.evaluation.examples
    own = f'class="{PREVIEW}" data-preview="{uuid4().hex}"'
    return f"<div {own}>A preview on {rows} rows of each task; all of them follow.</div>"


def _advised(result: Result) -> str:
    """Which rule to try, and what to beware of."""
    found = advise(result)
    rows = "".join(
        f"<li>{'<b>Beware:</b> ' if one.level == BEWARE else ''}{escape(one.text)}</li>" for one in found[:MOST_ADVICE]
    )
    return f'<ul class="studio-rules">{rows}</ul>' if rows else ""


def weight_shares(names: Sequence[str], weights: Sequence[float]) -> str:
    """λ as normalised, as one bar with a key; empty where the weights cannot be normalised."""
    total = sum(weights)
    if not names or not total > 0:
        return ""
    shares = [weight / total for weight in weights]
    track = "".join(
        f'<div style="width:{100 * share:.2f}%;background:{MODEL_COLOURS[index % len(MODEL_COLOURS)]}"></div>'
        for index, share in enumerate(shares)
    )
    key = "".join(
        f'<span class="key"><span class="dot" style="background:{MODEL_COLOURS[index % len(MODEL_COLOURS)]}"></span>'
        f"{escape(name)} {100 * share:.1f} %</span>"
        for index, (name, share) in enumerate(zip(names, shares, strict=True))
    )
    return f'<div class="studio-share"><div class="track" aria-hidden="true">{track}</div>normalised λ: {key}</div>'


def notice(text: str, kind: str = "") -> str:
    """A message that stays on the page; `kind` is empty, `error` or `good`."""
    text = logs.told(text)
    role = "alert" if kind == "error" else "status"
    return f'<div class="studio-notice {kind}" role="{role}">{escape(text)}</div>' if text else ""
