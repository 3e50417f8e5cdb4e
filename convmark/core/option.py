"""Option: the declaration of one option, with its flag, its rule, its default and its help.

A dataclass whose fields are options is the one table of a command's options: its parser, its Python
function and its documentation are made from it.

The options of a report: the command, `convmark.report()` and their pages are made from these.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from convmark.core.errors import OptionError
from convmark.core.option_values import Parse, nearest
from convmark.core.text import plain_text

MOST_QUOTED = 60
"""Characters of a Python value that an error quotes."""

RESUME = (
    "resume an interrupted run, by number or file (default: the newest); repeat the options of the "
    "original command"
)
"""The help of `--resume`, which is not a setting of a run."""

DRY_RUN = "show what would be measured, with an estimate of the time, and start nothing"
"""The help of `--dry-run`, which is not one either."""

PAIRS = ("ab", "bisect", "noise")
SESSIONS = ("pytest", "run")
ONE_SIDE = (*SESSIONS, "layers")
NAMED = (*SESSIONS, *PAIRS)
MEASURING = frozenset([*ONE_SIDE, *PAIRS])
ALL = (
    *(*MEASURING, "accept", "comment", "compare", "doctor", "export", "history", "list", "merge"),
    *("report", "show"),
)
"""Commands, by the options that they use; most options are of those that measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The declaration of an option, in the metadata of a field of `Options`."""

    name: str
    """The flag without dashes."""
    metavar: str
    """Empty for a switch: on a command line it takes no value and means yes."""
    parse: Parse
    default: str | None
    help: str
    commands: frozenset[str]
    """Which have it, where a table is of several; `pytest` is one of them."""
    repeatable: bool
    """Whether it may be given more than once; its value is then a tuple."""
    group: str
    """The heading in a command's help that it stands under; empty for the command's own."""

    @property
    def flag(self) -> str:
        """The option as the command line has it: `--time-budget`."""
        return f"--{self.name}"

    @property
    def key(self) -> str:
        """The option as pyproject.toml has it: `time_budget`."""
        return self.name.replace("-", "_")

    def add_to(self, add: Callable[..., Any], *, flag: str = "", **more: Any) -> None:
        """Add it to a parser by the parser's own function.

        Args:
            flag: another than its own.
            more: of the function's arguments, in place of those that follow from the option.
        """
        if self.metavar:
            action = "append" if self.repeatable else "store"
            how: dict[str, Any] = {"action": action, "metavar": self.metavar}
        else:
            how = {"action": "store_const", "const": "yes"}
        more = {"default": None, "help": self.help, **how, **more}
        more["help"] = more["help"].replace("%", "%%")  # argparse fills in what follows a %
        add(flag or self.flag, **more)

    def value(self, flag: str, given: Any) -> Any:
        """Return the value of what a source gives.

        Raises:
            OptionError: it breaks the option's rule.
        """
        if self.repeatable:
            each = given if isinstance(given, (list, tuple)) else [given]
            return tuple(self.parse(flag, _as_text(flag, one)) for one in each)
        if not self.metavar and isinstance(given, bool):
            return given
        return self.parse(flag, _as_text(flag, given))

    def words(self, given: Any) -> list[str]:
        """Return what a source gives as the words of a command line."""
        if not self.metavar:
            return [self.flag] if given in (True, "yes") else []
        if not self.repeatable:
            return [self.flag, _as_text(self.flag, given)]
        each = given if isinstance(given, (list, tuple)) else [given]
        return [word for one in each for word in (self.flag, _as_text(self.flag, one))]


def options_of(record: type) -> dict[str, Option]:
    """Return the options of a dataclass whose fields are made by `option_field`, by field."""
    fields = dataclasses.fields(record)
    return {one.name: one.metadata["option"] for one in fields if "option" in one.metadata}


def values_of(options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that keywords of a Python function give; None is the default.

    Args:
        options: by the names of the keywords.
    """
    values = {}
    for name, value in given.items():
        if name not in options:
            raise OptionError(f"{name}: is not an option; {nearest(name, list(options))}")
        if value is not None:
            values[name] = options[name].value(name, plain_value(value))
    return values


_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_SUBJECT = re.compile(rf"{_FLAG.pattern}(?:(?:, | and ){_FLAG.pattern})*: ")


def by_source(text: str, from_file: Collection[str], flags: Mapping[str, str] | None = None) -> str:
    """Return an error that begins with options which the user did not type as of pyproject.toml.

    Args:
        from_file: the names of the options that pyproject.toml alone sets.
        flags: by name what overrides an option where it is typed; None where the error says enough.
    """
    subject = _SUBJECT.match(text)
    names = [name for name in _FLAG.findall(subject[0]) if name in from_file] if subject else []
    if not subject or not names:
        return text

    def placed(flag: re.Match[str]) -> str:
        return f"[tool.convmark] {flag[1]}" if flag[1] in names else flag[0]

    remedy = ""
    if flags is not None:
        typed = [flags[name] for name in names if name in flags]
        overrides = "override them" if len(typed) > 1 else "overrides it"
        taken_out = "; take it out there for this command"
        remedy = f"; {' and '.join(typed)} {overrides}" if typed else taken_out
    return f"{_FLAG.sub(placed, subject[0])}{text[subject.end() :]}{remedy}"


def plain_value(given: Any) -> Any:
    """Return a value of Python, or a list of them, with the texts of paths in their place."""
    if isinstance(given, (list, tuple)):
        return [plain_value(one) for one in given]
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _as_text(flag: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_as_text(flag, item) for item in value)
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):  # those of NumPy too
        raise OptionError(
            f"{flag}: must be a text, a number or a list of them, got "
            f"{plain_text(repr(value))[:MOST_QUOTED]}"
        )
    return str(value)


def option_field(
    usage: str,
    parse: Parse,
    help: str,
    *,
    default: str | None = None,
    commands: Iterable[str] = MEASURING,
    repeatable: bool = False,
    group: str = "",
) -> Any:
    """Return the field of an option.

    Args:
        usage: its flag and what its value is called, such as `--seed N`.
        help: without the default's text, unless it tells the default in words.
    """
    if default is not None and "default" not in help:
        help = f"{help} (default: {default})"
    flag, _, metavar = usage.partition(" ")
    option = Option(
        name=flag.removeprefix("--"),
        metavar=metavar,
        parse=parse,
        default=default,
        help=help,
        commands=frozenset(commands),
        repeatable=repeatable,
        group=group,
    )
    value = () if repeatable else None if default is None else parse(flag, default)
    return dataclasses.field(default=value, metadata={"option": option})


STYLES = ("full", "applications", "accuracy")
RANKS = ("burst", "sustained")


def _as_it_is(flag: str, text: str) -> str:
    """Return the text; the report refuses it where it is read."""
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What a report is made of and with; each field is an option, refused where it is read."""

    style: str = option_field(
        "--style STYLE",
        _as_it_is,
        "full; applications, the table of the Keras documentation; or accuracy, with published "
        "values",
        default=STYLES[0],
    )
    prices: str | None = option_field(
        "--prices FILE",
        _as_it_is,
        "prices of machines, a TOML file with currency, date and source, for the cost of samples "
        "and of a training",
    )
    reference: str | None = option_field(
        "--reference MACHINE",
        _as_it_is,
        "compare the other machines with this one (default: the one with the most cases)",
    )
    power_logs: tuple[str, ...] = option_field(
        "--power-log FILE",
        _as_it_is,
        "CSV log of a wall meter, joined with the rows by time; with several machines MACHINE=FILE",
        repeatable=True,
    )
    rank: str = option_field(
        "--rank THROUGHPUT",
        _as_it_is,
        "compare machines by burst or by sustained throughput, that of --sustain",
        default=RANKS[0],
    )
    names: tuple[str, ...] = option_field(
        "--name MACHINE=NAME",
        _as_it_is,
        "name a machine; kept in its results folder and shown in place of its fingerprint",
        repeatable=True,
    )
    figures: str | None = option_field(
        "--figures FOLDER", _as_it_is, "also write the plots as SVG and PNG files"
    )
    against: str | None = option_field(
        "--against REF", _as_it_is, "start with the verdicts of the newest run against a commit"
    )


REPORT_OPTIONS = options_of(ReportOptions)
"""By field."""
