"""What a gate says of cases that were removed, left out by an option, or skipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gates import (
    CONV,
    SUITE,
    Patch,
    Run,
    found,
    history,
    live,
    new_commit,
)
from workers import git

from convmark.cli import main
from convmark.plugin.selection import Selection

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_a_case_of_the_baseline_that_did_not_run_is_missing_only_from_a_whole_run(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
    text = SUITE.replace('"lenet5", "conv_layer"', '"lenet5",')
    (pytester.path / "bench" / "test_speed.py").write_text(text)
    assert run("--benchmark-compare").ret == 0
    assert found(pytester, CONV) == "missing"
    (pytester.path / "bench" / "test_speed.py").write_text(SUITE)
    assert CONV not in part(run("--benchmark-compare", "-k", "lenet5"))
    sub = pytester.mkdir("bench/sub")
    (sub / "test_sub.py").write_text(text)
    gate = ("-p", "no:cacheprovider", "--benchmark-compare")
    listed = text.replace("@pytest.mark.convmark(SUITE)", "").replace(
        "\n\n\n", "\n\npytestmark = [\n    pytest.mark.convmark(SUITE),\n]\n\n"
    )
    for other in (text, listed, text.replace("@pytest", "speed = pytest", 1)):
        (pytester.path / "bench" / "test_speed.py").write_text(other)
        assert CONV not in part(pytester.runpytest_inprocess("bench/sub", *gate))
    (pytester.path / "bench" / "test_speed.py").unlink()  # no other suite is left
    assert pytester.runpytest_inprocess("bench/sub", *gate).ret == 0
    assert found(pytester, CONV) == "missing"


def part(result: pytest.RunResult) -> str:
    """Return what a gate has said, with the number of cases that it was not asked for."""
    text = result.stdout.str()
    assert "1 case of the baseline left out, as only a part was asked for" in text
    return text


def test_a_suite_whose_every_case_has_another_name_is_no_pass(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
    renamed = SUITE.replace("batch_sizes=(32,)", "batch_sizes=(16,)")
    (pytester.path / "bench" / "test_speed.py").write_text(renamed)
    for options in ((), ("-k", "b16")):
        text = run("--benchmark-compare", *options).stdout.str()
        assert "the gate compared nothing, which is no pass: the baseline has none" in text
        max(pytester.path.glob("results/*/[0-9]*[0-9].csv")).unlink()  # no baseline of the next


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("--precisions=float32,mixed_bfloat16", "--precisions=mixed_bfloat16"),
        ("--jit=both", "--jit=on"),
        ("--backend=tensorflow,jax", "--backend=jax"),
    ],
)
def test_what_an_option_leaves_out_of_the_baseline_is_not_missing(
    first: str, then: str, run: Run, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    assert run(first).ret == 0
    assert "did not run" not in run("--benchmark-compare", then).stdout.str()
    assert "2 cases of the baseline did not run" in run("--benchmark-compare").stdout.str()


def test_a_case_that_was_removed_since_the_commit_is_missing_in_all_formats(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    text = SUITE.replace('"lenet5", "conv_layer"', '"lenet5",')
    (pytester.path / "bench" / "test_speed.py").write_text(text)
    result = run("--benchmark-compare=git:HEAD")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"*{CONV} *missing*git:HEAD has it, this run has not",
                                 f"*1 case of the baseline did not run: {CONV}"])  # fmt: skip
    assert found(pytester, CONV) == "missing"
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    for words in (["compare"], ["compare", "--format=github"], ["compare", "--format=markdown"],
                  ["compare", "--format=json"], ["comment"],
                  ["report", "--format=markdown", "--against=HEAD"]):  # fmt: skip
        assert main(words) == 0
        lines = capsys.readouterr().out
        assert CONV in lines.replace("\\", ""), words
        assert "missing" in lines
    (pytester.path / "bench" / "test_speed.py").write_text(f"{SUITE}\n\n")
    assert f"{CONV}*missing" not in run("--benchmark-compare=git:HEAD").stdout.str()
    assert found(pytester, CONV) == "unchanged"


def test_ctrl_c_while_removed_cases_are_looked_for_is_no_pass_until_the_gate_goes_on(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*_: object) -> list[str]:
        raise KeyboardInterrupt

    live(monkeypatch, "unchanged", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("convmark.plugin.removed_cases", ended)
        options = ("bench", "--benchmark-compare=git:HEAD", "-p", "no:cacheprovider")
        result = pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    told = "interrupted: missing cases were not looked for"
    assert main(["compare", "--format=json"]) == 1
    assert capsys.readouterr().out.count(told) == 1
    assert run("--benchmark-compare=git:HEAD", "--resume").ret == 0
    capsys.readouterr()
    assert main(["compare", "--format=json"]) == 0
    assert told not in capsys.readouterr().out


def test_suites_of_the_commit_that_cannot_be_collected_are_said(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    (pytester.path / "bench" / "test_speed.py").write_text("raise RuntimeError")
    git(pytester.path, "commit", "-qam", "broken")
    (pytester.path / "bench" / "test_speed.py").write_text(SUITE)
    run("--benchmark-compare=git:HEAD").stdout.fnmatch_lines(
        ["convmark: missing cases of * are not known: pytest cannot collect its tests*"]
    )


def test_a_case_that_is_skipped_or_left_out_by_a_conftest_is_said_by_a_gate(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    """Whatever has chosen: a mark, its condition, or a plugin that asks nobody."""
    live(monkeypatch, "unchanged", 0.0)
    history(run, 1)
    skipping = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if "conv_layer" in item.name:
            item.add_marker(pytest.mark.{mark})
"""
    conftest = pytester.path / "bench" / "conftest.py"
    for mark in ("skip", "skipif(True, reason='slow')"):
        conftest.write_text(skipping.format(mark=mark))
        for baseline in ("=git:HEAD", ""):
            result = run(f"--benchmark-compare{baseline}")
            result.assert_outcomes(passed=1, skipped=1)
            result.stdout.fnmatch_lines([f"*1 case of the baseline did not run: {CONV}"])
            assert found(pytester, CONV) == "missing"
            result.stdout.fnmatch_lines([f"*{CONV} *it, this run *"])
            max(pytester.path.glob("results/*/[0-9]*[0-9].csv")).unlink()
    conftest.write_text(
        "def pytest_collection_modifyitems(items):\n"
        "    items[:] = [one for one in items if 'lenet5' in one.name]\n"
    )
    for baseline in ("=git:HEAD", ""):
        assert CONV not in part(run(f"--benchmark-compare{baseline}"))


def test_a_part_is_looked_for_at_the_commit_by_the_same_options(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    text = SUITE.replace('"lenet5", "conv_layer"', '"lenet5",')
    (pytester.path / "bench" / "test_speed.py").write_text(text)
    for words, is_gone in (("lenet5 or conv", True), ("lenet5", False)):
        shown = run("--benchmark-compare=git:HEAD", "-k", words).stdout.str()
        assert (f"1 case of the baseline did not run: {CONV}" in shown) is is_gone


LAST = "measured.replay(benchmark)"


def test_a_verdict_fails_the_session_however_its_test_ends(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "regressed", 0.2)
    new_commit(pytester)
    endings = {
        "xfailed": SUITE.replace("@pytest", "@pytest.mark.xfail\n@pytest", 1),
        "passed": SUITE.replace("measured, benchmark", "measured").replace(LAST, "pass"),
        "skipped": SUITE.replace("measured.replay", "pytest.skip('slow')\n    measured.replay"),
    }
    for outcome, text in endings.items():
        (pytester.path / "bench" / "test_speed.py").write_text(text)
        result = run("--benchmark-compare=git:HEAD~1")
        assert result.parseoutcomes()[outcome] == 2
        assert result.ret == 1
        result.stdout.fnmatch_lines(
            [
                "*= convmark verdicts =*",
                "convmark: the session fails by its verdicts, although no test failed: "
                f"{CONV} and 1*",
                "convmark: the gate failed with exit status 1: 2 of 2 cases against git:HEAD~1 (*",
            ]
        )


def test_a_test_that_fails_by_no_verdict_is_no_gate_that_passed(
    run: Run, pytester: pytest.Pytester, monkeypatch: Patch
) -> None:
    live(monkeypatch, "unchanged", 0.0)
    new_commit(pytester)
    failing = SUITE.replace("measured.replay(benchmark)", "assert False")
    (pytester.path / "bench" / "test_speed.py").write_text(failing)
    result = run("--benchmark-compare=git:HEAD~1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["convmark: the gate failed by a test, though no verdict fails*"])


@pytest.mark.parametrize(
    ("options", "args", "whole", "repeatable"),
    [
        ({}, ["parted/bench"], True, True),
        ({"failedfirst": True, "newfirst": True}, ["parted/bench"], True, True),
        ({"keyword": "a"}, ["parted/bench"], False, True),
        ({"markexpr": "not slow"}, ["parted/bench"], False, True),
        ({"deselect": ["x"]}, ["parted/bench"], False, True),
        ({"ignore": ["x"]}, ["parted/bench"], False, True),
        ({"convmark_models": "lenet5"}, ["parted/bench"], False, True),
        ({"lf": True}, ["parted/bench"], False, False),
        ({"stepwise": True}, ["parted/bench"], False, False),
        ({}, ["parted/bench/sub"], False, True),
        ({}, ["parted/bench/test_a.py"], False, True),
        ({}, ["parted/bench::test_a"], False, True),
        ({"pyargs": True}, ["parted.bench"], True, True),
        ({"pyargs": True}, ["parted/bench"], True, True),
        ({"pyargs": True}, ["parted.bench.sub"], False, True),
        ({"pyargs": True}, ["parted.bench.test_a"], False, True),
        ({"pyargs": True}, ["parted.bench::test_a"], False, True),
    ],
)
def test_what_chooses_a_part_of_the_suites(
    tmp_path: Path,
    monkeypatch: Patch,
    options: dict[str, Any],
    args: list[str],
    whole: bool,
    repeatable: bool,
) -> None:
    for name in ("parted/bench/sub/test_b.py", "parted/bench/test_a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SUITE)
    for name in ("parted", "parted/bench", "parted/bench/sub"):
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    config: Any = SimpleNamespace(
        args=args,
        rootpath=tmp_path,
        invocation_params=SimpleNamespace(dir=tmp_path),
        option=SimpleNamespace(pyargs=options.get("pyargs", False)),
        getoption=lambda name, default=None: options.get(name, default),
        getini={"python_files": ["test_*.py"], "norecursedirs": [".*"]}.__getitem__,
    )
    try:
        chosen = Selection.of(config, collected={"a", "b", "c"}, present={"a", "b"}, measured={"a"})
    finally:  # it has imported the packages of modules that are named
        for name in [one for one in sys.modules if one.partition(".")[0] == "parted"]:
            del sys.modules[name]
    assert (chosen.whole, chosen.repeatable) == (whole, repeatable)
    assert (chosen.left_out, chosen.skipped, chosen.measured) == ({"c"}, {"b"}, {"a"})
