"""The command line with a stand-in for the worker processes."""

from __future__ import annotations

import functools
import io
import re
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fake_worker
import pytest
from forks import COMMAND, Forks
from rows import row
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.cli.parsers import parsers
from convmark.compare.judgement import MACHINE
from convmark.core.errors import WorkerError
from convmark.core.fitting import tell
from convmark.core.options import KEYWORDS, OPTIONS, OWN_DEFAULTS, Options, of_command, read
from convmark.core.processes import Terminated
from convmark.core.pyproject import program
from convmark.interpreter import Answer
from convmark.machine.gpu.devices import Gpu
from convmark.machine.hardware import read_machine
from convmark.report.advice import gate_step, next_step, say_step
from convmark.results.reading import read_run
from convmark.session.layers import LAYERS_TABLE, REST


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    return tmp_path


def test_a_run_measures_all_default_cases_and_leaves_a_row_per_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 0
    (path,) = folder.glob("results/*/0001.csv")
    assert len(read_run(path)) == 3 * (4 + 8 + 4)
    printed = capsys.readouterr()
    assert f"48 rows in {path.relative_to(folder)}" in printed.out
    assert "lenet5-infer-cpu-b1-float32" in printed.out
    assert "[48/48]" in printed.err


def test_options_choose_the_cases(folder: Path) -> None:
    options = ["--models", "lenet5", "--tasks", "infer", "--batch-sizes", "4,8", "--jit", "both"]
    assert main(["run", *options, "--processes", "1"]) == 0
    (path,) = folder.glob("results/*/0001.csv")
    found = {(row.model, row.task, row.batch_size, row.jit) for row in read_run(path)}
    assert found == {("lenet5", "infer", size, jit) for size in (4, 8) for jit in ("off", "on")}


def test_a_failed_case_is_a_row_and_exit_1_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--models", "broken,lenet5", "--tasks", "train"]) == 1
    (path,) = folder.glob("results/*/0001.csv")
    statuses = {row.model: row.status for row in read_run(path)}
    assert statuses == {"broken": "error", "lenet5": "ok"}
    assert "error: RuntimeError: no weights" in capsys.readouterr().out


def test_ctrl_c_keeps_the_rows_so_far_says_where_and_exits_130(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 3)
    assert main(["run"]) == 130
    (path,) = folder.glob("results/*/0001.csv")
    assert len(read_run(path)) == 3
    said = capsys.readouterr().err
    assert "interrupted; 3 rows in" in said
    assert said.endswith("convmark run: the same command with --resume continues\n")
    of_several = ["--cluster", "127.0.0.1:20001,127.0.0.1:20002", "--index", "0"]
    of_several += ["--replicas", "2", "--processes", "5"]
    assert main(["run", "--models", "lenet5", "--tasks", "train", *of_several]) == 130
    assert "--resume" not in capsys.readouterr().err  # it is refused with several machines


@pytest.mark.parametrize(
    ("ends", "status", "why"),
    [
        (KeyboardInterrupt(), 0, "interrupted"),
        (WorkerError("python: cannot be started"), 0, "python: cannot be started"),
        (Terminated(), 130, ""),
    ],
)
def test_what_ends_ceilings_that_are_measured_once_more_costs_a_finished_run_nothing(
    ends: BaseException,
    status: int,
    why: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [
        {"event": "environment", "tensorflow": "2.99.0"},
        {"event": "product", "matrix_size": 64, "flops_per_s": 2e9},  # of 3,200 x 833,040 at least
        {"event": "copy", "copy_bytes": 64, "bytes_per_s": 1e9},
    ]
    asked = []

    class Worker(fake_worker.FakeInterpreter):
        def answer(self, request: Any, on_event: Any = lambda event: None) -> Answer:
            if request["kind"] != "ceiling":
                return super().answer(request, on_event)
            asked.append(request)
            if len(asked) > 1:
                raise ends
            return Answer(status="ok", message="", ready_s=0.1, events=events)

    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    monkeypatch.setattr("convmark.session.session.limiting_quota", lambda cores: None)
    of_one = ["--models", "lenet5", "--tasks", "infer", "--batch-sizes", "32", "--processes", "1"]
    assert main(["run", *of_one, "--ceilings", "on"]) == status
    printed = capsys.readouterr()
    assert len(asked) == 2
    assert ("lenet5-infer-cpu-b32-float32" in printed.out) == (not status)
    line = f"ceilings that rows exceed are not measured once more: {why}"
    assert (line in " ".join(printed.err.split())) == (not status)


def test_ctrl_c_while_layers_are_measured_says_what_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_two = ["layers", "lenet5", "mini_resnet", "--ceilings", "off"]
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 4)  # 3 sessions a case
    assert main(of_two) == 130
    printed = capsys.readouterr()
    (path,) = folder.glob("results/*/layers.csv")
    said = " ".join(printed.err.split())
    assert (
        f"convmark layers: interrupted; layers of 1 of 2 cases kept in {path.relative_to(folder)}"
        in said
    )
    assert "lenet5-infer-cpu-b1-float32" in printed.out
    run = ["run", "--models", "lenet5", "--tasks", "infer", "--batch-sizes", "1", "--layers"]
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 4)
    assert main([*run, "--ceilings", "off"]) == 130
    assert "; layers of 0 of 1 case kept" in " ".join(capsys.readouterr().err.split())


def test_layers_prints_the_slowest_keeps_all_and_exits_0(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["layers", "lenet5", "--ceilings", "off", "--top", "1"]
    assert main(asked) == 0
    printed = capsys.readouterr()
    assert "Conv" in printed.out
    assert "Relu" not in printed.out
    assert "the other 2 take 40" in " ".join(printed.out.split())
    (path,) = folder.glob("results/*/layers.csv")
    assert [one.layer for one in LAYERS_TABLE.read(path)] == ["conv", "relu", "dense", REST]
    (drawn,) = folder.glob("results/*/models/lenet5-infer-cpu-b1-float32.layers.svg")
    assert drawn.read_text().startswith("<svg")
    assert main(["layers", "broken", "--ceilings", "off"]) == 1
    assert "no layers: RuntimeError: no weights" in capsys.readouterr().err
    for more, words in (
        (["--batch-sizes", "auto"], "--batch-sizes: must be numbers, got auto"),
        (["--depth", "0"], "--depth: must be "),
    ):
        assert main([*asked, *more]) == 2
        assert words in capsys.readouterr().err


def test_a_run_interrupted_before_its_first_row_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_worker.FakeInterpreter, "interrupt_after", 0)
    assert main(["run"]) == 130
    assert list(folder.glob("results/*/*.csv")) == []


BAD = [
    (["run", "--models", "lenet6"], "lenet6: no such model"),
    (["run", "--models", ""], "--models: must be"),
    (["run", "--tasks", "trian"], "--tasks: unknown name 'trian'; did you mean train?"),
    (["run", "--devices", "gpu:3"], "--devices: gpu:3 does not exist, only cpu"),
    (
        ["run", "--batch-sizes", "-1"],
        "--batch-sizes: must be a whole number of at least 1, or auto",
    ),
    (["run", "--jit", "maybe"], "--jit: must be one of off, on, both, got 'maybe'"),
    (["run", "--threads", "0"], "--threads: must be 'default' or a whole number"),
    (["run", "--time-budget", "0"], "--time-budget: must be a number of seconds above 0"),
    (["run", "--results", "file"], "--results: must be a folder"),
    (["doctor", "--results", ""], "--results: must be the path of a folder"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_values_are_one_line_and_exit_2_before_anything_is_measured(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "file").write_text("")
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"convmark {arguments[0]}: {message}")
    assert list(folder.glob("results/*/*.csv")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ruin"], "convmark: argument COMMAND: invalid choice: 'ruin'"),
        (["reprot"], "; did you mean report?"),
        (["env", "lst"], "; did you mean list?"),
        (["run", "--proceses", "3"], "unrecognized arguments: --proceses; did you mean --proc"),
        (["run", "-q"], "unrecognized arguments: -q; did you mean --quiet?"),
        (["run", "-z", "--modles"], "unrecognized arguments: -z --modles; did you mean --models?"),
        (["ab", "-z", "--dry-run"], ": -z --dry-run; --dry-run is an option of convmark run"),
        (["run", "--models"], "argument --models: expected one argument"),
        (["run", "lenet5"], "unrecognized arguments: lenet5"),
        (["ab", "--dry-run"], "arguments: --dry-run; --dry-run is an option of convmark run"),
    ],
)
def test_a_mistyped_command_line_is_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_convmark_alone_shows_its_commands_and_the_five_jobs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "bisect" in printed
    jobs = printed.partition("five jobs:\n")[2].splitlines()
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| \[(.*?)\].*\| `(.*)` \|$", readme.partition("## Five jobs")[2], re.M)
    assert [line.strip().lower() for line in jobs] == [one.lower() for row in rows for one in row]


def test_a_broken_pyproject_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pyproject.toml").write_text("[tool.convmark]\nmodel = 'lenet5'\n")
    assert main(["run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "[tool.convmark] has no key 'model'; did you mean models" in line


def test_doctor_says_what_it_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in ("2.99.0", "3.99.0", "cpu", "What will make figures unreliable"):
        assert part in printed


def test_a_run_on_all_devices_says_which_gpus_the_framework_does_not_see(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = tuple(Gpu(index=n, name="T4", memory_bytes=None, uuid=f"GPU-{n}") for n in range(2))
    machine = replace(read_machine(), gpus=gpus)
    monkeypatch.setattr("convmark.cli.run.read_machine", lambda: machine)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    short = ["--models", "lenet5", "--tasks", "train", "--processes", "1"]
    said = "GPU: the driver shows 2, the framework lists 0: it was built without CUDA; "
    assert main(["run", *short]) == 0
    assert said in capsys.readouterr().err
    assert main(["run", *short, "--devices", "cpu"]) == 0
    assert "GPU: " not in capsys.readouterr().err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert main(["run", *short]) == 0
    assert "GPU: " not in capsys.readouterr().err


def test_doctor_has_a_page_for_each_interpreter_and_backend(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--python", sys.executable, "--backend", "tensorflow,torch"]) == 0
    printed = capsys.readouterr().out
    assert f"{sys.executable}, tensorflow\n" in printed
    assert f"{sys.executable}, torch\n" in printed
    assert printed.count("What will make figures unreliable") == 2
    assert main(["doctor", "--python", "./no-such-python"]) == 2


def test_a_run_ends_with_the_next_command_unless_it_is_quiet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["run", "--models", "lenet5", "--tasks", "train", "--processes", "1"]
    assert main(short) == 0
    assert "\nconvmark run: next:\nconvmark report -o report.html\n" in capsys.readouterr().err
    assert main([*short, "--quiet"]) == 0
    said = capsys.readouterr()
    assert "next:" not in said.err
    assert "[1/1]" not in said.err
    assert "1 row in" in said.out
    assert main([*short, "--models", "broken", "--quiet"]) == 1
    said = capsys.readouterr()
    assert "convmark run: 1 of 1 process without figures: " in said.err
    again = "convmark run --models broken --tasks train --batch-sizes 32 --processes 1"
    assert f"\nconvmark run: next:\n{again}\n" in said.err


def test_the_next_command_works_as_pasted_wherever_the_results_are(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pasted(*options: str) -> str:
        asked = ("--models", "lenet5", "--tasks", "train", "--processes", "2", *options)
        assert main(["run", *asked]) == 0
        command = capsys.readouterr().err.splitlines()[-1]
        assert main(shlex.split(command)[1:]) == 0
        return command

    assert pasted("--results", "my rows/a") == (
        "convmark report -o report.html --results 'my rows/a'"
    )
    (folder / "pyproject.toml").write_text("[tool.convmark]\nresults = 'kept'\n")
    assert pasted() == "convmark report -o report.html"
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert pasted("--results", "../kept").endswith(" --results ../kept")


def test_every_next_command_takes_the_options_that_it_repeats() -> None:
    texts = {"results": "my rows", "backend": "jax", "python": ["an env", "b"], "threads": "1,2"}
    texts |= {"input_shape": "8x8x3", "allow_change": ["lenet5-*"], "trust_models": "yes"}
    texts |= {"runtime": "openvino", "isolation": "spawn"}
    options = read(texts)
    unclear = judgement(verdict="inconclusive", fails=False, note="no live comparison: x")
    regressed = judgement(verdict="regressed", fails=True)
    steps = [next_step([row(status=one)], options) for one in ("ok", "unsteady", "crashed")]
    steps += [gate_step([one], options) for one in (unclear, regressed)]
    for step in steps:
        words = shlex.split(step.partition("next: ")[2])
        given = vars(parsers()[0].parse_args(words[1:]))
        found = read(given)
        assert found.results == options.results
        assert found.named <= {*options.named, "models"}
        same = found.named - {"models"}
        assert [getattr(found, one) for one in same] == [getattr(options, one) for one in same]
    assert "--results 'my rows' --python 'an env' --python b" in steps[1]


@pytest.mark.parametrize("command", OWN_DEFAULTS)
def test_the_help_of_a_command_tells_the_defaults_that_it_runs_with(command: str) -> None:
    told = {action.dest: action.help or "" for action in parsers()[1][command]._actions}
    runs_with = of_command(command, Options())
    for field, default in OWN_DEFAULTS[command].items():
        assert told[field].endswith(f" (default: {default})")
        assert told[field].count("(default") == 1
        assert getattr(runs_with, field) == KEYWORDS[field].value("", default)
    asked = {"tasks": "train", "batch_sizes": "8", "ceilings": "off", "devices": "gpu:0"}
    assert of_command(command, read(asked)) == read(asked)


@pytest.mark.parametrize("command", ["ab", "bisect", "noise"])
def test_a_comparison_offers_no_option_that_it_does_not_use_and_no_value_that_it_refuses(
    command: str,
) -> None:
    told = " ".join(parsers()[1][command].format_help().split())
    for word in ("--ceilings", "accuracy", "or auto", "none: use"):
        assert word not in told
    assert ("or all" in told) == (command != "bisect")
    assert ("--time-budget" in told) == (command == "ab")


def test_each_option_is_of_commands_that_there_are() -> None:
    _, commands = parsers()
    assert {name for one in OPTIONS for name in one.commands} <= {
        *commands,
        "pytest",
        "fleet doctor",
    }


def test_a_program_that_the_shell_does_not_find_is_named_by_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program() == "convmark"
    monkeypatch.setenv("PATH", str(folder))
    named = Path(sysconfig.get_path("scripts"), "convmark")
    assert program() == str(named)
    monkeypatch.chdir(named.parent.parent.parent)
    assert program() == str(Path(*named.parts[-3:]))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))
    assert program() == f"{sys.executable} -m convmark"


def test_the_next_step_follows_from_the_worst_row() -> None:
    def said(*statuses: str, searched: bool = False) -> str:
        records = [row(status=status) for status in statuses]
        return next_step(records, Options(), searched=searched)

    assert "next: convmark report" in said("ok")
    assert "one process of each case tells no spread, so give --processes 3" in said("ok")
    assert said("ok", "ok").startswith("all processes were measured; where spread is wide, give")
    busy = [row(other_cpu_share=share) for share in (None, 0.09, 0.1, 0.854)]
    busy += [row(model="alone", other_cpu_share=0.09)]
    loaded = "1 of 2 cases measured while other programs took up to 10 % of the CPUs' time"
    assert next_step(busy, Options()).startswith(loaded)
    assert "next: convmark report" in next_step(busy[:2], Options())
    assert next_step(busy[:4], Options()).endswith("\nnext: convmark doctor")
    assert next_step(busy, Options()).endswith(
        "measure again, or see which model is faster as far as these tell\nnext: convmark report"
    )
    assert next_step([row(), row(model="vgg16")], Options()).endswith("\nnext: convmark report")
    both = next_step([*busy, row(status="unsteady")], Options())
    assert next_step([*busy, row(status="unsteady")], Options(), quiet=True) == both
    assert next_step(busy[:2], Options(), quiet=True) == ""
    assert both.startswith("1 of 6 processes unsteady or not judged, so do not quote")
    assert f"; {loaded}" in both
    assert said("ok", "unsteady").startswith("1 of 2 processes unsteady")
    assert said("unsteady", "crashed").startswith("1 of 2 processes without figures")
    assert said("crashed", "timeout").endswith("\nnext: convmark doctor")
    assert said("crashed", "error", "ok").endswith(
        f"measure again\nnext: convmark run --models {row().model} --tasks {row().task} "
        f"--batch-sizes {row().batch_size} --processes 1"
    )
    assert "next: convmark report" in said("ok", "out_of_memory", searched=True)


def test_a_gate_says_that_nothing_was_compared_only_where_that_is_so() -> None:
    def said(**changes: Any) -> str:
        machine = judgement(model=MACHINE, metric="reference_step_time", verdict="unchanged",
                            fails=False)  # fmt: skip
        return gate_step([judgement(fails=False, **changes), machine], Options())

    none = "no earlier run of this case; later runs are compared with this one"
    assert said(verdict="new", note=none).startswith(
        "nothing was compared, because there is no earlier run of these cases: this run is the "
    )
    assert said(
        verdict="new", note="keras was 3.9, is 3.10: `convmark ab` compares them"
    ).startswith(
        "nothing was compared, because the earlier runs are not comparable (keras was 3.9, is 3.10)"
    )
    mixed = [judgement(verdict="unchanged", fails=False),
             judgement(case="fresh", verdict="new", note=none, fails=False)]  # fmt: skip
    assert gate_step(mixed, Options()).startswith(
        "the gate passed: no case became slower; 1 case without a baseline: fresh\n"
    )
    assert "only accuracy\n" in said(verdict="improved", metric="accuracy")
    assert said(verdict="unchanged").startswith("the gate passed: no case became slower")
    meant = said(verdict="regressed", accepted="allowed by --allow-change")
    assert meant.startswith("the gate passed: 1 case changed as accepted, no other became slower")
    unclear = said(verdict="inconclusive", note="budget spent: about 2 min more would decide: ...")
    assert unclear.endswith("\nnext: run the command again, or with a larger "
                            "--convmark-compare-budget")  # fmt: skip
    assert unclear.count("run the command") == 1
    assert unclear.startswith("the gate decided nothing, which is no pass: 1 of 1 step time not d")
    both = [judgement(fails=False, verdict="inconclusive"),
            judgement(case="other", verdict="regressed", fails=False, accepted="x")]  # fmt: skip
    step = gate_step(both, Options())
    assert "; 1 case changed as accepted\n  accepted: other: step time +" in step
    seeds = said(verdict="inconclusive", metric="accuracy", note="one seed has no spread")
    assert seeds.startswith("the gate decided nothing, which is no pass: 1 of 1 case not decided")
    assert "the notes say why\n" in seeds
    few = [judgement(verdict=one, fails=False) for one in ("inconclusive", "unchanged")]
    part = "no regression found; 1 of 2 step times not decided, so they may have changed"
    assert gate_step(few, Options()).startswith(part)
    few = [judgement(verdict="unchanged", fails=False),
           judgement(case="gone", verdict="missing", fails=False)]  # fmt: skip
    lost = "the gate passed: no case became slower; 1 case of the baseline did not run: gone\n"
    assert gate_step(few, Options()).startswith(lost)
    busy = said(verdict="inconclusive", note="budget spent: more time would most likely not decide")
    again = "\nnext: close other programs and run the command again: more time would most likely"
    assert again in busy
    blind = said(verdict="inconclusive", note="no live comparison: the files were not kept")
    assert "changed: none was compared live, and the notes say why\n" in blind
    same = said(verdict="unchanged", note="same code")
    assert same.startswith("the gate passed: the code of each case is that of the baseline")


def test_the_last_lines_fit_a_narrow_terminal_and_keep_what_is_copied_on_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    log = io.StringIO()
    busy = [row(other_cpu_share=0.854), row(status="unsteady"), row(status="crashed")]
    steps = [next_step(busy[:count], Options()) for count in (1, 2, 3)]
    steps.append(next_step([row()], Options()))
    steps.append(gate_step([judgement(verdict="regressed", fails=True)], Options()))
    for step in steps:
        said = functools.partial(tell, before="convmark: ", stream=log)
        say_step(step, said)
    lines = log.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    below = [after for line, after in pairwise(lines) if line == "convmark: next:"]
    assert [line.partition(" ")[0] for line in below] == ["convmark"] * len(steps)
    assert f"Benchmark-Accept: {judgement().case}" in lines
    ends = judgement(verdict="inconclusive", fails=True, change=None, note="RuntimeError:")
    say_step(gate_step([ends], Options()), said)
    *_, header, command = log.getvalue().splitlines()
    assert (header, command.startswith("convmark run --models ")) == ("convmark: next:", True)
    say_step(next_step([row()], read({"results": "rows " * 30})), said)
    last = log.getvalue().splitlines()[-1]
    assert last == f"convmark report -o report.html --results '{'rows ' * 30}'"


def test_a_shell_gets_commands_options_and_values(folder: Path, harness: Forks) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not installed")
    assert main(["run", "--models", "lenet5,mini_resnet", "--tasks", "train"]) == 0
    (machine,) = (path.name for path in folder.glob("results/*-*"))
    for line, expected in (
        ("convmark sh", "show"),
        ("convmark list --for", "--format"),
        ("convmark list --format j", "json"),
        ("convmark list --format h", ""),
        ("convmark report --format h", "html"),
        ("convmark compare --format g", "github"),
        ("convmark run --runtime o", "onnxruntime openvino"),
        ("convmark run --precisions i", "int8"),
        ("convmark report --rank s", "sustained"),
        ("convmark comment --outcome f", "failure"),
        ("convmark run --models mobilenetv2,mini_res", "mobilenetv2,mini_resnet"),
        ("convmark run --models vgg1", "vgg16 vgg19"),
        ("convmark run --tasks train,in", "train,infer"),
        ("convmark run --devices c", "cpu"),
        ("convmark run --devices a", "all"),
        ("convmark run --tasks ac", "accuracy"),
        *((f"convmark {one} --tasks ac", "") for one in ("ab", "bisect", "layers", "noise")),
        ("convmark bisect --devices a", ""),
        ("convmark noise --devices a", "all"),
        ("convmark ab --isolation n", ""),
        ("convmark run --backend j", "jax"),
        ("convmark show 0", "0001"),
        ("convmark show l", "latest"),
        (f"convmark show latest --machine {machine[:3]}", machine),
        ("convmark history lenet5-t", "lenet5-train-cpu-b32-float32"),
        ("convmark show --results nowhere 0", ""),
    ):
        answer = folder / "answer"
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        more = {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": " "}
        assert harness.run(COMMAND, environ={**asked, **more}).returncode == 0
        found = answer.read_text().split()
        assert set(expected.split()) <= set(found), line
        assert bool(found) == bool(expected), line


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\nfrom convmark.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['run', '--help'])\n"
        "heavy = {'numpy', 'pandas', 'psutil', 'rich', 'tabulate', 'tensorflow', 'pytest'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_each_interpreter_asked_for_is_a_run_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder / "python"
    other.symlink_to(sys.executable)
    options = ["--python", sys.executable, "--python", str(other), "--models", "lenet5"]
    assert main(["run", *options, "--processes", "1"]) == 0
    assert len(list(folder.glob("results/*/000[12].csv"))) == 2
    assert len(list(folder.glob("results/*/*.csv"))) == 2
    assert capsys.readouterr().out.count("rows in") == 2


def test_an_interpreter_that_is_not_there_ends_it_before_anything_is_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--python", sys.executable, "--python", "./no-such-python"]) == 2
    assert "--python: no interpreter './no-such-python'" in capsys.readouterr().err
    assert not list(folder.glob("results/*/*"))
