"""Task: the properties of a kind of measurement, one object each.

The code of an untimed task is the module `worker` names, in `convmark.worker`. Its figures are the
columns of its group in the schema, which a report shows in the table of the same key. The worker
loads this module too, so it needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of measurement."""

    name: str
    title: str
    """Of its table in a report."""
    headline: str
    """The column that says most of a row."""
    about: str = ""
    """What it does, where the name does not say it."""
    outcome: str = ""
    """How a line of progress tells the headline; empty where it is seconds of a step."""
    batch_sizes: tuple[int, ...]
    """Of its default suite, samples per replica per step."""
    worker: str = ""
    """The module of `convmark.worker` that serves it; empty where the steps are timed one by one,
    paired with the reference network and judged by it."""
    trains: bool = False
    """Whether its steps change weights; else they infer."""
    passes: int = 1
    """Forward passes' worth of work in a step: two gradients cost about one each."""
    judged: bool = True
    """Whether its figures are ground for a verdict; without, its failure alone is."""
    deterministic: bool = False
    """Whether the framework is asked for repeatable kernels."""
    guess_s: float = 0.0
    """Seconds of a process, until one has ended; 0 for a guess by the time budget."""

    @property
    def words(self) -> str:
        """Its name, and what it does where the name does not say it."""
        return f"{self.name} ({self.about})" if self.about else self.name

    @property
    def timed(self) -> bool:
        """Whether its steps are timed one by one."""
        return not self.worker


TASKS: Mapping[str, Task] = {
    one.name: one
    for one in (
        Task(
            name="train",
            title="Training",
            headline="step_time_p50_s",
            batch_sizes=(32,),
            trains=True,
            passes=3,
        ),
        Task(
            name="infer",
            title="Inference",
            headline="step_time_p50_s",
            batch_sizes=(1, 32),
        ),
        Task(
            name="accuracy",
            title="Accuracy on MNIST",
            headline="accuracy",
            outcome="test accuracy {:.4f}",
            about="train on MNIST",
            batch_sizes=(256,),
            worker="learning",
            trains=True,
            deterministic=True,
            guess_s=300.0,
        ),
        Task(
            name="waterfall",
            title="Overhead of a step",
            headline="fit_step_s",
            about="what Keras and its input pipeline cost",
            batch_sizes=(32,),
            worker="waterfall",
            judged=False,
            guess_s=20.0,
        ),
    )
}
"""By name."""

TIMED_TASKS = tuple(name for name, one in TASKS.items() if one.timed)


def default_sizes(tasks: Collection[str]) -> str:
    """Return the batch sizes of the default suites of these tasks, in words."""
    sizes = {name: " and ".join(map(str, TASKS[name].batch_sizes)) for name in tasks}
    return ", ".join(f"{words} for {name}" for name, words in sizes.items())
