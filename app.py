"""The studio's page: places the panels, wires them, launches."""

import argparse
import os
import sys

if "--hosted" in sys.argv[1:]:
    os.environ["FISHER_STUDIO_HOSTED"] = "1"
if os.environ.get("SPACE_ID") or os.environ.get("FISHER_STUDIO_HOSTED"):
    # Strangers do not read the Hub in the name of whoever runs the server; read when the Hub's client is imported.
    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
# Threads that wait for work must not spin: beside other work on few cores that is many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Gradio's own table of events, which nothing here shows, is made anew after each of them from all before.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401 (before torch, which it changes)

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from components import (
    assets,
    downloads,
    events,
    explore_events,
    health,
    inspect_events,
    learn_events,
    logs,
    memory,
    rule_events,
    sessions,
    values,
)
from components.explore import create_explore
from components.export_panel import create_export_panel
from components.first_picture import kept
from components.inspect import create_inspect
from components.job_panel import begin, create_job_panel, first_recipe
from components.journal import JOURNAL
from components.kept_page import KeptPage
from components.learn import create_learn
from components.login import has_login, signed_in
from components.merge_history import create_merge_history
from components.merge_settings import create_merge_settings
from components.modes import UPLOAD_LIMITS, is_hosted
from components.parts import Parts, place_statuses
from components.pool_picker import DEFAULT_POOL, create_pool_picker, preset_models
from components.push_panel import create_push_panel
from components.rule_picker import create_formula, create_rule_picker
from components.score_charts import DESKTOP_PX, create_score_charts
from components.style import CSS, PAGE_JS
from components.theme import theme
from components.tour import head_html
from components.tradeoffs import create_tradeoffs
from components.visit_folders import FOLDERS
from components.weight_sliders import create_weight_sliders, slider_names
from merging.cache import cache_folder
from merging.pools import open_pool
from merging.readers import read_for

# The page holds the description of its API, 1.3 MB as text; answers to moves are smaller and stay as they are.
SMALL_PAGE = Middleware(GZipMiddleware, minimum_size=100_000, compresslevel=5)
# A merge is thousands of short operations, each of which gives Python's lock away; with Python's own 5 ms each of them may
# wait that long for a thread that renders a page: 30 s for a merge of 50 ms.
SWITCH_S = 0.0001


def build_app() -> gr.Blocks:
    """The page, opened on the first preset of the embedded pool."""
    pool = open_pool(DEFAULT_POOL)
    first_models = preset_models(pool, pool.presets[0].name)
    with gr.Blocks(title="Fisher Merge Studio", delete_cache=(3600, 86400), fill_width=True) as page:
        width_px = gr.Number(DESKTOP_PX, visible=False)
        query = gr.Textbox("", visible=False)
        with gr.Sidebar(width=330, label="Set-up") as sidebar:
            picker, job = create_pool_picker(below_models=create_job_panel)
        gr.HTML(head_html())
        with gr.Tabs() as tabs:
            with gr.Tab("Merge", id="merge"):
                formula_html = create_formula()
                weights = create_weight_sliders(first_models)
                charts = create_score_charts(first_recipe())
                rules = create_rule_picker(formula_html)
                weighed = create_tradeoffs()
                settings = create_merge_settings()
                visited = create_merge_history()
            with gr.Tab("Inspect", id="inspect") as inspect_tab:
                inspect = create_inspect(slider_names(first_models))
            with gr.Tab("Explore λ", id="explore") as explore_tab:
                explore = create_explore()
            with gr.Tab("Learn", id="learn") as learn_tab:
                learn = create_learn()
            with gr.Tab("Export", id="export") as export_tab:
                exports = create_export_panel()
                pushing = create_push_panel()
        parts = Parts(
            *(page, sidebar, width_px, query, tabs, picker, job, weights, charts, settings, rules, weighed, visited),
            *(inspect_tab, inspect, explore_tab, explore, learn_tab, learn, export_tab, exports, pushing),
        )
        events.wire(parts)
        rule_events.wire(parts)
        inspect_events.wire(parts)
        explore_events.wire(parts)
        learn_events.wire(parts)
    place_statuses(page)
    return page


def main() -> None:
    """Serves the page on this machine, and starts the first merge before anyone opens it."""
    parser = argparse.ArgumentParser(description="Serves Fisher Merge Studio at GRADIO_SERVER_NAME:GRADIO_SERVER_PORT.")
    parser.add_argument(
        "--hosted",
        action="store_true",
        help="for strangers: embedded models and ids of the Hub within limits, no folders; so is every Space",
    )
    parser.add_argument(
        "--mcp", action="store_true", help='the page\'s events as MCP tools, too; needs pip install "gradio[mcp]"'
    )
    asked = parser.parse_args()
    if asked.mcp and (reason := _lacking_mcp()):
        parser.exit(2, f"{reason}\n")
    sys.setswitchinterval(SWITCH_S)
    memory.begin()
    logs.begin()
    logs.event("started", **health.told_once(), jobs_lost=JOURNAL.open(cache_folder()))
    FOLDERS.begin()
    sessions.begin()
    values.begin()
    if is_hosted():
        os.environ["FISHER_UPLOADS_DIR"] = str(FOLDERS.server)
        downloads.begin()
    if has_login():
        read_for(signed_in)
    first = first_recipe()
    # Where a picture of it is kept, the models behind are opened once that stands: two at once take twice as long.
    begin(first, put_off=kept(first, DESKTOP_PX) is not None)
    page = build_app()
    page.queue(max_size=64)
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"),
        theme=theme(),
        css=CSS,
        head=f"<script>{PAGE_JS.read_text(encoding='utf-8')}</script>",
        run_history=False,
        footer_links=["api"],
        allowed_paths=[],
        max_file_size=UPLOAD_LIMITS.upload_bytes if is_hosted() else "2gb",
        state_session_capacity=200,
        ssr_mode=False,
        mcp_server=asked.mcp,
        app_kwargs={
            "routes": [*health.routes(), *assets.routes()],
            "middleware": [Middleware(KeptPage), SMALL_PAGE, Middleware(assets.Preload)],
        },
    )


def _lacking_mcp() -> str | None:
    """Why the page's events cannot be MCP tools; None where they can."""
    try:
        import mcp  # noqa: F401 (Gradio imports it later, and goes on without it)
    except ImportError as problem:
        return (
            f'The MCP tools cannot be served: expected the package "mcp", got "{problem}". '
            'Run pip install "gradio[mcp]", or leave out --mcp.'
        )
    return None


if __name__ == "__main__":
    main()
