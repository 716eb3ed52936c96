"""Pictures: data in, Plotly figures out."""

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.style import COLOURS, HEAT_COLOURS, MODEL_COLOURS, PATTERNS, TITLES
from merging.diagnostics import FisherMap
from merging.metrics import Score

# Below this the page is a phone's: no numbers on bars, one heatmap beside the other no more.
NARROW_PX = 700
MEAN = "<b>mean</b>"
SCORE_AXIS = {"range": [0, 108], "ticksuffix": " %", "tickvals": [0, 20, 40, 60, 80, 100], "fixedrange": True}
SCORE_HEIGHT_PX = 400


def empty_score_figure() -> go.Figure:
    """Axes without bars, for the time before the first merge: the browser loads Plotly meanwhile."""
    figure = go.Figure()
    figure.update_layout(
        yaxis=SCORE_AXIS,
        xaxis={"visible": False, "range": [0, 1]},
        annotations=[{"text": "merging …", "x": 0.5, "y": 50, "showarrow": False, "font": {"size": 16}}],
    )
    return _finished(figure, height=SCORE_HEIGHT_PX, below=36)


def score_figure(scores: dict[str, dict[str, Score]], singles: dict[str, dict[str, Score]], width_px: int) -> go.Figure:
    """Bars per task: the experts, isotropic averaging, the merge, the output ensemble, with 95 % intervals.

    Where several models can do a task with their own heads, each has a bar of its own in place of the experts' mean.
    """
    tasks = list(next(iter(scores.values())))
    several = {name: own for name, own in singles.items() if own}
    shared = any(sum(task in own for own in several.values()) > 1 for task in tasks)
    series = []
    if shared:
        for index, (name, own) in enumerate(several.items()):
            shade = 150 + (70 * index) // max(len(several), 1)
            series.append((name, own, f"rgb({shade},{shade},{shade})", ""))
    elif "experts" in scores:
        series.append((TITLES["experts"], scores["experts"], COLOURS["experts"], PATTERNS["experts"]))
    for method in ("isotropic", "fisher", "ensemble"):
        if method in scores:
            series.append((TITLES[method], scores[method], COLOURS[method], PATTERNS[method]))
    narrow = width_px < NARROW_PX
    figure = go.Figure([_bars(name, own, tasks, colour, pattern, narrow) for name, own, colour, pattern in series])
    if len(tasks) > 1:
        # The means stand apart.
        figure.add_vline(x=len(tasks) - 0.5, line={"width": 1, "dash": "dot", "color": "#888"})
    figure.update_layout(
        barmode="group",
        bargap=0.22,
        bargroupgap=0.06,
        yaxis=SCORE_AXIS,
        xaxis={"fixedrange": True, "tickfont": {"size": 13}, "automargin": True},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    )
    return _finished(figure, height=SCORE_HEIGHT_PX, below=36)


def _bars(name: str, scores: dict[str, Score], tasks: Sequence[str], colour: str, pattern: str, narrow: bool) -> go.Bar:
    own = [scores.get(task) for task in tasks]
    values = [None if score is None else 100 * score.value for score in own]
    above = [0.0 if score is None else 100 * (score.high - score.value) for score in own]
    below = [0.0 if score is None else 100 * (score.value - score.low) for score in own]
    hover, groups = [_interval_text(score) for score in own], [_plain(task) for task in tasks]
    if len(tasks) > 1:
        values.append(None if None in values else sum(values) / len(values))
        above, below, groups = [*above, 0.0], [*below, 0.0], [*groups, MEAN]
        hover.append("mean over the tasks")
    return go.Bar(
        name=_plain(name),
        x=groups,
        y=values,
        text=None if narrow else ["" if value is None else f"{value:.0f}" for value in values],
        textposition="inside",
        insidetextanchor="start",
        textangle=0,
        textfont={"color": "#111", "size": 12},
        marker={
            "color": colour,
            "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "rgba(0,0,0,.4)", "size": 7},
        },
        error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3},
        hovertext=hover,
        hovertemplate="%{x}: <b>%{y:.1f} %</b><br>%{hovertext}<extra>%{fullData.name}</extra>",
    )


def _interval_text(score: Score | None) -> str:
    return "" if score is None else f"95 %: {100 * score.low:.1f} to {100 * score.high:.1f}, {score.n} examples"


def heatmap_figure(fisher: FisherMap, width_px: int) -> go.Figure:
    """log₁₀ of the mean Fisher, layers × kinds, one panel per model, one colour scale for all."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        values = numpy.log10(fisher.mean).astype(numpy.float32)
    values[~numpy.isfinite(values)] = numpy.nan
    figure, places = _panels(fisher, width_px)
    for index, (row, column) in enumerate(places):
        figure.add_trace(
            go.Heatmap(
                z=values[index],
                x=list(fisher.kinds),
                y=list(fisher.layers),
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                hoverongaps=False,
                customdata=_cell_names(fisher),
                hovertemplate="%{y}, %{x}: 10<sup>%{z:.2f}</sup><br>%{customdata}<extra>"
                + _plain(fisher.models[index])
                + "</extra>",
            ),
            row=row,
            col=column,
        )
    figure.update_layout(coloraxis={"colorscale": HEAT_COLOURS, "colorbar": _colour_bar("log₁₀ mean F")})
    return _finished(figure, height=_panel_height(fisher, width_px))


def owner_figure(fisher: FisherMap) -> go.Figure:
    """Who owns which layer: per cell the model with the largest share of Σ λF, and that share in per cent."""
    share = numpy.nan_to_num(fisher.share, nan=-1.0)
    owner = share.argmax(0).astype(numpy.float32)
    largest = share.max(0)
    owner[largest <= 0] = numpy.nan
    count = len(fisher.models)
    colours = [MODEL_COLOURS[index % len(MODEL_COLOURS)] for index in range(count)]
    steps = [(edge / count, colours[min(place, count - 1)]) for place in range(count) for edge in (place, place + 1)]
    figure = go.Figure(
        go.Heatmap(
            z=owner,
            x=list(fisher.kinds),
            y=list(fisher.layers),
            zmin=-0.5,
            zmax=count - 0.5,
            colorscale=steps,
            showscale=False,
            xgap=2,
            ygap=2,
            text=[["" if value <= 0 else f"{100 * value:.0f}" for value in row] for row in largest],
            texttemplate="%{text}",
            textfont={"size": 12, "color": "#111"},
            hoverongaps=False,
            customdata=_share_texts(fisher),
            hovertemplate="%{y}, %{x}<br>%{customdata}<extra></extra>",
        )
    )
    for name, colour in zip(fisher.models, colours, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=_plain(name),
                showlegend=True,
                marker={"color": colour, "size": 12, "symbol": "square"},
            )
        )
    figure.update_layout(
        yaxis={"autorange": "reversed", "fixedrange": True, "showgrid": False},
        xaxis={"fixedrange": True, "showgrid": False, "tickangle": -45, "automargin": True},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    )
    return _finished(figure, height=140 + 40 * len(fisher.layers))


def _panels(fisher: FisherMap, width_px: int) -> tuple[go.Figure, list[tuple[int, int]]]:
    columns = 1 if width_px < NARROW_PX else 2
    rows = -(-len(fisher.models) // columns)
    places = [(index // columns + 1, index % columns + 1) for index in range(len(fisher.models))]
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_plain(name) for name in fisher.models],
        shared_xaxes=False,
        vertical_spacing=min(0.22, 0.6 / rows),
        horizontal_spacing=0.14,
    )
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False)
    figure.update_xaxes(fixedrange=True, showgrid=False, tickangle=-45)
    return figure, places


def _panel_height(fisher: FisherMap, width_px: int) -> int:
    rows = len(fisher.models) if width_px < NARROW_PX else -(-len(fisher.models) // 2)
    return 60 + rows * (110 + 26 * len(fisher.layers))


def _cell_names(fisher: FisherMap) -> list[list[str]]:
    return [[_plain("<br>".join(_cut(cell)), keep_breaks=True) for cell in row] for row in fisher.tensors]


def _cut(names: Sequence[str], limit: int = 4) -> list[str]:
    return [*names[:limit], *([f"and {len(names) - limit} more"] if len(names) > limit else [])]


def _share_texts(fisher: FisherMap) -> list[list[str]]:
    return [
        [
            "<br>".join(
                f"{_plain(name)}: {100 * fisher.share[index, row, column]:.1f} %"
                for index, name in enumerate(fisher.models)
            )
            for column in range(len(fisher.kinds))
        ]
        for row in range(len(fisher.layers))
    ]


def _plain(text: str, *, keep_breaks: bool = False) -> str:
    """Plotly reads a little HTML in its texts; names of models and tensors must not be read as such."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("&lt;br&gt;", "<br>") if keep_breaks else escaped


def _colour_bar(title: str) -> dict[str, object]:
    return {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 1.0}


def _finished(figure: go.Figure, *, height: int, below: int = 70) -> go.Figure:
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin={"l": 82, "r": 16, "t": 40, "b": below},
        font={"size": 12},
        uirevision="keep",
        hoverlabel={"bgcolor": "#222", "font": {"color": "#fff"}},
        modebar={"remove": ["zoom", "pan", "select", "lasso", "autoScale", "resetScale", "zoomIn", "zoomOut"]},
    )
    return figure
