"""How long the heatmaps of a large model take to draw, and how much of them travels: `python -m tests.benchmarks.heatmaps`.

48 layers, 16 kinds, 8 models: from the numbers to JSON on the server, then drawn by Gradio's own Plotly in a browser.
"""

import time

import numpy

from components.inspect_heatmaps import difference_picture, heatmap_picture
from components.inspect_owners import owner_picture
from components.picture import numbers_html
from merging.diagnostics.maps import FisherMap

LAYERS, KINDS, MODELS = 48, 16, 8
TENSORS_PER_CELL = 2
WIDTH_PX = 1200
REPEATS = 5


def large_map(layers: int = LAYERS, kinds: int = KINDS, models: int = MODELS, seed: int = 0) -> FisherMap:
    """Fishers of a large model, drawn at random; every tenth cell is empty."""
    random = numpy.random.default_rng(seed)
    tensors = tuple(
        tuple(
            ()
            if (row * kinds + column) % 10 == 9
            else tuple(
                f"model.decoder.layers.{row}.self_attention.projection_{column}.{part}"
                for part in ("weight", "bias")[:TENSORS_PER_CELL]
            )
            for column in range(kinds)
        )
        for row in range(layers)
    )
    empty = numpy.array([[not cell for cell in row] for row in tensors])
    mean = 10 ** random.uniform(-12, -3, size=(models, layers, kinds))
    share = random.dirichlet(numpy.ones(models), size=(layers, kinds)).transpose(2, 0, 1)
    mean[:, empty] = share[:, empty] = numpy.nan
    return FisherMap(
        models=tuple(f"model-{index}" for index in range(models)),
        layers=tuple(f"layer {row}" for row in range(layers)),
        kinds=tuple(f"kind-{column}" for column in range(kinds)),
        mean=mean,
        share=share,
        tensors=tensors,
        traces=numpy.nansum(mean, axis=(1, 2)),
        zeros=numpy.zeros(models),
        total_share=numpy.nanmean(share, axis=(1, 2)),
        shapes={name: (4096, 4096) for row in tensors for cell in row for name in cell},
    )


def main() -> None:
    """Measures and prints a table."""
    fisher = large_map()
    pictures = {
        "heatmaps of all models": lambda: heatmap_picture(fisher, WIDTH_PX),
        "owner map": lambda: owner_picture(fisher),
        "difference of two": lambda: difference_picture(fisher, *fisher.models[:2]),
    }
    print("| picture | made in | JSON | drawn in a browser | table |\n|---|---|---|---|---|")
    for name, make in pictures.items():
        made_s, picture = _least(make)
        text = picture.figure.to_json()
        table = len(numbers_html(picture, name).encode())
        print(
            f"| {name} | {made_s:.2f} s | {len(text.encode()) / 1e3:.0f} kB | {_drawn_s(text):.2f} s | {table / 1e3:.0f} kB |"
        )


def _least(make: object) -> tuple[float, object]:
    """The least time of some runs, to JSON."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        picture = make()
        picture.figure.to_json()
        times.append(time.perf_counter() - started)
    return min(times), picture


def _drawn_s(figure_json: str) -> float:
    """The least time in which a browser draws it, with the Plotly that comes with Plotly's Python package."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    from tests import browser

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.find(), args=list(browser.LAUNCH_ARGUMENTS))
        page = chromium.new_page(viewport={"width": WIDTH_PX, "height": 1000})
        page.set_content("<div id=graph></div>")
        page.add_script_tag(content=get_plotlyjs())
        draw = """async text => {
            const started = performance.now(), figure = JSON.parse(text);
            await Plotly.newPlot('graph', figure.data, figure.layout);
            await new Promise(requestAnimationFrame);
            return performance.now() - started;
        }"""
        times = [page.evaluate(draw, figure_json) for _ in range(REPEATS)]
        chromium.close()
    return min(times) / 1e3


if __name__ == "__main__":
    main()
