"""All of the harness, imported for forks of this process; not a test itself.

What a fork of it measures with is forked too, where `forks.SOCKETS` says off what.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os

from _pytest.config import default_plugins
from forks import WARM, load_harness, packages_with_plugins

from convmark.interpreter import server
from convmark.session import expected

load_harness()
for name in (*(f"_pytest.{one}" for one in default_plugins), "pytest_benchmark.plugin"):
    importlib.import_module(name)  # for sessions in a fork
importlib.metadata.distributions = packages_with_plugins().copy  # type: ignore[assignment]
server.subprocess = WARM  # type: ignore[attr-defined]
# see `_disk_is_not_waited_for` and `_load_is_not_watched` in conftest.py
os.fsync = lambda descriptor: None
expected.LOOK_S = 0.0
