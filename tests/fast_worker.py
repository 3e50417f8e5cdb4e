"""A measured interpreter in 30 ms: the real zygote, with made-up figures in place of a framework.

Run as an interpreter is, with the bootstrap's path and its settings. What a model does wrong is its
name; not a test itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if importlib.util.find_spec("psutil") is None:  # without site-packages; no function uses it here
    sys.modules["psutil"] = types.ModuleType("psutil")

PAUSE = "CONVMARK_TEST_PAUSE_S"
"""Names the seconds that a worker takes before each of its events."""

DIES = "CONVMARK_TEST_DIES"
"""Names whether every worker kills its zygote."""

TOUCHED = "CONVMARK_TEST_TOUCHED"
"""Names whether the framework has run something before it is forked."""


class Framework:
    """Stands for a framework that has run nothing."""

    untouched = staticmethod(lambda: not os.environ.get(TOUCHED))


def answer(request: dict[str, Any], framework: Any, descriptors: list[int]) -> int:
    """Write what a real worker would have measured, or do what the model's name says."""
    import fake_worker

    if request["kind"] == "inspect":
        found = {**fake_worker._inspected([]), "models": dict.fromkeys(request["models"])}
        _emit(descriptors, {"event": "inspected", **found})
        return 0
    case = request["case"]
    wrong = _kill_zygote if os.environ.get(DIES) else _WRONG.get(case["model"])
    if wrong is not None:
        _emit(descriptors, {"event": "ready"})
        wrong(descriptors)
    for event in _events(case):
        time.sleep(float(os.environ.get(PAUSE, "0")))
        _emit(descriptors, event)
    return 0


def _events(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    import fake_worker

    return fake_worker._measured(case, 1.0, os.getpid())


def _emit(descriptors: list[int], event: Mapping[str, Any]) -> None:
    _write(descriptors, json.dumps(event).encode() + b"\n")


def _write(descriptors: list[int], data: bytes) -> None:
    while data:
        data = data[os.write(descriptors[0], data) :]


def _hang(descriptors: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:  # a process that the model has started, as deaf as it is
        time.sleep(3600)
    time.sleep(3600)


def _flood(descriptors: list[int]) -> None:
    while True:
        _write(descriptors, b'{"event":"progress","phase":"flood"}\n' * 1000)


def _pile_up(descriptors: list[int]) -> None:
    for number in range(1 << 30):
        _emit(descriptors, {"event": "more", "number": number})


def _wait(descriptors: list[int]) -> None:
    time.sleep(3600)


def _write_rubbish(descriptors: list[int]) -> None:
    _write(descriptors, os.urandom(1 << 16) + b"\n")
    time.sleep(3600)


def _kill_zygote(descriptors: list[int]) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def _kill_itself(descriptors: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _abort(descriptors: list[int]) -> None:
    os.abort()


_WRONG = {
    "aborts": _abort,
    "hangs": _hang,
    "waits": _wait,
    "floods": _flood,
    "piles_up": _pile_up,
    "writes_rubbish": _write_rubbish,
    "kills_its_zygote": _kill_zygote,
    "kills_itself": _kill_itself,
}


def main() -> None:
    """Serve as a zygote does."""
    settings = json.loads(sys.argv[2])
    spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    bootstrap.load_package("convmark", settings["convmark"])
    sys.path.append(str(Path(__file__).parent))
    child = types.ModuleType("convmark.worker.child")
    child.answer = answer  # type: ignore[attr-defined]
    child.look_ahead = lambda request: None  # type: ignore[attr-defined]
    sys.modules["convmark.worker.child"] = child
    import fake_worker  # noqa: F401 - once, not in each child

    from convmark.worker import backends, zygote

    backends.load = lambda name: Framework()
    zygote.serve(
        control_fd=settings["control"],
        backend=settings["backend"],
        fork=settings["fork"],
        import_roots=settings["import_roots"],
        moved=settings["moved"],
        bound=settings["bound"],
    )


if __name__ == "__main__":
    main()
