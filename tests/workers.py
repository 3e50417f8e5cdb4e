"""What tests of real workers and of repositories share; not a test itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from convmark.core.case import Case

BUILDERS = Path(__file__).parent
"""The folder of `builders.py`: a harness that works there has it on its workers' path."""


QUICK_XLA = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
"""Halves the CPU time that JAX takes to compile; for tests of results, not of step times."""


def environ(folder: Path, given: Mapping[str, str] | None = None, **more: str) -> dict[str, str]:
    """Return an environment for workers: output buffered, byte code kept, in `folder` if need be.

    Importing TensorFlow without byte code takes three times as long. All tests of a session share
    that which their folders, made by `tmp_path_factory`, lie in.

    Args:
        given: in place of this process's own environment.
    """
    variables = {**(os.environ if given is None else given), **more}
    variables.pop("PYTHONUNBUFFERED", None)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    if sys.dont_write_bytecode:
        shared = next((one for one in folder.parents if one.name.startswith("pytest-of-")), folder)
        variables.setdefault("PYTHONPYCACHEPREFIX", str(shared / "bytecode"))
    return variables


def skip_without(framework: str) -> None:
    """Skip a test where a framework is not installed; to import it here would take seconds."""
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")


def measured(
    model: str, *, task: str = "infer", batch_size: int = 1, **more: Any
) -> dict[str, Any]:
    """Return a request for a measurement that is as short as one can be.

    PyTorch takes one thread: several spin while they wait for each other on busy cores.
    """
    if more.get("backend") == "torch":
        more.setdefault("threads", "1")
    case = Case(model=model, task=task, batch_size=batch_size, **more)
    return {
        "kind": "measure",
        "case": case.as_fields(),
        "seed": 0,
        "time_budget_s": 0.02,
        "smoke": False,
    }


def smoked(model: str) -> dict[str, Any]:
    """Return a request for ten untimed steps."""
    return {**measured(model), "smoke": True}


def short_sessions(patch: pytest.MonkeyPatch) -> None:
    """Have live comparisons be short; for tests where a step is several times as long as before."""
    from convmark.compare.live import live

    patch.setattr(live.LiveOptions, "of", partial(live.LiveOptions.of, session_s=0.3))
    patch.setattr(live, "SessionPlan", partial(live.SessionPlan, builds=1))
    patch.setattr(live, "CROSS_CHECKED_BY", 2)


def git(folder: Path, *arguments: str) -> str:
    """Run git in the folder as somebody whom it knows, without hooks; return what it prints."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    allowed = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=always")
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *identity, *allowed, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environ, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def descendants(pid: int | None = None) -> set[int]:
    """Return the processes under this one, or under `pid`, that have not ended."""
    alive = set()
    for process in psutil.Process(pid).children(recursive=True):
        if is_running(process.pid):
            alive.add(process.pid)
    return alive


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def happens(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
