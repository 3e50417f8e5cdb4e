"""The worker needs the framework, NumPy and the standard library; it gets nothing of the harness's.

Real workers run under the law of `law.py`; those of JAX and PyTorch in `test_backends.py`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from law import lay_down
from workers import BUILDERS, environ, measured

from convmark.interpreter import Answer, Interpreter

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)

SHADOW = 'raise ImportError("the harness\'s site-packages were searched")\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lean")


@pytest.fixture(scope="module")
def variables(folder: Path) -> dict[str, str]:
    law = lay_down(folder)
    return environ(folder, CONVMARK_TEST_FOLDER=str(folder), PYTHONPATH=law)


@pytest.fixture(scope="module")
def answers(folder: Path, variables: dict[str, str]) -> dict[str, Answer]:
    """What a worker under the law answers, asked by a harness whose own path holds a trap."""
    site_packages = folder / "site-packages"
    site_packages.mkdir()
    for name in ("numpy", "keras", "tensorflow", "six"):
        (site_packages / f"{name}.py").write_text(SHADOW)
    asked = {
        "train": measured("lenet5", task="train", batch_size=8),
        "infer": measured("builders:tells_its_path", batch_size=2),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site_packages)
        patch.chdir(BUILDERS)
        with Interpreter(environ=variables) as interpreter:
            return {task: interpreter.answer(request) for task, request in asked.items()}


@pytest.mark.parametrize("task", ["train", "infer"])
def test_a_worker_measures_with_the_framework_and_the_standard_library_alone(
    task: str, answers: dict[str, Answer]
) -> None:
    assert (answers[task].status, answers[task].message) == ("ok", "")
    assert answers[task].event("rounds") is not None


def test_a_worker_searches_the_users_folders_before_what_its_interpreter_searches(
    answers: dict[str, Answer], folder: Path, variables: dict[str, str]
) -> None:
    assert answers["infer"].status == "ok"
    searched = json.loads((folder / "path").read_text())
    own = ask(variables, "import json, sys; print(json.dumps(sys.path[1:]))")
    users = [entry for entry in searched if entry not in own]
    assert searched == [*users, *own]
    assert users[0] == str(BUILDERS)
    assert str(folder / "site-packages") not in searched


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("import json, numpy.linalg; from convmark.worker import timing", True),
        ("from convmark.core import case, errors", True),
        ("import rich", False),
        ("import convmark.results.record", False),
        ("from convmark.core import statistics", False),
    ],
)
def test_the_law_holds_convmark_to_it(line: str, allowed: bool, variables: dict[str, str]) -> None:
    code = f"""
import json
try:
    exec({line!r}, {{"__name__": "convmark.worker.some"}})
except ImportError as error:
    assert "may not import" in str(error)
    print(json.dumps(False))
else:
    print(json.dumps(True))
"""
    assert ask(variables, code) is allowed


def ask(variables: dict[str, str], code: str) -> Any:
    """Return what a new interpreter prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)
