"""The Learn tab in a browser: every picture is drawn and follows what is moved, with the numbers of `merging`."""

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

import merging
from components.learn import CENTRES, EXAMPLE
from components.lessons import INTERMEDIATE, LESSONS, ROBUST
from merging.diagnostics import Gaussian, Optimum, optima, share_curves
from merging.diagnostics.gaussians import ladder
from merging.rules import RuleSettings
from tests.ui.accessible import serious_in_both_modes
from tests.ui.looking import open_page, open_tab, press, settle

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SECTIONS = ("Lessons", "Two Gaussians", "How many examples?", "What it costs")
PRECISION = "Model 2: precision along θ₂ (F₂₂)"


@pytest.fixture
def learn(page):
    """The page with the Learn tab open."""
    open_tab(page, "Learn")
    expect(page.locator("#lesson-text")).to_contain_text("Step")
    return page


def _drawn(page: Page, frame: str) -> Locator:
    drawn = page.locator(f"#{frame} .js-plotly-plot .main-svg").first
    expect(drawn).to_be_visible()
    return drawn


def _choose_lesson(page: Page, key: str) -> None:
    page.get_by_role("radio", name=LESSONS[key].title).check()
    expect(page.locator("#lesson-text h3")).to_have_text(LESSONS[key].steps[0].title)


def _start(page: Page, key: str) -> None:
    _choose_lesson(page, key)
    press(page, "Start")
    expect(page.locator("#lesson-text h3")).to_have_text(LESSONS[key].steps[1].title)
    _drawn(page, "lesson")


def _next(page: Page, key: str, step: int) -> None:
    press(page, "Next")
    expect(page.locator("#lesson-text h3")).to_have_text(LESSONS[key].steps[step].title)
    settle(page)


def _numbers(page: Page, frame: str) -> list[list[float]]:
    """The table under a picture, without its first column of words or λ."""
    cells = page.locator(f"#{frame}-numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.dataset.value))"
    )
    return [[float(cell) for cell in row if cell and cell[-1].isdigit()] for row in cells]


def _optima(values: tuple[float, ...], **kept: float) -> dict[str, Optimum]:
    models = [Gaussian(CENTRES[index], *values[3 * index : 3 * index + 3]) for index in (0, 1)]
    return optima(models, [values[6], 1 - values[6]], RuleSettings(**kept))


def _gaussian_table(values: tuple[float, ...]) -> list[list[float]]:
    return [[*own.point, own.loss] for own in _optima(values).values()]


def _ladder_table(values: tuple[float, ...], **kept: float) -> list[list[float]]:
    first, *others = ladder(_optima(values, **kept))
    return [[first.excess], *([step.excess, step.gained] for step in others)]


def _bars(page: Page) -> list[float]:
    """The heights of the ladder's bars, in pixels."""
    boxes = page.locator("#ladder .bars .point > path:first-child").evaluate_all(
        "paths => paths.map(path => path.getBBox().height)"
    )
    return [round(box, 1) for box in boxes]


def _type(page: Page, name: str, value: float) -> None:
    field = page.get_by_role("spinbutton", name=name)
    field.fill(f"{value:g}")
    field.press("Tab")


def test_two_gaussians_are_drawn_with_mergings_own_numbers_and_follow_a_slider(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "gaussians")
    assert _numbers(learn, "gaussians") == [pytest.approx(row) for row in _gaussian_table(EXAMPLE)]
    expect(learn.locator("#gaussians-sentence")).to_contain_text("(1.25, 1.25) with a loss of 2.50")
    expect(learn.locator("#gaussians-formula")).to_contain_text("1.6667")
    field = learn.get_by_role("spinbutton", name=PRECISION)
    field.fill("6")
    field.press("Tab")
    expect(learn.locator("#gaussians-formula")).to_contain_text("0.5·6")
    moved = (*EXAMPLE[:4], 6.0, *EXAMPLE[5:])
    assert _numbers(learn, "gaussians") == [pytest.approx(row) for row in _gaussian_table(moved)]
    press(learn, "Two regressions")
    expect(learn.locator("#gaussians-sentence")).to_contain_text("(1.25, 1.25)")


def test_the_ladder_is_drawn_with_mergings_own_numbers_and_follows_a_dragged_precision(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "ladder")
    settle(learn)
    assert _numbers(learn, "ladder") == [pytest.approx(row, abs=1e-12) for row in _ladder_table(EXAMPLE)]
    expect(learn.locator("#ladder-sentence")).to_contain_text("K-FAC gains 0.641")
    bars, sentence = _bars(learn), learn.locator("#ladder-sentence").inner_text()
    assert bars == sorted(bars, reverse=True)
    assert bars[-1] == 0
    handle = learn.get_by_role("slider", name=PRECISION, exact=False)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    middle = box["y"] + box["height"] / 2
    learn.mouse.move(box["x"] + box["width"] * 2 / 8, middle)
    learn.mouse.down()
    learn.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=8)
    # Already while the button is held.
    expect(learn.locator("#ladder-sentence")).not_to_have_text(sentence)
    learn.mouse.up()
    moved = float(handle.input_value())
    assert moved > 5
    expect(learn.locator("#gaussians-formula")).to_contain_text(f"0.5·{moved:.3g}")
    settle(learn)
    expected = _ladder_table((*EXAMPLE[:4], moved, *EXAMPLE[5:]))
    assert _numbers(learn, "ladder") == [pytest.approx(row, abs=1e-12) for row in expected]
    assert _bars(learn) != bars


def test_off_diagonals_and_damping_take_k_fac_from_the_diagonal_to_the_full_fisher(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "ladder")
    _type(learn, "K-FAC: damping δ", 0)
    for kept, told in ((0, "K-FAC gains nothing"), (1, "the full Fisher gains nothing")):
        _type(learn, "K-FAC: off-diagonals kept α", kept)
        expect(learn.locator("#ladder-sentence")).to_contain_text(told)
        expected = _ladder_table(EXAMPLE, shrinkage=kept, damping=0.0)
        assert _numbers(learn, "ladder") == [pytest.approx(row, abs=1e-12) for row in expected]
    press(learn, "Tilted against each other")
    expect(learn.locator("#ladder-sentence")).to_contain_text("the diagonal loses 6.31")
    press(learn, "Each sure of one parameter")
    expect(learn.locator("#ladder-sentence")).to_contain_text("the diagonal is the full Fisher already")


def test_the_ladder_is_saved_as_a_table_and_as_a_drawing(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "ladder")
    settle(learn)
    for kind, start in (("CSV", "isotropic,1.5,"), ("SVG", "<svg")):
        with learn.expect_download() as saved:
            learn.locator("#ladder-numbers").get_by_role("button", name=f"Download {kind}").click()
        assert start in Path(saved.value.path()).read_text(encoding="utf-8")[:200]


def test_a_precision_of_zero_says_which_rule_has_no_answer(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "gaussians")
    for model in (1, 2):
        field = learn.get_by_role("spinbutton", name=f"Model {model}: precision along θ₁ (F₁₁)")
        field.fill("0")
        field.press("Tab")
    expect(learn.locator("#gaussians-sentence")).to_contain_text("diagonal Fisher has no answer for θ₁")
    expect(learn.locator("#gaussians-formula")).to_contain_text("no answer (0/0)")


def test_the_keyboard_alone_moves_a_precision(learn):
    open_tab(learn, "Two Gaussians")
    _drawn(learn, "gaussians")
    before = learn.locator("#gaussians-formula").inner_text()
    learn.get_by_role("slider", name=PRECISION, exact=False).focus()
    for _ in range(5):
        learn.keyboard.press("ArrowRight")
    expect(learn.locator("#gaussians-formula")).not_to_have_text(before)
    expect(learn.locator("#gaussians-formula")).to_contain_text("2.5")


@pytest.mark.parametrize(
    ("section", "button", "frame"),
    [
        ("How many examples?", "Measure the Fisher's quality", "quality"),
        ("What it costs", "Measure the costs", "costs"),
    ],
)
def test_a_measurement_says_what_to_press_then_shows_its_progress_and_its_picture(learn, section, button, frame):
    open_tab(learn, section)
    expect(learn.locator(f"#{frame}-sentence")).to_contain_text("press")
    press(learn, button)
    _drawn(learn, frame)
    settle(learn)
    rows = _numbers(learn, frame)
    if frame == "quality":
        assert rows[-1][1:] == pytest.approx([1, 1, 1, 1], abs=1e-6), "the last cosine is that to itself"
    else:
        assert len(rows) == 6
    # Another visit of the tab finds it.
    open_tab(learn, "Lessons")
    open_tab(learn, section)
    _drawn(learn, frame)


def test_a_lesson_is_walked_to_its_answer_by_the_keyboard_alone(learn):
    lesson = LESSONS[INTERMEDIATE]
    learn.get_by_role("radio", name=LESSONS["ensembling"].title).focus()
    # Each of Gradio's radio buttons is a stop of the Tab key; arrows do not move between them.
    for key in ("Tab", "Tab", "Space"):
        learn.keyboard.press(key)
    expect(learn.locator("#lesson-text h3")).to_have_text(lesson.steps[0].title)
    for place, step in enumerate(lesson.steps[1:]):
        _tab_to(learn, "Start" if place == 0 else "Next")
        learn.keyboard.press("Enter")
        expect(learn.locator("#lesson-text h3")).to_have_text(step.title)
        _drawn(learn, "lesson")
    settle(learn)
    recipe = merging.preset_recipe(merging.open_pool("digits"), lesson.preset)
    curves = share_curves(merging.prepare(recipe), recipe)
    expected = [
        list(pair)
        for pair in zip(*(curves.curve(r, "validation", lesson.target) for r in ("isotropic", "fisher")), strict=True)
    ]
    assert _numbers(learn, "lesson") == [pytest.approx(row) for row in expected]
    best = curves.shares[curves.chosen("fisher", lesson.target)]
    slider = learn.get_by_role("slider", name=lesson.slider_label, exact=False)
    slider.focus()
    for _ in range(round(abs(best - 0.5) / 0.05)):
        learn.keyboard.press("ArrowLeft" if best < 0.5 else "ArrowRight")
    expect(learn.locator("#lesson-sentence")).to_contain_text(f"At λ = {best:.2f}")
    _tab_to(learn, "Check my answer")
    learn.keyboard.press("Enter")
    expect(learn.locator("#lesson-feedback [role=status]")).to_contain_text("Right.")


def _tab_to(page: Page, button: str) -> None:
    expect(page.get_by_role("button", name=button, exact=True)).to_be_enabled()
    for _ in range(20):
        if page.evaluate("document.activeElement.innerText.trim()") == button:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{button} is not reached by the Tab key")


def test_a_question_with_choices_is_answered(learn):
    key = "ensembling"
    _start(learn, key)
    before = learn.locator("#lesson-sentence").inner_text()
    learn.get_by_role("spinbutton", name="Number of models").fill("4")
    learn.get_by_role("spinbutton", name="Number of models").press("Tab")
    expect(learn.locator("#lesson-sentence")).to_contain_text("The first 4 models")
    assert before != learn.locator("#lesson-sentence").inner_text()
    _next(learn, key, 2)
    _next(learn, key, 3)
    press(learn, "Check my answer")
    expect(learn.locator("#lesson-feedback")).to_contain_text("Choose an answer first")
    learn.get_by_role("radio", name="The output ensemble").check()
    press(learn, "Check my answer")
    expect(learn.locator("#lesson-feedback")).to_contain_text("runs per image")
    found = serious_in_both_modes(learn, "a question with its feedback")
    assert not found, "\n".join(found)


def test_a_lesson_left_in_the_middle_is_found_there_after_a_reload_and_does_not_disturb_another_tab(
    learn, new_page, server
):
    _start(learn, ROBUST)
    other = new_page(server.url)
    open_page(other, server.url)
    open_tab(other, "Learn")
    expect(other.locator("#lesson-text h3")).to_have_text(LESSONS[ROBUST].steps[1].title)
    _choose_lesson(other, "domain")
    _next(learn, ROBUST, 2)
    learn.reload(wait_until="domcontentloaded")
    open_page(learn, server.url)
    open_tab(learn, "Learn")
    expect(learn.locator("#lesson-text h3")).to_have_text(LESSONS[ROBUST].steps[2].title)
    _drawn(learn, "lesson")
    expect(other.locator("#lesson-text h3")).to_have_text(LESSONS["domain"].steps[0].title)


def _fill(page: Page, section: str) -> None:
    """Opens a section with all that it can show."""
    open_tab(page, section)
    if section == "Lessons":
        if page.get_by_role("button", name="Start", exact=True).is_visible():
            press(page, "Start")
        _drawn(page, "lesson")
    elif section == "Two Gaussians":
        _drawn(page, "gaussians")
        _drawn(page, "ladder")
    else:
        frame = "quality" if section == SECTIONS[2] else "costs"
        page.locator("button:visible", has_text="Measure the").click()
        _drawn(page, frame)
    settle(page)


@pytest.mark.parametrize(("settings", "first"), [({}, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(new_page, server, settings, first):
    page = new_page(server.url, **settings)
    open_page(page, f"{server.url}?__theme={first}")
    open_tab(page, "Learn")
    expect(page.locator("#lesson-text")).to_contain_text("Step")
    found = []
    for section in SECTIONS:
        _fill(page, section)
        width = page.viewport_size["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, section
        found += serious_in_both_modes(page, section)
    assert not found, "\n".join(found)
