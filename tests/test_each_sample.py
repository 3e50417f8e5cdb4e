"""A step that leaves samples of its batch out is refused, and none that may have a reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None, reason="a batch is an array"
)

BATCH = 5

Run = Callable[..., Any]


def held(run: Run, *, task: str = "infer", updates: Any = None) -> None:
    """Hold a step of a function of inputs, in training of targets too, to using each sample."""
    import numpy as np

    from convmark.core.case import Case
    from convmark.worker.backends.step import Step
    from convmark.worker.each_sample import hold_each_sample
    from convmark.worker.inputs import Inputs

    def feed(model: Any, task: str, samples: int, seed: int) -> Any:
        labels = np.random.RandomState(seed).randint(0, 2, samples)
        inputs = Inputs.of((3,)).batch(samples, seed)
        yield (inputs, (labels,)) if task == "train" else (inputs,)

    backend = SimpleNamespace(
        feed=feed,
        tensor=lambda array: array,
        array=lambda tensor: tensor,
        leaves=lambda outputs: [outputs],
        synchronise=lambda token: None,
        fingerprint=lambda token: float(token[1]),
        kept_values=lambda model: lambda: None,
        brings_training=lambda model: updates is not None,
        training_progress=lambda model, *, whole: updates(),
    )
    batch = next(feed(None, task, BATCH, 0))
    step = Step(lambda x, y=(): (None, run(x, *y)), batch)
    hold_each_sample(Case(model="net", task=task, batch_size=BATCH), None, step, 0, backend)


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
