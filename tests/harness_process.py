"""All of the harness, imported for forks of this process; not a test itself.

What a fork of it measures with is forked too, where `forks.SOCKETS` says off what.
"""

from __future__ import annotations

import pytest  # noqa: F401 - for sessions in a fork
from forks import WARM, load_harness

from convmark.interpreter import server

load_harness()
server.subprocess = WARM  # type: ignore[attr-defined]
