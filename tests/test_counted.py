"""A number stands before its noun through `counted` alone, so that no text says `1 processes`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from convmark.core.text import counted

PACKAGE = Path(__file__).resolve().parent.parent / "convmark"
NOUNS = re.compile(
    r" (candidate|case|change|commit|core|file|GPU|interpreter|layer|model|node|process|replica|row"
    r"|run|seed|session|step|step time|thread)(?:e?s)\b"
)
ALLOWED = {"kept", "count", "steps", "int(row['replicas'])"}
"""Numbers that are never 1: a limit of runs, sessions and steps that a rule asks for, and replicas
where there are several."""


def _bare(text: str) -> Iterator[str]:
    """Yield the numbers that stand before a plural noun in the formatted texts of some code."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, after in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(number, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            name = ast.unparse(number.value)
            if NOUNS.match(str(after.value)) and not name.isupper() and name not in ALLOWED:
                yield name


def test_one_is_counted_in_the_singular() -> None:
    assert [counted(number, "process") for number in (0, 1, 2_000)] == [
        "0 processes", "1 process", "2,000 processes"
    ]  # fmt: skip
    assert counted(1, "case") == "1 case"


@pytest.mark.parametrize("text", ['f"{len(rows)} rows"', 'f"{one} of {two} cases: {why}"'])
def test_a_bare_count_is_found(text: str) -> None:
    assert list(_bare(text))


def test_no_text_has_a_count_before_a_plural() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if "worker" not in path.parts  # it imports nothing of the harness's texts
        for name in _bare(path.read_text(encoding="utf-8"))
    }
    assert found == set()
