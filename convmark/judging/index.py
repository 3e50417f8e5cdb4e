"""The index of a machine's runs: their digests, kept so that a long history need not be read again.

    <cache>/index/<machine>-<hash>.runs    one file per folder of runs

The CSV files are the only truth. What the index says of a file holds while size, times and inode of
that file are what they were; an index that is damaged, of another folder or made by other code is
as none, and is made anew. It can be removed at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convmark.errors import StoreError
from convmark.judging.digest import CaseFigures, Digest, Head, digest_of
from convmark.judging.keeping import keep, kept

__all__ = ["CaseRun", "Index", "KnownRun", "Say"]

KIND = "runs"
SETTLED_S = 2.0
"""A file that was written so lately may be written again within one tick of its clock."""
LONG = 300
"""Files whose reading takes a second or more, so that the user is told."""

FIGURES = np.dtype(
    [
        *(("case", "<i4"), ("run", "<i4"), ("processes", "<i4"), ("failed", "<i4")),
        *(("step_time_p50_s", "<f8"), ("spread", "<f8"), ("started", "S16")),
        *(("judged", "<i4"), ("log_ratio", "<f8"), ("variance", "<f8"), ("load", "<f8")),
        *(("commit", "<i4"), ("conditions", "<i4")),
    ]
)
"""`case`, `failed`, `commit` and `conditions` are places among the texts, `run` is the run's number
in this index."""

Signature = tuple[int, int, int, int]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What the index has of one file."""

    signature: Signature
    """Size, times of change in ns, inode."""
    number: int
    error: str | None
    """Why it cannot be read, without its path."""
    torn: int | None
    head: int | None
    """Its place among the heads."""
    contents: int | None
    """Its place among the contents."""
    codes: int | None
    """The place of its codes among the sets."""
    states: int | None
    """The place of its states among the sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRun:
    """One run of a case, as a history lists it."""

    run: str
    commit: str | None
    dirty: bool | None
    figures: CaseFigures


def signatures(folder: Path) -> dict[str, Signature]:
    """Return what tells each CSV file of a folder from an earlier state of it, by its name."""
    found = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".csv"):
                with contextlib.suppress(OSError):
                    found[entry.name] = _signature(entry.stat())
    return found


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


class Index:
    """What is known of the runs in one folder, without reading them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, KnownRun] = {}
        self._heads: list[Head] = []
        self._contents: list[tuple[frozenset[tuple[str, ...]], frozenset[str]]] = []
        self._sets: list[frozenset[str]] = []
        self._texts: list[str] = []
        self._figures: npt.NDArray[Any] = np.empty(0, FIGURES)
        self._here: dict[str, Signature] = {}

    @classmethod
    def of(cls, folder: Path, *, figures: bool = True) -> Index:
        """Return the folder's index as it was kept, without what has changed since.

        Args:
            figures: whether those of the cases are loaded too; without them nothing can be updated.
        """
        index = cls(folder)
        found = kept(folder, KIND, most=None if figures else 1)
        if KIND in found:
            index._load(json.loads(found[KIND]))
            index._figures = np.frombuffer(found.get("figures", b""), FIGURES)
        index._here = signatures(folder)
        return index

    def known(self, path: Path) -> KnownRun | None:
        """Return what is known of a file as it is now; None where that is nothing."""
        found = self._runs.get(path.name)
        return found if found and found.signature == self._here.get(path.name) else None

    def head(self, known: KnownRun) -> Head | None:
        """Return what the run's first row tells; None where there is none."""
        return None if known.head is None else self._heads[known.head]

    def contents(self, known: KnownRun) -> tuple[frozenset[tuple[str, ...]], frozenset[str]]:
        """Return the axes of the measured cases, and the marks; the same object for like runs."""
        return (
            (frozenset(), frozenset()) if known.contents is None else self._contents[known.contents]
        )

    def codes(self, known: KnownRun) -> frozenset[str]:
        """Return the hashes of the codes that the run's measured rows ran."""
        return frozenset() if known.codes is None else self._sets[known.codes]

    def states(self, known: KnownRun) -> frozenset[str]:
        """Return what the processes of the run's measured rows were started with."""
        return frozenset() if known.states is None else self._sets[known.states]

    def update(self, paths: Sequence[Path], say: Say = lambda line: None) -> None:
        """Read the files that are not known as they are now, and keep the index.

        Args:
            say: is told where that takes long.
        """
        stale = [path for path in paths if self.known(path) is None]
        if len(stale) > LONG:
            say(f"reading {len(stale):,} runs; what they say is kept for the next time")
        gone = {name for name in self._runs if name not in self._here}
        if not stale and not gone:
            return
        dropped = [self._runs.pop(name).number for name in gone]
        dropped += [run.number for path in stale if (run := self._runs.get(path.name))]
        if dropped:
            self._figures = self._figures[~np.isin(self._figures["run"], dropped)]
        self._read(stale)
        self._save()

    def case(self, name: str, paths: Sequence[Path]) -> list[CaseRun]:
        """Return the runs of a case among the paths, in their order; the index must be updated."""
        if name not in self._texts:
            return []
        figures = self._figures[self._figures["case"] == self._texts.index(name)]
        by_number = {int(row["run"]): row for row in figures}
        found = []
        for path in paths:
            known = self._runs.get(path.name)
            if known is not None and known.number in by_number:
                head = self.head(known)
                row = _figures_of(name, by_number[known.number], self._texts)
                found.append(
                    CaseRun(
                        run=path.stem,
                        commit=head.commit if head else None,
                        dirty=head.dirty if head else None,
                        figures=row,
                    )
                )
        return found

    def cases(self) -> list[str]:
        """Return the names of all cases."""
        return [self._texts[place] for place in np.unique(self._figures["case"])]

    def troubles(self, paths: Sequence[Path]) -> Iterator[str]:
        """Yield a line for each file that is left out, or whose last line is."""
        for path in paths:
            known = self._runs.get(path.name)
            if known is not None and known.error is not None:
                yield f"{path}{known.error}; left out of the history"
            elif known is not None and known.torn is not None:
                yield f"{path}:{known.torn}: a torn last line was left out"

    def _read(self, paths: Iterable[Path]) -> None:
        heads = {head: place for place, head in enumerate(self._heads)}
        contents = {content: place for place, content in enumerate(self._contents)}
        sets = {found: place for place, found in enumerate(self._sets)}
        texts = {text: place for place, text in enumerate(self._texts)}
        number = max((run.number for run in self._runs.values()), default=-1) + 1
        parts = [self._figures]
        for path in paths:
            signature = self._here.get(path.name, _UNSETTLED)
            if max(signature[1:3]) > time.time_ns() - SETTLED_S * 1e9:
                signature = _UNSETTLED  # so it is read again the next time
            try:
                digest: Digest | None = digest_of(path)
                error = None
            except StoreError as refused:
                digest, error = None, str(refused).removeprefix(str(path))
            head = digest.head if digest else None
            self._runs[path.name] = KnownRun(
                signature=signature,
                number=number,
                error=error,
                torn=digest.torn if digest else None,
                head=None if head is None else _place(heads, head),
                contents=_place(contents, (digest.axes, digest.marks)) if digest else None,
                codes=_place(sets, digest.codes) if digest else None,
                states=_place(sets, digest.states) if digest else None,
            )
            if digest and digest.cases:
                parts.append(_rows_of(digest.cases, number, texts))
            number += 1
        self._heads, self._contents, self._texts = list(heads), list(contents), list(texts)
        self._sets = list(sets)
        self._figures = np.concatenate(parts)

    def _load(self, found: Any) -> None:
        self._runs = {
            name: KnownRun(tuple(known[0]), *known[1:]) for name, known in found["runs"].items()
        }
        self._heads = [
            Head(commit=commit, dirty=dirty, coded=coded, facts=tuple(facts))
            for commit, dirty, coded, facts in found["heads"]
        ]
        self._contents = [
            (frozenset(map(tuple, axes)), frozenset(marks)) for axes, marks in found["contents"]
        ]
        self._sets = list(map(frozenset, found["sets"]))
        self._texts = found["texts"]

    def _save(self) -> None:
        runs = {
            name: [
                *(run.signature, run.number, run.error, run.torn),
                *(run.head, run.contents, run.codes, run.states),
            ]
            for name, run in self._runs.items()
        }
        said = {
            "runs": runs,
            "heads": [[head.commit, head.dirty, head.coded, head.facts] for head in self._heads],
            "contents": [[sorted(axes), sorted(marks)] for axes, marks in self._contents],
            "sets": [sorted(found) for found in self._sets],
            "texts": self._texts,
        }
        parts = {KIND: json.dumps(said).encode(), "figures": self._figures.tobytes()}
        keep(self._folder, KIND, parts)


_UNSETTLED: Signature = (-1, -1, -1, -1)


def _place(places: dict[Any, int], value: object) -> int:
    return places.setdefault(value, len(places))


def _rows_of(cases: Sequence[CaseFigures], number: int, texts: dict[str, int]) -> npt.NDArray[Any]:
    rows = [
        (
            _place(texts, one.case),
            number,
            one.processes,
            _place(texts, one.failed),
            _or_nan(one.step_time_p50_s),
            _or_nan(one.spread),
            one.started.encode("ascii", "replace"),
            one.judged,
            _or_nan(one.log_ratio),
            _or_nan(one.variance),
            _or_nan(one.load),
            _place(texts, one.commit),
            _place(texts, one.conditions),
        )
        for one in cases
    ]
    return np.array(rows, FIGURES)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _figures_of(case: str, row: Any, texts: Sequence[str]) -> CaseFigures:
    names = ("step_time_p50_s", "spread", "log_ratio", "variance", "load")
    numbers = {name: float(row[name]) for name in names}
    return CaseFigures(
        case=case,
        started=bytes(row["started"]).decode("ascii"),
        processes=int(row["processes"]),
        failed=texts[row["failed"]],
        judged=int(row["judged"]),
        commit=texts[row["commit"]],
        conditions=texts[row["conditions"]],
        **{name: None if np.isnan(value) else value for name, value in numbers.items()},
    )
