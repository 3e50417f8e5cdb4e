"""`convmark compare --across ... --live` with stand-ins for the workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_sides import FakeCache, Interpreter, folder, verdicts
from histories import MACHINE, keep, process
from json_tables import rows_of

from convmark.cli import main
from convmark.core.errors import InstallError
from convmark.interpreter.environments import Made
from convmark.results.store import Store

__all__ = ["folder"]


def measured_in(folder: Path, *versions: str, **changes: Any) -> None:
    """Keep a run of two cases for each version of TensorFlow."""
    for number, version in enumerate(versions, 1):
        models = enumerate(("lenet5", "mini_resnet"), 1)
        rows = [
            process(run=f"{number:04d}", model=model, order=order, tensorflow=version, **changes)
            for order, model in models
        ]
        keep(Store(folder / "results"), rows)


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return rows_of(capsys.readouterr().out, "compare")


def test_versions_are_compared_live_each_with_the_one_before(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    Interpreter.speeds = {"2.21.0": 1.1}
    assert main(["compare", "--across", "tensorflow", "--live", "--format", "json"]) == 1
    found = [(row["a"], row["b"], row["model"], row["verdict"]) for row in json_of(capsys)]
    assert found == [
        (f"tensorflow=={a}", f"tensorflow=={b}", model, verdict)
        for a, b, verdict in (
            ("2.19.0", "2.20.0", "unchanged"),
            ("2.20.0", "2.21.0", "regressed"),
        )
        for model in ("lenet5", "mini_resnet")
    ]
    assert {request["kind"] for request in Interpreter.requests} == {"measure"}  # in lock-step
    assert [path.stem for path in sorted(folder.glob("results/ab/0*.csv"))] == ["0001", "0002"]


def test_what_is_compared_live_is_the_table_s_case_whatever_pyproject_sets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_in(folder, "2.20.0", "2.21.0")
    settings = {"precisions": "mixed_float16", "jit": "on", "threads": 1, "optimizer": "adam"}
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (folder / "pyproject.toml").write_text("[tool.convmark]\n" + "".join(lines))
    assert main(["compare", "--across", "tensorflow", "--live"]) == 0
    names = {f"{model}-train-cpu-b32-float32" for model in ("lenet5", "mini_resnet")}
    assert {row["case"] for row in verdicts(folder)} == names
    assert "Not compared" not in capsys.readouterr().out


def test_backends_are_compared_live_each_in_a_process_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backends: list[str] = []
    made = Interpreter.__init__

    def noting(self: Interpreter, python: str = "python", **settings: Any) -> None:
        backends.append(settings["backend"])
        made(self, python, **settings)

    monkeypatch.setattr(Interpreter, "__init__", noting)
    store = Store(folder / "results")
    keep(store, [process(run="0001")])
    keep(store, [process(run="0002", backend="jax")])
    assert main(["compare", "--across", "backend"]) == 0
    command = "convmark ab . . --set-a backend=tensorflow --set-b backend=jax --models lenet5"
    assert command in capsys.readouterr().out
    assert main(["compare", "--across", "backend", "--live", "--format", "json"]) == 0
    (row,) = json_of(capsys)
    assert (row["a"], row["b"]) == (". backend=tensorflow", ". backend=jax")
    assert set(backends) == {"tensorflow", "jax"}
    assert {request["kind"] for request in Interpreter.requests} == {"measure"}
    assert [one["case"]["backend"] for one in Interpreter.requests[:3]].count("jax") == 1


def test_a_version_that_cannot_be_had_is_said_and_the_others_are_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    get = FakeCache.get

    def without_the_oldest(self: FakeCache, wanted: Any, say: Any = None) -> Made:
        if "2.19.0" in str(wanted):
            raise InstallError("no such version")
        return get(self, wanted, say)

    monkeypatch.setattr(FakeCache, "get", without_the_oldest)
    assert main(["compare", "--across", "tensorflow", "--live"]) == 2
    printed = capsys.readouterr()
    said = "convmark compare: tensorflow==2.19.0 -> tensorflow==2.20.0: no such version"
    assert said in printed.err.splitlines()
    assert {row["b"] for row in verdicts(folder)} == {"tensorflow==2.21.0"}
    assert "tensorflow==2.20.0" in printed.out
    left = (f"{model}-train-cpu-b32-float32 at 2.20.0" for model in ("lenet5", "mini_resnet"))
    assert printed.out.endswith(f"\nNot compared: {', '.join(left)}.\n")


def test_a_live_comparison_of_versions_ends_by_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_in(folder, "2.19.0", "2.20.0", "2.21.0")
    monkeypatch.setattr(Interpreter, "interrupt_session", 5)
    assert main(["compare", "--across", "tensorflow", "--live"]) == 130
    assert len(list(folder.glob("results/ab/0*.csv"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--across", "machine", "--live"],
            f"--live: needs two values of machine, the runs have one, {MACHINE}; measure another",
        ),
        (["--live"], "--live: must be given with --across, whose values it compares"),
        (["--across=keras", "--budget=9"], "--budget: must be given with --live, which it limits"),
        (["--target=1"], "--target: must be given with --live, which it limits"),
        (
            ["--across", "tensorflow", "--live", "--budget", "nan"],
            "--budget: must be a number of seconds above 0",
        ),
        (
            ["--across", "tensorflow", "--live", "--format", "github"],
            "--format: must be one of text, json, csv, parquet, markdown, got 'github'",
        ),
    ],
)
def test_what_cannot_be_compared_live_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    measured_in(folder, "2.19.0", "2.20.0")
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert Interpreter.requests == []
