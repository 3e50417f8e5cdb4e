"""Colours: which words have one, and on which streams."""

from __future__ import annotations

import io

import pytest

from convmark.core.text import painted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_the_terminal_and_the_two_variables(
    stream: io.StringIO, environ: dict[str, str], coloured: bool
) -> None:
    text = painted("a  regressed", stream, environ)
    assert text == ("a  \x1b[31mregressed\x1b[0m" if coloured else "a  regressed")


def test_a_name_is_not_a_verdict() -> None:
    for text in ("improved-train-cpu", "nets:failed", "unchanged", "my.improved"):
        assert painted(text, Terminal(), {}) == text
    assert painted("1 of 2 unsteady: x", Terminal(), {}) == "1 of 2 \x1b[33munsteady\x1b[0m: x"
    assert painted("regressed (failed)", Terminal(), {}).count("\x1b[31m") == 2
