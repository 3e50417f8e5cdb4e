"""`import convmark`: the commands as functions, their results and their errors."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_worker import FakeInterpreter
from faults import descendants, fast_python, rows_in
from report_rows import keep_run, measured
from test_faults_signals import heeds_ctrl_c
from workers import environ, happens

import convmark
from convmark.cli.parsers import parsers
from convmark.core.options import Options

ONE = {"models": "lenet5", "tasks": "train", "batch_sizes": [32]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder, whose workers are stood in for."""
    monkeypatch.setattr("convmark.interpreter.Interpreter", FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_measurement_has_its_rows_and_shows_its_table_and_a_figure(folder: Path) -> None:
    found = convmark.measure(**ONE, processes=2, results=folder / "out")
    assert found.whole
    assert [path.parent.parent for path in found.paths] == [folder / "out"]
    assert repr(found).startswith("case ")
    assert "samples/s is measured over windows" in repr(found)
    page = found._repr_html_()
    assert page.count("<table>") == page.count("<svg") == 1
    assert list(found.frame["process"]) == [1, 2]


def test_the_models_are_the_first_argument(folder: Path) -> None:
    rest = {name: value for name, value in ONE.items() if name != "models"}
    found = convmark.measure(ONE["models"], **rest, processes=2)
    assert set(found.frame["model"]) == {ONE["models"]}


def test_results_are_typed_by_the_schema(folder: Path) -> None:
    convmark.measure(**ONE, processes=2)
    frame = convmark.read_results()
    kinds = {"steps": "Int64", "step_time_p50_s": "float64", "model": "string", "dirty": "boolean"}
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    assert str(frame["started"].dtype.tz) == "UTC"
    assert frame["gpu"].isna().all()
    assert Path(frame["file"][0]).is_file()


def test_numbers_of_numpy_and_times_of_any_precision_are_taken(folder: Path) -> None:
    found = convmark.measure(**{**ONE, "batch_sizes": [np.int64(8)]}, processes=np.int32(2))
    assert list(found.frame["batch_size"]) == [8, 8]
    path = keep_run(folder / "results", [measured("m", 1, "lenet5", 1)])
    (first, row) = path.read_text().splitlines()
    path.write_text(f"{first}\n{row.replace('.000+00:00', '+00:00')}\n")
    frame = convmark.read_results()
    assert frame["started"].notna().all()
    keep_run(folder / "results", [measured("m", 2, "lenet5", 1, node="mine")])
    both = convmark.read_results()
    assert set(both["machine"]) == set(frame["machine"])  # no row changes what another one says


def test_a_report_shows_itself_and_is_written_where_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convmark.measure(**ONE, processes=2)
    (machine,) = (path.name for path in folder.glob("results/*"))
    prices = folder / "prices.toml"
    prices.write_text(
        'currency = "USD"\ndate = 2026-01-31\nsource = "a shop"\n[desk]\nper_hour = 2.5\n'
    )
    shown = convmark.report(
        "results", output=folder / "page.md", prices=prices, names=f"{machine}=desk"
    )
    assert "Cost of a million samples" in shown._repr_html_()
    assert (folder / "page.md").read_text().startswith("## ")
    assert "<table>" in shown._repr_html_()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "lenet5"}, r"^model: is not an option; did you mean models"),
        ({"batch_sizes": [0]}, r"^batch_sizes: "),
        ({"processes": "none"}, r"^processes: "),
        ({"models": "lenet9"}, r"^lenet9: no such model"),
        ({"tasks": "accuracy", "batch_sizes": "auto"}, r"^tasks: batch_sizes auto searches for"),
    ],
)
def test_an_error_is_one_line_of_one_class(
    given: dict[str, object], message: str, folder: Path
) -> None:
    with pytest.raises(convmark.ConvmarkError, match=message) as raised:
        convmark.measure(**given)
    assert "\n" not in str(raised.value)
    assert not list(folder.glob("results/*/*.csv"))


def test_a_setting_that_a_function_refuses_is_named_as_it_stands_in_pyproject(
    folder: Path,
) -> None:
    (folder / "pyproject.toml").write_text("[tool.convmark]\nisolation = 'none'\n")
    with pytest.raises(convmark.ConvmarkError) as raised:
        convmark.compare(models="lenet5", tasks="train")
    assert str(raised.value) == (
        "[tool.convmark] isolation: a comparison needs fresh processes, got none; isolation "
        "overrides it"
    )


def test_keywords_are_the_options_and_pyproject_holds_too(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.convmark]\nprocesses = 4\nresults = 'kept'\n")
    found = convmark.measure(**ONE, processes=2)
    assert len(found.frame) == 2
    assert found.paths[0].parts[0] == "kept"
    keywords = set(inspect.signature(convmark.measure).parameters) - {"progress"}
    assert keywords <= set(Options.__dataclass_fields__)
    assert {"models", "time_budget_s", "environments"} <= keywords


def test_a_function_has_every_option_of_its_command() -> None:
    """But those of a shell: formats of standard output, and what shares out or goes on a run."""
    of_a_shell = {"format", "dry_run", "quiet", "describe", "resume", "help"}
    of_a_shell |= {"shard", "shard_times", "ray", "nodes", "per"}
    names = {"backend": "backends", "power_log": "power_logs", "name": "names", "python": "pythons"}
    names |= {"env": "environments", "runtime": "runtimes", "budget": "budget_s"}
    names |= {f"{one}": f"{one}_s" for one in ("time_budget", "time_limit", "sustain")}
    names["latency_limit"] = "latency_limit_s"
    for command, function, else_given in (
        ("run", convmark.measure, {"progress"}),
        ("ab", convmark.compare, {"progress"}),
        ("report", convmark.report, {"results"}),
    ):
        asked = {action.dest for action in parsers()[1][command]._actions} - of_a_shell
        taken = set(inspect.signature(function).parameters)
        assert {names.get(one, one) for one in asked} - else_given == taken - else_given


def test_packages_that_are_functions_stay_packages(folder: Path) -> None:
    import convmark.report.command  # sets the attribute `report` of convmark

    assert callable(convmark.report)
    assert convmark.report.command.report
    with pytest.raises(convmark.ConvmarkError, match="no such file or folder"):
        convmark.report("missing")
    with pytest.raises(convmark.ConvmarkError, match=r"^target: "):
        convmark.compare(target=-1)


def test_the_public_names_are_listed_documented_and_can_be_sent_to_another_process() -> None:
    assert set(convmark.__all__) <= set(dir(convmark))
    assert issubclass(convmark.Measurement, convmark.Shown)
    assert issubclass(convmark.Comparison, convmark.Shown)
    for function in (convmark.compare, convmark.report):
        assert pickle.loads(pickle.dumps(function)) is function
    assert convmark.compare.__doc__.startswith("Compare two environments")
    assert list(inspect.signature(convmark.report).parameters)[:2] == ["places", "output"]
    assert "models" in inspect.signature(convmark.compare).parameters


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convmark.read_results([]), r"^places: must be at least one .*, got none$"),
        (lambda: convmark.report([]), r"^places: must be at least one "),
        (lambda: convmark.read_results(None), r"^places: must be a text or a path, got None$"),
        (lambda: convmark.report("results", output=b"a"), r"^output: must be a text or a path"),
        (lambda: convmark.compare(a=1), r"^a: must be a text or a path, got 1$"),
        (lambda: convmark.compare(set_b="threads"), r"^set_b: .* NAME=VALUE, .* got 'threads'$"),
        (lambda: convmark.compare(set_b="thread=1"), r"^set_b: unknown setting 'thread'"),
        (lambda: convmark.compare(batch_sizes="auto"), r"^batch_sizes: auto is for `convmark run`"),
        (
            lambda: convmark.compare(processes=3),
            r"^processes: is not an option here, but of convmark.measure",
        ),
        (lambda: convmark.compare(batchsizes=1), r"^batchsizes: .*; did you mean batch_sizes\?$"),
        (lambda: convmark.report(style="wide"), r"^style: must be one of"),
        (lambda: convmark.report(rank="best"), r"^rank: must be one of burst, sustained, got"),
        (lambda: convmark.report(price="x.toml"), r"^price: is not an option; did you mean prices"),
        (lambda: convmark.report(prices=Path("x")), r"^prices: x cannot be read: No such file"),
        (lambda: convmark.report(output="x.pdf"), r"^output: must end in [^-]*, got 'x.pdf'$"),
        (lambda: convmark.measure(batch_sizes=np.ones((9, 9))), r"^batch_sizes: must be a text, a"),
        (
            lambda: convmark.measure(models={"lenet5"}),
            r"^models: .* a list of them, got {'lenet5'}",
        ),
        (lambda: convmark.measure(processes=True), r"^processes: must be a text, .*, got True$"),
    ],
    ids=range(18),
)
def test_a_wrong_value_is_one_line(call: Callable[[], object], message: str, folder: Path) -> None:
    with pytest.raises(convmark.ConvmarkError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_importing_convmark_imports_nothing_else() -> None:
    code = (
        "import sys; import convmark; print(sorted(x for x in sys.modules if x[:8] == 'convmark'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['convmark', 'convmark.suites']\n"


def test_ctrl_c_in_a_script_keeps_what_was_measured_and_ends_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without `if __name__ == "__main__"`
    script.write_text(
        "import convmark\n"
        f"convmark.measure(models='lenet5', pythons={str(fast_python(tmp_path))!r}, processes=50,\n"
        "    tasks='infer', batch_sizes=1, time_budget_s=0.05)\n"
        "print('went on')\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environ(tmp_path),
        preexec_fn=heeds_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert happens(lambda: len(rows_in(tmp_path)) >= 2, within_s=60)
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (1, -signal.SIGINT)
    assert "went on" not in output
    assert re.search(
        rf"^convmark: interrupted; {len(rows_in(tmp_path))} rows in results/", output, re.M
    )
    assert not [one for one in below if one.is_running()]
