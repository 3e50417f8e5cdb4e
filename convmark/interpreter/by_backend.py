"""The measured interpreters of a run, one per backend; each case uses that of its backend."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convmark import interpreter as launch
from convmark.core.backends import BACKENDS
from convmark.interpreter import Answer
from convmark.interpreter.inspection import inspect

__all__ = ["Interpreters"]


class Interpreters(contextlib.AbstractContextManager["Interpreters"]):
    """Answers requests as one `Interpreter` does; a context manager that ends them all."""

    def __init__(
        self,
        backends: Sequence[str],
        python: str = sys.executable,
        *,
        isolation: str,
        time_limit_s: float,
    ) -> None:
        """Describe the interpreters; nothing is started yet."""
        self.python = python
        self._interpreters = {
            backend: launch.Interpreter(
                python, isolation=isolation, backend=backend, time_limit_s=time_limit_s
            )
            for backend in backends
        }

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every interpreter; harmless when done twice."""
        for interpreter in self._interpreters.values():
            interpreter.close()

    @property
    def labels(self) -> str:
        """The names of the frameworks, for a message."""
        return ", ".join(BACKENDS[backend].label for backend in self._interpreters)

    def of(self, backend: str) -> launch.Interpreter:
        """Return that of a backend."""
        return self._interpreters[backend]

    def inspect(self, models: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what each backend's interpreter has, by backend.

        Raises:
            OptionError: a model is unknown to one of them.
            WorkerError: one of them cannot say; most often its framework is not installed.
        """
        names = list(models)
        return {
            backend: inspect(interpreter, names)
            for backend, interpreter in self._interpreters.items()
        }

    def answer(
        self, request: Mapping[str, Any], on_event: launch.OnEvent = lambda event: None
    ) -> Answer:
        """Have the interpreter of the request's backend serve it.

        Raises:
            WorkerError: no process could be started to serve the request.
        """
        return self._interpreters[request["case"]["backend"]].answer(request, on_event)
