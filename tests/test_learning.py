"""The task accuracy on the harness's side: its rows, its epochs' file, its plan and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rows import row

from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.options import read
from convmark.interpreter import Answer
from convmark.results.store import Store
from convmark.session.facts import plan
from convmark.session.learning import (
    EPOCHS,
    TABLE,
    epochs_of,
    learned_columns,
    with_digits,
)
from convmark.session.run import request_of
from convmark.worker.learning import check_fits

LEARN = Case(model="lenet5", task="accuracy", batch_size=256)
TRAIN = Case(model="lenet5", task="train", batch_size=32)


def epoch(number: int, accuracy: float, seconds: float = 8.0) -> dict[str, Any]:
    return {
        "event": "epoch",
        "phase": f"epoch {number}/5 ended, validation accuracy {accuracy:.4f}",
        "epoch": number,
        "steps": 196,
        "samples": 50_000,
        "epoch_time_s": seconds,
        "validation_time_s": 1.0,
        "loss": 1.0 / number,
        "accuracy": accuracy - 0.01,
        "validation_loss": 1.1 / number,
        "validation_accuracy": accuracy,
    }


def answer(*accuracies: float) -> Answer:
    """What a worker says whose first epoch took 11 s, the others 7, 8, 9 and 10 s."""
    seconds = (11.0, 7.0, 8.0, 9.0, 10.0)
    epochs = [epoch(n, a, seconds[n - 1]) for n, a in enumerate(accuracies, 1)]
    return Answer(
        status="ok",
        message="",
        ready_s=0.1,
        events=[
            {"event": "data", "dataset": "mnist-0123456789ab", "training_samples": 50_000},
            *epochs,
            {"event": "tested", "loss": 0.06, "accuracy": 0.981},
            {
                "event": "state",
                "load_average_1min": 0.5,
                "other_cpu_share": 0.02,
                "involuntary_context_switches": 3,
            },
        ],
    )


RISING = (0.90, 0.95, 0.97, 0.975, 0.98)


def test_a_row_has_the_last_epoch_the_test_and_the_median_epoch_without_the_first() -> None:
    found = learned_columns(answer(*RISING), 0.97)
    assert (found["accuracy"], found["loss"]) == (0.981, 0.06)
    assert (found["validation_accuracy"], found["training_accuracy"]) == (0.98, 0.97)
    assert found["epoch_time_s"] == 8.5
    assert found["training_samples"] == 50_000
    assert found["dataset"] == "mnist-0123456789ab"


@pytest.mark.parametrize(
    ("target", "seconds", "samples"),
    [
        (0.90, 11.0, 50_000),
        (0.97, 26.0, 150_000),  # reached exactly
        (0.9701, 35.0, 200_000),
        (0.98, 45.0, 250_000),
        (0.9801, None, None),
    ],
)
def test_the_time_to_the_target_ends_with_the_first_epoch_that_reaches_it(
    target: float, seconds: float | None, samples: int | None
) -> None:
    found = learned_columns(answer(*RISING), target)
    assert (found["time_to_target_s"], found["samples_to_target"]) == (seconds, samples)


def test_an_accuracy_that_falls_again_was_reached() -> None:
    assert learned_columns(answer(0.9, 0.98, 0.9, 0.9, 0.9), 0.97)["samples_to_target"] == 100_000


def test_an_only_epoch_is_its_own_median() -> None:
    assert learned_columns(answer(0.9), 0.97)["epoch_time_s"] == 11.0


def test_a_worker_that_tells_no_test_is_found_out() -> None:
    whole = answer(*RISING)
    for missing in ("tested", "state", "data"):
        events = [event for event in whole.events if event["event"] != missing]
        with pytest.raises(LookupError):
            learned_columns(dataclasses.replace(whole, events=events), 0.97)


def learned_row(**changes: Any) -> Any:
    fields = {"task": "accuracy", "batch_size": 256, "seed": 7, "fraction": 0.1, "order": 3}
    return row(**{**fields, **changes})


def test_epochs_stand_beside_the_run_and_read_as_they_were(tmp_path: Path) -> None:
    run = tmp_path / "0007.csv"
    first = epochs_of(learned_row(run="0007"), answer(*RISING))
    second = epochs_of(learned_row(run="0007", seed=8, process=2, order=4), answer(0.5))
    TABLE.keep(run, first)
    TABLE.keep(run, second)
    assert TABLE.path(run) == tmp_path / "0007.epochs.csv"
    assert TABLE.of(run) == [*first, *second]
    table = pd.read_csv(TABLE.path(run), dtype={"run": str})
    assert table["run"].unique().tolist() == ["0007"]
    assert table["seed"].tolist() == [7] * 5 + [8]
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 1]
    assert table["validation_accuracy"].tolist() == [*RISING, 0.5]
    assert table["epoch_time_s"].sum() == 56.0


def test_the_epochs_file_is_no_run_and_no_epochs_make_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with_rows = store.create_run("xeon-2")
    with_rows.append(learned_row(run="0001"))
    TABLE.keep(with_rows.path, [])
    assert not TABLE.path(with_rows.path).exists()
    TABLE.keep(with_rows.path, epochs_of(learned_row(run="0001"), answer(0.5)))
    with_rows.close()
    assert store.runs("xeon-2") == [with_rows.path]
    assert store.create_run("xeon-2").run == "0002"


def test_a_damaged_epochs_file_is_refused_by_name_and_line(tmp_path: Path) -> None:
    run = tmp_path / "0001.csv"
    TABLE.keep(run, epochs_of(learned_row(run="0001"), answer(0.5, 0.6)))
    path = TABLE.path(run)
    path.write_text(path.read_text().replace(",0.6\n", ",much\n", 1))
    with pytest.raises(StoreError, match=r"0001\.epochs\.csv:3: "):
        TABLE.of(run)


def test_a_process_of_accuracy_has_a_seed_and_other_cases_are_planned_as_ever() -> None:
    jobs = plan([TRAIN, LEARN], 2, 0, seeds=(5, 6, 7))
    assert [job.order for job in jobs] == [1, 2, 3, 4, 5]
    learning = [job for job in jobs if job.case == LEARN]
    assert [(job.process, job.seed) for job in learning] == [(1, 5), (2, 6), (3, 7)]
    timed = [job for job in jobs if job.case == TRAIN]
    assert [(job.process, job.seed) for job in timed] == [(1, None), (2, None)]
    assert plan([TRAIN], 2, 0, seeds=(5, 6, 7)) == plan([TRAIN], 2, 0)


def test_fewer_seeds_than_processes_leave_the_case_with_its_seeds() -> None:
    jobs = plan([TRAIN, LEARN], 3, 0, seeds=(4,))
    assert [job.case.task for job in jobs].count("accuracy") == 1
    assert [job.case.task for job in jobs].count("train") == 3


def test_a_request_names_the_digits_the_seed_and_the_part() -> None:
    options = read({"mnist": "/digits.npz", "fraction": "0.5"})
    asked = request_of(LEARN, options, seed=9)
    assert asked["kind"] == "accuracy"
    assert (asked["seed"], asked["mnist"], asked["fraction"]) == (9, "/digits.npz", 0.5)
    assert asked["epochs"] == EPOCHS == 5
    assert request_of(LEARN, options, smoke=True)["kind"] == "measure"
    assert request_of(TRAIN, options)["kind"] == "measure"


class Asked:
    """Stands for a worker that looks for the digits."""

    def __init__(self, **fields: Any) -> None:
        events = [{"event": "digits", "path": "/found.npz", "dataset": "mnist-1"}]
        self._answer = Answer(
            **{"status": "ok", "message": "", "ready_s": None, "events": events, **fields}
        )
        self.requests: list[Mapping[str, Any]] = []

    def __call__(self, request: Mapping[str, Any]) -> Answer:
        self.requests.append(request)
        return self._answer


def test_digits_are_looked_for_only_where_a_case_trains_on_them() -> None:
    asked = Asked()
    options = read({})
    assert with_digits(options, [TRAIN], asked, {}) is options
    assert not asked.requests
    assert with_digits(options, [TRAIN, LEARN], asked, {}).mnist == Path("/found.npz")
    assert [request["mnist"] for request in asked.requests] == [None]


def test_the_option_goes_before_the_variable_and_both_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Asked()
    with_digits(read({"mnist": "a.npz"}), [LEARN], asked, {"CONVMARK_MNIST": "/b.npz"})
    with_digits(read({}), [LEARN], asked, {"CONVMARK_MNIST": "b.npz"})
    assert [request["mnist"] for request in asked.requests] == [
        str(tmp_path / "a.npz"),
        str(tmp_path / "b.npz"),
    ]


@pytest.mark.parametrize(
    ("given", "environ", "flag"),
    [
        ({}, {}, "--mnist"),
        ({"mnist": "a.npz"}, {"CONVMARK_MNIST": "b.npz"}, "--mnist"),
        ({}, {"CONVMARK_MNIST": "b.npz"}, "CONVMARK_MNIST"),
    ],
)
def test_what_the_worker_refuses_is_told_with_the_way_it_was_named(
    given: dict[str, str], environ: dict[str, str], flag: str
) -> None:
    asked = Asked(status="error", message="a.npz: y_test: expected this, found that", events=[])
    with pytest.raises(OptionError) as refused:
        with_digits(read(given), [LEARN], asked, environ)
    assert str(refused.value) == f"{flag}: a.npz: y_test: expected this, found that"


def test_further_outputs_in_training_keep_no_model_from_the_task() -> None:
    check_fits(
        LEARN,
        None,
        SimpleNamespace(
            sample_shape=lambda model: (28, 28, 1),
            outputs_of=lambda model: [np.zeros((1, 10))],
            leaves=list,
            output_shapes=lambda model: [(None, 10), (None, 10)],  # with a head of training's
        ),
    )
