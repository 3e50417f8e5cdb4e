"""Each script under benchmarks/ runs to its end in its smallest form; its figures mean nothing.

The figures that README and docs/ quote come from these scripts, so one that ends in a traceback
leaves figures that nobody can print again.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import digits
import pytest
from forks import Forks

SCRIPTS = Path(__file__).parent / "benchmarks"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED = ("slowed.py",)
"""Imported by the others."""
FROM_AN_INDEX = ("guest_trial.py", "loadgen.py")
"""Need packages from an index, and are run by hand."""

QUICK = {
    "change_points.py": ["--series=4"],
    "decision_rule.py": ["--decisions=16", "--scenarios=1", "--state={folder}"],
    "fleet_cost.py": ["--most-nodes=100", "--fleets=2"],
    "history_cost.py": ["--runs=2", "--cases=8", "--metrics=1", "--settled=0"],
    "machine_ratios.py": ["--draws=2"],
    "report_cost.py": ["--site", "1"],
    "rule_league.py": ["--data={data}", "--trials=2"],
    "window_bias.py": ["--draws=2"],
    "submissions.py": ["--trials=200", "--seconds=5", "--folder={folder}"],
}
WITH_WORKERS = {
    "applications.py": ["--models=lenet5", "--state={folder}"],
    "damaged_files.py": ["--files=1", "--folder={folder}"],
    "duet_truth.py": [
        *("--cases=conv_layer:infer:32", "--changes=0", "--sessions=1", "--seconds=0.1"),
        *("--builds=1", "--folder={folder}"),
    ],
    "epoch_times.py": ["--mnist={mnist}", "--models=lenet5", "--rounds=1", "--fraction=0.01"],
    "exported_accuracy.py": [
        *("--mnist={mnist}", "--folder={folder}", "--models=lenet5", "--runtimes=savedmodel"),
        "--fraction=0.002",
    ],
    "harness_cost.py": ["--only=overhead", "--pairs=2", "--budget=0.1"],
    "hostile.py": ["--builders=1", "--folder={folder}"],
    "runtimes.py": [
        *("--folder={folder}", "--models=lenet5", "--batch-sizes=1", "--rounds=1"),
        *("--only=table", "--runtimes=keras,savedmodel"),
    ],
    "wrong_exports.py": [
        *("--mnist={mnist}", "--folder={folder}", "--models=lenet5", "--runtimes=onnxruntime"),
        *("--fraction=0.002", "--spoilt=1"),
    ],
    "same_code.py": ["--decisions=1", "--cases=conv_layer:infer:32", "--folder={folder}"],
    "layer_profile.py": [
        *("--models=blocks:net", "--processes=1", "--rounds=1", "--time-budget=0.01"),
    ],
    "lecture_accuracy.py": [
        *("--mnist={mnist}", "--models=lenet5", "--most=1", "--fraction=0.01"),
        "--results={folder}",
    ],
}
IN_PROCESS = ("epoch_times.py", "exported_accuracy.py", "harness_cost.py", "wrong_exports.py")
"""Import TensorFlow themselves: they run in forks of a process that has."""
LIVE = {
    "bare_loop.py": [
        *("--cells=conv_layer:infer:32", "--pairs=1", "--turns=1", "--seconds=0.05"),
        "--folder={folder}",
    ],
    "kills.py": ["--kills=1", "--only", "run", "merge", "--folder={folder}"],
    "added_cost.py": ["HEAD", "--pairs=1", "--", "--models=conv_layer", "--processes=1"],
    "layer_blame.py": [
        *("--models=lenet5", "--trials=1", "--time-budget=0.01", "--folder={folder}"),
    ],
    "gates.py": ["--only", "flat", "--folder={folder}"],
    "pull_request.py": ["--only", "slow", "--folder={folder}"],
    "gate_trials.py": ["--only=decided", "--runs=0", "--models=conv_layer", "--folder={folder}"],
}
"""Live comparisons and sessions of a clone: minutes on a busy machine."""
GOALS_MISSED = {
    "harness_cost.py": "load average at the end",
    "epoch_times.py": "the same with fit's overhead counted",
    "layer_profile.py": "rest: ",
}
"""What scripts print last that end with 1 where their figures are not those that are wished for."""

BLOCKS = """
import keras

def net():
    convolutions = [keras.layers.Conv2D(4, 3, name=f"block_{n}_conv") for n in range(12)]
    return keras.Sequential([keras.Input((32, 32, 4)), *convolutions])
"""
"""A module, with a model of equal blocks."""


def test_every_script_is_run() -> None:
    names = {path.name for path in SCRIPTS.glob("*.py")} - set(SHARED)
    assert names == {*QUICK, *WITH_WORKERS, *LIVE, *FROM_AN_INDEX}


def ran(harness: Forks, script: str, arguments: list[str], folder: Path) -> None:
    done = harness.run(SCRIPTS / script, *arguments, cwd=folder, environ=os.environ)
    output = done.stdout + done.stderr
    assert done.returncode in (0, int(script in GOALS_MISSED)), output
    assert GOALS_MISSED.get(script, "") in output
    assert "Traceback" not in output
    assert done.stdout.strip()


@pytest.mark.parametrize("script", sorted(QUICK))
def test_a_script_of_numbers_alone_runs_to_its_end(
    script: str, harness: Forks, tmp_path: Path
) -> None:
    if script == "rule_league.py" and not DATA.is_dir():
        pytest.skip("the folder of recorded noise is not beside the checkout")
    filled = [one.format(folder=tmp_path / "F", data=DATA) for one in QUICK[script]]
    ran(harness, script, filled, tmp_path)


needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)


@needs_tensorflow
@pytest.mark.parametrize("script", sorted(WITH_WORKERS))
def test_a_script_that_measures_runs_to_its_end(
    script: str,
    harness: Forks,
    warm: None,
    forks_of: Callable[[str], Forks],
    tmp_path: Path,
) -> None:
    arguments, mnist = WITH_WORKERS[script], tmp_path / "mnist.npz"
    if any("{mnist}" in one for one in arguments):
        digits.write(mnist)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    filled = [one.format(folder=tmp_path / "F", mnist=mnist) for one in arguments]
    ran(forks_of("tensorflow") if script in IN_PROCESS else harness, script, filled, tmp_path)


@needs_tensorflow
@pytest.mark.long
@pytest.mark.parametrize("script", sorted(LIVE))
def test_a_script_that_compares_live_runs_to_its_end(
    script: str, harness: Forks, tmp_path: Path
) -> None:
    ran(harness, script, [one.format(folder=tmp_path / "F") for one in LIVE[script]], tmp_path)
