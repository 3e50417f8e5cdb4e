"""`convmark ab` and what is built on it, with stand-ins for the workers; not a test itself."""

from __future__ import annotations

import contextlib
import csv
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_worker
import pytest

from convmark.cli import bisect as bisect_command
from convmark.compare.live import ab
from convmark.core.errors import WorkerError
from convmark.interpreter import Answer
from convmark.interpreter.environments import Cache, Made
from convmark.worker.turns import take_rounds

LENET5 = ["--models", "lenet5", "--tasks", "train"]


class Worker:
    """Takes turns whose steps last so long, with noise of 1 % between sessions and steps."""

    def __init__(self, step_s: float, seed: random.Random) -> None:
        self._random = seed
        self._step_s = step_s * (1 + seed.gauss(0, 0.01))
        self._steps = 0

    def command(self, steps: int, dropped: int = 0) -> None:
        self._steps = steps

    def expect(self, name: str) -> dict[str, Any]:
        if name == "sizes":
            return SIZES
        if name != "turn":
            return {"event": name}
        times_s = [self._step_s * (1 + self._random.gauss(0, 0.01)) for _ in range(self._steps)]
        return {"wall_s": times_s, "cpu_s": times_s, "whole": [sum(times_s)] * 2 + [self._steps]}


SIZES = {"parameters": 61_706, "trainable_parameters": 61_706, "model_bytes": 246_824}


class Interpreter(fake_worker.FakeInterpreter):
    """An interpreter as fast as its path and its settings say, in one process or in several."""

    speeds: dict[str, float] = {}  # noqa: RUF012 - set by each test, for all interpreters
    seed = random.Random(0)
    requests: list[dict[str, Any]] = []  # noqa: RUF012 - as above
    interrupt_session: int | None = None
    broken_task = ""
    now_s = 0.0
    """The clock: a process takes 0.7 s."""
    start_s = 0.0
    """What the first process of each takes beside that."""

    def __init__(self, python: str = "python", **settings: Any) -> None:
        super().__init__(python, **settings)
        self.python = python
        self.environ = settings.get("environ", {})

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        if request["kind"] != "duet":
            return super().answer(request, on_event)
        self._note(request)
        if request["case"]["task"] == self.broken_task:
            failed = {"event": "cannot_run", "side": "new", "reason": "no gen", "status": "error"}
            return Answer(status="ok", message="", events=[failed], ready_s=0.01)
        events: list[dict[str, Any]] = []
        turns: dict[str, Any] = {"event": "turns"}
        for side, fields in request["sides"].items():
            events.append({"event": "built", "side": side, **SIZES})
            worker = Worker(self._step_s({**request["case"], **fields["settings"]}), self.seed)
            worker.command(steps=20)
            turns |= {f"{side}_{clock}": times for clock, times in worker.expect("turn").items()}
        on_event(turns)
        return Answer(status="ok", message="", events=[*events, turns], ready_s=0.01)

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Worker]:
        self._note(request)
        if request["case"]["task"] == self.broken_task:
            raise WorkerError("no gen")
        yield Worker(self._step_s(request["case"]), self.seed)

    def start(self) -> float:
        took_s = 0.0 if self.started_s else self.start_s
        type(self).now_s += took_s
        self.started_s += took_s
        return took_s

    def _note(self, request: Mapping[str, Any]) -> None:
        self.start()
        self.requests.append(dict(request))
        type(self).now_s += 0.7
        if len(self.requests) == self.interrupt_session:
            raise KeyboardInterrupt

    def _step_s(self, case: Mapping[str, Any]) -> float:
        factor = self.speeds.get(self.python, 1.0)
        factor *= self.speeds.get(f"jit={case['jit']}", 1.0)
        return 0.010 * factor * self.speeds.get(f"flag={self.environ.get('MY_FLAG')}", 1.0)


class FakeCache(Cache):
    """Has every environment but the broken ones."""

    def __init__(self) -> None:
        """No folder is needed."""

    def get(self, wanted: Any, say: Any = None) -> Made:
        return Made(
            name=wanted.name,
            python=str(wanted).removeprefix("tensorflow=="),
            version="3.13.0",
            requirements=wanted.requirements,
            packages=(),
            made="",
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Interpreter)
    monkeypatch.setattr(Interpreter, "speeds", {})
    monkeypatch.setattr(Interpreter, "requests", [])
    monkeypatch.setattr(Interpreter, "seed", random.Random(1))
    clock = SimpleNamespace(monotonic=lambda: Interpreter.now_s)
    monkeypatch.setattr("convmark.compare.live.case_result.time", clock)
    monkeypatch.setattr(  # the steps take no time
        "convmark.compare.live.session.take_rounds",
        lambda workers, steps, seconds, order, **more: take_rounds(workers, steps, 0.0, order),
    )
    monkeypatch.setattr(ab, "Cache", FakeCache)
    monkeypatch.setattr(bisect_command, "Cache", FakeCache)
    return tmp_path


def verdicts(folder: Path) -> list[dict[str, str]]:
    with (folder / "results" / "ab" / "verdicts.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
