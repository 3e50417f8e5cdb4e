"""Says, before pytest fails on unknown options, what a checkout without an installation lacks."""

import importlib.util

import pytest


def pytest_addoption() -> None:
    if importlib.util.find_spec("convmark") is None:
        raise pytest.UsageError("convmark is not installed here; run: pip install -e .")
