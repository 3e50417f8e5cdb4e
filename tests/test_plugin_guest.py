"""The plugin in other people's sessions: their options, their benchmarks, their other plugins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import fake_worker
import pytest
import scipy.special  # noqa: F401 - an in-process session forgets what it was first to import

from convmark.core.options import OPTIONS
from convmark.plugin import bridge

SUITE = """
import pytest
from convmark.core.suites import Suite

@pytest.mark.convmark(Suite(models=("lenet5",), tasks=("train",), batch_sizes=(32,)))
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""
OTHER = "def test_sum(benchmark): benchmark.pedantic(sum, ([1, 2],), rounds=3)\n"
LENET5 = "lenet5-train-cpu-b32-float32"


@pytest.fixture(autouse=True)
def _worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker(fake_worker.FakeInterpreter):
        made = 0

    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)


def test_a_conftest_may_have_options_of_all_our_short_names(pytester: pytest.Pytester) -> None:
    names = [*(option.name for option in OPTIONS), "resume", "accuracy"]
    lines = "".join(f"    parser.addoption('--{name}', action='store_true')\n" for name in names)
    pytester.makeconftest(f"def pytest_addoption(parser):\n{lines}")
    pytester.makepyfile("def test_theirs(request): assert request.config.getoption('--seed')")
    pytester.runpytest_inprocess("--seed").assert_outcomes(passed=1)


@pytest.mark.parametrize("asked", ["conftest", "pyproject", "both"])
def test_short_names_are_there_where_a_project_asks_for_them(
    pytester: pytest.Pytester, asked: str
) -> None:
    pytester.makepyfile(SUITE)
    if asked != "pyproject":
        pytester.makeconftest("from convmark.plugin.short import pytest_addoption\n")
    if asked != "conftest":
        pytester.makepyprojecttoml("[tool.convmark]\nshort_options = true\n")
    result = pytester.runpytest_inprocess("--collect-only", "-q", "--models", "conv_layer")
    result.stdout.fnmatch_lines(["*test_speed[[]conv_layer-train-cpu-b32-float32[]]"])
    refused = pytester.runpytest_inprocess("--processes=0")
    refused.stderr.fnmatch_lines(["ERROR: --processes: must be a whole number*"])


def test_long_names_are_always_there_and_named_in_errors(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_inprocess("--collect-only", "-q", "--convmark-models=conv_layer")
    result.stdout.fnmatch_lines(["*test_speed[[]conv_layer-train-cpu-b32-float32[]]"])
    refused = pytester.runpytest_inprocess("--convmark-processes=0")
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(["ERROR: --convmark-processes: must be a whole number*"])


def test_a_short_name_that_is_taken_is_named_on_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        theirs="def pytest_addoption(parser): parser.addoption('--seed')",
    )
    pytester.makepyprojecttoml("[tool.convmark]\nshort_options = true\n")
    result = pytester.runpytest_subprocess("-p", "theirs")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: convmark: *--seed* leave out short_options*"])


OF_RUN = ["cluster", "index", "tasks"]


def test_a_project_with_short_names_may_have_options_that_convmark_run_alone_has(
    pytester: pytest.Pytester,
) -> None:
    lines = "".join(f"    parser.addoption('--{name}')\n" for name in OF_RUN)
    pytester.makeconftest(f"def pytest_addoption(parser):\n{lines}")
    pytester.makepyprojecttoml("[tool.convmark]\nshort_options = true\n")
    pytester.makepyfile("def test_theirs(request): assert request.config.getoption('--index')")
    pytester.runpytest_inprocess("--index=3", "--cluster", "a").assert_outcomes(passed=1)


@pytest.mark.parametrize("before", ["--", "--convmark-"])
@pytest.mark.parametrize("name", OF_RUN)
def test_an_option_of_convmark_run_is_refused_by_the_name_that_was_given(
    pytester: pytest.Pytester, before: str, name: str
) -> None:
    if before == "--":
        pytester.makepyprojecttoml("[tool.convmark]\nshort_options = true\n")
    pytester.makepyfile("def test_theirs(): pass")
    result = pytester.runpytest_inprocess(f"{before}{name}", "1")
    assert result.ret == 4
    instead = "pytest bench/test_inference.py" if name == "tasks" else f"convmark run --{name}"
    result.stderr.fnmatch_lines(
        [f"ERROR: {before}{name}: is an option of `convmark run`*{instead}"]
    )


def test_a_short_name_where_there_is_none_is_answered_with_the_long_one(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_theirs(): pass")
    result = pytester.runpytest_inprocess("--compare-budget", "60")
    assert result.ret == 4
    told = "ERROR: unrecognized arguments: --compare-budget; *--convmark-compare-budget*"
    result.stderr.fnmatch_lines([told])
    result = pytester.runpytest_inprocess("--modles", "lenet5")
    told = "ERROR: unrecognized arguments: --modles; did you mean --convmark-models[?]"
    result.stderr.fnmatch_lines([told])


@pytest.mark.parametrize("asked", ["--benchmark-compare", "--benchmark-compare=git:main"])
@pytest.mark.parametrize("chosen", ["nothing", "sum"])
def test_a_comparison_for_which_no_case_is_chosen_is_none_in_the_words_of_convmark(
    pytester: pytest.Pytester, asked: str, chosen: str
) -> None:
    pytester.makepyfile(test_ours=SUITE, test_theirs=OTHER)
    result = pytester.runpytest_inprocess(asked, "-k", chosen)
    text = "\n".join([*result.outlines, *result.errlines])
    theirs = chosen == "sum" and not asked.endswith("git:main")
    assert ("Can't compare" in text) is theirs, text
    told = "convmark: the gate compared nothing, which is no pass: no case was measured"
    assert (told in text) is not theirs, text


def test_other_benchmarks_beside_ours_keep_storage_comparison_and_limits(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_ours=SUITE, test_theirs=OTHER)
    pytester.runpytest_inprocess("--benchmark-autosave").assert_outcomes(passed=2)
    (file,) = pytester.path.glob(".benchmarks/*/*.json")
    kept = json.loads(file.read_text())
    assert [one["name"] for one in kept["benchmarks"]] == ["test_sum"]
    assert "python_implementation" in kept["machine_info"]
    assert len(list(pytester.path.glob("results/*/0001.csv"))) == 1
    result = pytester.runpytest_inprocess(
        "--benchmark-compare", "--benchmark-compare-fail=min:1000000%"
    )
    result.stdout.fnmatch_lines_random(
        ["test_sum (0001_*)*", "test_sum (NOW)*", f"{LENET5} (0001*)*", f"{LENET5} (NOW)*"]
    )
    assert result.ret == 0
    result = pytester.runpytest_inprocess("--benchmark-compare", "--benchmark-compare-fail=min:0%")
    regressed = [line for line in result.outlines + result.errlines if "regressed:" in line]
    assert LENET5 not in "".join(regressed)


def test_a_limit_of_theirs_is_not_held_against_our_cases() -> None:
    limit = SimpleNamespace(fails=lambda current, compared: "fails")
    storage = SimpleNamespace(is_ours=lambda name: name == LENET5)
    of_others = bridge.OfOthers(limit, storage)  # type: ignore[arg-type]  # stands for it
    assert of_others.fails(SimpleNamespace(fullname=LENET5), {}) is None
    assert of_others.fails(SimpleNamespace(fullname="test_sum"), {}) == "fails"


def test_pytest_benchmark_may_be_loaded_by_its_module(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(OTHER)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_subprocess("-p", "pytest_benchmark.plugin", "-p", "convmark.plugin")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_sum *"])


def test_a_comparison_with_nothing_warns_as_pytest_benchmark_does(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(OTHER)
    result = pytester.runpytest_subprocess("--benchmark-compare")
    result.stderr.fnmatch_lines(["*Can't compare. No benchmark files in *"])


def test_under_codspeed_our_tests_are_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    pytester.makeconftest(
        """
        import types

        def pytest_configure(config):
            plugin = types.SimpleNamespace(is_codspeed_enabled=True)
            config.pluginmanager.register(plugin, "codspeed_plugin")
        """
    )
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*in its own processes, where --codspeed sees nothing*"])
    assert not Path(pytester.path, "results").exists()
