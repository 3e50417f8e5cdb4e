"""Whether the figures of a process hold still: what moved is found, and noise is no finding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workers import BUILDERS

from convmark.cli import main
from convmark.core.errors import MeasurementError
from convmark.results.reading import read_run
from convmark.session.steadiness import ROUNDS, moved, unsteady

CHECKOUT = Path(__file__).resolve().parent.parent
NOISE = CHECKOUT.parent / "shared" / "data" / "noise"
MOST_FALSE = 0.01


def noisy(shape: Any, spread: float = 0.03, seed: int = 0) -> list[float]:
    """Return step times, seconds, of that shape under noise."""
    shape = np.asarray(shape, np.float64)
    return list(0.01 * shape * np.exp(np.random.default_rng(seed).normal(0, spread, len(shape))))


SHARE = np.arange(100) / 100


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (1 + 2 * SHARE, "step time rose by a factor of 2."),
        (1 + 0.45 * SHARE, "step time rose by "),
        (np.exp(2 * SHARE), "step time rose by a factor of 3."),
        (1 + 2 * np.exp(-6 * SHARE), "step time fell by "),
        (np.where(SHARE < 0.6, 1, 3.1), "step time changed level by a factor of 3."),
        (np.where(SHARE < 0.6, 1.6, 1), "step time changed level by -3"),
        (np.where(SHARE < 1 / 3, 2, 1), "step time changed level by -"),
        (np.where((SHARE > 1 / 3) & (SHARE < 2 / 3), 2, 1), "from the first to the second third"),
        (1 + 2 * (2 * SHARE % 1), "step time came and went: it changed by "),
        (np.where(SHARE >= 0.9, 3, 1), "steps 1 to 10 to 91 to 100"),
    ],
)
def test_steps_that_move_are_found_and_said(shape: Any, says: str) -> None:
    times_s = noisy(shape)
    assert says in moved(times_s, times_s, quiet=True)
    assert moved(noisy(np.ones(100)), noisy(np.ones(100), seed=1), quiet=True) == ""


def test_a_jump_is_said_with_its_size_and_place() -> None:
    times_s = [0.01] * 60 + [0.031] * 40
    assert (
        moved(times_s, times_s) == "step time changed level by a factor of 3.1 after step 60 of 100"
    )
    rising = [0.01 + 0.0001 * number for number in range(100)]
    assert moved(rising) == "step time rose by 57 % from the first to the last third of 100 steps"


def test_a_level_that_the_process_had_no_part_in_is_the_machine_s() -> None:
    wall, cpu = noisy(np.where(SHARE < 0.5, 1, 1.4)), noisy(np.ones(100), seed=1)
    assert moved(wall, cpu) == moved(wall, cpu, quiet=True) == ""
    waits = noisy(np.where(SHARE < 0.5, 1, 2))  # a step that sleeps, or waits for a device
    assert moved(waits, cpu) == ""
    assert "changed level by " in moved(waits, cpu, quiet=True)
    assert "changed level by " in moved(waits, (), quiet=True)


def shapes_of_noise(rng: np.random.Generator, count: int) -> Iterator[Any]:
    """Yield step times that hold still, whatever else they do."""
    plain = np.exp(rng.normal(0, 0.05, count))
    yield plain
    yield 1 + 0.05 * np.abs(rng.standard_t(1.5, count))  # heavy tails
    yield plain * np.where(np.arange(count) == rng.integers(count), 50, 1)  # one outlier
    yield plain * np.where(np.arange(count) % 10 == 3, 4, 1)  # as a collector of garbage
    yield plain * np.where(rng.random(count) < 0.5, 1, 1.8)  # two levels, at random
    correlated = np.zeros(count)
    for place in range(1, count):
        correlated[place] = 0.9 * correlated[place - 1] + rng.normal(0, 0.05)
    yield np.exp(correlated)


@pytest.mark.parametrize("count", [30, 100])
def test_noise_is_no_finding(count: int) -> None:
    rng = np.random.default_rng(count)
    found = [
        moved(list(times), list(times), quiet=True)
        for _ in range(25)
        for times in shapes_of_noise(rng, count)
    ]
    assert sum(map(bool, found)) <= MOST_FALSE * len(found), set(found)


@pytest.mark.skipif(not NOISE.is_dir(), reason=f"no recorded noise in {NOISE}")
@pytest.mark.parametrize(("count", "every"), [(30, 6), (100, 2)])
def test_recorded_steps_of_identical_code_are_no_finding(count: int, every: int) -> None:
    """On a quiet machine and on one at load 6, which moves plain step times by factors.

    Of what is recorded each sixth or second part is looked at.
    """
    found = []
    for path in sorted(NOISE.glob("*.npz")):
        data = np.load(path)
        for name in data.files:
            if not name.endswith("wall_s") or name.replace("wall", "cpu") not in data.files:
                continue
            for wall, cpu in zip(data[name], data[name.replace("wall", "cpu")], strict=True):
                if wall.ndim > 1:
                    wall, cpu = wall[:, -1], cpu[:, -1]
                quiet = "quiet" in path.name
                for start in range(0, len(wall) - count + 1, count * every):
                    part = slice(start, start + count)
                    found.append(moved(list(wall[part]), list(cpu[part]), quiet=quiet))
    assert len(found) > 200
    assert sum(map(bool, found)) <= MOST_FALSE * len(found), set(found)


def events(**changes: Any) -> dict[str, Any]:
    still, reference = noisy(np.ones(100)), noisy(np.ones(50), seed=2)
    said = {
        "warm_up": {"steps": 15, "steady": True},
        "steps": {"times_s": still, "cpu_times_s": still},
        "windows": {"steps": 10, "times_s": [0.1, 0.101, 0.099, 0.1, 0.102]},
        "input_bound": {"steps": 5, "times_s": [0.1]},
        "rounds": {
            "case_wall_s": still[:50],
            "case_cpu_s": still[:50],
            "reference_wall_s": reference,
            "reference_cpu_s": reference,
        },
        "state": {"other_cpu_share": 0.01},
    }
    return {name: {**event, **changes.get(name, {})} for name, event in said.items()}


GROWING = noisy(1 + 2 * SHARE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"warm_up": {"steady": False}}, "warm-up did not settle in 15 steps"),
        ({"steps": {"times_s": GROWING}}, "step time rose by "),
        (
            {"windows": {"times_s": [0.21, 0.2, 0.2, 0.21, 0.2]}},
            "steps of the windows were slower than the last third of the single ones by a factor",
        ),
        (
            {"windows": {"times_s": [0.1, 0.11, 0.12, 0.13, 0.14]}},
            "step time changed by +40 % from the first to the last of 5 windows",
        ),
        (
            {"windows": {"times_s": [0.1, 0.1, 0.4, 0.1, 0.1]}},
            "a window took far longer: 4.0 times the median of 5; was the process",
        ),
        ({"windows": {"times_s": [0.1, 0.1, 0.2, 0.1, 0.1]}}, None),
        (
            {"input_bound": {"times_s": [0.5, 0.4, 0.3, 0.2, 0.1]}},
            "fed step time changed by -80 % ",
        ),
        (
            {"rounds": {"case_wall_s": GROWING[:50], "case_cpu_s": GROWING[:50]}},
            "ratio to the reference rose by ",
        ),
    ],
)
def test_every_phase_of_a_process_is_asked(changes: dict[str, Any], says: str | None) -> None:
    found = unsteady(events(**changes))
    assert found == says if says is None else (found or "").startswith(says)


def test_on_a_busy_machine_windows_prove_nothing() -> None:
    slower = {"times_s": [0.2, 0.21, 0.22, 0.23, 0.3]}
    assert unsteady(events(windows=slower, state={"other_cpu_share": 0.3})) is None
    for seconds, says in (
        (1.5, "None"),
        (2.5, "a window took far longer: 25.0 times"),
    ):  # of a stopped process
        stalled = {"times_s": [0.1, 0.1, seconds, 0.1, 0.1]}
        found = unsteady(events(windows=stalled, state={"other_cpu_share": 0.3}))
        assert says in str(found)


def test_a_machine_that_moves_case_and_reference_alike_does_not_move_their_ratio() -> None:
    busy = noisy(np.where(SHARE[:50] < 0.25, 1, 3))
    names = ("case_wall_s", "case_cpu_s", "reference_wall_s", "reference_cpu_s")
    assert unsteady(events(rounds=dict.fromkeys(names, busy))) is None
    assert moved([1.0] * 40 + [1.3] * 40, [1.0] * 40 + [1.3] * 40, limits=ROUNDS, of="round")


@pytest.mark.parametrize("times_s", [[], [0.01] * 23, [0.0] * 30, [0.01] * 30])
def test_too_few_steps_and_a_clock_too_coarse_tell_nothing(times_s: list[float]) -> None:
    assert moved(times_s, times_s, quiet=True) == ""
    with pytest.raises(MeasurementError, match="must be of all"):
        moved([*times_s, 0.01], [0.01] * (len(times_s) + 2))


def test_a_model_whose_call_grows_ends_unsteady_with_the_reason(
    warm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(BUILDERS)
    status = main(
        [
            *("run", "--models=builders:growing", "--tasks=infer", "--batch-sizes=2"),
            *("--devices=cpu", "--processes=1", "--time-budget=0.1", "--threads=1"),
            f"--results={tmp_path}",
        ]
    )
    shown = capsys.readouterr()
    assert status == 0, shown.err
    (path,) = tmp_path.glob("*/*.csv")
    (row,) = read_run(path)
    assert row.status == "unsteady"
    assert row.unsteady
    assert f"1 of 1 unsteady: {row.unsteady}" in shown.out
