"""Numbers and sentences: what is read is what was computed."""

import re
from dataclasses import replace
from html import unescape

import pytest

from components.tables import notice, score_sentence, score_table, weight_shares
from merging.metrics import Score
from merging.pipeline import evaluate

HOSTILE = "<img src=x onerror=alert(1)>"


def _cells(table: str) -> dict[str, list[str]]:
    rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</th>(.*?)</tr>', table)
    return {
        unescape(name): [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", rest)] for name, rest in rows
    }


def _with_means(result, **means: float):
    """The same result with every score of some methods replaced."""
    scores = {
        method: {task: replace(score, value=means[method]) if method in means else score for task, score in own.items()}
        for method, own in result.scores.items()
    }
    return replace(result, scores=scores)


def test_the_table_holds_the_results_numbers(four_result):
    rows = _cells(score_table(four_result))
    methods = ("experts", "isotropic", "fisher", "ensemble")
    for task in four_result.scores["fisher"]:
        for cell, method in zip(rows[task], methods, strict=False):
            score = four_result.scores[method][task]
            assert cell.startswith(f"{100 * score.value:.1f}<")
            assert f"{100 * score.low:.1f} – {100 * score.high:.1f}" in cell
        gap = four_result.scores["fisher"][task].value - four_result.scores["isotropic"][task].value
        assert rows[task][4] == f"{100 * gap:+.1f}"
        p_value = four_result.compare("fisher", "isotropic", task).p_value
        assert rows[task][5] == ("< 0.001" if p_value < 0.001 else f"{p_value:.3f}")
    assert rows["mean"][:4] == [f"{100 * four_result.mean(method):.1f}" for method in methods]
    assert rows["forward passes per input"][:4] == ["1", "1", "1", "4"]


def test_every_row_of_the_table_has_as_many_cells_as_its_head(four_result):
    table = score_table(four_result)
    columns = len(re.findall(r'<th scope="col">', table)) - 1
    assert {len(cells) for cells in _cells(table).values()} == {columns}


def test_the_table_names_its_split(four_result):
    assert f"on the {four_result.recipe.evaluation.split} split" in score_table(four_result)


def test_a_difference_is_bold_only_where_the_test_finds_one(four_result):
    table = score_table(four_result)
    for task in four_result.scores["fisher"]:
        row = re.search(rf'<th scope="row">{task}</th>(.*?)</tr>', table)[1]
        found = four_result.compare("fisher", "isotropic", task).p_value < 0.05
        assert ('class="better"' in row) == found


def test_without_isotropic_there_is_no_difference_to_show(four_result):
    scores = {method: own for method, own in four_result.scores.items() if method != "isotropic"}
    table = score_table(replace(four_result, scores=scores))
    assert "McNemar p" not in table
    assert {len(cells) for cells in _cells(table).values()} == {3}


@pytest.mark.parametrize(
    ("fisher", "isotropic", "said"),
    [
        (0.9, 0.8, "10.0 points above isotropic averaging (80.0&nbsp;%)"),
        (0.7, 0.8, "10.0 points below isotropic averaging (80.0&nbsp;%)"),
        (0.8, 0.8, "the same as isotropic averaging"),
        (0.8, 0.8002, "the same as isotropic averaging"),
    ],
)
def test_the_sentence_says_above_or_below(four_result, fisher, isotropic, said):
    sentence = score_sentence(_with_means(four_result, fisher=fisher, isotropic=isotropic))
    assert said in sentence
    assert f"<b>{100 * fisher:.1f}&nbsp;%</b>" in sentence


def test_the_sentence_says_what_the_ensemble_costs_and_how_it_is_made(four_result, seeds_result):
    assert "each task’s head on every body" in score_sentence(four_result)
    assert "at 4 forward passes instead of one" in score_sentence(four_result)
    assert "own outputs averaged" in score_sentence(seeds_result)
    assert "at 5 forward passes instead of one" in score_sentence(seeds_result)


def test_advice_stands_below_the_sentence_with_names_escaped(four_result):
    assert "Beware" not in score_sentence(four_result)
    assert "try K-FAC" in score_sentence(four_result)
    singles = {**four_result.singles, "loop": {"loop": replace(four_result.singles["loop"]["loop"], value=0.55)}}
    assert "<b>Beware:</b> “loop” is weak on its own task" in score_sentence(replace(four_result, singles=singles))


def test_the_sentence_names_the_pages_rule_and_the_best_beside_it(four_result):
    recipe = replace(four_result.recipe, rule="isotropic", compare=("fisher", "ensemble", "experts"))
    result = evaluate(four_result.prepared, recipe)
    sentence = score_sentence(result)
    assert "the <b>isotropic average</b> is right on" in sentence
    assert f"Best beside it: <b>Fisher merge</b> with {100 * result.mean('fisher'):.1f}&nbsp;%" in sentence
    table = score_table(result)
    assert "McNemar p" not in table
    assert table.index("isotropic average") < table.index("Fisher merge") < table.index("output ensemble")


def test_shares_are_the_normalised_weights():
    text = weight_shares(["a", "b", "c"], [2.0, 1.0, 1.0])
    assert re.findall(r"([abc]) ([\d.]+) %", text) == [("a", "50.0"), ("b", "25.0"), ("c", "25.0")]
    assert [float(width) for width in re.findall(r"width:([\d.]+)%", text)] == [50, 25, 25]


@pytest.mark.parametrize("weights", [[0.0, 0.0], [float("nan"), 1.0], []])
def test_weights_that_cannot_be_normalised_have_no_shares(weights):
    assert weight_shares(["a", "b"][: len(weights)], weights) == ""


def test_names_and_messages_are_text(four_result):
    score = Score("accuracy", 0.5, 0.4, 0.6, 10)
    scores = {method: {HOSTILE: score} for method in ("experts", "ensemble")}
    assert "<img" not in score_table(replace(four_result, scores=scores))
    assert "<img" not in weight_shares([HOSTILE], [1.0])
    assert "<img" not in notice(HOSTILE, "error")


def test_a_notice_is_an_alert_only_for_an_error_and_nothing_without_text():
    assert 'role="alert"' in notice("text", "error")
    assert 'role="status"' in notice("text")
    assert notice("") == ""
