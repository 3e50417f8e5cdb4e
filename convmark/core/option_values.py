"""The texts of options become values, or are refused by option, value and rule."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from convmark.core.errors import CaseError, OptionError
from convmark.core.model_name import ModelName, split_names
from convmark.core.text import NUMBER, is_plain

__all__ = [
    "AUTO",
    "Shapes",
    "check_patterns",
    "choice_of",
    "choices_of",
    "nearest",
    "parse_batch_sizes",
    "parse_budget",
    "parse_count",
    "parse_counts",
    "parse_devices",
    "parse_file",
    "parse_folder",
    "parse_jit",
    "parse_margin",
    "parse_models",
    "parse_name",
    "parse_place",
    "parse_rate",
    "parse_seconds",
    "parse_seed",
    "parse_seeds",
    "parse_shapes",
    "parse_share",
    "parse_switch",
    "parse_text",
    "parse_threads",
    "parse_words",
    "shapes_text",
]

AUTO: Literal["auto"] = "auto"

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes of one sample by the input's name; by the empty name that of the only input."""

LEAST_MARGIN = 0.01
"""Means of duets of identical code differ by up to 0.4 %: nearer to it a margin is noise."""

MOST_SECONDS = 1_000_000
"""Eleven days; the system's timers overflow far above it."""


def nearest(value: str, known: Iterable[str]) -> str:
    """Say the nearest known names, or all of them where they are few and none is near."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if len(names) <= 12 else "no known name is near"


def check_patterns(flag: str, patterns: Iterable[str], cases: Collection[str]) -> None:
    """Refuse a pattern that no case of a run matches.

    Raises:
        OptionError: there is one.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case, pattern) for case in cases):
            raise OptionError(
                f"{flag}: must match a case of the run, got {pattern!r}; {nearest(pattern, cases)}"
            )


def parse_words(flag: str, text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise OptionError(f"{flag}: must be a comma-separated list without gaps, got {text!r}")
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")
    return tuple(dict.fromkeys(words))


def parse_models(flag: str, text: str) -> tuple[str, ...]:
    """Return names of models as the results have them: one name for one model."""
    words = list(split_names(text))
    if not all(words):
        raise OptionError(f"{flag}: must be a comma-separated list without gaps, got {text!r}")
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")
    try:
        return tuple(dict.fromkeys(str(ModelName.of(word)) for word in words))
    except CaseError as error:
        raise OptionError(f"{flag}: {error}") from None


def choices_of(known: Sequence[str]) -> Callable[[str, str], tuple[str, ...]]:
    def parse(flag: str, text: str) -> tuple[str, ...]:
        words = parse_words(flag, text)
        for word in words:
            if word not in known:
                raise OptionError(f"{flag}: unknown name {word!r}; {nearest(word, known)}")
        return words

    return parse


def choice_of(known: Sequence[str]) -> Callable[[str, str], str]:
    def parse(flag: str, text: str) -> str:
        if text not in known:
            raise OptionError(f"{flag}: must be one of {', '.join(known)}, got {text!r}")
        return text

    return parse


def parse_jit(flag: str, text: str) -> tuple[str, ...]:
    state = choice_of(("off", "on", "both"))(flag, text)
    return ("off", "on") if state == "both" else (state,)


def _whole(flag: str, text: str, at_least: int) -> int:
    plain = text.isascii() and text.isdecimal() and len(text) <= 18
    if not plain or int(text) < at_least:
        raise OptionError(f"{flag}: must be a whole number of at least {at_least}, got {text!r}")
    return int(text)


def parse_batch_sizes(flag: str, text: str) -> tuple[int, ...] | Literal["auto"]:
    if text.strip() == AUTO:
        return AUTO
    return tuple(_whole(flag, word, 1) for word in parse_words(flag, text))


def parse_count(flag: str, text: str) -> int:
    return _whole(flag, text, 1)


def parse_shapes(flag: str, text: str) -> Shapes:
    """Return shapes by the names of inputs; the empty name is that of the only input."""
    found: dict[str, tuple[int, ...]] = {}
    for word in parse_words(flag, text):
        name, _, shape = word.rpartition("=")
        axes = shape.split("x")
        if name in found or not all(NUMBER.fullmatch(axis) and int(axis) > 0 for axis in axes):
            raise OptionError(
                f"{flag}: must be a shape such as 224x224x3, or name=28x28x1,other=4, got {text!r}"
            )
        found[name.strip()] = tuple(map(int, axes))
    return tuple(found.items())


def shapes_text(shapes: Shapes) -> str:
    """Return shapes as `--input-shape` takes them."""
    return ",".join(
        (f"{name}=" if name else "") + "x".join(map(str, axes)) for name, axes in shapes
    )


def parse_place(flag: str, text: str) -> int:
    return _whole(flag, text, 0)


def parse_counts(flag: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(parse_count(flag, word) for word in parse_words(flag, text)))


def parse_seed(flag: str, text: str) -> int:
    return _whole(flag, text, 0) % 2**32


def parse_seconds(flag: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise OptionError(
            f"{flag}: must be a number of seconds above 0 and at most {MOST_SECONDS:,}, "
            f"got {text!r}"
        )
    return seconds


def parse_budget(flag: str, text: str) -> float:
    """Return seconds from 0 up, infinite for `unlimited`."""
    if text.strip() == "unlimited":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_SECONDS:
        raise OptionError(
            f"{flag}: must be a number of seconds from 0, which compares nothing live, to "
            f"{MOST_SECONDS:,}, or unlimited, got {text!r}"
        )
    return seconds


def parse_margin(flag: str, text: str) -> float:
    """Return a share from 0.01 to 1: duets of identical code differ by 0.4 %."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not LEAST_MARGIN <= share <= 1:
        raise OptionError(
            f"{flag}: must be a share from {LEAST_MARGIN} to 1, such as 0.03 for 3 %, got {text!r}"
        )
    return share


def parse_seeds(flag: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(parse_seed(flag, word) for word in parse_words(flag, text)))


def parse_name(flag: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,60}", text):
        raise OptionError(f"{flag}: must be a name as Keras has it, such as adam, got {text!r}")
    return text


def parse_rate(flag: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise OptionError(f"{flag}: must be a finite number above 0, got {text!r}")
    return rate


def parse_share(flag: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise OptionError(f"{flag}: must be a number above 0 and at most 1, got {text!r}")
    return share


def parse_threads(flag: str, text: str) -> str:
    if text == "default":
        return text
    try:
        return str(_whole(flag, text, 1))
    except OptionError:
        raise OptionError(
            f"{flag}: must be 'default' or a whole number of at least 1, got {text!r}"
        ) from None


def parse_devices(flag: str, text: str) -> tuple[str, ...]:
    words = parse_words(flag, text)
    for word in words:
        kind, _, index = word.partition(":")
        if word not in ("cpu", "all") and not (kind == "gpu" and NUMBER.fullmatch(index)):
            raise OptionError(
                f"{flag}: unknown device {word!r}; a device is cpu, gpu:N (such as gpu:0) or all"
            )
    return words


def parse_folder(flag: str, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must be the path of a folder, got {text!r}")
    return Path(text)


def parse_file(flag: str, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must be the path of a file, got {text!r}")
    return Path(text).expanduser()


def parse_switch(flag: str, text: str) -> bool:
    return choice_of(("yes", "no"))(flag, text) == "yes"


def parse_text(flag: str, text: str) -> str:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must not be empty, got {text!r}")
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")
    return text.strip()
