"""Pictures of every model on every task, and of the loss on a plane. Data in, pictures out."""

import numpy
import plotly.graph_objects as go

from components.figures import NARROW_PX, _finished, _plain
from components.inspect_heatmaps import LIGHT_COLOURS, ON_LIGHT
from components.picture import Picture
from components.style import COLOURS, HEAT_COLOURS, TITLES
from merging.diagnostics.matrix import MatrixCell, TaskMatrix
from merging.diagnostics.planes import LossPlane, PlanePoint

OWN, LENT = "●", "†"
# Losses above the corners' own by so much look alike: the valley is what one wants to see.
CLIPPED = 2.5
CORNERS = ("circle", "diamond", "triangle-up")
# Nearer to the plane than this part of its triangle is in it: more is not left of float32.
ROUNDING = 1e-5
SHORT = {"isotropic": "isotropic", "fisher": "Fisher", "ensemble": "ensemble"}
MARKS = {"isotropic": "square", "fisher": "star"}


def matrix_picture(found: TaskMatrix, width_px: int) -> Picture:
    """Accuracy in every cell; ● the row's own task, † the task's head on the row's body, columns say what is unseen."""
    narrow = width_px < NARROW_PX
    values = numpy.array([[100 * own[task].score.value for task in found.tasks] for own in found.cells])
    titles = SHORT if narrow else TITLES
    rows = [
        _plain(titles.get(name, name) if kind == "merge" else name)
        for name, kind in zip(found.rows, found.kinds, strict=True)
    ]
    tasks = [_plain(_titled(found, task)) for task in found.tasks]
    hover = [[_told(cell) for cell in own.values()] for own in found.cells]
    labels = [[_label(cell, narrow) for cell in own.values()] for own in found.cells]
    figure = go.Figure(
        go.Heatmap(
            z=values.astype(numpy.float32),
            x=tasks,
            y=list(range(len(rows))),
            zmin=float(values.min()),
            zmax=100,
            colorscale=LIGHT_COLOURS,
            showscale=False,
            xgap=2,
            ygap=2,
            text=labels,
            texttemplate="%{text}",
            textfont=ON_LIGHT,
            hovertext=hover,
            hovertemplate="%{x}: <b>%{z:.1f} %</b><br>%{hovertext}<extra></extra>",
        )
    )
    merges = found.kinds.index("merge")
    figure.add_hline(y=merges - 0.5, line={"width": 2, "dash": "dot", "color": "#888"})
    figure.update_yaxes(
        autorange="reversed",
        fixedrange=True,
        showgrid=False,
        zeroline=False,
        tickvals=list(range(len(rows))),
        ticktext=rows,
        automargin=True,
    )
    figure.update_xaxes(
        fixedrange=True,
        showgrid=False,
        side="top",
        automargin=True,
        tickangle=-35 if narrow else 0,
        tickfont={"size": 12},
    )
    table = []
    for index, own in enumerate(found.cells):
        cells = [value for task in found.tasks for value in (100 * own[task].score.value, _mark(own[task]).strip())]
        table.append([TITLES.get(found.rows[index], found.rows[index]), *cells, 100 * found.mean(index)])
    columns = ["model", *[part for task in found.tasks for part in (f"{_titled(found, task)} %", "mark")], "mean %"]
    caption = (
        f"Accuracy in % on {found.split}. {OWN} the model’s own task, which it was fine-tuned on; {LENT} the body under the "
        "task’s head, as in the ensemble; (unseen): a task that none of these models was fine-tuned on."
    )
    finished = _finished(figure, height=(160 if narrow else 120) + 36 * len(rows), below=20)
    # A phone's tools lie over the upper edge, and aslant names lean out on the right.
    finished.update_layout(margin={"t": 90, "r": 48} if narrow else {})
    return Picture(finished, _matrix_sentence(found), columns, table, caption)


def plane_picture(found: LossPlane, width_px: int) -> Picture:
    """Contours of the mean loss on the plane through three models, with them and both merges."""
    figure = go.Figure()
    own = [point.loss for point in (*found.corners, *found.merges)]
    low = float(min(found.loss.min(), *own))
    high = min(float(found.loss.max()), low + CLIPPED * max(max(own) - low, 1e-3))
    figure.add_trace(
        go.Contour(
            x=found.x,
            y=found.y,
            z=found.loss.astype(numpy.float32),
            zmin=low,
            zmax=high,
            contours={"start": low, "end": high, "size": (high - low) / 14, "showlines": True},
            line={"width": 0.6, "color": "rgba(255,255,255,.5)"},
            colorscale=HEAT_COLOURS,
            reversescale=True,
            colorbar={"title": {"text": "loss", "side": "right"}, "thickness": 12, "outlinewidth": 0},
            hovertemplate="mean loss %{z:.3f}<extra></extra>",
        )
    )
    for point, symbol in zip(found.corners, CORNERS, strict=True):
        figure.add_trace(_marked(point, point.name, {"symbol": symbol, "color": "#fff", "size": 14}))
    for point in found.merges:
        marker = {"symbol": MARKS[point.name], "color": COLOURS[point.name], "size": 16}
        figure.add_trace(_marked(point, TITLES[point.name], marker))
    figure.update_layout(
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "bgcolor": "rgba(0,0,0,0)"},
    )
    figure.update_xaxes(
        fixedrange=True, showgrid=False, zeroline=False, constrain="domain", title="distance along the plane"
    )
    figure.update_yaxes(fixedrange=True, showgrid=False, zeroline=False, scaleanchor="x", constrain="domain")
    rows = [
        [TITLES.get(point.name, point.name), point.x, point.y, point.off, point.loss]
        for point in (*found.corners, *found.merges)
    ]
    rows += [
        ["grid", float(x), float(y), 0.0, float(found.loss[row, column])]
        for row, y in enumerate(found.y)
        for column, x in enumerate(found.x)
    ]
    caption = (
        f"Mean cross-entropy over the tasks on {found.split}; distances are Euclidean, over all merged parameters."
    )
    narrow = width_px < NARROW_PX
    finished = _finished(figure, height=460 if narrow else 540, below=60)
    if narrow:
        bar = {"orientation": "h", "y": 1.01, "yanchor": "bottom", "title": {"text": "loss", "side": "top"}}
        finished.update_traces(colorbar=bar, selector={"type": "contour"})
        finished.update_layout(margin={"l": 36, "t": 90, "b": 130}, legend={"y": -0.22, "yanchor": "top"})
    columns = ["point", "x", "y", "distance off the plane", "mean loss"]
    return Picture(finished, _plane_sentence(found), columns, rows, caption)


def _marked(point: PlanePoint, title: str, marker: dict[str, object]) -> go.Scatter:
    hover = f"<b>{_plain(title)}</b><br>loss {point.loss:.3f}<br>{point.off:.3g} off the plane<extra></extra>"
    return go.Scatter(
        x=[point.x],
        y=[point.y],
        mode="markers",
        name=_plain(title),
        marker={**marker, "line": {"width": 2, "color": "#111"}},
        hovertemplate=hover,
    )


def _plane_sentence(found: LossPlane) -> str:
    isotropic, fisher = found.merges
    side = max(((one.x - two.x) ** 2 + (one.y - two.y) ** 2) ** 0.5 for one in found.corners for two in found.corners)
    return (
        f"The Fisher merge has a mean loss of {fisher.loss:.3f} and lies {_off(fisher, side)} the plane through "
        f"{', '.join(point.name for point in found.corners)}; the isotropic average has {isotropic.loss:.3f} and lies "
        f"{_off(isotropic, side)} it. The longest side of the triangle is {side:.3g}. Drawn is where they fall on it."
    )


def _off(point: PlanePoint, side: float) -> str:
    return "in" if point.off < ROUNDING * side else f"{point.off:.3g} off"


def _titled(found: TaskMatrix, task: str) -> str:
    return f"{task} (unseen)" if task in found.unseen else task


def _mark(cell: MatrixCell) -> str:
    return f" {OWN}" if cell.is_own else f" {LENT}" if cell.is_lent else ""


def _label(cell: MatrixCell, narrow: bool) -> str:
    value = 100 * cell.score.value
    text = f"{value:.0f}{_mark(cell).strip()}" if narrow else f"{value:.1f}{_mark(cell)}"
    return f"<b>{text}</b>" if cell.is_own else text


def _told(cell: MatrixCell) -> str:
    score = cell.score
    text = f"95 %: {100 * score.low:.1f} to {100 * score.high:.1f}, {score.n} examples"
    if cell.is_own:
        return f"{text}<br>its own task"
    return f"{text}<br>with the task’s head" if cell.is_lent else text


def _matrix_sentence(found: TaskMatrix) -> str:
    places = {name: index for index, name in enumerate(found.rows) if found.kinds[index] == "merge"}
    means = {name: 100 * found.mean(place) for name, place in places.items()}
    singles = [index for index, kind in enumerate(found.kinds) if kind == "model"]
    best = max(singles, key=found.mean)
    text = (
        f"Over all tasks the Fisher merge reaches {means['fisher']:.1f} %, the isotropic average {means['isotropic']:.1f} %, "
        f"the output ensemble {means['ensemble']:.1f} %; the best single model is {found.rows[best]} with "
        f"{100 * found.mean(best):.1f} %."
    )
    return f"{text} {found.note}".strip()
