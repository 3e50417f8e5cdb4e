"""Exit statuses and output that all commands share."""

from __future__ import annotations

import sys

from convmark.core.text import Say

__all__ = [
    "BUDGET",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "TARGET",
    "exit_status",
    "sayer",
]

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

TARGET, BUDGET = "2", "60"
"""Half-width in per cent, and seconds per case, of a live comparison that is not told otherwise."""


def exit_status(good: bool, *, interrupted: bool = False) -> int:
    """Return the exit status of a command.

    Args:
        good: whether nothing failed.
    """
    return EXIT_INTERRUPTED if interrupted else EXIT_OK if good else EXIT_FAILED


def sayer(name: str) -> Say:
    """Return what writes a line to standard error, with the name of the program or command."""
    return lambda line: print(f"{name}: {line}", file=sys.stderr)
