"""A static site of results of many people: one page, and parts of data that it loads on demand.

    index.html      the page: at first it holds no data
    groups.js       one line of figures for each case, machine, version and contributor
    parts/0000.js   the rows, `PART` in each, those of a group one after the other, newest first
    rows.parquet    the same rows for other programs, where pyarrow is installed

A part is a script that calls one function, for a page that was opened from the disk may load
scripts and nothing else. Every text in it is JSON in ASCII.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmark import __version__
from convmark.core.case import Case
from convmark.core.table import FACETS
from convmark.core.text import natural_order
from convmark.report.keras_applications import (
    BATCH_SIZE,
    HARDWARE,
    PUBLISHED,
    SOURCE,
    is_published,
)
from convmark.report.page import environment, own, stretches
from convmark.report.rows import alike, group_of, read_rows, text_of
from convmark.report.suspicion import unclean
from convmark.results.record import BUSY_SHARE, FRAMEWORK_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from convmark.report.rows import Rows

PART = 5_000
"""Rows of a part: some 500 kB."""

PARQUET = "rows.parquet"

_AXES = tuple(Case.__dataclass_fields__)
_FIGURES = ("throughput_samples_per_s", "step_time_p50_s", "accuracy")
_SOFTWARE = ("convmark", "python", *FRAMEWORK_COLUMNS, "keras", "numpy", "cuda", "cudnn", "flags")
_HARDWARE = ("cpu", "cores", "gpu", "driver", "os")
_STATE = ("dirty", "code", "concurrent", "throttle_reasons", "not_judged", "unsteady")
_KEPT = (
    *("commit", "backend", "state", "other_cpu_share", "parameters", "asked_shape"),
    *dict.fromkeys((*_FIGURES, *_SOFTWARE, *_HARDWARE, *_STATE)),
)

GROUP = {**FACETS, "cases": "cases", "source": "contributor"}
"""What the rows of a group share, and what they are chosen by: column and label."""

SHOWN = {
    "started": "started (UTC)",
    "status": "status",
    "state": "not clean",
    "code": "code",
    "commit": "commit",
    "software": "software",
    "hardware": "hardware",
    "file": "file",
    "line": "line",
}
"""The provenance of a row, beside its figures."""


def site_files(places: Sequence[Path], *, made: str) -> Iterator[tuple[str, bytes]]:
    frame = _frame(read_rows(places, _KEPT, named=False))
    groups = frame.groupby("group", sort=False)
    words = {
        "rows": len(frame),
        "groups": groups.ngroups,
        "contributors": frame["source"].nunique(),
        "machines": frame["machine"].nunique(),
    }
    parquet = importlib.util.find_spec("pyarrow") is not None
    page = (
        environment()
        .get_template("site.html")
        .render(
            style=own("report.css") + own("site.css"),
            script=own("site.js"),
            made=made,
            version=__version__,
            words=words,
            keras={"source": SOURCE, "batch_size": BATCH_SIZE},
            parquet=PARQUET if parquet else None,
        )
    )
    yield "index.html", page.encode()
    yield "groups.js", _call("groups", _groups(frame, groups))
    for number, start in enumerate(range(0, len(frame), PART)):
        part = {
            name: _column(frame[name].iloc[start : start + PART]) for name in (*SHOWN, *_FIGURES)
        }
        yield f"parts/{number:04d}.js", _call("part", number, part)
    if parquet:
        names = dict.fromkeys(("case", *GROUP, *_FIGURES, *SHOWN))
        data = io.BytesIO()
        frame[list(names)].to_parquet(data, engine="pyarrow", index=False)
        yield PARQUET, data.getvalue()


def _call(name: str, *arguments: Any) -> bytes:
    """Return a script that hands data to the page, in ASCII: no text in it can be anything else."""
    told = ",".join(json.dumps(one, allow_nan=False, separators=(",", ":")) for one in arguments)
    return f"site.{name}({told});\n".encode("ascii")


# -- the rows --------------------------------------------------------------------------------------


def _frame(rows: Rows) -> pd.DataFrame:
    """Return the rows with what the site shows of each, those of a group together."""
    frame = rows.frame
    started = frame["started"].str.slice(0, 19).str.replace("T", " ")
    source = frame["source"].to_numpy()
    sources, files = _sources([run.path for run in rows.runs])
    firsts = np.r_[0, np.flatnonzero(np.diff(source)) + 1]  # the rows of a file lie together
    first = np.repeat(firsts, np.diff(np.r_[firsts, len(frame)]))
    frame = frame.assign(
        started=started,
        line=np.arange(len(frame)) - first + 2,
        file=np.array(files, dtype=object)[source],
        source=np.array(sources, dtype=object)[source],
        software=_joined(frame, (*_SOFTWARE, "state")),
        hardware=_joined(frame, _HARDWARE),
        state=_unclean(frame),
        cases=_cases(frame),
    )
    frame["of_keras"] = _of_keras(frame)
    keys = ["case", *GROUP]
    for name in keys:
        frame[name] = _naturally(frame[name])
    frame = frame.sort_values(
        [*keys, "started"], kind="stable", ascending=[True] * len(keys) + [False]
    )
    return frame.assign(
        group=frame.groupby(keys, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    ).reset_index(drop=True)


def _sources(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return of each run who contributed it, by the folder, and the file as the site names it.

    A folder's name has as few parts of its path, from its end, as tell all folders apart.
    """
    parts = [path.resolve().parent.parent.parts for path in paths]
    few = next(n for n in itertools.count(1) if len({*parts}) == len({one[-n:] for one in parts}))
    sources = ["/".join(one[-few:]) for one in parts]
    return sources, [
        f"{source}/{path.resolve().parent.name}/{path.name}"
        for source, path in zip(sources, paths, strict=True)
    ]


def _rows_of(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in names), strict=True)


def _joined(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return of each row what the columns say, by name."""

    @functools.cache
    def text(*values: Any) -> str:
        pairs = zip(names, map(text_of, values), strict=True)
        return ", ".join(
            f"{name} {value.removesuffix('.0') if name == 'cores' else value}"
            for name, value in pairs
            if value
        )

    filled = [
        frame[name].fillna("") if frame[name].dtype != object else frame[name] for name in names
    ]
    return [text(*values) for values in zip(*(one.tolist() for one in filled), strict=True)]


def _cases(frame: pd.DataFrame) -> list[str]:
    """Return of each row what is alike in cases that can be compared: all but model and device."""

    @functools.cache
    def text(shape: str, *values: Any) -> str:
        return group_of({**dict(zip(_AXES, values, strict=True)), "asked_shape": shape}, "task")

    asked = frame["asked_shape"].map(text_of)
    return [text(*values) for values in _rows_of(frame.assign(asked=asked), ("asked", *_AXES))]


_TIMES_OF_KERAS = group_of(
    {name: field.default for name, field in Case.__dataclass_fields__.items()}
    | {"task": "infer", "batch_size": BATCH_SIZE},
    "task",
)
"""The cases whose times Keras publishes of its applications."""


def _of_keras(frame: pd.DataFrame) -> list[bool]:
    """Return of each row whether it is of a network and a case whose time Keras publishes."""

    @functools.cache
    def known(cases: str, model: str, parameters: float) -> bool:
        timed = cases == _TIMES_OF_KERAS and is_published(model, parameters)
        return timed and PUBLISHED[model].cpu_ms is not None

    columns = frame["cases"], frame["model"], frame["parameters"].fillna(0)
    return [known(*values) for values in zip(*(one.tolist() for one in columns), strict=True)]


def _unclean(frame: pd.DataFrame) -> list[str]:
    """Return of each row the rules that its state breaks."""
    names = (*_STATE, "status", "commit")

    @functools.cache
    def text(busy: bool, *values: Any) -> str:
        row = {**dict(zip(names, values, strict=True)), "other_cpu_share": float(busy)}
        return ", ".join(rule for rule, _ in unclean(row))

    shared = frame.assign(
        code=frame["code"].notna().to_numpy(),
        commit=None,
        other=frame["other_cpu_share"] >= BUSY_SHARE,
    )
    return [text(*values) for values in _rows_of(shared, ("other", *names))]


def _naturally(values: pd.Series) -> pd.Categorical:
    """Return a column whose order is the natural one of its texts; absent is an empty one."""
    import pandas as pd

    if values.dtype.kind == "f":
        return pd.Categorical(values.map("{:.0f}".format), ordered=True)
    texts = values.astype(object).where(values.notna(), "")
    return pd.Categorical(texts, categories=sorted(texts.unique(), key=natural_order), ordered=True)


# -- the data of the page --------------------------------------------------------------------------


def _groups(frame: pd.DataFrame, groups: Any) -> dict[str, Any]:
    """Return one row per group: what it is of, its rows, and the median of each figure.

    Values are in the order that a column is sorted by.
    """
    import pandas as pd

    firsts = groups.head(1)
    newest = _like_newest(frame).groupby("group", sort=False)
    medians = newest[list(_FIGURES)].median().reindex(range(groups.ngroups))
    ordered = {name: firsts[name] for name in ("case", *GROUP)}
    ordered["newest"] = pd.Series(_naturally(firsts["started"].str.slice(0, 10)))
    columns = {
        name: {"values": list(one.cat.categories), "at": stretches(one.cat.codes.tolist())}
        for name, one in ordered.items()
    }
    unclean_rows = frame["state"].ne("").groupby(frame["group"], sort=False).sum()
    return {
        "part": PART,
        "facets": GROUP,
        "shown": SHOWN,
        "columns": columns,
        "rows": stretches(groups.size().tolist()),
        "alike": stretches(newest.size().reindex(range(groups.ngroups), fill_value=0).tolist()),
        "unclean": stretches(unclean_rows.tolist()),
        "of_keras": stretches(groups["of_keras"].all().astype(int).tolist()),
        "keras": {
            "hardware": HARDWARE,
            "models": {
                name: [line.cpu_ms, line.gpu_ms]
                for name, line in PUBLISHED.items()
                if line.cpu_ms is not None
            },
        },
        "figures": {name: _numbers(medians[name]) for name in _FIGURES},
    }


def _like_newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with figures that are of the software, hardware and code of the newest such.

    A row without a code has its commit's.
    """
    measured = frame[frame[list(_FIGURES)].notna().any(axis=1)]
    code = measured["code"].where(measured["code"].notna(), measured["commit"])
    measured = measured.assign(
        like=alike(measured.assign(ran=code), ("software", "hardware", "ran"))
    )
    first = measured.groupby("group", sort=False)["like"].transform("first")
    return measured[measured["like"] == first]


def _numbers(values: pd.Series) -> list[float | None]:
    """Return numbers with six digits, None where absent."""
    return [None if value != value else float(f"{value:.6g}") for value in values.tolist()]


def _column(values: pd.Series) -> Any:
    """Return a column of a part: numbers as they are, of texts each distinct one once."""
    import pandas as pd

    if values.dtype.kind == "i":
        return values.tolist()
    if values.dtype.kind == "f":
        return _numbers(values)
    at, distinct = pd.factorize(values.astype(object).where(values.notna(), ""))
    return {"values": distinct.tolist(), "at": at.tolist()}
