"""Error messages for cases that cannot be measured."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterator

from convmark.worker.protocol import one_line

MESSAGE_CHARS, HEAD_CHARS = 300, 80
"""A longer sentence keeps its head and its end."""
STACK_CHARS = 100_000
FULL_BYTES = 1 << 20
"""A folder of less free space is full."""
LEAST_CHARS = 20
"""A shorter first sentence takes the second with it."""
_FIGURES = ("Expected", "Received")
"""How sentences begin that tell the figures of the one before."""

_CUT = re.compile(
    r"\n\s*(Call a|A)rguments received by|\n\s*\[\[\{\{node|\n\s*Received: |\n\s*Original stack"
)
"""Where what follows is no reason: arguments, and places in a graph."""
_NO_REASON = re.compile(
    r"\x1b\[[0-9;]*m"
    r"|^in user code:|^Graph execution error:|^Detected at node .*|^Node: .*"
    r"|^<stack traces? unavailable>|^Traceback .*|^Stack trace for op definition:.*"
    r'|^ *File ".*", line .*\n(?: +\S.*\n)?(?: +[~^]+ *\n)?'
    r"|\{\{function_node [^}]*\}\}|\[Op:[^\]]*\](?: name: *)?",
    re.MULTILINE,
)
"""Headings, marks and frames of a stack."""
_CALLING = re.compile(r"Exception encountered when calling (.+?)(?:\.call\(\))?\.\s")
_WRAPPED = re.compile(r"^\s*(\w*(?:Error|Exception)): ", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]'\"`>][.!?])\s+(?=[A-Z`'\"<])")

_ADVICE = {
    r"(from|module|named) '(tensorflow\.(python\.)?)?(tf_)?keras(\.[\w.]+'|' has no |' \()"
    r"|A KerasTensor cannot be used as input to a TensorFlow function": (
        "it may be written for another Keras: Keras 2 is measured with TF_USE_LEGACY_KERAS=1 in "
        "the environment, or with --env 'tensorflow==2.15.*', Keras 3 without them"
    ),
    r"URL fetch failure|Max retries exceeded|Name or service not known|in name resolution": (
        "it cannot download; build it without pretrained weights, as in weights=None, or download "
        "them before"
    ),
}
"""What helps, by what an error of a package's code says."""


class UnknownModelError(LookupError):
    """A model's name leads to no model; the text is one line, for the user."""


class CaseFailure(Exception):
    """The case cannot be measured; the text is for the user."""


def message_of(error: BaseException) -> str:
    """Return what went wrong in one line: the first sentence that is a reason, and no stack."""
    if isinstance(error, (CaseFailure, UnknownModelError)):
        return _kept_ends(one_line(error, limit=1 << 20))
    if isinstance(error, SystemExit):
        return f"the model's code ends the program (exit status {error.code})"
    reason = first_sentence(error)
    kind = type(error).__name__
    text = one_line(f"{kind}: {reason}" if reason else kind, limit=1 << 20)
    if "No space left" in text and shutil.disk_usage(tempfile.gettempdir()).free < FULL_BYTES:
        text += f"; TMPDIR, {tempfile.gettempdir()}, is full: free some or name another folder"
    return _kept_ends(text) + getattr(error, "advice", "")


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Have the message of what a model's build raises end with what helps.

    Of a model that was built, it would be wrong: what is said of one that runs is no failure.
    """
    try:
        yield
    except Exception as error:
        error.__dict__["advice"] = advice_on(error)
        raise


def advice_on(error: BaseException) -> str:
    """Return what helps, where code is of another Keras or cannot download; else nothing."""
    return next((f"; {one}" for said, one in _ADVICE.items() if re.search(said, str(error))), "")


def _kept_ends(text: str) -> str:
    """Return a message of at most `MESSAGE_CHARS`: its end says what to do."""
    if len(text) <= MESSAGE_CHARS:
        return text
    return f"{text[:HEAD_CHARS]} ... {text[-(MESSAGE_CHARS - HEAD_CHARS - 5) :]}"


def stack_of(error: BaseException) -> str:
    """Return the whole stack of an error; empty of one whose text says all."""
    if isinstance(error, (CaseFailure, UnknownModelError)) and error.__cause__ is None:
        return ""
    return "".join(traceback.format_exception(error))[-STACK_CHARS:]


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of an error's text that is a reason.

    A framework puts the place before it, as a heading or the frames of a stack, and arguments and
    places in a graph after it.
    """
    told = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(told).replace("\r", "")
    text = _CUT.split(text)[0] + "\n"
    wraps = "in user code:" in text
    text = _NO_REASON.sub("", text)
    if wraps and (inner := list(_WRAPPED.finditer(text))):
        text = text[inner[-1].end() :]
    text = _CALLING.sub(r"\1: ", text, count=1)
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())  # each once
    sentences = _SENTENCE_END.split(" ".join(filter(None, lines)))
    more = sentences[1:2] if len(sentences[0]) < LEAST_CHARS else []
    figures = itertools.takewhile(lambda one: one.startswith(_FIGURES), sentences[1:3])
    more = more or list(figures)
    return " ".join([sentences[0], *more]).rstrip(".")
