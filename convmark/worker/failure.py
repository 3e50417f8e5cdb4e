"""CaseFailure: why a case cannot be measured, in the words that the user reads."""

from __future__ import annotations

__all__ = ["CaseFailure"]


class CaseFailure(Exception):
    """The case cannot be measured; the text is for the user."""
