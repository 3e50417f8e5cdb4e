"""The untimed tasks on the harness side: requests to a worker, and rows from its answers.

A row of the task accuracy is one process, which is one seed. Its epochs stand beside it:

    results/<machine>/0007.csv          accuracy and loss on the test digits, time to the target
    results/<machine>/0007.epochs.csv   seconds, losses and accuracies of every epoch

The rules of a run's file hold for both; `order` tells which row an epoch is of. A row of the task
waterfall has the seconds per step of each way to call a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmark.core.case import Case
from convmark.core.cells import column
from convmark.core.errors import OptionError
from convmark.core.options import Options
from convmark.core.statistics import quantile
from convmark.results.record import Record
from convmark.results.table_file import TableBeside

if TYPE_CHECKING:
    from convmark.interpreter import Answer

    Ask = Callable[[Mapping[str, Any]], Answer]

TASK = "accuracy"
EPOCHS = 5
"""As the lecture trains."""
VARIABLE = "CONVMARK_MNIST"


WATERFALL = "waterfall"

HOST = ("load_average_1min", "other_cpu_share", "involuntary_context_switches")
"""Columns that a worker's event `state` tells, of timed tasks too."""

WAYS: Mapping[str, str] = {
    "compiled_train": "compiled_train_step_s",
    "fed_train": "fed_train_step_s",
    "train_on_batch": "train_on_batch_step_s",
    "fit": "fit_step_s",
    "compiled_infer": "compiled_infer_step_s",
    "predict_on_batch": "predict_on_batch_step_s",
    "predict": "predict_step_s",
}
"""Columns by the worker's name of the way, from the least of Keras to the most, training first."""

_CALLS = {"fit": "fit_call_s", "predict": "predict_call_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One row of the epochs' file."""

    run: str = column("name of the run")
    order: int = column("place in the run's plan, as in the run's file")
    model: str = column("model by name, or package.module:builder")
    device: str = column("cpu or gpu:N")
    batch_size: int = column("samples per step", "samples")
    precision: str = column("as in the run's file")
    jit: str = column("as in the run's file")
    threads: str = column("as in the run's file")
    process: int = column("number of the case's process, from 1")
    seed: int = column("seed of the split, the weights and the order of the samples")
    fraction: float = column("share of the training and validation samples used", bounds="share")
    epoch: int = column("number of the epoch, from 1", bounds="above 0")
    steps: int = column("training steps of the epoch", bounds="above 0")
    samples: int = column("training samples of the epoch", bounds="above 0")
    epoch_time_s: float = column(
        "its training steps, until the device has finished", "s", bounds="above 0"
    )
    validation_time_s: float = column("its validation", "s", bounds="at least 0")
    loss: float = column("training loss, mean over the epoch as it went")
    accuracy: float = column("training accuracy, mean over the epoch as it went", bounds="share")
    validation_loss: float = column("loss on the validation samples after it")
    validation_accuracy: float = column(
        "accuracy on the validation samples after it", bounds="share"
    )


TABLE = TableBeside(".epochs.csv", Epoch)


def with_digits(
    options: Options, cases: Sequence[Case], ask: Ask, environ: Mapping[str, str]
) -> Options:
    """Return the options with the file of the digits, once a worker has read it; nothing trained.

    Args:
        ask: has a request served by a worker.
        environ: names the file where the option does not.

    Raises:
        OptionError: there is no file of digits, or they are not as they should be.
        WorkerError: no worker can be started at all.
    """
    learning = [case for case in cases if case.task == TASK]
    if not learning:
        return options
    named = options.mnist or (Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    flag = VARIABLE if named and not options.mnist else "--mnist"
    answer = ask(
        {
            "kind": "digits",
            "case": learning[0].as_fields(),
            "seed": options.seed,
            "mnist": str(named.expanduser().absolute()) if named else None,
        }
    )
    found = answer.event("digits")
    if answer.status != "ok" or found is None:
        raise OptionError(f"{flag}: {answer.message}")
    return dataclasses.replace(options, mnist=Path(found["path"]))


def lesson(options: Options, seed: int) -> dict[str, Any]:
    """Return what a worker is asked beside the case, for one seed."""
    return {
        "seed": seed,
        "mnist": str(options.mnist),
        "epochs": EPOCHS,
        "fraction": options.fraction,
    }


def asked_columns(options: Options) -> dict[str, Any]:
    """Return the cells that a row has whatever comes of its process."""
    return {
        "processes": len(options.seeds),
        "fraction": options.fraction,
        "epochs": EPOCHS,
        "target_accuracy": options.target_accuracy,
    }


def figures(epochs: Sequence[Mapping[str, Any]], target: float) -> dict[str, Any]:
    """Return what a process's epochs amount to.

    Args:
        target: validation accuracy whose first epoch is looked for.

    Raises:
        LookupError: a figure is not there.
    """
    last, times_s = epochs[-1], [float(epoch["epoch_time_s"]) for epoch in epochs]
    reached = next((n for n, e in enumerate(epochs, 1) if e["validation_accuracy"] >= target), None)
    return {
        "training_samples": last["samples"],
        "epoch_time_s": quantile(times_s[1:] or times_s, 0.5),
        "training_loss": last["loss"],
        "training_accuracy": last["accuracy"],
        "validation_loss": last["validation_loss"],
        "validation_accuracy": last["validation_accuracy"],
        "time_to_target_s": sum(times_s[:reached]) if reached else None,
        "samples_to_target": sum(e["samples"] for e in epochs[:reached]) if reached else None,
    }


def learned_columns(answer: Answer, target: float) -> dict[str, Any]:
    """Return the columns of one process, as `figures`.

    Raises:
        LookupError: the worker has left an event out.
    """
    epochs = [event for event in answer.events if event["event"] == "epoch"]
    events = {event["event"]: event for event in answer.events}
    tested, state = events["tested"], events["state"]
    return {
        "status": "ok",
        "dataset": events["data"]["dataset"],
        **figures(epochs, target),
        **{name: tested.get(name) for name in ("training", "optimizer", "loss_name")},
        "loss": tested["loss"],
        "accuracy": tested["accuracy"],
        **{name: state[name] for name in HOST},
    }


def epochs_of(record: Record, answer: Answer) -> list[Epoch]:
    """Return the epochs behind a row, whole or not.

    Raises:
        LookupError: the worker has left a figure out.
    """
    shared = {name: getattr(record, name) for name in TABLE.header[: TABLE.header.index("epoch")]}
    names = TABLE.header[TABLE.header.index("epoch") :]
    return [
        Epoch(**shared, **{name: event[name] for name in names})
        for event in answer.events
        if event["event"] == "epoch"
    ]


def waterfall_columns(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of one process: of each way the median over the rounds.

    A step of fit or predict is the difference of two calls: where that is not above 0, the call has
    varied by more than its steps took, and there is no figure.

    Raises:
        LookupError: the worker has left a way out.
    """
    events = {event["event"]: event for event in told}
    found, state = events["waterfall"], events["state"]
    steps_s = {column: quantile(found["step_s"][way], 0.5) for way, column in WAYS.items()}
    return {
        "status": "ok",
        "waterfall_rounds": found["rounds"],
        "waterfall_steps": found["steps"]["fit"],
        **{column: time_s if time_s > 0 else None for column, time_s in steps_s.items()},
        **{column: quantile(found["call_s"][way], 0.5) for way, column in _CALLS.items()},
        **{name: state[name] for name in HOST},
    }
