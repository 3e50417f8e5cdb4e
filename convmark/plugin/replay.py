"""Replaying recorded steps into pytest-benchmark: a clock that reads each step's own time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from _pytest.junitxml import xml_key

from convmark.core.case import Case
from convmark.results.record import Record

if TYPE_CHECKING:
    from convmark.compare.judgement import Judgement

SHOWN = ("throughput_samples_per_s", "time_to_first_step_s", "peak_host_memory_bytes")
LEARNED = ("accuracy", "loss", "time_to_target_s")


class ReplayClock:
    """Reads 0 before a step and the step's recorded seconds after it, so no digit is lost."""

    __name__ = "replay"

    def __init__(self, step_times_s: Sequence[float]) -> None:
        self._left = iter(step_times_s)
        self._elapsed_s = 0.0

    def __call__(self) -> float:
        elapsed_s, self._elapsed_s = self._elapsed_s, 0.0
        return elapsed_s

    def step(self) -> None:
        """Let the next recorded step pass; beyond the last one no time passes."""
        self._elapsed_s = next(self._left, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of one case in this session, for the test that reports it."""

    case: Case
    records: Sequence[Record] = field(default=())
    step_times_s: Sequence[float] = field(default=())
    """The steps of all its processes, in order, seconds."""
    path: Path | None = None
    judgements: Sequence[Judgement] = field(default=())
    """What was said of the case against its history."""
    smoke_error: str = ""
    """Why its one untimed run failed, where measuring is disabled."""
    failures: Callable[[Any], list[str]] = lambda benchmark: []
    """Says what of a replayed benchmark breaks a limit that the user gave."""
    fit: Callable[[str], str] = str
    """Fits a line to the terminal."""

    def replay(self, benchmark: Any) -> None:
        """Report the steps to the `benchmark` fixture; fail, in one line, if any process failed."""
        failed = [record for record in self.records if not record.measured]
        if (failed or self.smoke_error) and hasattr(benchmark, "skipped"):
            benchmark._mode = "convmark"  # no steps to replay, of which pytest-benchmark would warn
        if failed:
            record = failed[0]
            self._fail(
                f"{self.case.name}: {record.status} in process {record.process} of "
                f"{len(self.records)}: {record.error}"
            )
        if self.smoke_error:
            self._fail(f"{self.case.name}: {self.smoke_error}")
        if benchmark is not None:  # else pytest-benchmark is switched off
            self._name(benchmark)
            clock = benchmark._timer
            step = clock.step if isinstance(clock, ReplayClock) else _nothing
            benchmark.pedantic(step, rounds=max(1, len(self.step_times_s)), iterations=1)
        if failures := [*self._verdicts(), *self.failures(benchmark)]:
            self._fail(*failures)

    def _fail(self, *lines: str) -> NoReturn:
        """Fail with the lines, without the case, after which pytest names the test."""
        bare = (line.removeprefix(f"{self.case.name}: ") for line in lines)
        pytest.fail("\n".join(map(self.fit, bare)), pytrace=False)

    def _verdicts(self) -> list[str]:
        from convmark.report.verdicts import failure_line

        return [failure_line(found) for found in self.judgements if found.fails]

    def _name(self, benchmark: Any) -> None:
        """Identify the benchmark by the case: a test's node id changes with the folder."""
        benchmark.name = benchmark.fullname = benchmark.param = self.case.name
        benchmark.params = self.case.as_fields()
        if not self.records:
            return
        record = self.records[0]
        benchmark.extra_info.update({"run": str(self.path), "parameters": record.parameters})
        for name in LEARNED if self.case.task == "accuracy" else SHOWN:
            benchmark.extra_info[name] = [getattr(row, name) for row in self.records]


def _nothing() -> None:
    """Stands for the step where pytest-benchmark does not time."""


def note_in_junit(config: pytest.Config, items: Iterable[pytest.Item], reason: str) -> None:
    """Write an error for each test that did not run into the JUnit file, which else shows none."""
    if (log := config.stash.get(xml_key, None)) is None:
        return
    for item in items:
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", reason, "setup")
        log.pytest_runtest_logreport(report)
