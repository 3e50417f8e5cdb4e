"""What the sides of an A/B comparison mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from convmark.compare.live import ab
from convmark.compare.live.ab import side_spec
from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.interpreter.environments import Cache, Made

CASE = Case(model="lenet5", task="train", batch_size=32)


class FakeCache(Cache):
    """Has every environment."""

    def __init__(self) -> None:
        """No folder is needed."""

    def get(self, wanted: Any, say: Any = None) -> Made:
        return Made(
            name=wanted.name,
            python=f"/cache/{wanted}",
            version="3.13.0",
            requirements=wanted.requirements,
            packages=(),
            made="",
        )


@pytest.fixture(autouse=True)
def _every_environment_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab, "Cache", FakeCache)


def test_a_dot_is_this_interpreter_and_the_files_as_they_are() -> None:
    found = side_spec("A", ".")
    assert (found.python, found.ref, found.label) == (sys.executable, "", ".")
    assert found.case(CASE) == CASE


def test_a_ref_is_a_commit_of_the_models_in_this_interpreter() -> None:
    found = side_spec("A", "git:HEAD~1")
    assert (found.python, found.ref) == (sys.executable, "HEAD~1")


def test_requirements_are_an_environment_and_a_path_is_an_interpreter(tmp_path: Path) -> None:
    found = side_spec("B", "tensorflow==2.20.*")
    assert found.python == "/cache/tensorflow==2.20.*"
    assert side_spec("B", "2.20.0").python == "/cache/tensorflow==2.20.0"
    assert side_spec("B", sys.executable).python == sys.executable


def test_settings_change_the_case_or_the_environment() -> None:
    found = side_spec("B", ".", ["jit=on", "threads=1", "TF_ENABLE_ONEDNN_OPTS=0"])
    assert found.case(CASE).jit == "on"
    assert found.case(CASE).threads == "1"
    assert dict(found.environ) == {"TF_ENABLE_ONEDNN_OPTS": "0"}
    assert found.label == ". jit=on threads=1 TF_ENABLE_ONEDNN_OPTS=0"


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("git:", [], "git: must be followed by a branch, a tag or a commit"),
        ("./none", [], "no interpreter './none'"),
        ("a b c==", [], "must be . (this interpreter), git:REF"),
        ("", [], "must be . (this interpreter), git:REF"),
        (".", ["jit"], "--set-b: must be NAME=VALUE"),
        (".", ["=on"], "--set-b: must be NAME=VALUE"),
        (".", ["batch_size=4"], "--set-b: unknown setting 'batch_size'"),
        (".", ["Jit=on"], "--set-b: unknown setting 'Jit'"),
    ],
)
def test_what_means_nothing_is_refused_on_one_line(
    text: str, settings: list[str], said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        side_spec("B", text, settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["jit=maybe", "precision=float33", "threads=many", "threads=0"])
def test_a_setting_with_a_value_that_cannot_be_is_refused(setting: str) -> None:
    with pytest.raises(OptionError, match=setting.partition("=")[2]):
        side_spec("B", ".", [setting]).case(CASE)
