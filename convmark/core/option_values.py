"""Parsers of option values: each returns a value or raises an `OptionError` with the rule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from convmark.core.case import cpu_list, cpu_numbers
from convmark.core.errors import CaseError, OptionError
from convmark.core.model_name import ModelName, split_names
from convmark.core.tasks import TASKS
from convmark.core.text import NUMBER, is_plain

AUTO: Literal["auto"] = "auto"

Parse = Callable[[str, str], Any]
"""Turns (flag, text) into a value, or raises OptionError."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes of one sample by the input's name; by the empty name that of the only input."""

LEAST_MARGIN = 0.01
"""Means of duets of identical code differ by up to 0.4 %: nearer to it a margin is noise."""

MOST_SECONDS = 1_000_000
"""Eleven days; the system's timers overflow far above it."""


MOST_BEHIND = 0.25
"""Of the likeness of the nearest name: one farther away is not meant."""
MOST_KNOWN = 12
"""Known names that are listed where none is near."""


def did_you_mean(
    value: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5, before: str = ""
) -> str:
    """Ask whether one of the nearest known names is meant; empty where none is near.

    Args:
        before: what a user types before each name.
    """
    import difflib  # for errors alone

    near = difflib.get_close_matches(value, dict.fromkeys(known), n=most, cutoff=cutoff)
    like = [difflib.SequenceMatcher(None, one, value).ratio() for one in near]
    near = [one for one, how in zip(near, like, strict=True) if how > like[0] - MOST_BEHIND]
    return f"did you mean {' or '.join(f'{before}{one}' for one in near)}?" if near else ""


def nearest(value: str, known: Iterable[str]) -> str:
    """Say the nearest known names, or all of them where they are few and none is near."""
    names = list(known)
    if question := did_you_mean(value, names):
        return question
    few = f"known: {', '.join(names)}" if names else "none is known"
    return few if len(names) <= MOST_KNOWN else "no known name is similar"


def nearest_case(value: str, cases: Iterable[str]) -> str:
    """Say the nearest of the known cases, but none of another model than is meant.

    Args:
        value: a case's name, or a pattern of some, spelt wrong.
    """
    import difflib

    by_model: dict[str, list[str]] = {}
    for case in cases:
        by_model.setdefault(_model_in(case), []).append(case)
    model = _model_in(value)
    near = difflib.get_close_matches(model, by_model, n=1, cutoff=0.6)
    if near:
        own = by_model[near[0]]
        return did_you_mean(value, own, cutoff=0.3) or nearest(value, own)
    few = 0 < len(by_model) <= MOST_KNOWN
    return f"known models: {', '.join(by_model)}" if few else nearest(value, by_model)


_TASK = re.compile(rf"-(?:{'|'.join(TASKS)})(?:-|$)")


def _model_in(case: str) -> str:
    """Return the model in the name of a case, or what stands in its place."""
    named = _TASK.split(case, 1)
    return named[0] if len(named) > 1 else case.partition("-")[0]


def check_patterns(flag: str, patterns: Iterable[str], cases: Collection[str]) -> None:
    """Refuse a pattern that no case of a run matches."""
    for pattern in patterns:
        if not any(fnmatchcase(case, pattern) for case in cases):
            raise OptionError(
                f"{flag}: must match a case of the run, got {pattern!r}; "
                f"{nearest_case(pattern, cases)}"
            )


def _words(flag: str, text: str, words: Sequence[str]) -> tuple[str, ...]:
    if not all(words):
        raise OptionError(
            f"{flag}: must be a comma-separated list without empty items, got {text!r}"
        )
    _refuse_unprintable(flag, text)
    return tuple(dict.fromkeys(words))


def _refuse_unprintable(flag: str, text: str) -> None:
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")


def parse_words(flag: str, text: str) -> tuple[str, ...]:
    """Return the words between the commas, each once."""
    return _words(flag, text, [word.strip() for word in text.split(",")])


def parse_models(flag: str, text: str) -> tuple[str, ...]:
    """Return names of models as the results have them: one name for one model."""
    words = _words(flag, text, list(split_names(text)))
    try:
        return tuple(dict.fromkeys(str(ModelName.of(word)) for word in words))
    except CaseError as error:
        raise OptionError(f"{flag}: {error}") from None


def choices_of(known: Sequence[str]) -> Parse:
    """Return the rule of a list of words, each among the known ones."""

    def parse(flag: str, text: str) -> tuple[str, ...]:
        words = parse_words(flag, text)
        for word in words:
            if word not in known:
                raise OptionError(f"{flag}: unknown name {word!r}; {nearest(word, known)}")
        return words

    return parse


def choice_of(known: Sequence[str]) -> Parse:
    """Return the rule of one word among the known ones."""

    def parse(flag: str, text: str) -> str:
        if text not in known:
            raise OptionError(f"{flag}: must be one of {', '.join(known)}, got {text!r}")
        return text

    return parse


def parse_switch(flag: str, text: str) -> bool:
    """Return whether the text is `yes`; the only other word is `no`."""
    return bool(choice_of(("yes", "no"))(flag, text) == "yes")


def parse_jit(flag: str, text: str) -> tuple[str, ...]:
    """Return the states of compilation: off, on, or both."""
    state = choice_of(("off", "on", "both"))(flag, text)
    return ("off", "on") if state == "both" else (state,)


def _each(parse: Parse) -> Parse:
    """Return the rule of a list whose parts keep to another rule."""
    return lambda flag, text: tuple(
        dict.fromkeys(parse(flag, word) for word in parse_words(flag, text))
    )


def _whole(at_least: int) -> Parse:
    def parse(flag: str, text: str) -> int:
        plain = text.isascii() and text.isdecimal() and len(text) <= 18
        if not plain or int(text) < at_least:
            raise OptionError(
                f"{flag}: must be a whole number of at least {at_least}, got {text!r}"
            )
        return int(text)

    return parse


parse_count = _whole(1)
parse_place = _whole(0)
parse_counts = _each(parse_count)


def parse_seed(flag: str, text: str) -> int:
    """Return a whole number from 0 up, modulo 2**32."""
    return int(parse_place(flag, text)) % 2**32


parse_seeds = _each(parse_seed)


def _batch_size(flag: str, text: str) -> int:
    try:
        return int(parse_count(flag, text))
    except OptionError:
        raise OptionError(
            f"{flag}: must be a whole number of at least 1, or auto alone, got {text!r}"
        ) from None


_parse_sizes = _each(_batch_size)


def parse_batch_sizes(flag: str, text: str) -> tuple[int, ...] | Literal["auto"]:
    """Return batch sizes in samples per replica, or `auto`."""
    return AUTO if text.strip() == AUTO else tuple(_parse_sizes(flag, text))


def _threads(flag: str, text: str) -> str:
    if text == "default":
        return text
    try:
        return str(parse_count(flag, text))
    except OptionError:
        raise OptionError(
            f"{flag}: must be 'default' or a whole number of at least 1, got {text!r}"
        ) from None


parse_threads = _each(_threads)


def parse_cpus(flag: str, text: str) -> str:
    """Return a list of CPUs in one spelling."""
    try:
        return cpu_list(cpu_numbers(text.strip()))
    except ValueError:
        raise OptionError(
            f"{flag}: must be CPUs as taskset lists them, such as 0-7 or 0,2,4 or 0-14:2, "
            f"got {text!r}"
        ) from None


def _number(rule: str, fits: Callable[[float], bool], *, unit: str = "") -> Parse:
    """Return the rule of a number.

    Args:
        rule: what it must be, in words.
        fits: whether it is so.
        unit: may follow it.
    """

    def parse(flag: str, text: str) -> float:
        try:
            value = float(text.removesuffix(unit))
        except ValueError:
            value = math.nan
        if not fits(value):
            raise OptionError(f"{flag}: must be {rule}, got {text!r}")
        return value

    return parse


parse_seconds = _number(
    f"a number of seconds above 0 and at most {MOST_SECONDS:,}",
    lambda value: 0 < value <= MOST_SECONDS,
)
LEAST_SUSTAINED_S = 30


def parse_duration(flag: str, text: str) -> float:
    """Return the seconds of a time such as `20m`, `90s` or `1h`."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smh])", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not LEAST_SUSTAINED_S <= seconds <= MOST_SECONDS:
        raise OptionError(
            f"{flag}: must be a time from {LEAST_SUSTAINED_S}s to {MOST_SECONDS}s with its unit, "
            f"such as 20m, 90s or 1h, got {text!r}"
        )
    return seconds


LEAST_LATENCY_S, MOST_LATENCY_S = 1e-4, 60


def parse_latency(flag: str, text: str) -> float:
    """Return the seconds of a latency such as `10ms`, `500us` or `1s`."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(us|ms|s)", text.strip())
    seconds = float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[found[2]] if found else 0.0
    if not LEAST_LATENCY_S <= seconds <= MOST_LATENCY_S:
        raise OptionError(
            f"{flag}: must be a latency from 100us to {MOST_LATENCY_S}s with its unit, such as "
            f"10ms, 500us or 1s, got {text!r}"
        )
    return seconds


parse_margin = _number(
    f"a share from {LEAST_MARGIN} to 1, such as 0.03 for 3 %",
    lambda value: LEAST_MARGIN <= value <= 1,
)
parse_rate = _number("a finite number above 0", lambda value: 0 < value < math.inf)
parse_share = _number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
_per_cent = _number(
    "a number of per cent above 0 and at most 1,000", lambda value: 0 < value <= 1000, unit="%"
)
_parse_budget_s = _number(
    f"a number of seconds from 0, which compares nothing live, to {MOST_SECONDS:,}, or unlimited",
    lambda value: 0 <= value <= MOST_SECONDS,
)


def parse_budget(flag: str, text: str) -> float:
    """Return seconds from 0 up, infinite for `unlimited`."""
    return math.inf if text.strip() == "unlimited" else float(_parse_budget_s(flag, text))


def parse_percent(flag: str, text: str) -> float:
    """Return a percentage as a share."""
    return float(_per_cent(flag, text)) / 100


def or_default(parse: Parse) -> Parse:
    """Return a parser that takes `default` too, as None, in place of what pyproject.toml sets."""
    return lambda flag, text: None if text == "default" else parse(flag, text)


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


def parse_name(flag: str, text: str) -> str:
    """Return a name as Keras writes it, such as `adam`."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,60}", text):
        raise OptionError(f"{flag}: must be a name as Keras has it, such as adam, got {text!r}")
    return text


def parse_devices(flag: str, text: str) -> tuple[str, ...]:
    """Return devices: `cpu`, `gpu:N` or `all`."""
    words = parse_words(flag, text)
    for word in words:
        kind, _, index = word.partition(":")
        if word not in ("cpu", "all") and not (kind == "gpu" and NUMBER.fullmatch(index)):
            raise OptionError(
                f"{flag}: unknown device {word!r}; a device is cpu, gpu:N (such as gpu:0) or all"
            )
    return words


def parse_folder(flag: str, text: str) -> Path:
    """Return the path of a folder, which need not exist; `-` is none."""
    if not text.strip() or "\0" in text or text == "-":
        raise OptionError(f"{flag}: must be the path of a folder, got {text!r}")
    return Path(text)


def parse_file(flag: str, text: str) -> Path:
    """Return the path of a file, `~` expanded; it need not exist."""
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must be the path of a file, got {text!r}")
    return Path(text).expanduser()


def parse_text(flag: str, text: str) -> str:
    """Return one printable line, without the spaces around it."""
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must not be empty, got {text!r}")
    _refuse_unprintable(flag, text)
    return text.strip()
