"""The commands as Python functions, for scripts and notebooks: `convmark.measure` and others.

Each takes what its command takes, under the names of the fields of `Options`, and returns a result
that shows itself in a terminal and in a notebook. `[tool.convmark]` of the working folder holds
here too. A function is safe at the top of a script: the workers do not import the script.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from convmark.cli.ab import StoppingRule, compare_sides
from convmark.cli.command import sayer
from convmark.cli.run import check_plan, left_out
from convmark.core.errors import ConvmarkError, DrawingError, OptionError
from convmark.core.fitting import wrapped
from convmark.core.model_name import TRUST
from convmark.core.option import (
    MOST_QUOTED,
    REPORT_OPTIONS,
    Option,
    ReportOptions,
    by_source,
    plain_value,
    values_of,
)
from convmark.core.option_values import parse_percent, parse_seconds
from convmark.core.options import KEYWORDS, Options, read
from convmark.core.pyproject import pyproject_settings
from convmark.core.table import Table, grid, plain
from convmark.core.text import code_marked, plain_text, shown
from convmark.interpreter.environments import interpreters
from convmark.machine.hardware import read_machine
from convmark.report.summary import run_tables
from convmark.report.tables.layers import layers_tables
from convmark.report.verdicts import compared
from convmark.results.record import COLUMNS, Record
from convmark.results.store import Store
from convmark.session.session import Session, claimed

if TYPE_CHECKING:
    import pandas as pd

MOST_FIGURES = 6
"""Drawings below the tables in a notebook; a report has all."""

Place = str | os.PathLike[str]

_say = sayer("convmark")


@dataclass(frozen=True, repr=False)
class Shown:
    """Tables that show themselves: as text in a terminal, with figures in a notebook."""

    tables: tuple[Table, ...]

    def __repr__(self) -> str:
        """Return the tables as text."""
        return "\n\n".join(map(plain, self.tables))

    def _repr_html_(self) -> str:
        """Return the tables and figures as HTML, which Jupyter shows."""
        parts = [
            code_marked(
                f"<h4>{html.escape(shown(table.title))}</h4>{grid(table, 'html', shown)}"
                f"<p>{html.escape(shown(table.caption))}</p>"
            )
            for table in self.tables
            if table.rows
        ]
        try:
            parts += self._drawn()
        except DrawingError as error:
            parts.append(f"<p>no figure: {html.escape(str(error))}</p>")
        return "\n".join(parts)

    def _drawn(self) -> Sequence[str]:
        """Return the figures as SVG."""
        from convmark.report.figures import drawn, figures_of

        return drawn(figures_of(self.tables), most=MOST_FIGURES)


@dataclass(frozen=True, repr=False)
class Measurement(Shown):
    """The results of `measure`."""

    paths: tuple[Path, ...]
    """The run files, one for each interpreter."""
    whole: bool
    """Whether every process was measured; the rows of the others have the reason."""

    @property
    def frame(self) -> pd.DataFrame:
        """The rows, one for each process of a case, as `read_results` returns them."""
        return read_results(self.paths)

    def _drawn(self) -> Sequence[str]:
        from convmark.report.figures import drawn, figures_of
        from convmark.report.rows import points, read_rows
        from convmark.report.tables.steps import distribution

        table = distribution(points(read_rows(self.paths).frame))
        return drawn(figures_of([table]), most=MOST_FIGURES)


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The results of `compare`: a verdict for each case."""

    path: Path
    """The file of the sessions."""
    rows: tuple[Any, ...]
    """One for each case; its attributes are the columns of verdicts.csv, such as `verdict`."""

    @property
    def slower(self) -> bool:
        """Whether B was found slower than A in any case; an inconclusive case is not."""
        return any(row.verdict == "regressed" for row in self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The verdicts, one row for each case."""
        import pandas as pd

        return pd.DataFrame(map(dataclasses.asdict, self.rows))

    def _drawn(self) -> Sequence[str]:
        files = sorted(self.path.parent.glob(f"{self.path.stem}-*.svg"))[:MOST_FIGURES]
        return [path.read_text(encoding="utf-8") for path in files]


_FLAG = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)")
_COMMAND = re.compile(r"`[^`]*`|\b(?:convmark [a-z]+|pytest|pip|git)\b[^;:]*")
"""What a user types in a shell, as an error quotes it."""


def _in_python(text: str) -> str:
    """Return an error's text with the names of arguments in place of a command line's options."""
    names = {option.name: name for name, option in (KEYWORDS | REPORT_OPTIONS).items()}
    names |= {"set-a": "set_a", "set-b": "set_b", "target": "target", "budget": "budget_s"}
    names["output"] = "output"

    def renamed(found: re.Match[str]) -> str:
        return names.get(found[1], found[0])

    text = text.replace(" without --format", "")
    parts, end = [], 0
    for command in _COMMAND.finditer(text):
        parts += [_FLAG.sub(renamed, text[end : command.start()]), command[0]]
        end = command.end()
    return "".join([*parts, _FLAG.sub(renamed, text[end:])])


Returned = TypeVar("Returned")
Given = ParamSpec("Given")


def _public(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Make a function's errors name its arguments, not the options of the command line."""

    @functools.wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        try:
            return function(*args, **kwargs)
        except ConvmarkError as error:
            error.args = (_in_python(str(error)),)
            raise

    return called


@_public
def measure(models: Any = None, *, progress: bool = True, **options: Any) -> Measurement:
    """Measure cases in fresh processes, as `convmark run` does, and return their tables.

    Each row is on the disk as soon as its process has ended. Ctrl-C ends the measurement: the rows
    so far are kept, and a line names their file; `read_results` reads it.

    Args:
        models: a name or several, such as `"resnet50"`; by default the zoo's networks.
        progress: whether progress is shown, on standard error.
        options: any of the fields of `Options`, such as `tasks="infer"`, `batch_sizes=[1, 32]`,
            `processes=3`, `time_budget_s=0.6`, `results="results"`.

    Raises:
        ConvmarkError: something in the request is not available; nothing was measured.
        KeyboardInterrupt: the user has interrupted.
    """
    asked = _options({**options, **({} if models is None else {"models": models})}, KEYWORDS)
    with _using(asked), contextlib.ExitStack() as stack:
        check_plan(asked)
        Store(asked.results).check_writable()
        machine = read_machine()
        preflight = stack.enter_context(claimed(asked, _say))
        paths = interpreters(asked.pythons, asked.environments, say=_say) or [sys.executable]
        sessions = [Session(asked, machine, _say, python=path) for path in paths]
        for session in sessions:
            stack.enter_context(session).take(session.default_cases())
        notes = [*preflight.lines(machine), *left_out(sessions)]
        for number, session in enumerate(sessions):
            if session.cases:
                _measure(session, () if number else notes, progress)
    done = [session for session in sessions if session.run_file is not None]
    records: list[Record] = [record for session in done for record in session.records]
    return Measurement(
        tables=tuple(table for session in done for table in _tables(session, len(done) > 1)),
        paths=tuple(session.run_file.path for session in done if session.run_file is not None),
        whole=all(record.measured for record in records)
        and not any(session.lacks_layers for session in done),
    )


def _tables(session: Session, several: bool) -> list[Table]:
    """Return the tables of a session; of several interpreters each names its own."""
    tables = run_tables(session.records)
    if session.options.layers:
        tables += layers_tables(session.records, session.layers_path.parent)
    if not several:
        return tables
    python = session.interpreters.python
    return [replace(one, caption=f"{one.caption} {python}".strip()) for one in tables]


def _measure(session: Session, notes: Sequence[str], progress: bool) -> None:
    try:
        session.open()
        session.measure(sys.stderr if progress else None, notes)
        if session.options.layers:
            list(session.layers_of_run())
    except KeyboardInterrupt:
        session.interrupted = True
        _say(session.kept)
        raise
    finally:
        session.close()


@_public
def compare(
    a: Place = ".",
    b: Place = ".",
    *,
    set_a: str | Sequence[str] = (),
    set_b: str | Sequence[str] = (),
    target: float = 2,
    budget_s: float = 60,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Compare two environments, commits or settings, as `convmark ab` does.

    Args:
        a: `.` (this interpreter), `git:REF`, the path of an interpreter, or requirements such as
            `tensorflow==2.20.*`; the same for `b`.
        set_a: settings of A only, each `NAME=VALUE`; the same for `set_b`.
        target: half-width of the interval to reach, in per cent.
        budget_s: maximum seconds per case.
        progress: whether progress is shown, on standard error.
        options: those of `measure` that both sides have, such as `models`, `tasks`, `threads`.

    Raises:
        ConvmarkError: a side or a case is not available; or a side of a case could not be run,
            which is raised after all cases were compared.
        KeyboardInterrupt: the user has interrupted; what was decided is kept.
    """
    asked = _options(options, _OF_COMPARE)
    wanted = StoppingRule(
        target=math.log1p(parse_percent("target", str(target))),
        budget_s=parse_seconds("budget_s", str(budget_s)),
    )
    with _using(asked):
        of_a = ("a", _text("a", a), _texts("set_a", set_a))
        of_b = ("b", _text("b", b), _texts("set_b", set_b))
        found = compare_sides(of_a, of_b, wanted, asked, say=_say, progress=progress)
    if found.interrupted:
        _say(found.kept)
        raise KeyboardInterrupt
    if found.failure:
        raise ConvmarkError(f"{found.failure}; {wrapped(found.kept, width=None)}")
    return Comparison(tables=(compared(found.rows),), path=found.path, rows=tuple(found.rows))


@_public
def read_results(places: Place | Sequence[Place] = "results") -> pd.DataFrame:
    """Return the rows of all runs in results folders or run files, one for each process.

    The columns are those of docs/columns.md with their types: Int64, string, boolean, and for
    `started` a time in UTC; an empty cell is missing. There are three more columns: `case`,
    `measured` (whether the row has figures) and `file`.

    Raises:
        ConvmarkError: there are no results, or a file is invalid; the text names file and line.
    """
    import pandas as pd

    from convmark.report.rows import read_rows

    rows = read_rows(_paths(places), apart=False)
    kinds = {int: "Int64", float: "float64", str: "string", bool: "boolean"}
    frame = rows.frame
    found = {one.name: frame[one.name].astype(kinds[one.type]) for one in COLUMNS}
    found["started"] = pd.to_datetime(frame["started"], utc=True, format="ISO8601")
    files = [str(run.path) for run in rows.runs]
    found["case"] = frame["case"].astype("string")
    found["measured"] = frame["measured"]
    found["file"] = frame["source"].map(lambda place: files[int(place)]).astype("string")
    return pd.DataFrame(found)


@_public
def report(
    places: Place | Sequence[Place] = "results",
    *,
    output: Place | None = None,
    **options: Any,
) -> Shown:
    """Return the report of all runs in the places, as `convmark report` makes it.

    Args:
        output: a file to write it to as well; its suffix sets the format, such as `.html`.
        options: any of the fields of `ReportOptions`, such as `style="applications"`,
            `prices="prices.toml"`, `reference="laptop"`, `rank="sustained"`, `figures="plots"`,
            `power_logs=["meter.csv"]`, `names=["intel-xeon-2cpu-24gib-1ed51224=laptop"]`, or
            `against="main"`, whose verdicts of the newest run come first.

    Raises:
        ConvmarkError: there are no results, a file is invalid, or the output cannot be written.
    """
    from convmark.report.command import report as made

    file = None if output is None else _text("output", output)
    asked = ReportOptions(**values_of(REPORT_OPTIONS, options))
    return Shown(made(_paths(places), output=file, show=False, options=asked).tables)


def _paths(places: Place | Sequence[Place]) -> list[Path]:
    texts = _texts("places", places)
    if not texts:
        raise OptionError("places: must be at least one results folder or run file, got none")
    return [Path(text) for text in texts]


def _texts(name: str, given: object) -> list[str]:
    """Return the texts of a list; a text or a path is a list of one."""
    if isinstance(given, (str, os.PathLike)) or not isinstance(given, Iterable):
        return [_text(name, given)]
    return [_text(name, one) for one in given]


def _text(name: str, given: object) -> str:
    """Return a text, or a path as one."""
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise OptionError(
            f"{name}: must be a text or a path, got {plain_text(repr(given))[:MOST_QUOTED]}"
        )
    return text


_OF_COMPARE = {name: option for name, option in KEYWORDS.items() if "ab" in option.commands}


def _options(given: Mapping[str, Any], known: Mapping[str, Option]) -> Options:
    """Return the options that keywords of a Python function give, then pyproject's, then defaults.

    Args:
        given: values by the names of the fields; None is the default. Numbers, paths and lists are
            taken as the texts that they are on the command line.
        known: those of `KEYWORDS` that the function takes.
    """
    for name in given:
        if name in KEYWORDS and name not in known:
            raise OptionError(f"{name}: is not an option here, but of convmark.measure")
    texts = {name: plain_value(value) for name, value in given.items() if value is not None}
    values = values_of(known, texts)
    keys = {known[name].key for name in values}
    own = pyproject_settings(Path.cwd())
    others = read({}, {key: value for key, value in own.items() if key not in keys})
    return dataclasses.replace(others, **values, given={**others.given, **texts})


@contextlib.contextmanager
def _using(options: Options) -> Iterator[None]:
    """Let the workers run code from model files where asked; name what pyproject sets as there."""
    before = os.environ.get(TRUST)
    if options.trust_models:
        os.environ[TRUST] = "1"
    try:
        yield
    except ConvmarkError as error:
        flags = {option.name: name for name, option in KEYWORDS.items()}
        error.args = (by_source(str(error), options.from_file, flags),)
        raise
    finally:
        if before is None:
            os.environ.pop(TRUST, None)
        else:
            os.environ[TRUST] = before


def _with_options(function: Any, known: Mapping[str, Option]) -> None:
    """Show every option in the signature, which editors and notebooks complete."""
    own = list(inspect.signature(function).parameters.values())[:-1]
    taken = {one.name for one in own}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in known
        if name not in taken
    ]
    function.__signature__ = inspect.Signature([*own, *options])


_with_options(measure, KEYWORDS)
_with_options(compare, _OF_COMPARE)
_with_options(report, REPORT_OPTIONS)
