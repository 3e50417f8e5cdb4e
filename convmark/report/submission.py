"""Checks a submission: the results that a pull request brings to a repository of results.

Nothing of a submission is run, no link in it is followed, and a folder that has one is not read.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from convmark.compare import sessions_file
from convmark.compare.files import (
    ACCEPTED,
    ACCEPTED_TABLE,
    CHANGES_TABLE,
    NOISE,
    NOISE_TABLE,
    VERDICT_TABLE,
    VERDICTS_FILE,
)
from convmark.core.cells import fit_text
from convmark.core.errors import OptionError, StoreError
from convmark.core.files import as_store_error
from convmark.core.table import Table, headings, table_of
from convmark.core.text import is_plain
from convmark.report.describe import FOLDER as MODELS
from convmark.report.describe import read_description
from convmark.report.published import (
    EXAMPLES,
    LOOSE,
    Change,
    Files,
    changes,
    files_by_folder,
    gone_folders,
    is_run,
    pair,
    place,
    with_examples,
)
from convmark.report.suspicion import REMEDIES, Known, Published
from convmark.report.unlikely import unlikely
from convmark.results.code.manifest import FOLDER as CODE
from convmark.results.code.manifest import read_codes
from convmark.results.columnar import MOST_WHOLE_BYTES, read_columns, whole_file
from convmark.results.names import NAME_FILE, read_name
from convmark.results.reading import RUN_NAME, StoreWarning
from convmark.results.run_file import BESIDE
from convmark.results.store import AB_FOLDER
from convmark.results.table_file import TableFile
from convmark.session import ceilings, latency_limit, learning, sustained
from convmark.session.fleet.part import read_part
from convmark.session.layers import LAYERS_TABLE, read_layers
from convmark.worker.protocol import WHOLE_BYTES, file_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a file, or rows of it, break."""

    file: Path
    rule: str
    """A key of `REMEDIES`."""
    value: str
    line: int | None = None
    """The first; None where the whole file is meant."""
    rows: int | None = None
    """Of the file, that break the rule; None where the whole file is meant."""


@dataclass(slots=True)
class Submission:
    """What was checked, and what was found."""

    runs: int = 0
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)


def check(given: Sequence[Path], against: Sequence[Path], now: datetime) -> Submission:
    """Return what breaks a rule in the folders; a run that is published already is left out.

    Args:
        given: folders of results; loose files among them are passed over.
        against: results that are published already; a place may have no runs.

    Raises:
        OptionError: a folder is none, or has no runs.
        StoreError: a published file does not fit, or a place is not there.
    """
    found, known = Submission(), Known()
    published = files_by_folder(against)
    for files in published.values():
        for path in (files[name] for name in files if is_run(name)):
            known.add(Published(path=path, columns=read_columns(path, whole_file(path))))
    given = list(dict.fromkeys(itertools.chain.from_iterable(map(with_examples, given))))
    folders = [one for one in given if one.name not in LOOSE or not os.path.isfile(one)]
    found.findings += [_found_changed(one) for one in gone_folders(given, published)]
    places = list(dict.fromkeys(map(place, folders)))
    for folder in folders:
        first = pair(place(folder), places, published)
        _check_folder(folder, first, known, found, now)
    found.findings.sort(key=lambda one: (str(one.file), one.line or 0))
    return found


def _check_folder(
    folder: Path, published: Files, known: Known, found: Submission, now: datetime
) -> None:
    """Check the files of a folder, then the rows of its runs."""
    before = len(found.findings)
    files = _files(folder, found.findings)
    unsafe = any(one.rule in UNSAFE for one in found.findings[before:])
    if not unsafe:
        found.findings += map(_found_changed, changes(folder, files, published))
    runs = [path for path in files if RUN_NAME.fullmatch(path.stem) and path.suffix == ".csv"]
    if not runs and not found.findings:
        raise OptionError(f"{folder}: has no runs; name a results or machine folder")
    for path in files:
        _check_beside(path, found.findings, now)
    for path in runs:
        name = Path(os.path.abspath(path)).relative_to(place(folder)).as_posix()
        first = published.get(name)
        if first is None or path.read_bytes() != first.read_bytes():
            _check_run(path, first, known, found, now)


def _found_changed(one: Change) -> Finding:
    return Finding(file=one.file, rule=one.rule, value=one.value)


# -- the files -------------------------------------------------------------------------------------


UNSAFE = ("link", "special file")
"""Rules that, once broken, keep the whole folder from being read."""

MOST_DEPTH = 4
"""Folders below a results folder: <machine>/code/<2 digits>/<file>."""

_BESIDE = "|".join(map(re.escape, (".csv", *BESIDE)))
_KNOWN_FILES = re.compile(
    rf"(?:[^/]+/)?(?:[0-9]{{4,9}}(?:{_BESIDE})|code/[0-9a-f]{{2}}/[0-9a-f]{{62}}"
    rf"|{MODELS}/[^/]+\.(?:json|svg)"
    rf"|(?:accepted|ceilings|layers|noise|verdicts)\.csv|{re.escape(NAME_FILE)})"
    r"|\.gitkeep|README\.md"
)

_SVG = "{http://www.w3.org/2000/svg}"
_DRAWN: Mapping[str, frozenset[str]] = {
    f"{_SVG}{name}": frozenset(attributes.split())
    for name, attributes in {
        "svg": "role width height viewBox font-family font-size",
        "title": "",
        "rect": "x y width height rx fill stroke stroke-width opacity",
        "text": "x y fill text-anchor",
        "path": "d fill stroke opacity stroke-dasharray",
    }.items()
}
"""The elements of diagrams and of bars of layers, and their attributes."""

_DRAWN_VALUE = re.compile(r"[A-Za-z0-9 .,-]*")
"""Of an attribute: no address, and nothing that is a function's."""


def _files(folder: Path, findings: list[Finding]) -> list[Path]:
    """Return the regular files of a folder that are results; none of a folder that has a link."""
    before = len(findings)
    if not os.path.isdir(folder) and not os.path.islink(folder):
        raise OptionError(f"{folder}: must be a folder of results")
    found = []
    for path, mode in _walked(folder):
        name = path.relative_to(folder).as_posix()
        if folder / EXAMPLES in path.parents:  # a folder of its own, which is checked by itself
            continue
        if rule := _why_not(path, name, mode):
            value = os.readlink(path) if rule == "link" else name
            if rule == "comparison":
                path, value = path.parent, AB_FOLDER
            one = Finding(file=path, rule=rule, value=value)
            if one not in findings[-1:]:  # of all files of a folder of comparisons
                findings.append(one)
        else:
            found.append(path)
    return [] if any(one.rule in UNSAFE for one in findings[before:]) else found


def _walked(folder: Path, depth: int = 0) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield all that is in a folder but folders, in order; links are not followed."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or depth > MOST_DEPTH:
        yield folder, found
        return
    with as_store_error(folder, "read"):
        names = sorted(os.listdir(folder))
    for name in names:
        yield from _walked(folder / name, depth + 1)


def _why_not(path: Path, name: str, found: os.stat_result) -> str:
    """Return the rule that a file breaks before it is read; empty where it breaks none."""
    if stat.S_ISLNK(found.st_mode):
        return "link"
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return "special file"
    if not is_plain(name) or not name.isprintable():
        return "name"
    if AB_FOLDER in (path.absolute().parent.name, name.split("/")[0]):
        return "comparison"
    if not _KNOWN_FILES.fullmatch(name):
        return "no results file"
    return "size" if found.st_size > MOST_WHOLE_BYTES else ""


def _run_of(path: Path) -> Path:
    return path.with_name(f"{path.name.partition('.')[0]}.csv")


_TABLES: Mapping[str, TableFile[Any]] = {
    ACCEPTED: ACCEPTED_TABLE,
    NOISE: NOISE_TABLE,
    VERDICTS_FILE: VERDICT_TABLE,
    "ceilings.csv": ceilings.TABLE,
    "layers.csv": LAYERS_TABLE,
    ".verdicts.csv": VERDICT_TABLE,
    ".sessions.csv": sessions_file.TABLE,
    ".epochs.csv": learning.TABLE,
    ".latency.csv": latency_limit.TABLE,
    ".layers.csv": CHANGES_TABLE,
    ".sustained.csv": sustained.TABLE,
}
"""By a file's name, or its ending after the number of its run."""

_READERS: Mapping[str, Callable[[Path], object]] = {
    NAME_FILE: lambda path: read_name(path.parent),
    "layers.csv": read_layers,
    ".plan.json": lambda path: read_part(_run_of(path)),
}
"""The same of what is no table, or is more than its rows."""


def _check_beside(path: Path, findings: list[Finding], now: datetime) -> None:
    """Check a file that is no run's rows."""
    ending = path.name.removeprefix(path.name.partition(".")[0])
    if path.suffix == ".csv" and not RUN_NAME.fullmatch(path.stem) and (line := _torn(path)):
        findings.append(Finding(file=path, rule="torn", value="no newline", line=line))
        return
    if ending in BESIDE and path.name[0].isdecimal() and not _run_of(path).exists():
        findings.append(Finding(file=path, rule="no results file", value="its run is not there"))
        return
    if path.parent.parent.name == CODE and (found := file_digest(str(path))):
        size, digest = found
        if size <= WHOLE_BYTES and digest != path.parent.name + path.name:
            findings.append(Finding(file=path, rule="path", value=f"its hash is {digest}"))
        return
    try:
        if table := _TABLES.get(path.name) or _TABLES.get(ending):
            for line, row in enumerate(table.read(path), 2):
                for rule, value in unlikely(row, path, now):
                    findings.append(Finding(file=path, rule=rule, value=value, line=line))
        if reader := _READERS.get(path.name) or _READERS.get(ending):
            reader(path)
        elif ending == ".code.json":
            for code in read_codes(_run_of(path)).values():  # whose files have hashes for names
                for one in code.files:
                    if not re.fullmatch(r"[0-9a-f]{64}", one.sha256):
                        findings.append(Finding(file=path, rule="path", value=one.sha256[:80]))
        elif path.suffix == ".svg" and (why := _why_no_diagram(path.read_bytes())):
            findings.append(Finding(file=path, rule="script", value=why))
        elif path.suffix == ".json" and path.parent.name == MODELS:
            read_description(path)
    except StoreError as error:
        findings.append(_refused(path, error))


def _torn(path: Path) -> int:
    """Return the line that lacks its newline, the first of an empty file; 0 for none."""
    data = path.read_bytes()
    return 0 if data.endswith(b"\n") else data.count(b"\n") + 1


def _why_no_diagram(data: bytes) -> str:
    """Return what an SVG file has that no diagram of convmark has; empty for nothing."""
    try:
        text = data.decode("utf-8")
        for mark in ("<!", "<?"):  # a DTD may define entities, an instruction may name a style
            if mark in text:
                return f"has {mark}"
        drawn = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        return f"must be an SVG file in UTF-8: {error}"
    if drawn.tag != f"{_SVG}svg":
        return f"begins with the element {drawn.tag.removeprefix(_SVG)}"
    for one in drawn.iter():
        if one.tag not in _DRAWN:
            return f"has the element {one.tag.removeprefix(_SVG)}"
        for name, value in one.items():
            if name not in _DRAWN[one.tag] or not _DRAWN_VALUE.fullmatch(value):
                return f"has the attribute {name}={value}"
    return ""


def _refused(path: Path, error: StoreError) -> Finding:
    """Return the finding of a file that its reader refuses; its message may name a line."""
    text = str(error).removeprefix(f"{path}:")
    line, sign, rest = text.partition(": ")
    numbered = bool(sign) and line.isdecimal()
    return Finding(
        file=path,
        rule="schema",
        value=(rest if numbered else text).strip(),
        line=int(line) if numbered else None,
    )


# -- the rows --------------------------------------------------------------------------------------


def _check_run(
    path: Path, first: Path | None, known: Known, found: Submission, now: datetime
) -> None:
    """Check the rows of a run, and let later ones be held against them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", StoreWarning)
            rows = Published(path=path, columns=read_columns(path, whole_file(path)))
    except StoreWarning as warning:
        at = int(str(warning).removeprefix(f"{path}:").partition(":")[0])
        found.findings.append(Finding(file=path, rule="torn", value="no newline", line=at))
        return
    except StoreError as error:
        found.findings.append(_refused(path, error))
        return
    found.runs += 1
    found.rows += len(rows)
    for rule, lines in known.suspicions(rows, now, first).items():
        line, value = lines[0]
        found.findings.append(
            Finding(file=path, rule=rule, value=value, line=line, rows=len(lines))
        )


def findings_table(findings: Iterable[Finding]) -> Table:
    keys = "file line rule rows value remedy"
    return table_of(
        "findings",
        "Findings",
        "",
        headings(keys, line=("line", "whole"), rows=("rows", "count"), remedy="what to do"),
        [
            {
                **{name: getattr(one, name) for name in ("line", "rule", "rows")},
                "file": fit_text(str(one.file)),
                "value": fit_text(one.value),
                "remedy": REMEDIES[one.rule],
            }
            for one in findings
        ],
        empty="No findings.",
        keep=keys.split(),
    )
