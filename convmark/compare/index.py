"""The index of a machine's runs: a cache of the digests of their files.

    <cache>/index/<machine>-<hash>.sqlite    one database per folder of runs and version of the code

The CSV files are the only truth. What the database says of a file holds while size, times and inode
of that file are what they were. A database that is damaged, locked or not to be written is as none:
the files are then read, and where it is damaged it is removed. It can be removed at any time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from convmark.compare.digest import CaseFigures, Digest, contents_of, digest_of
from convmark.compare.files import read_step_time_verdicts, verdicts_paths
from convmark.core.errors import StoreError
from convmark.core.files import cache_folder
from convmark.core.text import Say

SETTLED_S = 2.0
"""A file that was written so lately may be written again within one tick of its clock."""
LONG = 300
"""Files whose reading takes a second or more, so that the user is told."""
BATCH = 500
"""Files whose contents are written to the database at one go."""
WAIT_S = 5.0
"""For another process that writes the database."""
UNUSED_S = 90 * 86400
"""After so long without use a database is removed when another one is written."""

_DIGEST = [field.name for field in fields(Digest) if field.name != "cases"]
_FIGURES = [field.name for field in fields(CaseFigures)]
_of_digest, _of_figures = operator.attrgetter(*_DIGEST), operator.attrgetter(*_FIGURES)
_FILE_COLUMNS, _FIGURE_COLUMNS = (
    ", ".join(f'"{name}"' for name in names) for names in (_DIGEST, _FIGURES)
)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, text);
CREATE TABLE IF NOT EXISTS files
    (name PRIMARY KEY, signature, {_FILE_COLUMNS}, "check") WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS figures
    (file, {_FIGURE_COLUMNS}, "check", PRIMARY KEY ("case", file)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts
    (file, "case", run, words, "check", PRIMARY KEY ("case", file, run)) WITHOUT ROWID;
"""
_SETTINGS = "PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
"""A power loss may cost the index, which is made anew; a killed writer leaves it whole."""
_Row = tuple[Any, ...]


@functools.cache
def _code() -> bytes:
    """Return a hash of the code that reads the files: each version has databases of its own."""
    here = Path(__file__).resolve().parent
    rooms = (here, here.parent / "core", here.parent / "results")
    digest = hashlib.sha256()
    for path in sorted(path for room in rooms for path in room.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def index_path(folder: Path) -> Path:
    whole = folder.resolve()
    digest = hashlib.sha256(_code() + os.fsencode(whole)).hexdigest()[:16]
    name = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in whole.name)
    return cache_folder() / "index" / f"{name[:80]}-{digest}.sqlite"


def _id(text: str) -> int:
    """Return the id of a text: a hash of it, so that all writers give it the same one."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _checked(row: _Row) -> _Row:
    """Return a row with its checksum: SQLite does not notice a flipped bit in a value."""
    return (*row, zlib.crc32(repr(row).encode(errors="surrogatepass")))


def _rows(found: sqlite3.Cursor) -> Iterator[_Row]:
    """Yield rows without their checksums."""
    for row in found:
        if _checked(row[:-1]) != row:
            raise ValueError("a checksum differs")
        yield row[:-1]


_case_in = operator.itemgetter(1)
"""The case of a row of the figures or the verdicts; the file stands before it."""


@dataclass(slots=True)
class _Unsaved:
    """What was read and is not in the database yet."""

    texts: dict[int, str] = field(default_factory=dict)
    files: list[_Row] = field(default_factory=list)
    figures: list[_Row] = field(default_factory=list)
    verdicts: list[_Row] = field(default_factory=list)


class Index:
    """What is known of the runs in one folder; a file that is not known as it is now is read."""

    def __init__(self, folder: Path, case: str = "", say: Say = lambda line: None) -> None:
        """Load what is kept.

        Args:
            case: whose figures and verdicts are asked for.
            say: is told where reading takes long.
        """
        self._folder = folder
        self._case = case
        self._say = say
        self._signatures: dict[str, str] = {}
        self._recent: set[str] = set()
        self._scan()
        self._path = index_path(folder)
        self._forget()
        try:
            self._load()
        except sqlite3.OperationalError:  # locked, or not to be read
            self._forget()
        except (sqlite3.Error, ValueError, TypeError, LookupError, OSError):
            self._forget()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _scan(self) -> None:
        now = time.time_ns() - SETTLED_S * 1e9
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self._folder) as there,
        ):
            for one in there:
                if one.name.endswith(".csv"):
                    with contextlib.suppress(OSError):
                        stat = one.stat()
                        times = stat.st_mtime_ns, stat.st_ctime_ns
                        self._signatures[one.name] = f"{stat.st_size} {times} {stat.st_ino}"
                        if max(times) > now:
                            self._recent.add(one.name)

    def _forget(self) -> None:
        self._texts: dict[int, str] = {}
        self._entries: dict[str, Digest] = {}
        self._figures: dict[str, CaseFigures] = {}
        self._verdicts: dict[str, dict[str, str]] = {}
        self._gone: set[str] = set()
        self._unsaved = _Unsaved()
        self._read = 0

    def _load(self) -> None:
        if not self._path.exists():
            return
        with contextlib.suppress(OSError):
            os.utime(self._path)  # it is in use
        with closing(sqlite3.connect(self._path, WAIT_S)) as database:
            self._texts = dict(database.execute("SELECT id, text FROM texts"))
            if any(_id(str(text)) != one for one, text in self._texts.items()):
                raise ValueError("a text is not that of its id")
            for name, signature, *cells in _rows(database.execute("SELECT * FROM files")):
                if signature == self._signatures.get(name):
                    *values, codes, held, contents = cells
                    texts = (self._texts[one] for one in (codes, held, contents))
                    self._entries[name] = Digest(*[*values, *texts])
                elif name not in self._signatures:
                    self._gone.add(name)
            asked = 'SELECT * FROM {} WHERE "case" = ?'
            for file, *values in _rows(database.execute(asked.format("figures"), [self._case])):
                *numbers, commit, conditions = values
                found = CaseFigures(*[*numbers, self._texts[commit], self._texts[conditions]])
                if file in self._entries:
                    self._figures[file] = found
            for row in _rows(database.execute(asked.format("verdicts"), [self._case])):
                file, _, run, words = row
                if file in self._entries:
                    self._verdicts.setdefault(file, {})[run] = words
            for file, entry in self._entries.items():
                rows = (file in self._figures) + len(self._verdicts.get(file, {}))
                if entry.rows_of(self._case) != rows:
                    raise ValueError("a row is lost")

    def entry(self, run: Path) -> Digest:
        """Return what a run's file says, but for its cases; or why it cannot be read."""
        found = self._entries.get(run.name)
        if found is None:
            try:
                found = digest_of(run)
            except StoreError as refused:
                found = Digest(error=str(refused).removeprefix(str(run)))
            for one in found.cases:
                if one.case == self._case:
                    self._figures[run.name] = one
            self._add(run, found)
        return found

    def figures(self, run: Path) -> CaseFigures | None:
        """Return the figures of the case that is asked for; None where the run has none."""
        self.entry(run)
        return self._figures.get(run.name)

    def verdict(self, run: Path) -> str:
        """Return what was said last of the step time of the case that is asked for."""
        for path in verdicts_paths(run):
            if path.name in self._signatures and run.stem in (words := self._words(path)):
                return words[run.stem]
        return ""

    def _words(self, path: Path) -> dict[str, str]:
        if path.name not in self._entries:
            last = {(case, run): words for case, run, words in read_step_time_verdicts(path)}
            self._verdicts[path.name] = {
                run: words for (case, run), words in last.items() if case == self._case
            }
            verdicts = [(path.name, *names, words) for names, words in last.items()]
            contents = contents_of(case for case, _ in last)
            self._add(path, Digest(contents=contents), verdicts)
        return self._verdicts.get(path.name, {})

    def _id_of(self, text: str) -> int:
        found = _id(text)
        if found not in self._texts:
            self._texts[found] = self._unsaved.texts[found] = text
        return found

    def _add(self, path: Path, digest: Digest, verdicts: Sequence[_Row] = ()) -> None:
        signature = self._signatures.get(path.name, "")
        self._entries[path.name] = replace(digest, cases=())
        self._read += 1
        if self._read == LONG:
            self._say(f"reading the files of {self._folder} for the index, once")
        if not signature or path.name in self._recent:
            return  # so it is read again the next time
        *values, codes, held, contents = _of_digest(digest)
        texts = map(self._id_of, (codes, held, contents))
        row = (path.name, signature, *values, *texts)
        self._unsaved.files.append(_checked(row))
        for one in digest.cases:
            *numbers, commit, conditions = _of_figures(one)
            row = (path.name, *numbers, self._id_of(commit), self._id_of(conditions))
            self._unsaved.figures.append(_checked(row))
        self._unsaved.verdicts += map(_checked, verdicts)
        if len(self._unsaved.files) >= BATCH:
            self.keep()

    def keep(self) -> None:
        """Write what was read to the database; what cannot be written is read again next time."""
        if not self._unsaved.files and not self._gone:
            return
        unsaved, self._unsaved = self._unsaved, _Unsaved()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for path in self._path.parent.glob("*"):  # what nobody asked for in a long time
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > UNUSED_S:
                        path.unlink()
            with closing(sqlite3.connect(self._path, WAIT_S, isolation_level=None)) as database:
                database.executescript(_SETTINGS + _TABLES)
                database.execute("BEGIN IMMEDIATE")
                self._write(database, unsaved)
                database.execute("COMMIT")
            self._gone = set()
        except (sqlite3.Error, OSError, OverflowError):  # a file's number may be SQLite's no more
            self._unsaved.texts = unsaved.texts  # what is written later may need them

    def _write(self, database: sqlite3.Connection, new: _Unsaved) -> None:
        known = {name for (name,) in database.execute("SELECT name FROM files")}
        old = known & {row[0] for row in new.files} | self._gone
        if old:
            database.execute("CREATE TEMP TABLE old (file PRIMARY KEY)")
            database.executemany("INSERT INTO old VALUES (?)", [(name,) for name in old])
            database.execute("DELETE FROM files WHERE name IN (SELECT file FROM old)")
            for table in ("figures", "verdicts"):
                database.execute(f"DELETE FROM {table} WHERE file IN (SELECT file FROM old)")
        database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", new.texts.items())
        for table, rows in (
            ("files", new.files),
            ("figures", sorted(new.figures, key=_case_in)),  # as they are laid out on the disk
            ("verdicts", sorted(new.verdicts, key=_case_in)),
        ):
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
