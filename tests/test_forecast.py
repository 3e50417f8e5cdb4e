"""`--dry-run`: what would be measured and how long, with nothing started."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from fake_worker import FakeInterpreter
from histories import process

import convmark
from convmark.cli import main
from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.options import Options
from convmark.interpreter.inspection import refuse_unknown
from convmark.machine.cautions import speed_flags
from convmark.machine.hardware import read_machine
from convmark.session.ceilings import Ceiling, ceilings_path, keep_ceilings
from convmark.session.expected import (
    COSTS,
    after_s,
    expected_s,
    load_slowdown,
    sizes_of,
    step_s,
)

AROUND_S = COSTS["tensorflow", "cpu"].process_s
MODELS = ("lenet5", "resnet50")
RUN = ("run", f"--models={','.join(MODELS)}", "--batch-sizes=32", "--processes=2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder in which no interpreter can be started."""
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.setattr("convmark.interpreter.Interpreter", _refused)
    monkeypatch.setattr("convmark.session.forecast.load_slowdown", lambda cores: 1.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(*_: Any, **__: Any) -> None:
    raise AssertionError("an interpreter was started")


def rows(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, dict[str, str]], str]:
    capsys.readouterr()
    assert main([*RUN, "--dry-run", "--format", "csv", *more]) == 0
    printed = capsys.readouterr()
    found = csv.DictReader(io.StringIO(printed.out))
    return {row["case"]: row for row in found}, printed.err


def test_a_plan_is_shown_with_its_time_from_the_budget_and_nothing_is_started(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = rows(capsys)
    assert len(found) == 4
    small = found["lenet5-infer-cpu-b32-float32"]
    assert (small["processes"], small["from"]) == ("2", "time budget")
    assert float(small["seconds"]) == pytest.approx(AROUND_S + 2 * 0.6)
    assert words.startswith("4 cases, 8 processes, about ")
    assert words.endswith(
        "(estimated from the time budget); nothing was started, and no code of a model was "
        "imported\n"
    )
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet6", "lenet6: no such model; a model of your own is "),
        ("nowhere.nets:small", "nowhere.nets:small: there is no module nowhere; it must be in "),
        ("nets/small.keras", "nets/small.keras: no such file in the working folder"),
        ("nets/smal.keras", "nets/smal.keras: no such file in the working folder; did you mean "),
        ("onw.nets:small", "onw.nets:small: there is no module onw; did you mean own"),
        ("own.nets:smal", "own.nets:smal: own.nets has no attribute smal; did you mean own.nets:"),
    ],
)
def test_a_misspelt_model_is_refused_before_anybody_waits_and_by_a_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    name: str, message: str,
) -> None:  # fmt: skip
    def waits(**_: Any) -> None:
        raise AssertionError("the machine was waited for")

    for place in ("own", "nets"):
        (folder / place).mkdir()
    (folder / "own" / "nets.py").write_text("def small():\n    ...\n")
    (folder / "nets" / "small.h5").touch()
    monkeypatch.setattr("convmark.session.session.alone", waits)
    monkeypatch.setattr("convmark.cli.ab.alone", waits)
    for command in (["run", "--dry-run"], ["run", "--wait"], ["noise"], ["ab"]):
        assert main([*command, "--models", f"lenet5,{name}"]) == 2
        assert capsys.readouterr().err.startswith(f"convmark {command[0]}: {message}")
    assert main(["layers", name]) == 2
    if name.endswith(".keras"):  # releases may have other models, and modules
        releases = ["--good", "1", "--bad", "3", "--versions", "1,2,3"]
        of_one = ["--models", name, "--tasks", "infer", "--batch-sizes", "1"]
        capsys.readouterr()
        assert main(["bisect", *releases, *of_one]) == 2
        assert capsys.readouterr().err.startswith(f"convmark bisect: {message}")
    with pytest.raises(OptionError):
        convmark.measure(models=name)


def test_another_interpreter_may_have_other_models(folder: Path) -> None:
    refuse_unknown(["lenet6", "nowhere.nets:small"], elsewhere=True)
    (folder / "nets.py").write_text("from others import *\n")
    (folder / "made.py").write_text('globals()["small"[:3] + "er"] = print\n')
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("from .nets import small\n")
    (folder / "package" / "nets.py").write_text("from . import blocks\n\nsmall = blocks.small\n")
    (folder / "package" / "blocks.py").write_text("small = print\n")
    refuse_unknown(["nets:small", "made:smaer", "keras_hub:resnet_18_imagenet", "resnet50"])
    refuse_unknown(["package:blocks.small", "mobilenetv3small", "efficientnetv2b0"])


def test_earlier_rows_of_the_machine_tell_the_time(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as able:
        able.setattr("convmark.interpreter.Interpreter", FakeInterpreter)
        assert main(["run", "--models=lenet5", "--batch-sizes=32", "--tasks=train"]) == 0
    found, words = rows(capsys)
    measured = found["lenet5-train-cpu-b32-float32"]
    assert measured["from"] == "earlier rows"
    assert float(measured["seconds"]) != pytest.approx(1.5 * AROUND_S + 2 * 0.6)
    assert "estimated from earlier rows in results/" in words
    assert " for 1 case, else from the time budget" in words


def test_a_model_of_which_nothing_is_known_takes_from_a_small_one_s_time_to_a_large_one_s(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "nets.py").write_text("def small():\n    ...\n")
    known, _ = rows(capsys)
    found, words = rows(capsys, "--models=nets:small")
    for task in ("train", "infer"):
        ends = [known[f"{name}-{task}-cpu-b32-float32"]["seconds"] for name in MODELS]
        row = found[f"nets:small-{task}-cpu-b32-float32"]
        assert float(row["seconds"]) == pytest.approx(float(ends[0]))
        assert float(row["seconds_to"]) == pytest.approx(float(ends[1]), rel=0.02)  # fewer layers
    assert "2 cases, 4 processes, about 15 s if nets:small is as small as lenet5, 12 min" in words
    assert " min if as large as resnet50 (estimated from the time budget); nothing " in words


def test_the_rows_of_one_case_tell_how_large_the_model_is_in_another() -> None:
    row = process(model="nets:small", task="infer", batch_size=8, step_time_p50_s=0.1606,
                  other_cpu_share=0.0)  # fmt: skip
    large = process(model="nets:small", task="infer", batch_size=16, step_time_p50_s=0.4006,
                    other_cpu_share=0.5)  # fmt: skip
    assert sizes_of([large, row])["nets:small"] == pytest.approx(1000 * (0.2003 - 0.0006) * 2)
    sizes = sizes_of([row])
    train = Case(model="nets:small", task="train", batch_size=32)
    assert step_s(train, sizes["nets:small"]) == pytest.approx(3 * 4 * 0.16)
    assert expected_s(train, 0.6, {}, sizes) > 60 * 3 * 4 * 0.16


@pytest.mark.parametrize(
    ("model", "batch_size", "took_s"),
    [
        *(("lenet5", 32, 0.00128), ("mini_resnet", 32, 0.00606), ("mobilenetv2", 1, 0.0171)),
        *(("resnet50", 1, 0.0584), ("resnet50", 8, 0.382), ("vgg16", 1, 0.173), ("vgg16", 8, 1.15)),
    ],
)
def test_a_step_is_expected_to_take_what_one_took_on_two_quiet_cores(
    model: str, batch_size: int, took_s: float
) -> None:
    case = Case(model=model, task="infer", batch_size=batch_size)
    assert took_s / 1.5 < step_s(case) < took_s * 1.5


@pytest.mark.parametrize(
    ("slowdown", "seconds"),
    [(1.0, AROUND_S + 1.2), (1.5, 1.5 * AROUND_S + 1.8), (6.0, 6 * AROUND_S + 2.4)],
)
def test_under_other_load_work_takes_longer_and_the_time_budget_ends_steps(
    slowdown: float, seconds: float
) -> None:
    case = Case(model="lenet5", task="infer", device="cpu", batch_size=1)
    assert expected_s(case, 0.6, {}, slowdown=slowdown) == pytest.approx(seconds)
    assert expected_s(case, 0.6, {case.name: 3.0}, slowdown=slowdown) == 3.0


@pytest.mark.parametrize(
    ("model", "backend", "task", "took_s"),
    [
        ("mini_resnet", "jax", "infer", 18.5),
        ("mini_resnet", "jax", "train", 19.8),
        ("lenet5", "jax", "infer", 22.7),
        ("mini_resnet", "torch", "infer", 10.4),
        ("mini_resnet", "torch", "train", 16.6),
    ],
)
def test_on_a_gpu_a_process_is_expected_to_take_what_one_took_on_an_h100(
    model: str, backend: str, task: str, took_s: float
) -> None:
    case = Case(model=model, task=task, device="gpu:0", batch_size=1024, backend=backend)
    assert took_s / 1.5 < expected_s(case, 0.6, {}) < took_s * 1.5


def test_a_search_at_a_latency_limit_is_as_long_as_its_requests_take() -> None:
    options = Options(latency_limit_s=0.01)
    fast = Case(model="lenet5", task="infer", device="gpu:0", batch_size=32, backend="jax")
    assert after_s(fast, options) == pytest.approx(9 * 100 * 0.01)  # 8.2 s on an H100
    slow = Case(model="lenet5", task="infer", device="cpu", batch_size=1)
    assert after_s(slow, options) == pytest.approx(9 * 20_000 * step_s(slow))
    assert step_s(slow) >= 0.0005  # a batch of one takes its calls too
    assert after_s(fast, options, slowdown=6.0) == 100  # 94 s were seen at such a load
    assert after_s(Case(model="vgg19", task="infer", device="cpu", batch_size=32), options) == 0.0


@pytest.mark.parametrize(
    ("load", "busy", "slowdown"), [(0.4, 100.0, 1.2), (6.0, 100.0, 4.0), (6.0, 40.0, 1.4)]
)
def test_a_load_that_is_over_slows_nothing(
    load: float, busy: float, slowdown: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert load_slowdown(2, lambda seconds: busy) == pytest.approx(slowdown)


@pytest.mark.parametrize(("quota", "seconds"), [(None, "15 s"), (1.5, "23 s")])
def test_under_a_cpu_quota_the_ceilings_of_the_cpu_are_measured_in_each_run(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quota: float | None,
    seconds: str,
) -> None:
    monkeypatch.setattr("convmark.session.forecast.limiting_quota", lambda cores: quota)
    kept = Ceiling(
        measured="2026-01-02T03:04:05+00:00",
        device="cpu",
        backend="tensorflow",
        precision="float32",
        threads="default",
        version="2.21.0",
        matrix_size=2048,
        peak_flops_per_s=1e11,
        copy_bytes=2**28,
        peak_bytes_per_s=1e10,
        flags=speed_flags(os.environ) or None,
    )
    keep_ceilings(ceilings_path(Path("results"), read_machine().name), [kept])
    _, words = rows(capsys, "--models=lenet5", "--ceilings=on")
    assert f", about {seconds} (estimated" in words


def test_a_time_that_cannot_be_estimated_is_not_made_up(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = rows(capsys, "--tasks=train,waterfall")
    (untimed,) = (row for name, row in found.items() if name.startswith("lenet5-waterfall"))
    assert untimed["seconds"] == untimed["from"] == ""
    assert "and the time of 4 processes that cannot be estimated" in words


def test_where_nothing_is_estimated_no_time_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = rows(capsys, "--tasks=waterfall")
    assert words.startswith("2 cases, 4 processes, whose time cannot be estimated; nothing was ")
    found, words = rows(capsys, "--batch-sizes=auto", "--tasks=infer")
    assert not any("processes" in row for row in found.values())
    assert words.startswith("2 cases, whose batch sizes a search finds; its processes and time ")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--devices=gpu:5", "--devices: gpu:5 does not exist, only cpu"),
        ("--python=/no/where", "--python: no interpreter '/no/where'"),
        ("--env=no such thing ==", "--env: "),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, words: str
) -> None:
    assert main([*RUN, "--dry-run", option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_layers_of_cases_that_have_none_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run", "--models", "lenet5", "--tasks", "accuracy", "--layers"]) == 2
    assert "--layers: no case has layers: --tasks: layers are" in capsys.readouterr().err


def test_an_option_that_needs_a_started_plan_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--shard=1/2", "--resume"):
        assert main([*RUN, "--dry-run", option]) == 2
        name = option.partition("=")[0]
        assert f"--dry-run: must not be given with {name}" in capsys.readouterr().err


def test_pytest_shows_its_selected_cases_and_runs_no_test(
    folder: Path, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        "import pytest\n"
        "from convmark import Suite\n"
        "SUITE = Suite(models=('lenet5', 'mini_resnet'), tasks=('train',), batch_sizes=(32,))\n"
        "@pytest.mark.convmark(SUITE)\n"
        "def test_speed(measured, benchmark):\n"
        "    measured.replay(benchmark)\n"
    )
    done = pytester.runpytest_inprocess("--convmark-dry-run", "-k", "lenet5", "--benchmark-compare")
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "lenet5-train-cpu-b32-float32 *",
            "convmark: 1 case, 3 processes, about *",
            "convmark: --benchmark-compare: the live comparison of cases whose code has "
            "changed takes about 10 s where step times are as before, about 45 s where all have *",
        ]
    )
    done.stdout.no_fnmatch_line("mini_resnet-*")
    assert not list(pytester.path.glob("results*"))
