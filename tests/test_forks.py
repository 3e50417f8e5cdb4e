"""The tests' own forks have what a process that is started in their place would have."""

from __future__ import annotations

import os
import subprocess
import types
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
from forks import SOCKETS, Forks, printed, warm_interpreters
from workers import BUILDERS, environ

from convmark.interpreter import Interpreter

SOCKETS_OF = f"import os; print(os.environ.get({SOCKETS!r}))"
CONVERSIONS = """
import json
from convmark_zoo.keras_api import keras
from tensorflow.python.autograph.pyct.transpiler import GenericTranspiler
from convmark.worker import backends

found, convert = [], GenericTranspiler.transform_function

def noted(self, function, context):
    found.append(function.__qualname__)
    return convert(self, function, context)

GenericTranspiler.transform_function = noted
backend = backends.load("tensorflow")
with backend.scope():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
backend.training_step(net, 2, 0, 0.01, False)()
backend.inference_step(net, 2, 0, False)()
for kind in ("small", "large"):
    backend.reference_step(kind)()
print(json.dumps(found))
"""


def test_a_fork_has_the_variables_of_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKETS, "of another test")
    forks = Forks(os.environ, "imports", "json")
    try:
        assert forks.run(SOCKETS_OF).stdout == "of another test\n"
        monkeypatch.delenv(SOCKETS)
        assert forks.run(SOCKETS_OF, environ=os.environ).stdout == "None\n"
    finally:
        forks.close()


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_an_interpreter_is_forked_whatever_variables_the_harness_gives_it(
    backend: str,
    forks_of: Callable[[str], Forks],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Else each of a thousand starts imports a framework: right, and seconds slower."""

    def refuse(command: list[str], **how: object) -> None:
        raise AssertionError("started cold")

    shared = forks_of(backend)
    cold = types.SimpleNamespace(Popen=refuse, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(forks, "subprocess", cold)
    with (
        warm_interpreters(shared),
        Interpreter(environ=environ(tmp_path), folder=BUILDERS, backend=backend) as one,
    ):
        one.start()


def test_an_interpreter_that_is_forked_heeds_a_path_of_its_own(warm: None, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("RAN = True\n")
    (tmp_path / "late.py").write_text("import sitecustomize\nnet = sitecustomize.RAN and dict\n")
    variables = environ(tmp_path, PYTHONPATH=str(tmp_path))
    with Interpreter(environ=variables, folder=BUILDERS) as one:
        found = one.answer({"kind": "inspect", "models": ["late:net"]}).event("inspected") or {}
    assert found["models"] == {"late:net": None}


def test_autograph_converts_none_of_our_own_steps_in_a_fork(
    forks_of: Callable[[str], Forks],
) -> None:
    """The process that is forked has done so: a sixth of the CPU time of a short measurement."""
    assert printed(forks_of("tensorflow").run(CONVERSIONS)) == []
