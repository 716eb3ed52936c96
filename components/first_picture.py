"""The picture that the page opens on, kept on disk: a visitor sees it while the models behind it are still being opened.

It is the result of an earlier merge on this machine, under a name made of the recipe, the embedded pools and the code
that made it: another byte in any of them, and it is made anew. The merge that follows replaces it.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch
from gradio.components.plot import PlotData

from components.figures import NARROW_PX, score_figure
from components.tables import score_sentence, score_table
from merging.cache import cache_folder, write_atomically
from merging.errors import MergingError
from merging.pipeline import Result
from merging.recipe import Recipe

ROOT = Path(__file__).parent.parent
# A width of either kind; figures only distinguish phones from all else.
WIDTHS_PX = {"narrow": NARROW_PX - 1, "wide": NARROW_PX + 1}


def picture_of(result: Result, width_px: float) -> list[object]:
    """A result as the page shows it: sentence, chart, table."""
    figure = score_figure(result.scores, result.singles, int(width_px))
    return [score_sentence(result), PlotData(type="plotly", plot=json.dumps(figure)), score_table(result)]


def keep(result: Result) -> None:
    """Keeps a result's picture; where the disk is full the next visitor waits for the merge instead."""
    pictures = {}
    for kind, width_px in WIDTHS_PX.items():
        sentence, figure, table = picture_of(result, width_px)
        pictures[kind] = [sentence, figure.plot, table]
    text = json.dumps(pictures)
    try:
        write_atomically(_path(result.recipe), lambda path: path.write_text(text, encoding="utf-8"))
    except MergingError:
        return


def kept(recipe: Recipe, width_px: float) -> list[object] | None:
    """The picture of this very recipe, if it was kept by this very code: sentence, chart, table."""
    try:
        pictures = json.loads(_path(recipe).read_text(encoding="utf-8"))
        sentence, figure, table = pictures["narrow" if width_px < NARROW_PX else "wide"]
        return [sentence, PlotData(type="plotly", plot=figure), table]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(recipe: Recipe) -> Path:
    name = hashlib.sha256(f"{recipe.to_yaml()}{_code_and_pools()}".encode()).hexdigest()[:40]
    return cache_folder() / f"picture-{name}.json"


@lru_cache(maxsize=1)
def _code_and_pools() -> str:
    digest = hashlib.sha256(torch.__version__.encode())
    files = [path for folder in ("merging", "components") for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
