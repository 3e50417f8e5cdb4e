"""Why a case cannot be measured, in the words that the user reads."""

from __future__ import annotations

from convmark.worker.protocol import one_line

__all__ = ["CaseFailure", "message_of"]

MESSAGE_CHARS, HEAD_CHARS = 300, 80
"""A longer message keeps its head and its end."""


class CaseFailure(Exception):
    """The case cannot be measured; the text is for the user."""


def message_of(error: BaseException) -> str:
    """Return what went wrong in one line."""
    if isinstance(error, CaseFailure):
        return one_line(error)
    text = one_line(f"{type(error).__name__}: {error}", limit=1 << 20)
    if len(text) <= MESSAGE_CHARS:
        return text
    # a framework tells where first and why last
    return f"{text[:HEAD_CHARS]} ... {text[-(MESSAGE_CHARS - HEAD_CHARS - 5) :]}"
