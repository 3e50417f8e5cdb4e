"""The verdicts of a run, beside its file: every judgement of the last session that judged it.

    results/<machine>/0007.verdicts.csv    one row per (case, metric); columns as `Judgement`
    results/<machine>/verdicts.csv         of all runs, as earlier versions appended it: read only

`baseline_runs` is a list parted by spaces; changes, intervals and the smallest visible change are
shares (0.1 is 10 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from convmark.compare.judgement import VERDICTS, Judgement
from convmark.core.errors import StoreError
from convmark.results.record import from_cell, to_cell
from convmark.results.table_file import TableFile

__all__ = ["keep_verdicts", "said_of", "step_time_words", "verdicts_path", "verdicts_paths"]

FILE = "verdicts.csv"


def _lifted(cells: Mapping[str, str]) -> Mapping[str, str]:
    """Return a row of the version that also let history convict: today it convicts nobody."""
    if cells["unconfirmed"] != "true":
        return cells
    note = "; ".join(filter(None, [f"{cells['verdict']} by its history alone", cells["note"]]))
    return {**cells, "verdict": "inconclusive", "note": to_cell(note), "fails": "false"}


_NOW = list(Judgement.__dataclass_fields__)
_PLACE = _NOW.index("verdict") + 1
_TABLE = TableFile(Judgement, (*_NOW[:_PLACE], "unconfirmed", *_NOW[_PLACE:]), _lifted)
_RUN, _CASE, _METRIC, _VERDICT = (
    _TABLE.header.index(name) for name in ("run", "case", "metric", "verdict")
)


def verdicts_path(run: Path) -> Path:
    """Return where the verdicts on a run's file are kept."""
    return run.with_suffix(".verdicts.csv")


def verdicts_paths(run: Path) -> tuple[Path, Path]:
    """Return where they may be: the second is asked where the first does not know the run."""
    return verdicts_path(run), run.with_name(FILE)


def keep_verdicts(run: Path, judgements: Iterable[Judgement]) -> None:
    """Keep what was judged of a run in place of what was judged of it before.

    Raises:
        StoreError: the file cannot be written.
    """
    _TABLE.replace(verdicts_path(run), judgements)


def said_of(run: Path) -> list[Judgement]:
    """Return what was said last of each metric of a run, as its own session has judged it.

    Raises:
        StoreError: a file cannot be read, or does not fit; the message names file and line.
    """
    for path in verdicts_paths(run):
        last = {(one.case, one.metric): one for one in _TABLE.read(path) if one.run == run.stem}
        if last:
            return list(last.values())
    return []


def step_time_words(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield case, run and verdict of each step time in a file, in the order of their judging.

    Raises:
        StoreError: as `said_of`.
    """
    for line, cells in _TABLE.read_cells(path):
        if cells[_VERDICT] not in VERDICTS:
            raise StoreError(
                f"{path}:{line}: verdict must be one of {', '.join(VERDICTS)}, "
                f"got {cells[_VERDICT][:40]!r}"
            )
        if cells[_METRIC] == "step_time":
            try:
                case = from_cell(_TABLE.columns[_CASE], cells[_CASE])
            except ValueError as error:
                raise StoreError(f"{path}:{line}: column 'case' {error}") from None
            yield case, cells[_RUN], cells[_VERDICT]
