"""The verdicts as a table, Markdown, JSON and annotations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_verdicts_file import ABSENT, judgement

from convmark.compare.judgement import Judgement
from convmark.report.tables import rows_table
from convmark.report.verdicts import NOTHING_MORE, could_see, headline, verdicts_report

UNCHANGED = judgement(
    change=0.001, low=-0.02, high=0.022, value=0.01001, verdict="unchanged", note="", fails=False
)
MEMORY = judgement(
    metric="peak_device_memory",
    unit="bytes",
    baseline=100 * 2**20,
    value=104 * 2**20,
    change=0.04,
    low=None,
    high=None,
    note="",
)


def lines(text: str) -> list[list[str]]:
    """The cells of a table, parted by two spaces or more."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_the_table_gives_figures_with_interval_count_and_note() -> None:
    found = verdicts_report([judgement(), MEMORY])
    head, _, step, memory = [[cell.strip() for cell in line] for line in lines(found)]
    assert head == ["case", "metric", "baseline", "now", "change", "verdict", "runs", "note"]
    case = "lenet5-train-cpu-b32-float32"
    assert step == [
        case,
        "step_time",
        "10.0 ms",
        "11.2 ms",
        "+12.0 % [+9.8, +14.4]",
        "regressed (failed)",
        "2",
        "5 sessions against 1234567aaaaa",
    ]
    peak = ["peak_device_memory", "100 MiB", "104 MiB", "+4.0 %", "regressed (failed)"]
    assert memory[:6] == [case, *peak]


def test_unchanged_rows_but_step_times_are_counted_only() -> None:
    rest = [judgement(metric="throughput", verdict="unchanged", fails=False)] * 2
    found = verdicts_report([UNCHANGED, *rest])
    assert "step_time" in found
    assert "throughput" not in found
    assert found.splitlines()[-1] == f"2 more rows: {NOTHING_MORE}"
    assert verdicts_report([UNCHANGED, rest[0]]).endswith(f"\n1 more row: {NOTHING_MORE}")
    assert "unchanged\n" not in verdicts_report([UNCHANGED]).splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "regressed"),
        ({"verdict": "inconclusive"}, "inconclusive (failed)"),
        ({"low": None}, "+12.0 % [, +14.4]"),
        ({"change": -0.0312, "low": -0.04, "high": -0.0224}, "-3.1 % [-4.0, -2.2]"),
        ({"unit": "samples/s", "value": 3215.4}, "3215"),
        ({"unit": "", "baseline": 61706, "value": 61707}, "61,707"),
        ({"unit": "", "value": 0.97}, "0.9700"),
        ({"unit": "bytes", "metric": "model_bytes", "value": 246828}, "246,828"),
    ],
)
def test_each_cell_is_printed_for_its_unit(changes: dict[str, object], text: str) -> None:
    assert f"  {text}" in verdicts_report([judgement(**changes)])


def test_nothing_judged_is_said() -> None:
    assert verdicts_report([]) == "no verdicts"


def test_markdown_keeps_a_bar_within_its_cell() -> None:
    found = verdicts_report([judgement(note="a | b")], "markdown")
    assert found.startswith("| case")
    assert "a \\| b" in found


def test_other_programs_get_every_row_by_its_fields() -> None:
    first, second = rows_table("verdicts", "", Judgement, [judgement(), ABSENT]).records()
    for name in ("model", "task", "device", "batch_size", "metric", "baseline", "value", "change"):
        assert name in first
    for name in ("low", "high", "verdict", "smallest_visible", "note"):
        assert name in first
    assert first["change"] == 0.12
    assert first["baseline_runs"] == ("0001", "0003")
    assert isinstance(first["fails"], bool)
    assert (second["model"], second["batch_size"], second["change"]) == ("machine", None, None)


def test_github_has_an_error_for_each_case_that_fails_and_one_warning_for_all_doubts() -> None:
    none = dict.fromkeys(("baseline", "value", "change"))
    sizes = judgement(
        metric="sizes", verdict="changed", note="parameters 1 -> 2, bytes 4 -> 8", **none
    )
    single = judgement(metric="parameters", verdict="changed", fails=False)
    other = judgement(case="vgg16", note="")
    doubts = [
        judgement(case=name, verdict="inconclusive", fails=False, change=None, note="budget spent")
        for name in ("a", "b")
    ]
    shown_only = judgement(metric="latency_p99", verdict="inconclusive", fails=False)
    found = [judgement(), sizes, single, doubts[0], other, shown_only, doubts[1], UNCHANGED]
    assert verdicts_report(found, "github").splitlines() == [
        "::error title=lenet5-train-cpu-b32-float32%3A step_time regressed%2C sizes changed"
        "::step_time: 10.0 ms -> 11.2 ms; +12.0 %25 [+9.8, +14.4]; 5 sessions against "
        "1234567aaaaa%0Asizes: parameters 1 -> 2, bytes 4 -> 8",
        "::error title=vgg16%3A step_time regressed::10.0 ms -> 11.2 ms; +12.0 %25 [+9.8, +14.4]",
        "::warning title=2 cases inconclusive::a: 10.0 ms -> 11.2 ms; budget spent"
        "%0Ab: 10.0 ms -> 11.2 ms; budget spent",
    ]
    assert verdicts_report([judgement(fails=False), UNCHANGED], "github") == ""


def test_the_headline_counts_cases_and_not_metrics() -> None:
    found = [judgement(), MEMORY, judgement(case="a", verdict="improved", fails=False), ABSENT]
    text = verdicts_report(found, "markdown", between="run 1 (a*c) -> run 2 (no commit)")
    assert text.startswith(
        "**1 of 2 cases fails: run 1 (a\\*c) -&gt; run 2 (no commit)**\n\n| case "
    )
    assert verdicts_report(found, "text", between="x").startswith("case ")
    assert headline(found[2:]) == "none of 1 case fails"
    assert headline([judgement(), judgement(case="a")]) == "2 of 2 cases fail"
    few = [judgement(case=one, verdict=one, fails=False) for one in ("inconclusive", "missing")]
    assert headline(few) == "none of 2 cases fails, 1 not decided, 1 missing"
    few[0] = replace(few[0], note="2 sessions against 0123456789ab; interrupted")
    assert headline(few) == "none of 2 cases fails, 1 not decided (interrupted), 1 missing"


def test_github_escapes_what_would_end_a_command() -> None:
    found = verdicts_report([judgement(case="a:b,c%\r", note="x\ny: 5 %, z\r")], "github")
    assert found.startswith("::error title=a%3Ab%2Cc%25%0D%3A step_time regressed::")
    assert found.endswith("; x%0Ay: 5 %25, z%0D")
    assert len(found.splitlines()) == 1


def test_a_gate_says_what_change_it_could_have_seen_and_in_which_case_least() -> None:
    compared = [
        judgement(case=name, smallest_visible=value)
        for name, value in (("a", 0.021), ("b", 0.034), ("c", 0.026))
    ]
    same = judgement(case="d", smallest_visible=0.9, note="same code", verdict="unchanged",
                     fails=False)  # fmt: skip
    of_graph = replace(same, case="g", smallest_visible=None, note="same graph")
    assert could_see([*compared, same, of_graph, MEMORY]) == (
        "could have detected changes above 2.6 % (median case), 3.4 % (worst case: b)"
    )
    assert could_see(compared[:1]) == "could have detected changes above 2.1 % (a)"
    blind = judgement(case="e", smallest_visible=None, verdict="inconclusive", fails=False)
    assert could_see([blind]) == "a change of any size may have been missed in e: the notes say why"
    assert could_see([same, MEMORY]) == ""
