"""Colours, fonts and the few lines of CSS that the stock theme lacks."""

from collections.abc import Iterable
from pathlib import Path

from merging.rules import RULES

PAGE_JS = Path(__file__).with_name("page.js")
# Okabe & Ito 2008: told apart with every common colour vision; each also has a pattern of its own.
COLOURS = {
    "experts": "#7f7f7f",
    "isotropic": "#56B4E9",
    "fisher": "#D55E00",
    "ensemble": "#009E73",
}
PATTERNS = {"experts": "", "isotropic": "/", "fisher": "", "ensemble": "x"}
TITLES = {
    "experts": "experts (own task)",
    "isotropic": "isotropic average",
    "fisher": "Fisher merge",
    "ensemble": "output ensemble",
}
# The rules that may stand beside these: the same eight colours, a pattern each where two share one.
COLOURS |= {
    "kfac": "#0072B2",
    "regmean": "#E69F00",
    "regmean_weighted": "#E69F00",
    "row": "#CC79A7",
    "ugm": "#F0E442",
    "task_arithmetic": "#009E73",
    "ties": "#CC79A7",
    "dare": "#F0E442",
    "slerp": "#0072B2",
}
PATTERNS |= {
    "kfac": "",
    "regmean": "",
    "regmean_weighted": "/",
    "row": "",
    "ugm": "",
    "task_arithmetic": "",
    "ties": "\\",
    "dare": ".",
    "slerp": "|",
}
TITLES |= {name: rule.title for name, rule in RULES.items() if name not in TITLES}
# Of points and lines: each method has a symbol of its own, and no two of one colour the same dash.
SYMBOLS = {"experts": "star", "isotropic": "square", "fisher": "circle", "ensemble": "x", "kfac": "diamond"}
SYMBOLS |= {"regmean": "triangle-down", "regmean_weighted": "pentagon", "row": "triangle-up", "ugm": "hexagon"}
SYMBOLS |= {"task_arithmetic": "cross", "ties": "hourglass", "dare": "bowtie", "slerp": "diamond-tall"}
DASHES = {name: "solid" for name in RULES} | {"isotropic": "dot", "regmean_weighted": "dashdot", "ties": "longdashdot"}
DASHES |= {"task_arithmetic": "dashdot", "dare": "longdashdot", "slerp": "dot", "ensemble": "dash"}


def tinted(method: str, share: float) -> str:
    """A method's colour, seen through."""
    red, green, blue = bytes.fromhex(COLOURS[method].removeprefix("#"))
    return f"rgba({red},{green},{blue},{share})"


def ordered(methods: Iterable[str]) -> list[str]:
    """Methods as the page shows them: experts, isotropic averaging, other rules, the ensemble."""
    there = list(methods)
    return [name for name in ("experts", *RULES, "ensemble") if name in there]


# For models: eight colours, enough for the eight rows of sliders.
MODEL_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#999999")
HEAT_COLOURS = "Cividis"

CSS = """
/* Plotly knows nothing of the theme: its text and lines follow Gradio's variables, also when the mode changes. */
.js-plotly-plot .main-svg text:not(.bartext, .heatmap-label, .heatmap-label *, .hoverlayer *) { fill: var(--body-text-color) !important; }
.js-plotly-plot .main-svg .bartext { font-weight: 600; }
.js-plotly-plot .main-svg .bartext-outside { fill: var(--body-text-color) !important; }
.js-plotly-plot .gridlayer path { stroke: var(--border-color-primary) !important; }
.js-plotly-plot .zerolinelayer path { stroke: var(--body-text-color-subdued) !important; }
.js-plotly-plot .errorbar path { stroke: var(--body-text-color) !important; }
.js-plotly-plot .hoverlayer text { fill: #fff !important; }
.js-plotly-plot .hoverlayer text.name { fill: #111 !important; }
.gradio-container .prose h2 { font-size: 1.2rem; margin-top: .4rem; }
.studio-head { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; justify-content: space-between; align-items: center; }
.studio-invitation [hidden] { display: none; }
.studio-tour { position: fixed; z-index: 1000; left: 50%; transform: translateX(-50%); bottom: 1rem; width: min(34rem, calc(100vw - 2rem));
  background: var(--background-fill-primary); color: var(--body-text-color); border: 2px solid var(--link-text-color);
  border-radius: 8px; padding: .8rem 1rem; box-sizing: border-box; box-shadow: 0 8px 30px rgba(0,0,0,.35); }
.studio-tour h2 { margin: 0 0 .3rem; font-size: 1.1rem; outline: none; }
.studio-tour p { margin: 0 0 .6rem; line-height: 1.45; }
.studio-tour .buttons { display: flex; gap: .5rem; align-items: center; }
.studio-tour .buttons span { margin-right: auto; font-variant-numeric: tabular-nums; }
.studio-tour .studio-save { font-size: .95rem; padding: .3rem .8rem; }
.studio-toured { outline: 3px solid var(--link-text-color); outline-offset: 4px; border-radius: 4px; }
.studio-head h1 { margin: 0 0 .15rem; font-size: 1.55rem; }
.studio-head p { margin: 0; color: var(--body-text-color-subdued); }
.studio-formula { font-family: Georgia, 'DejaVu Serif', serif; font-size: 1.1rem; text-align: center; padding: .25rem 0; }
.studio-formula .fraction { display: inline-block; vertical-align: middle; text-align: center; margin: 0 .2rem; }
.studio-formula .fraction > span { display: block; padding: 0 .3rem; }
.studio-formula .fraction > span:first-child { border-bottom: 1px solid currentColor; }
.studio-sliders .form, .studio-sliders > .styler { display: grid !important;
  grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)) !important; }
.studio-rules { margin: .2rem 0 .4rem; padding-left: 1.2rem; line-height: 1.45; }
.studio-rules .cost { color: var(--body-text-color-subdued); }
.studio-sentence { font-size: 1.06rem; line-height: 1.5; padding: .2rem .1rem; }
.studio-preview { color: var(--body-text-color-subdued); font-size: .92rem; }
.studio-notice { border-left: 4px solid #E69F00; background: var(--background-fill-secondary); padding: .6rem .9rem;
  border-radius: 4px; color: var(--body-text-color); overflow-wrap: anywhere; }
.studio-notice.error { border-color: #D55E00; }
.studio-notice.good { border-color: #009E73; }
.studio-checks { padding: .45rem .7rem; font-size: .92rem; }
.studio-checks summary { cursor: pointer; }
.studio-checks ul { list-style: none; margin: .4rem 0 0; padding: 0; }
.studio-checks li { margin: 0 0 .35rem; padding: 0; }
.studio-scroll { overflow-x: auto; max-width: 100%; container-type: inline-size; }
.modebar-btn--logo { display: none !important; }
.studio-table { border: none !important; border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
.studio-table caption { text-align: left; color: var(--body-text-color-subdued); padding-bottom: .3rem; }
/* A caption is as wide as what is seen of its table, and stays when the table is moved sideways. */
.studio-table caption > span { display: inline-block; position: sticky; left: 0; max-width: 100cqw; white-space: normal; }
.studio-table tr { border: none !important; }
.studio-table th, .studio-table td { padding: .3rem .6rem; border-style: none none solid none !important;
  border-bottom-width: 1px !important; border-bottom-color: var(--border-color-primary) !important; text-align: right; white-space: nowrap; color: var(--body-text-color); }
.studio-table thead th { white-space: normal; vertical-align: bottom; }
.studio-table td.wrapped { white-space: normal; min-width: 9rem; }
.studio-table th:first-child { text-align: left; }
.studio-table tr.mean th, .studio-table tr.mean td { font-weight: 700; }
.studio-table tr.published th, .studio-table tr.published td { font-style: italic; }
.studio-source { margin: .3rem 0 0; color: var(--body-text-color-subdued); font-size: .88rem; }
.studio-table .better { font-weight: 700; }
.studio-table .interval { color: var(--body-text-color-subdued); font-size: .82em; display: block; }
.studio-progress { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; margin: .3rem 0; }
.studio-progress > div { height: 100%; background: #D55E00; transition: width .3s; }
.studio-share { font-variant-numeric: tabular-nums; }
.studio-share .track { display: flex; height: 14px; border-radius: 7px; overflow: hidden; margin: .2rem 0 .35rem;
  background: var(--border-color-primary); }
.studio-share .key { display: inline-flex; align-items: center; gap: .3rem; margin-right: .9rem; white-space: nowrap; }
.studio-share .dot { width: .7rem; height: .7rem; border-radius: 50%; display: inline-block; }
/* The stock colours of code (light) and of the chosen tab are too faint on white. */
body:not(.dark) .cm-line span { color: inherit !important; }
.gradio-container button[role=tab].selected { color: var(--link-text-color) !important; }
.gradio-container input[type=range]:focus-visible { outline: 2px solid var(--link-text-color); outline-offset: 4px; }
/* A message without text takes no room. */
.studio-message:not(:has(.studio-notice)) { display: none !important; }
.studio-numbers { display: flex; flex-wrap: wrap; gap: .4rem .6rem; align-items: flex-start; font-size: .9rem; }
.studio-numbers details { flex: 1 1 14rem; min-width: 0; }
.studio-numbers details[open] { flex-basis: 100%; }
.studio-frame:not(:has(.js-plotly-plot)) { display: none !important; }
.studio-numbers summary { cursor: pointer; color: var(--body-text-color); padding: .2rem 0; }
.studio-numbers .studio-scroll { max-height: 22rem; overflow-y: auto; }
.studio-saved > .studio-save { margin: .4rem .4rem 0 0; }
.studio-save { border: 1px solid var(--border-color-primary); border-radius: 4px; padding: .15rem .6rem; cursor: pointer;
  background: var(--background-fill-secondary); color: var(--body-text-color); font-size: .85rem; white-space: nowrap; }
.studio-save:focus-visible, .studio-numbers summary:focus-visible { outline: 2px solid var(--link-text-color); outline-offset: 2px; }
.studio-lesson { max-width: 46rem; font-size: 1.03rem; line-height: 1.55; }
.studio-lesson h3 { margin: .2rem 0 0; font-size: 1.15rem; }
.studio-lesson p { margin: .45rem 0; }
@media (max-width: 640px) { .gradio-container { padding: .5rem !important; } .studio-table { font-size: .82rem; }
  .studio-table th, .studio-table td { padding: .25rem .35rem; } }
"""
