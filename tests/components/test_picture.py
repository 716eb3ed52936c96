"""A picture's sentence, numbers and buttons."""

import re

import plotly.graph_objects as go
import pytest

from components.frames import create_frame, empty, framed
from components.picture import Picture, numbers_html, sentence_html

HOSTILE = '<img src=x onerror="alert(1)">'


def test_the_table_holds_every_digit_for_csv_and_few_for_the_eye():
    html = numbers_html(Picture(None, "", ("model", "share"), [("a", 1 / 3)]), "Shares")
    assert f'data-value="{1 / 3!r}"' in html
    assert ">0.3333<" in html


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_missing_numbers_are_dashes_and_empty_in_csv(nothing):
    html = numbers_html(Picture(None, "", ("model", "share"), [("a", nothing)]), "Shares")
    assert '<td data-value="">–</td>' in html


def test_what_users_named_is_text():
    picture = Picture(go.Figure(), HOSTILE, (HOSTILE,), [(HOSTILE,)], HOSTILE, [HOSTILE], HOSTILE)
    assert "<img" not in sentence_html(picture) + numbers_html(picture, HOSTILE)


def test_no_line_ends_between_a_figure_and_its_unit():
    html = sentence_html(Picture(None, "72.3 % (0.014 s, 3 MB), in 5 % of 4 steps"))
    assert "72.3&nbsp;% (0.014&nbsp;s, 3&nbsp;MB), in 5&nbsp;% of 4 steps" in html


def test_there_is_a_button_for_each_thing_that_can_be_had():
    def saved(picture: Picture) -> list[str]:
        return re.findall(r'data-save="(\w+)"', numbers_html(picture, "x"))

    assert saved(Picture(go.Figure(), "", ("a",), [(1,)])) == ["csv", "svg"]
    assert saved(Picture(None, "", ("a",), [(1,)])) == ["csv"]
    assert saved(Picture(go.Figure(), "")) == ["svg"]
    assert saved(Picture(None, "")) == []


def test_every_row_that_can_be_chosen_has_a_button_with_its_pick():
    html = numbers_html(Picture(None, "", ("a",), [("x",), ("y",)], picks=["[1]", "[2]"]), "x")
    assert re.findall(r'data-pick="([^"]+)"', html) == ["[1]", "[2]"]


def test_an_empty_frame_says_what_to_do_and_shows_no_old_figure():
    told, figure, numbers = empty("Press “Explore λ”.")
    assert "Press “Explore λ”." in told
    assert figure is None
    assert numbers == ""


def test_a_frame_gives_its_widgets_in_the_order_of_their_values():
    import gradio as gr

    with gr.Blocks():
        frame = create_frame("Shares", "shares", can_pick=True)
    sentence, figure, numbers = framed(Picture(go.Figure(), "All.", ("a",), [(1,)]), frame.name)
    assert [type(widget) for widget in frame.outputs()] == [gr.HTML, gr.Plot, gr.HTML]
    assert "All." in sentence
    assert isinstance(figure, go.Figure)
    assert 'data-name="Shares"' in numbers
    assert frame.picked is not None
