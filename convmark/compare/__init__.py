"""Metrics, sessions, verdicts, history and change points."""

import sys

from convmark import CalledPackage

sys.modules[__name__].__class__ = CalledPackage  # `convmark.compare(...)` is a function too
