"""A picture with all that belongs to it: one sentence that says what it shows, and its numbers as a table."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, its sentence (plain text), and its numbers: `columns` name the entries of each of the `rows`.

    `picks` holds for each row what choosing it hands to the frame's `picked` field, as the first entry of a point's
    `customdata` does on a click; None where nothing can be chosen. `pick_label` names the rows' buttons.
    """

    figure: go.Figure | None
    sentence: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    caption: str = ""
    picks: Sequence[str] | None = None
    pick_label: str = "Use these λ"


def sentence_html(picture: Picture) -> str:
    """The sentence over the figure."""
    return f'<div class="studio-sentence">{joined(escape(picture.sentence))}</div>' if picture.sentence else ""


def joined(text: str) -> str:
    """HTML text in which no line ends between a figure and its unit."""
    return re.sub(r"(?<=\d) (?=%|(?:s|[kMG]B)\b)", "&nbsp;", text)


def numbers_html(picture: Picture, name: str) -> str:
    """The numbers under the figure, folded, with buttons for CSV and SVG; `name` names the files and the region."""
    buttons = save_buttons(csv=bool(picture.columns), svg=picture.figure is not None)
    if not picture.columns:
        return f'<div class="studio-saved studio-numbers" data-name="{escape(name)}">{buttons}</div>' if buttons else ""
    titles = [f'<th scope="col">{escape(str(column))}</th>' for column in picture.columns]
    if picture.picks:
        titles.insert(1, '<th scope="col" class="pick">choose</th>')
    head = "".join(titles)
    rows = "".join(_row(picture, index, row) for index, row in enumerate(picture.rows))
    is_open = " open" if picture.figure is None else ""
    caption = f"<caption><span>{escape(picture.caption)}</span></caption>" if picture.caption else ""
    return (
        f'<div class="studio-saved studio-numbers" data-name="{escape(name)}"><details{is_open}><summary>Numbers as a table</summary>'
        f'<div class="studio-scroll" tabindex="0" role="region" aria-label="{escape(name)} as a table">'
        f'<table class="studio-table">{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
        f"{buttons}</div>"
    )


def save_buttons(*, csv: bool = True, svg: bool = True) -> str:
    """Buttons that page.js answers: the table beside them as CSV, the frame's figure as SVG."""
    kinds = [kind for kind, wanted in (("csv", csv), ("svg", svg)) if wanted]
    return "".join(
        f'<button type="button" class="studio-save" data-save="{kind}">Download {kind.upper()}</button>'
        for kind in kinds
    )


def _row(picture: Picture, index: int, row: Sequence[object]) -> str:
    first, *others = row
    cells = f'<th scope="row" data-value="{escape(_exact(first))}">{escape(_short(first))}</th>'
    if picture.picks:
        pick, label = escape(picture.picks[index]), escape(picture.pick_label)
        cells += f'<td class="pick"><button type="button" class="studio-save" data-pick="{pick}">{label}</button></td>'
    cells += "".join(f'<td data-value="{escape(_exact(value))}">{escape(_short(value))}</td>' for value in others)
    return f"<tr>{cells}</tr>"


def _exact(value: object) -> str:
    """As CSV holds it: every digit; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _short(value: object) -> str:
    """As the table shows it."""
    return (f"{value:.4g}" if isinstance(value, float) else str(value)) if _exact(value) else "–"
