"""Tables as text, Markdown and CSV; names from outside stay text in each."""

from __future__ import annotations

import csv
import io
import re

from convmark.core.table import Table, headings
from convmark.report.page import environment
from convmark.report.tables import CSV_HEADER, csv_text, markdown_text, terminal_text

HEADINGS = tuple(headings("model step", step=("step p50", "seconds")))


def table(*rows: tuple[object, ...], key: str = "t") -> Table:
    return Table(
        key=key, title="Title", caption="Said <so>.", headings=HEADINGS, rows=rows, empty="Nothing."
    )


def test_the_terminal_shows_title_numbers_scaled_and_caption() -> None:
    lines = terminal_text([table(("lenet5", 0.0101))]).splitlines()
    assert lines[:2] == ["Title", "====="]
    assert lines[5].split() == ["lenet5", "10.1", "ms"]
    assert lines[-1] == "Said <so>."


def test_a_table_without_rows_says_so_in_every_form() -> None:
    assert "Nothing." in terminal_text([table()])
    assert "Nothing." in markdown_text([table()])
    assert csv_text([table()]) == ",".join(CSV_HEADER)


def test_markdown_folds_what_is_not_first_and_keeps_cells_plain() -> None:
    hostile = table(("a|b <script>*x*</script>\nc", 1.0))
    text = markdown_text([table(("lenet5", 1.0))], folded=[hostile])
    assert text.index("## Title") < text.index("<details><summary>Title: 1 row</summary>")
    (row,) = [line for line in text.splitlines() if "script" in line]
    assert row.startswith("| a\\|b &lt;script&gt;\\*x\\*&lt;/script&gt; c")
    assert "Said &lt;so&gt;." in text


def test_a_folded_table_that_would_be_too_long_says_so_and_the_next_one_is_there() -> None:
    first, short = table(("lenet5", 1.0)), table(("short", 2.0))
    long = table(*[(f"model_{number}", 1.0) for number in range(2_000)])
    whole = markdown_text([first], folded=[long, short])
    limited = markdown_text([first], folded=[long, short], most_bytes=2_000)
    assert len(limited.encode()) <= 2_000 < len(whole.encode())
    assert "Title: 2,000 rows</summary>\n\nToo long for here. `convmark report -o" in limited
    assert "model_7" not in limited
    assert "| short " in limited
    assert markdown_text([first], folded=[long, short], most_bytes=len(whole.encode()) + 2) == whole


def test_csv_has_unrounded_values_and_units_and_no_formula() -> None:
    text = csv_text([table(("=1+1", 0.012345678901234), ("lenet5", None), key="architectures")])
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        ["architectures", "1", "model", "", "'=1+1"],
        ["architectures", "1", "step", "s", "0.012345678901234"],
        ["architectures", "2", "model", "", "lenet5"],
    ]


def test_on_the_page_a_number_keeps_its_unit_and_an_option_its_hyphens() -> None:
    prose = "by `pytest bench --benchmark-compare`, under 82 % & +25.9 % on amd-epyc, 1,000 steps"
    text = str(environment().filters["prose"](prose))
    found = re.findall(r'<span class="whole">(.*?)</span>', text)
    assert found == ["--benchmark-compare", "82 %", "+25.9 %", "amd-epyc,"]
    assert "<code>pytest bench " in text
    assert "&amp; " in text


def test_on_the_page_no_line_begins_with_the_comma_after_a_number() -> None:
    prose = environment().filters["prose"]
    assert prose("up to 85 %, 2 so (9 ms)") == (
        'up to <span class="whole">85 %,</span> 2 so (<span class="whole">9 ms)</span>'
    )
