"""Says, before pytest fails on unknown options, what a checkout without an installation lacks."""

import importlib.util

import pytest

if importlib.util.find_spec("convmark") is None:
    raise pytest.UsageError("convmark is not installed here; run: pip install -e .")

from convmark.plugin.short import pytest_addoption  # noqa: F401 - its options' short names
