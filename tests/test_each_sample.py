"""A step that leaves samples of its batch out is refused, and none that may have a reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_run import FACTS, TRAIN, Canned, Told, events, ok

from convmark.core.options import read
from convmark.interpreter import Answer
from convmark.results.store import Store
from convmark.session import run
from convmark.session.facts import plan
from convmark.session.result import Result

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None, reason="a batch is an array"
)

BATCH = 5

Run = Callable[..., Any]


def held(
    run: Run,
    *,
    task: str = "infer",
    updates: Any = None,
    keep: Any = lambda model: lambda: None,
    padding: int = 0,
) -> int:
    """Hold a step of a function of inputs, in training of targets too, to using each sample.

    Returns:
        how many steps that took.
    """
    import numpy as np

    from convmark.core.case import Case
    from convmark.worker.backends.step import Step
    from convmark.worker.inputs import Inputs
    from convmark.worker.other_samples import hold_each_sample

    def feed(model: Any, task: str, samples: int, seed: int) -> Any:
        labels = np.random.RandomState(seed).randint(0, 2, samples)
        inputs = Inputs.of((3,)).batch(samples, seed)
        inputs[samples - padding :] = 0
        yield (inputs, (labels,)) if task == "train" else (inputs,)

    backend = SimpleNamespace(
        feed=feed,
        tensor=lambda array: array,
        array=lambda tensor: tensor,
        leaves=lambda outputs: [outputs],
        synchronise=lambda token: None,
        fingerprint=lambda token: float(token[1]),
        kept_values=keep,
        brings_training=lambda model: updates is not None,
        training_progress=lambda model, *, whole: updates(),
    )
    batch = next(feed(None, task, BATCH, 0))
    steps = []

    def taken(x: Any, y: Any = ()) -> tuple[None, Any]:
        steps.append(1)
        return None, run(x, *y)

    step = Step(taken, batch)
    hold_each_sample(Case(model="net", task=task, batch_size=BATCH), None, step, 0, backend)
    return len(steps)


@pytest.mark.parametrize(
    ("run", "sample"),
    [
        (lambda x: x[:2].sum(), 5),
        (lambda x: x[:-1].sum(1), 5),
        (lambda x: x[1:].sum(1), 1),
        (lambda x: x[1::2].sum(1), 5),
        (lambda x: x[:1].repeat(BATCH, 0), 5),
    ],
)
def test_a_step_that_leaves_a_sample_out_is_refused_by_its_number(run: Run, sample: int) -> None:
    from convmark.worker.failure import CaseFailure

    for task in ("infer", "train"):
        with pytest.raises(CaseFailure, match=f"net: .* whatever sample {sample} is; have"):
            held(lambda x, *_: run(x).sum(), task=task)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.mean(),
        lambda x: x.argmax(1),
        lambda x: x * 0,  # nobody can tell, as of a deep network that was never trained
        lambda x: x[x.sum(1) > 2.2],  # few are found in noise
    ],
)
def test_a_step_whose_results_depend_on_each_sample_at_times_or_on_none_is_measured(
    run: Run,
) -> None:
    held(run)


def test_a_loss_that_leaves_out_some_labels_is_measured() -> None:
    held(lambda x, y: x[y > 0].sum(), task="train")


def test_weights_that_change_with_a_sample_show_it_where_the_loss_does_not() -> None:
    updates: list[Any] = []

    def run(x: Any, y: Any) -> Any:
        updates.append(float(x.sum()))
        return 1.0

    held(run, task="train", updates=lambda: updates[-1])


def test_a_sample_that_is_the_same_in_all_batches_is_not_held_to_count() -> None:
    held(lambda x: x.sum(1), padding=1)
    held(lambda x: x[:-1].sum(), task="train", padding=1)


def test_a_layer_that_drops_samples_by_its_own_random_numbers_is_measured() -> None:
    import numpy as np

    drawn = [0]

    def keep(model: Any) -> Callable[[], None]:
        kept = drawn[0]
        return lambda: drawn.__setitem__(0, kept)

    def run(x: Any, *_: Any) -> Any:
        drawn[0] += 1
        return x[np.random.RandomState(drawn[0]).rand(len(x)) > 0.5].sum()

    held(run, task="train", keep=keep)
    assert drawn == [0], "the model must go on as it was before"


def test_where_no_sample_counts_on_the_first_batch_no_more_steps_are_taken() -> None:
    assert held(lambda x: x * 0) < 10


def asked(folder: Path, *answers: Answer) -> list[bool]:
    """Return whether each process of a case was to see that each sample counts."""
    interpreter, run_file = Canned(*answers), Store(folder).create_run("xeon-2")
    given = (interpreter, read({}), replace(FACTS, run=run_file.run), run_file, Told())
    run.execute(plan([TRAIN], len(answers), seed=0), *given, keep=lambda result: None)
    run_file.close()
    return [one["each_sample"] for one in interpreter.requests]


def test_a_case_is_asked_until_a_process_of_it_was_measured(tmp_path: Path) -> None:
    crashed = Answer(status="crashed", message="killed", events=[], ready_s=None)
    assert asked(tmp_path, crashed, ok(events()), ok(events())) == [True, True, False]


def test_after_a_process_of_other_code_the_next_one_is_asked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter([None, "other code", None])

    def kept(result: Result, _: object) -> Result:
        return replace(result, record=replace(result.record, not_judged=next(reasons)))

    monkeypatch.setattr(run, "with_kept_code", kept)
    assert asked(tmp_path, ok(events()), ok(events()), ok(events())) == [True, False, True]
