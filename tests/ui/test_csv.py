"""Tables as CSV: what a spreadsheet would run arrives as text, numbers as numbers. The page's only CSV is page.js's."""

import csv
import io
import json

import pytest

from components.picture import Picture, numbers_html
from components.style import PAGE_JS

FORMULAS = (
    *(
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        " =1+1",
        "=cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
    ),
    *(
        "+",
        "-",
        "=",
        "@",
        "-x",
        "--1",
        "+.",
        "-e5",
        "＝1+1",
        "＋1",
        "－1",
        "＠x",
        '=HYPERLINK("http://x","y")',
        "-1,2",
        "- 1",
    ),
)
NUMBERS = ("-0.5", "+11.8", "1e-07", "-1.5E+3", "0", "-.5", "12.")
TEXTS = ("plain", 'with "quotes"', "a, b", "two\nlines", "<b>", "a=b", "3-2", "")


@pytest.fixture
def downloaded(browser, tmp_path):
    """The CSV that the page's own script saves for a table with these cells, as rows."""
    page = browser.new_page(accept_downloads=True)

    def read(rows):
        picture = Picture(None, "", ("name", "value"), rows)
        script = PAGE_JS.read_text(encoding="utf-8")
        page.set_content(f'<div id="x-numbers">{numbers_html(picture, "cells")}</div><script>{script}</script>')
        with page.expect_download() as download:
            page.click("[data-save=csv]")
        text = download.value.path().read_bytes().decode()
        head, *found = csv.reader(io.StringIO(text, newline=""))
        assert head == ["name", "value"], "also where the table is folded"
        return found

    yield read
    page.close()


def test_formulas_are_neutralised_and_numbers_and_texts_stay(downloaded):
    cells = [*FORMULAS, *NUMBERS, *TEXTS]
    # A browser reads a carriage return in HTML as a new line.
    expected = [cell.replace("\r", "\n") for cell in cells]
    found = downloaded([(f"row {number}", cell) for number, cell in enumerate(cells)])
    assert [name for name, _ in found] == [f"row {number}" for number in range(len(cells))]
    for want, (_, got) in zip(expected, found, strict=True):
        assert got == (f"'{want}" if want.replace("\n", "\r") in FORMULAS or want in FORMULAS else want), json.dumps(
            want
        )


def test_names_of_rows_and_floats_are_treated_alike(downloaded):
    found = downloaded([("=1+1", -0.5), ("@x", float("nan")), ("fine", -1e-9)])
    assert found == [["'=1+1", "-0.5"], ["'@x", ""], ["fine", "-1e-09"]]
