"""The measuring code has a version, raised by hand and asked about when that code changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring_code import PACKAGE, RECORDED, code_hash, measuring_code, shape, today

TIMING = (PACKAGE / "worker" / "timing.py").read_text(encoding="utf-8")


def test_a_change_of_the_measuring_code_is_decided_on() -> None:
    assert today() == RECORDED.read_text(encoding="utf-8").strip(), (
        "the measuring code has changed. Does the change alter what is measured: would the same "
        "model on the same machine get other figures? If so, raise MEASUREMENT_VERSION in "
        "convmark/results/schema.py, which ends every user's history; if it would have other FLOPs "
        "alone, raise COUNTING_VERSION there. In either case then run "
        "`python tests/measuring_code.py`, which records the new hash"
    )


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("spent_s", "gone_s"),
        ("contestants", "ways"),
        ("gc.freeze()", "gc.freeze()  # a comment"),
        ("Whether the two halves of the later half agree", "Whether it is steady"),
        (
            "from collections.abc import Callable",
            "from convmark.core.case import Case\nfrom collections.abc import Callable",
        ),
        ("    return taken", "    return (\n        taken\n    )"),
    ],
)
def test_a_renamed_variable_and_an_edited_comment_are_no_change(then: str, now: str) -> None:
    changed = TIMING.replace(then, now)
    assert changed != TIMING
    assert shape(changed) == shape(TIMING)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("MIN_STEPS, WANTED_STEPS, MAX_STEPS = 30", "MIN_STEPS, WANTED_STEPS, MAX_STEPS = 31"),
        ("        backend.synchronise(token)\n", ""),
        ("gc.freeze()", "gc.unfreeze()"),
        ("clock() - began", "began - clock()"),
        ("cpu_began, began = cpu_clock(), clock()", "cpu_began, began = clock(), cpu_clock()"),
        ("    steady: bool", "    steady: bool\n    spent_s: float"),
    ],
)
def test_what_can_alter_a_figure_is_a_change(then: str, now: str) -> None:
    changed = TIMING.replace(then, now)
    assert changed != TIMING
    assert shape(changed) != shape(TIMING)


def test_local_names_are_told_apart() -> None:
    """Else `a - b` and `b - a` would be the same."""
    assert shape("def f(a, b): return a - b") == shape("def f(x, y): return x - y")
    assert shape("def f(a, b): return a - b") != shape("def f(a, b): return b - a")
    assert shape("def f():\n x = 1\n def g():\n  nonlocal x\n  x = 2") == shape(
        "def f():\n y = 1\n def h():\n  nonlocal y\n  y = 2"
    )
    assert shape("def f(): return ONE") != shape("def f(): return TWO")
    assert shape("[a for a in B]") == shape("[c for c in B]")
    assert shape("f'{a}b'") != shape("f'{a}c'")


def test_every_file_of_the_worker_counts_but_those_that_are_named(tmp_path: Path) -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in measuring_code()}
    assert {"worker/timing.py", "worker/backends/tensorflow.py", "core/statistics.py"} <= names
    assert "worker/inspection.py" not in names
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "new.py").touch()
    assert tmp_path / "worker" / "new.py" in measuring_code(tmp_path)
    assert code_hash(["A = 1", "B = 2"]) == code_hash(["B = 2", "A = 1"])  # names of files
