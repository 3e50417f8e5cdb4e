"""`convmark compare`, `accept` and `history` over folders of generated rows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from forks import COMMAND, Forks
from histories import A_COMMIT, MACHINE, keep, keep_said, process, run_of
from json_tables import rows_of
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.results.schema import SCHEMA_VERSION
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return Store(Path("results"))


def history(store: Store, last: float, runs: int = 10) -> None:
    """Write quiet runs, and after them one that is moved by so much."""
    for number in range(1, runs + 1):
        keep(store, run_of(f"{number:04d}", -0.005, 0.005))
    keep(store, run_of(f"{runs + 1:04d}", last, last))


# compare


def test_compare_judges_the_newest_run_against_its_history(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    history(store, 0.0)
    assert main(["compare"]) == 0
    printed = capsys.readouterr().out
    assert LENET in printed
    assert "more rows: other metrics, which are unchanged" in printed


def test_other_load_is_said_beside_the_figures_of_compare_and_history(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0, 0.1))
    for command in (["compare"], ["history", LENET]):
        assert main(command) == 0
        told = capsys.readouterr().out
        assert "load" not in told
        assert command[0] == "compare" or "verdict" not in told  # no column without a value
    keep(store, [replace(one, other_cpu_share=0.5) for one in run_of("0002", 0.0, 0.1)])
    main(["compare"])
    told = "1 of 1 case measured while other programs took up to 50 % of the CPUs' time"
    assert told in " ".join(capsys.readouterr().out.split())
    assert main(["history", LENET, "--format", "json"]) == 0
    rows = rows_of(capsys.readouterr().out, "history")
    assert [row["load"] for row in rows] == [None, 0.5]


def test_unsteady_processes_are_marked_by_history_and_list_in_every_format(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    keep(store, run_of("0001", 0.0, 0.1, 0.2))
    first, *others = run_of("0002", 0.0, 0.1, 0.2)
    keep(store, [first, *(replace(one, status="unsteady") for one in others)])
    for command in (["history", LENET], ["list"]):
        for form in ("text", "csv", "json", "markdown"):
            assert main([*command, "--format", form]) == 0
            assert capsys.readouterr().out.count("2 of 3 unsteady") == 1, (command, form)


def test_without_a_results_folder_every_command_names_the_one_that_makes_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["list"], ["report"], ["export", "--to", "bmf"], ["compare"], ["show", "1"]):
        assert main(command) == 2
        told = f"convmark {command[0]}: results: has no runs yet; `convmark run` makes one"
        assert capsys.readouterr().err.strip() == told


def test_compare_says_nothing_of_a_step_time_that_nothing_was_run_beside(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    history(store, 0.3)
    assert main(["compare", "--format", "json"]) == 0
    rows = {row["metric"]: row for row in rows_of(capsys.readouterr().out, "compare")}
    step = rows["step_time"]
    assert (step["verdict"], step["change"]) == ("inconclusive", None)
    live = "`pytest bench --benchmark-compare` compares live"
    assert step["note"] == f"{live}; by its history +35.0 %"


def test_compare_repeats_what_the_run_itself_has_said(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    history(store, 0.0)
    said = judgement(run="0011", verdict="regressed", fails=True, baseline_runs=("0001",))
    folder = store.folder / MACHINE
    keep_said(folder, replace(said, verdict="unchanged", fails=False))
    keep_said(folder, said)
    for arguments in ([], ["11"], ["1", "11"]):
        assert main(["compare", *arguments, "--format", "github"]) == 1
        (error, *_) = capsys.readouterr().out.splitlines()
        assert error.startswith(f"::error title={LENET}%3A step_time regressed::")
    assert main(["compare", "2", "11"]) == 0
    assert main(["accept", "11", "--reason", "wider layers"]) == 0
    capsys.readouterr()
    assert main(["compare", "11", "--format", "json"]) == 0
    (step,) = [
        row for row in rows_of(capsys.readouterr().out, "compare") if row["metric"] == "step_time"
    ]
    assert (step["verdict"], step["note"].endswith("; accepted: wider layers")) == (
        "regressed",
        True,
    )


def test_compare_of_an_interrupted_gate_is_no_pass(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    history(store, 0.0)
    said = judgement(run="0011", verdict="inconclusive", fails=False, baseline_runs=("0001",))
    for note, status in (("2 sessions; interrupted", 1), ("2 sessions; budget spent", 0)):
        keep_said(store.folder / MACHINE, replace(said, note=note))
        for arguments in ([], ["1", "11"]):
            assert main(["compare", *arguments, "--format", "json"]) == status
            told = "run 0011: the gate was interrupted, which is no pass; --resume continues it"
            assert (told in " ".join(capsys.readouterr().err.split())) == bool(status)


@pytest.mark.filterwarnings("always")
def test_compare_says_of_which_cases_of_a_run_no_verdict_is_left(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*run_of("0001", 0.0), *run_of("0001", 0.0, model="vgg16")]
    keep(store, [replace(row, order=order) for order, row in enumerate(rows, 1)])
    folder = store.folder / MACHINE
    keep_said(folder, judgement(run="0001", verdict="unchanged", fails=False))
    kept = folder / "0001.verdicts.csv"
    for name in (kept.name, "verdicts.csv"):  # the second as earlier versions kept them
        kept.rename(folder / name)
        assert main(["compare"]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"convmark: results/{MACHINE}/{name}: has no verdict of "
            "vgg16-train-cpu-b32-float32, which the run has; compare it again"
        )


@pytest.mark.filterwarnings("default::convmark.results.reading.StoreWarning")
def test_compare_judges_the_run_that_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    history(store, 0.3)
    keep(store, run_of("0012", 0.0, parameters=61707, commit=A_COMMIT))
    assert main(["compare", "10", "--format", "json"]) == 0
    assert rows_of(capsys.readouterr().out, "compare")[0]["run"] == "0010"
    assert main(["compare", f"results/{MACHINE}/0012.csv"]) == 1
    capsys.readouterr()
    assert main(["compare", A_COMMIT[:8]]) == 1  # the newest of it
    of_it = f"the newest of 12 runs of commit {A_COMMIT[:8]}"
    assert f"run 0012 is taken, {of_it}; name another by its number" in capsys.readouterr().err
    assert main(["accept", A_COMMIT[:8], "--reason", "meant"]) == 0
    assert f"accepted run 0012, {of_it} (1 case" in " ".join(capsys.readouterr().out.split())


def test_compare_judges_the_second_run_against_the_first(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, [*run_of("0001", 0.0), *run_of("0001", 0.0, model="vgg16")])
    keep(store, run_of("0002", 0.0, parameters=61707))
    assert main(["compare", "1", "2", "--format", "json"]) == 1
    rows = rows_of(capsys.readouterr().out, "compare")
    found = {(row["model"], row["metric"]): row["verdict"] for row in rows}
    assert found["lenet5", "parameters"] == "changed"
    assert found["vgg16", "step_time"] == "missing"
    assert main(["compare", "2", "1"]) == 1  # fewer are another model too


def test_compare_takes_files_from_anywhere(store: Store, tmp_path: Path) -> None:
    first = keep(store, run_of("0001", 0.0)).rename(tmp_path / "before.csv")
    second = keep(store, run_of("0002", 0.0)).rename(tmp_path / "after.csv")
    assert main(["compare", str(first), str(second)]) == 0


def test_compare_fails_on_an_errored_case(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    keep(store, [process(run="0002", status="timeout", error="hung")])
    assert main(["compare"]) == 1


def test_compare_quotes_what_makes_runs_incomparable(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0, tensorflow="2.20.0"))
    keep(store, run_of("0002", 0.0))
    assert main(["compare"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tensorflow was 2.20.0, is 2.21.0: `convmark ab tensorflow==2.20.0 tensorf" in printed


def test_an_unreadable_run_of_the_history_is_a_line_on_standard_error(
    harness: Forks, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    history(store, 0.0)
    (store.folder / MACHINE / "0005.csv").write_text("")
    done = harness.run(COMMAND, "compare", cwd=tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("convmark: ")
    assert line.endswith("0005.csv:1: must hold a run's rows, it is empty; left out of the history")


BAD = [
    (["compare", "0099"], "no run '0099'; expected a file, a commit or the number of a run"),
    (["compare", "0099", "0001"], "no run '0099'"),
    (["compare", "nowhere.csv"], "nowhere.csv: no such file; expected the CSV file of a run"),
    (["compare", "empty.csv", "0001"], "empty.csv:1: must hold a run's rows, it is empty"),
    (
        ["compare", "other.csv", "0001"],
        f"other.csv:1: must have the columns of schema {SCHEMA_VERSION}",
    ),
    (["compare", "1", "0001"], "0001.csv: is the run that is judged; name an earlier run"),
    (["compare", A_COMMIT, "1"], "0001 is the run that is judged"),
    (["compare", "1", "2", "3"], "RUN: must be at most two, got 3"),
    (
        ["compare", "--format", "xml"],
        "--format: must be one of text, json, csv, parquet, markdown, github",
    ),
    (["compare", "--machine", "xeon-3"], "no runs of 'xeon-3'; did you mean xeon-2?"),
    (["accept", "0099", "--reason", "x"], "no run '0099'"),
    (["accept", "0001", "--reason", " "], "--reason: must give the reason"),
    (["history", "lenet5-train-cpu-b23-float32"], f"did you mean {LENET}?"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_exit_2(
    store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    keep(store, run_of("0001", 0.0))
    Path("empty.csv").write_text("")
    Path("other.csv").write_text("schema\nx\n")
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"convmark {arguments[0]}: ")
    assert message in line


# accept


def test_accept_says_what_it_has_done_and_moves_the_anchor(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0))
    keep(store, run_of("0002", 0.0, parameters=70000))
    keep(store, run_of("0003", 0.0, parameters=70000, dirty=True))
    assert main(["compare"]) == 1
    capsys.readouterr()
    assert main(["accept", "2", "--reason", "a wider layer"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "accepted run 0002 (1 case, commit 1234567aaaaa): a wider layer"
    assert main(["compare", "3"]) == 0
    capsys.readouterr()
    keep(store, [*run_of("0005", 0.0), *run_of("0005", 0.0, model="vgg16")])
    assert main(["accept", "5", "--case", "vgg16-*", "--reason", "try"]) == 0
    told = "accepted run 0005 (1 of 2 cases, commit 1234567aaaaa): try\n"
    assert capsys.readouterr().out == told
    assert main(["accept", "0003", "--reason", "try"]) == 0
    told = "commit 1234567aaaaa, the files not saved and in no clean commit: no live comparison"
    assert told in capsys.readouterr().out
    (store.folder / MACHINE / "0004.code.json").write_text("{}")
    keep(store, run_of("0004", 0.0, dirty=True, code="c1"))
    assert main(["accept", "0004", "--reason", "kept"]) == 0
    assert "(1 case, commit 1234567aaaaa): kept" in capsys.readouterr().out


def test_accept_needs_a_reason(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["accept", "0001"])
    assert left.value.code == 2
    assert "--reason" in capsys.readouterr().err


# history


def test_history_shows_a_case_run_by_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    keep(store, run_of("0001", -0.1, 0.1))
    keep(store, run_of("0002", 0.0, model="vgg16"))
    keep(store, [process(run="0003", status="timeout", error="hung, at step 3")])
    keep(store, run_of("0004", 0.0, dirty=True))
    keep_said(
        store.folder / MACHINE,
        judgement(run="0004"),
        judgement(run="0004", metric="parameters", verdict="improved", fails=False),
    )
    assert main(["history", LENET]) == 0
    head, _, first, third, fourth, _, levels = capsys.readouterr().out.splitlines()
    assert levels == "change points need 6 comparable runs, there are 2"
    assert head.split() == ["run", "started", "commit", "step", "p50", "spread", "n", "verdict"]
    assert first.split() == (
        ["0001", "2026-01-02", "03:04", "1234567aaaaa", "10.1", "ms", "10.0", "%", "2"]
    )
    assert third.split()[-2:] == ["0", "timeout"]
    assert fourth.split()[3:] == (["1234567aaaaa", "(dirty)", "10.0", "ms", "1", "regressed"])


# Which machine


def test_the_only_other_machine_is_taken_and_of_several_one_must_be_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0))
    assert main(["history", LENET]) == 0
    other = store.folder / "mac-8"
    other.mkdir()
    (store.folder / MACHINE / "0001.csv").rename(other / "0001.csv")
    keep(store, run_of("0001", 0.0))
    assert main(["history", LENET]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("choose one by --machine: mac-8, xeon-2")
    assert main(["history", LENET, "--machine", "mac-8"]) == 0


def test_a_folder_without_runs_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "convmark compare: results: has no runs yet; `convmark run` makes one"


def test_this_machines_own_folder_is_the_default(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    from convmark.machine.hardware import read_machine

    keep(store, run_of("0001", 0.0))
    own = store.folder / read_machine().name
    own.mkdir()
    keep(store, run_of("0002", 0.0)).rename(own / "0002.csv")
    assert main(["history", LENET]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("0002") for line in lines)
    assert not any(line.startswith("0001") for line in lines)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\nfrom convmark.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['compare', '--help'])\n"
        "heavy = {'numpy', 'scipy', 'pandas', 'psutil', 'tabulate', 'tensorflow', 'pytest'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
