"""`convmark comment`: the sentence, the tables, the badge; and that hostile names stay text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, MACHINE, keep, keep_said, run_of
from markdown_it import MarkdownIt
from test_verdicts_file import ABSENT, judgement

from convmark.cli import main
from convmark.compare.judgement import Judgement
from convmark.report.comment import Gate, badge_text, comment_text
from convmark.results.store import Store

BASE, HEAD = "0123456789ab", A_COMMIT[:12]
HOSTILE = (
    *("a|b", "a\\|b", "`@octocat`", "<!-- x", "<script>alert(1)</script>", "[x](http://x.y)"),
    *(
        "@octocat",
        "#1",
        "a\nb\n::error::x",
        "http://evil.example",
        "**x**",
        "\x1b[31mred\u202e",
        " ",
    ),
)


def one(case: str = "a", **changes: Any) -> Judgement:
    return judgement(**{"case": case, "run": "0001", "against": BASE, **changes})


def unchanged(case: str = "a", **changes: Any) -> Judgement:
    return one(case, **{"verdict": "unchanged", "fails": False, "note": "", **changes})


SLOWER = one("slow")
QUIET = unchanged("quiet")
SAME = unchanged("same", note="same code", change=None, low=None, high=None)
DOUBT = unchanged("doubt", verdict="inconclusive", note="budget spent")
BLIND = unchanged("blind", verdict="inconclusive", change=None, note="no live comparison")
MISSING = unchanged("gone", verdict="missing")
ACCEPTED = one("meant", fails=False, accepted="accepted by commit 89abcdebbbbb")


def sentence(*judgements: Judgement, passed: bool = False) -> str:
    return comment_text(Gate(judgements, HEAD, passed)).splitlines()[0]


def test_a_base_that_was_not_kept_is_not_called_none() -> None:
    assert "Base: not recorded. " in sentence(one("slow", against=""))
    assert "Base: none. " in sentence(one("fresh", against="", verdict="new", fails=False))


def test_one_sentence_counts_cases_and_names_both_commits() -> None:
    memory = one("slow", metric="peak_device_memory")
    assert sentence(SLOWER, memory, ACCEPTED, QUIET, DOUBT, SAME, ABSENT) == (
        "**Benchmark gate failed: of 5 cases 1 regressed, 1 changed as accepted, 1 inconclusive, "
        f"1 unchanged, 1 not compared (same code).** Base: {BASE}. Head: {HEAD}."
    )
    assert sentence(QUIET, passed=True).startswith(
        "**Benchmark gate passed: no change was found; of 1 case 1 unchanged.** "
    )


@pytest.mark.parametrize(
    ("found", "words", "is_news"),
    [
        ([SAME, QUIET, MISSING], "no change was found; of 3 cases 1 missing, ", False),
        ([DOUBT, QUIET], "no regression found, 1 of 2 cases not decided; of 2 cases 1 inc", True),
        ([DOUBT, SAME], "nothing was decided; of 2 cases 1 inconclusive, ", True),
        ([BLIND, SAME], "nothing was compared; of 2 cases 1 inconclusive, ", True),
        ([MISSING], "nothing was compared; of 1 case 1 missing.", True),
        ([SAME], "of 1 case 1 not compared (same code).", False),
    ],
)
def test_no_change_was_found_only_where_all_that_was_compared_is_unchanged(
    found: list[Judgement], words: str, is_news: bool
) -> None:
    ended = "decided in part" if "not decided" in words else "passed"
    ended = "without a verdict" if "nothing" in words else ended
    assert sentence(*found, passed=True).startswith(f"**Benchmark gate {ended}: {words}")
    assert Gate(found, HEAD).has_news == is_news


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "inconclusive", "note": "error in process 1"}, "1 failed to run"),
        ({"metric": "sizes", "verdict": "changed"}, "1 changed in size or precision"),
        ({"metric": "precision", "verdict": "changed"}, "1 changed in size or precision"),
        ({"metric": "sizes", "verdict": "changed", "fails": False}, "1 changed as accepted"),
        ({"metric": "precision", "verdict": "changed", "fails": False}, "1 changed as accepted"),
        ({"metric": "peak_host_memory"}, "1 regressed"),
        ({"verdict": "improved", "fails": False}, "1 improved"),
        ({"metric": "throughput", "verdict": "improved", "fails": False}, "1 unchanged"),
        ({"verdict": "missing", "fails": False}, "1 missing"),
    ],
)
def test_what_became_of_a_case_is_the_worst_that_is_true_of_it(
    changes: dict[str, Any], words: str
) -> None:
    found = [one(**changes)]
    found += [unchanged()] if changes.get("metric") else []
    assert f"of 1 case {words}.**" in sentence(*found)


def test_what_moved_has_base_head_and_change_with_its_interval() -> None:
    text = comment_text(Gate([SLOWER, ACCEPTED, QUIET], HEAD, passed=False))
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `slow` | `step_time` | 10.0 ms | 11.2 ms | +12.0 % [+9.8, +14.4] | regressed, fails |",
        "| `meant` | `step_time` | 10.0 ms | 11.2 ms | +12.0 % [+9.8, +14.4] | "
        "regressed, `accepted by commit 89abcdebbbbb` |",
        "| `quiet` | +12.0 % [+9.8, +14.4] | unchanged |  |",
    ]
    assert text.index("`meant`") < text.index("<details>") < text.index("`quiet`")
    assert "with the line `Benchmark-Accept: slow`." in text
    assert "Benchmark-Accept" not in comment_text(Gate([ACCEPTED], HEAD))


def test_an_accepted_size_beside_an_undecided_step_time_is_no_pass() -> None:
    sizes = one("meant", metric="sizes", verdict="changed", fails=False, accepted="by a commit")
    doubt = one("meant", verdict="inconclusive", fails=False, note="budget spent")
    assert sentence(sizes, doubt, DOUBT, passed=True).startswith(
        "**Benchmark gate without a verdict: nothing was decided; of 2 cases 1 changed as accepted,"
    )
    part = sentence(sizes, unchanged("meant"), DOUBT, passed=True)
    assert "gate decided in part: no other regression found, 1 of 2 cases not decided; of" in part
    assert part.endswith(
        " Undecided cases: run the command again, or with a larger --convmark-compare-budget."
    )
    less = one("meant", metric="peak_device_memory", verdict="improved", fails=False)
    assert sentence(less, doubt, passed=True).startswith("**Benchmark gate without a verdict:")
    assert "gate passed: of 1 case 1 improved" in sentence(less, unchanged("meant"), passed=True)


def test_the_line_that_accepts_names_all_cases_that_fail_and_counts_those_without_room() -> None:
    found = [one(case=f"net{n}-train-cpu-b32-float32") for n in range(8)]
    text = comment_text(Gate(found[:2], HEAD, passed=False))
    both = "Benchmark-Accept: net0-train-cpu-b32-float32, net1-train-cpu-b32-float32"
    assert f"with the line `{both}`." in text
    text = comment_text(Gate(found, HEAD, passed=False))
    assert f"with the line `{both}, net2" in text
    assert "net4-train-cpu-b32-float32`, with the names of 3 more." in text


def test_the_comment_has_at_most_60_lines_and_counts_the_rest() -> None:
    found = [
        judged
        for number in range(100)
        for judged in (one(f"s{number:03d}"), unchanged(f"q{number}"), unchanged(f"c{number}",
                       note="same commit"), unchanged(f"d{number}", verdict="inconclusive"))
    ]  # fmt: skip
    text = comment_text(Gate(found, HEAD, passed=False))
    assert len(text.splitlines()) + 2 <= 60  # with the marker
    assert "of 400 cases 100 regressed" in text
    assert "84 more rows." in text
    assert "<summary>200 other cases</summary>" in text
    assert "`c4` and 95 more." in text


def test_a_gate_that_failed_never_reads_as_passed() -> None:
    assert "failed: there is no verdict; the log of the job" in sentence()
    assert "failed: the log of the job shows the reason, and no verdict fails; no" in sentence(
        QUIET
    )


@pytest.mark.parametrize(
    "note",
    [
        "4 sessions against 0123456789ab; interrupted; other graph",
        "no live comparison with 0123456789ab: interrupted",
        "by a commit is not decided: +5.0 % against 89abcdebbbbb, interrupted: run it again",
    ],
)
@pytest.mark.parametrize("passed", [True, False])
def test_an_interrupted_gate_is_no_pass(note: str, passed: bool) -> None:
    gate = Gate([unchanged("a", verdict="inconclusive", note=note), QUIET], HEAD, passed=passed)
    told = "**Benchmark gate interrupted: this is no pass; of 2 cases 1 inconclusive, 1 unchanged."
    assert comment_text(gate).startswith(told)
    assert gate.has_news
    badge = json.loads(badge_text(gate))
    assert (badge["message"], badge["color"]) == ("interrupted", "lightgrey")
    failed = Gate([*gate.judgements, SLOWER], HEAD, passed=False)
    assert comment_text(failed).startswith("**Benchmark gate failed: of 3 cases 1 regressed")


def test_a_gate_that_was_interrupted_before_a_change_was_checked_is_no_pass() -> None:
    note = "12 sessions against 0123456789ab; interrupted; not checked: interrupted"
    for changes, state in (
        ({"verdict": "improved"}, "improved"),
        ({"accepted": "allowed by --allow-change"}, "changed as accepted"),
    ):
        gate = Gate([one(fails=False, note=note, **changes), QUIET], HEAD, passed=True)
        told = f"**Benchmark gate interrupted: this is no pass; of 2 cases 1 {state}, 1 unchanged."
        assert comment_text(gate).startswith(told)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text_in_their_cells(text: str) -> None:
    found = [one(f"{text}x", metric=text, note=text), one("b", fails=False, accepted=text),
             unchanged(f"{text}y", note=text), unchanged(f"{text}z", note="same code"),
             unchanged("c", verdict="inconclusive", against=text)]  # fmt: skip
    body = comment_text(Gate(found, text, passed=False))
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "code_inline", "strong_open",
                                                "strong_close", "softbreak"}  # fmt: skip
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert [block.split(">")[0] for block in blocks] == ["<details", "</details"]
    plain = "".join(child.content for child in inline if child.type == "text")
    for mark in ("@", "#1", "evil", "alert", "|", "\x1b", "\u202e", "::error"):
        assert mark not in plain
    columns = [line.replace("\\|", "").count("|") for line in body.splitlines() if line[:1] == "|"]
    assert set(columns) == {5, 7}


@pytest.mark.parametrize(
    ("found", "passed", "message", "color"),
    [
        ([SLOWER, QUIET], False, "1 regressed", "red"),
        ([QUIET], False, "failed", "red"),
        ([], False, "failed", "red"),
        ([ACCEPTED, QUIET], True, "1 changed as accepted", "brightgreen"),
        ([SAME, QUIET], True, "no change", "brightgreen"),
        ([SAME, DOUBT, ACCEPTED], True, "1 of 3 not decided", "yellow"),
        ([SAME, MISSING], True, "no change", "brightgreen"),
        ([MISSING], True, "nothing compared", "lightgrey"),
        ([], True, "no verdict", "lightgrey"),
    ],
)
def test_the_badge_has_the_verdict_and_its_colour(
    found: list[Judgement], passed: bool, message: str, color: str
) -> None:
    assert json.loads(badge_text(Gate(found, HEAD, passed))) == {
        "schemaVersion": 1,
        "label": "benchmark",
        "message": message,
        "color": color,
    }


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder whose newest run has failed."""
    monkeypatch.chdir(tmp_path)
    for name in ("EVENT_PATH", "SHA", "TOKEN", "RUN_ID", "RUN_ATTEMPT"):
        monkeypatch.delenv(f"GITHUB_{name}", raising=False)
    store = Store(Path("results"))
    keep(store, run_of("0001", 0.0, 0.1))
    keep_said(store.folder / MACHINE, SLOWER, QUIET)
    return tmp_path


def test_the_newest_run_s_verdicts_are_printed_and_the_exit_status_is_not_the_gate_s(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["comment", "--badge", "badge.json"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("**Benchmark gate failed: of 2 cases 1 regressed, 1 unchanged.** ")
    assert f"Head: {HEAD}." in text
    assert json.loads(Path("badge.json").read_text())["color"] == "red"
    assert main(["comment", "--post"]) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "convmark comment: not posted: the workflow does not run for a pull request\n"
    )


def test_the_outcome_of_the_gate_and_the_comment_never_contradict_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["comment", "--outcome", "success"]) == 2
    assert "--outcome success: run 0001 in results has cases that fail" in capsys.readouterr().err
    assert main(["comment", "nowhere", "--outcome", "failure"]) == 0
    assert "failed: there is no verdict;" in capsys.readouterr().out
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)  # an earlier run lies there
    assert main(["comment"]) == 2
    assert f"run 0001 is of commit {HEAD}, the workflow of ffffffffffff" in capsys.readouterr().err
    assert main(["comment", "--outcome", "failure"]) == 0
    assert "Base: none. Head: ffffffffffff." in capsys.readouterr().out


def test_the_comment_of_an_interrupted_run_is_no_pass_whatever_the_outcome(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(Path("results"))
    keep(store, run_of("0002", 0.0, 0.1))
    doubt = unchanged("b", run="0002", verdict="inconclusive", note="2 sessions; interrupted")
    keep_said(store.folder / MACHINE, unchanged(run="0002"), doubt)
    for outcome in ([], ["--outcome", "failure"]):
        assert main(["comment", *outcome]) == 0
        assert "gate interrupted: this is no pass; of 2 cases" in capsys.readouterr().out
    assert main(["comment", "--outcome", "success"]) == 2
    assert "--outcome success: run 0002 in results was interrupted" in capsys.readouterr().err


def test_in_a_workflow_a_run_without_a_commit_is_reported_from_its_own_folder_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("results", "42-1"):
        store = Store(Path(name))
        keep(store, run_of("0002", 0.0, 0.1, commit=None, dirty=None))
        keep_said(store.folder / MACHINE, one(run="0002"))
    assert main(["comment"]) == 0  # outside a workflow
    for name, value in (("SHA", "f" * 40), ("RUN_ID", "42"), ("RUN_ATTEMPT", "1")):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    capsys.readouterr()
    assert main(["comment"]) == 2
    assert (
        "run 0002 has no commit, so the folder must have the name 42-1" in capsys.readouterr().err
    )
    assert main(["comment", "42-1"]) == 0
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "2")
    assert main(["comment", "42-1"]) == 2


def test_the_headline_in_markdown_names_the_base_that_was_run_beside_and_no_earlier_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(Path("results"))
    keep(store, run_of("0002", 0.0, 0.1))
    for against, words in ((BASE, BASE), ("", "unknown baseline")):
        keep_said(store.folder / MACHINE, judgement(run="0002", against=against))
        assert main(["compare", "--format", "markdown"]) == 1
        text = capsys.readouterr().out
        assert text.startswith(f"**1 of 1 case fails: {words} -&gt; run 0002 ({HEAD})**")


def test_a_badge_takes_the_place_of_a_badge_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.json").write_text("{}")
    run = f"results/{MACHINE}/0001.csv"
    before = Path(run).read_bytes()
    for name in ("other.json", "results", " "):
        assert main(["comment", "--badge", name]) == 2
        assert "--badge: must be a new file or a badge" in capsys.readouterr().err
    assert main(["comment", "--badge", run]) == 2
    assert "--badge: must not be among a machine's runs" in capsys.readouterr().err
    assert main(["comment", "--badge", "no/folder.json"]) == 2
    assert Path(run).read_bytes() == before
    for _ in range(2):
        assert main(["comment", "--badge", "badge.json"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "badge.json",
        "other.json",
        "results",
    ]


def test_a_run_without_verdicts_says_what_makes_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(Store(Path("results")), run_of("0002", 0.0))
    assert main(["comment"]) == 2
    assert "0002.csv: has no verdicts; `pytest bench --benchmark-" in capsys.readouterr().err
    for end in ("badge.json is not written", "badge.json stays as it was"):
        assert main(["comment", "--badge", "badge.json"]) == 2
        assert " ".join(capsys.readouterr().err.split()).endswith(f"makes them; {end}")
        Path("badge.json").write_text('{"schemaVersion": 1}')
