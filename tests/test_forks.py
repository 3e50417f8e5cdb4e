"""The tests' own forks have what a process that is started in their place would have."""

from __future__ import annotations

import os

import pytest
from forks import SOCKETS, Forks

SOCKETS_OF = f"import os; print(os.environ.get({SOCKETS!r}))"


def test_a_fork_has_the_variables_of_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKETS, "of another test")
    forks = Forks(os.environ, "imports", "json")
    try:
        assert forks.run(SOCKETS_OF).stdout == "of another test\n"
        monkeypatch.delenv(SOCKETS)
        assert forks.run(SOCKETS_OF, environ=os.environ).stdout == "None\n"
    finally:
        forks.close()
