"""The interface to pytest-benchmark's internals: storage, comparison and timer, in one file.

pytest-benchmark builds its session in `pytest_configure` and has no hook to replace its storage.
So its comparison is postponed until the items are known; with convmark's among them the storage
becomes the CSV folder, else everything goes on as if convmark were not there. Tried on 5.3.1; a
contract test holds the seam.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import pytest

from convmark.core.backends import BACKENDS
from convmark.core.case import Case
from convmark.plugin.replay import ReplayClock
from convmark.plugin.short import usage_error

if TYPE_CHECKING:
    from convmark.plugin.pytest_run import PytestRun
    from convmark.results.record import Record

FRAMEWORKS = (*BACKENDS, "keras")

_OPTIONS_OF_THE_TABLE = re.compile(
    r"--benchmark-(columns|sort|group-by|name|histogram|cprofile|verbose)"
)


class FallbackBenchmark:
    """Stands for pytest-benchmark where it is switched off (`-p no:benchmark`)."""

    @pytest.fixture
    def benchmark(self) -> None:
        """Nothing to report to."""
        return None


@dataclass
class Comparison:
    """pytest-benchmark's comparison, held back until it is known which tests there are."""

    asked: Any
    """The value of --benchmark-compare: absent (empty), True, or a name."""
    stray_folder: Path | None
    """The folder that pytest-benchmark makes for its own files, where it was not there before."""
    limits: Sequence[Any] = ()
    """The checks of --benchmark-compare-fail."""
    is_ours: bool = False
    """Whether it is of convmark's cases, were none of them selected."""

    @property
    def is_commit(self) -> bool:
        """Whether it is with a commit's code, of which pytest-benchmark knows nothing."""
        return isinstance(self.asked, str) and self.asked.startswith("git:")

    @classmethod
    def postpone(cls, config: pytest.Config) -> Comparison:
        """Take --benchmark-compare out of pytest-benchmark's sight.

        Raises:
            pytest.UsageError: the option has swallowed the path of the tests.
        """
        names = ("benchmark", "pytest_benchmark.plugin")  # by its entry point, or by -p
        if not any(map(config.pluginmanager.hasplugin, names)):
            config.pluginmanager.register(FallbackBenchmark(), "convmark-fallback-benchmark")
            return cls(asked=[], stray_folder=None)
        asked = config.option.benchmark_compare
        if isinstance(asked, str) and Path(asked).is_dir():
            raise usage_error(
                f"--benchmark-compare: took the folder {asked!r} for a run's name; put the path "
                f"first: pytest {asked} --benchmark-compare"
            )
        config.option.benchmark_compare = []
        storage = config.option.benchmark_storage
        folder = Path(storage.removeprefix("file://"))
        stray = "://" not in storage.removeprefix("file://") and not folder.exists()
        return cls(asked=asked, stray_folder=folder.absolute() if stray else None)

    def resume_as_it_was(self, config: pytest.Config) -> None:
        """Let pytest-benchmark compare by itself: none of the tests is convmark's."""
        session = _session(config)
        if session is None or not self.asked or self.is_commit:
            return
        config.option.benchmark_compare = session.compare = self.asked
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            session.handle_loading()
        for one in found:  # as they would have been, were it not for pytest's own collecting
            text = warnings.formatwarning(one.message, one.category, one.filename, one.lineno)
            sys.stderr.write(text)

    def resume(self, config: pytest.Config, run: PytestRun, *, others: bool) -> str:
        """Compare with the CSV history; return a line for the user, empty when none is needed.

        Args:
            others: whether the session has benchmarks that are not convmark's: these keep their
                storage, what they are compared with, and their limits.

        Raises:
            ConvmarkError: the run that was named does not exist or cannot be read.
        """
        session = _session(config)
        if session is None:
            return ""
        storage = CsvStorage(run, session.storage)
        self.limits, session.compare_fail = session.compare_fail or (), None
        if self.limits and not self.asked:
            raise usage_error("--benchmark-compare-fail: needs --benchmark-compare")
        if self.limits and self.is_commit:
            raise usage_error(
                f"--benchmark-compare-fail: compares with an earlier run, and {self.asked} "
                "is none; leave it out, or name a run by --benchmark-compare"
            )
        found: dict[Any, Any] = {}
        if others and self.asked and not self.is_commit:
            self._load(config, session)
            found |= session.compared_mapping
            session.compare_fail = [OfOthers(limit, storage) for limit in self.limits]
        session.storage = storage
        if not self.asked or self.is_commit:
            return ""
        line = ""
        if self.asked is True and storage.newest() is None:
            line = f"nothing to compare with yet: {storage} has no earlier run of these cases"
        else:
            self._load(config, session)
            found |= session.compared_mapping
        session.compared_mapping = found
        return line

    def _load(self, config: pytest.Config, session: Any) -> None:
        """Make pytest-benchmark load what was asked for from its present storage."""
        config.option.benchmark_compare = session.compare = self.asked
        session.handle_loading()

    def failures(self, config: pytest.Config, benchmark: Any) -> list[str]:
        """Say which limits the benchmark breaks against which run: the tests fail, not the end."""
        session = _session(config)
        if session is None or not self.limits or benchmark is None or not benchmark.stats:
            return []
        found = []
        for path, compared in session.compared_mapping.items():
            if benchmark.fullname not in compared:
                continue
            earlier = compared[benchmark.fullname]["stats"]
            for limit in self.limits:
                if broken := limit.fails(benchmark.stats, earlier):
                    found.append(f"{benchmark.fullname}: against {path}: {broken}")
        return found

    def remove_stray_folder(self) -> None:
        """Remove the empty folder that pytest-benchmark makes at start-up and again to save."""
        if self.stray_folder is not None:
            with contextlib.suppress(OSError):  # not there, or not empty
                self.stray_folder.rmdir()


@dataclass(frozen=True)
class OfOthers:
    """A limit of pytest-benchmark's, for the benchmarks that are not convmark's."""

    limit: Any
    storage: CsvStorage

    def fails(self, current: Any, compared: Any) -> Any:
        """Return what the limit says of a benchmark that is not ours; None for ours."""
        if self.storage.is_ours(current.fullname):
            return None
        return self.limit.fails(current, compared)


def replaced_by(config: pytest.Config) -> str:
    """Return the option of a plugin that has put its own `benchmark` in place; empty without."""
    plugin = config.pluginmanager.get_plugin("codspeed_plugin")
    return "--codspeed" if getattr(plugin, "is_codspeed_enabled", False) else ""


def _session(config: pytest.Config) -> Any:
    return getattr(config, "_benchmarksession", None)


def stores_rows(config: pytest.Config) -> bool:
    """Whether pytest-benchmark has the CSV folder as its storage now."""
    return isinstance(getattr(_session(config), "storage", None), CsvStorage)


def is_disabled(config: pytest.Config) -> bool:
    """Whether the user wants no measuring: --benchmark-disable, or xdist."""
    session = _session(config)
    return bool(session is not None and session.disabled)


def drop_comparison(config: pytest.Config) -> None:
    """Compare nothing where nothing is measured."""
    session = _session(config)
    if session is not None:
        session.compare_fail = None


def hide_table(config: pytest.Config) -> None:
    """Leave out pytest-benchmark's table where it has nothing but cases and nobody asks for it.

    `-v`, or an option of the table, asks for it. Limits are checked all the same.
    """
    session = _session(config)
    if session is None or not isinstance(session.storage, CsvStorage) or config.option.verbose > 0:
        return
    asked = [os.environ.get("PYTEST_ADDOPTS", ""), *config.getini("addopts")]
    words = " ".join(map(str, [*asked, *config.invocation_params.args]))
    if _OPTIONS_OF_THE_TABLE.search(words):
        return
    if all(session.storage.is_ours(benchmark.fullname) for benchmark in session.benchmarks):
        session.quiet = True


def prepare_replay(item: pytest.Item, case: Case, run: PytestRun) -> None:
    """Give the item's `benchmark` fixture the clock that replays the case's steps."""
    if _session(item.config) is None:
        return
    clock = ReplayClock(run.step_times_s(case))
    group = run.stands_for(case).group
    item.add_marker(pytest.mark.benchmark(timer=clock, group=group), append=False)


def progress_stream(config: pytest.Config) -> TextIO | None:
    """Where progress can be shown past pytest's capturing; None under -qq or without terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < -1:
        return None
    reporter.ensure_newline()
    return cast(TextIO, reporter._tw._file)


class CsvStorage:
    """pytest-benchmark's storage over the CSV folder; rows are saved as they are measured."""

    def __init__(self, run: PytestRun, of_others: Any) -> None:
        """Wrap a storage.

        Args:
            of_others: that of benchmarks which are not convmark's.
        """
        self._run = run
        self._of_others = of_others
        self._store = run.store
        self._machine = run.machine.name

    def __str__(self) -> str:
        return str(self._store.folder / self._machine)

    @property
    def location(self) -> str:
        """Where pytest-benchmark says that its files are."""
        return str(self)

    def save(self, output_json: dict[str, Any], name: str) -> None:
        """Save what is not convmark's; every run of its own is saved row by row, asked for or not.

        The machine is told as it is where none of the session's benchmarks is convmark's.
        """
        from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

        others = [one for one in output_json["benchmarks"] if not self.is_ours(one["fullname"])]
        if others:
            info = pytest_benchmark_generate_machine_info()
            self._of_others.save({**output_json, "benchmarks": others, "machine_info": info}, name)

    def is_ours(self, fullname: str) -> bool:
        """Whether a benchmark is convmark's: it then has the name of a case."""
        cases = {self._run.stands_for(case).name for case in self._run.cases}
        return fullname in cases | {row.case.name for row in self._run.records}

    def newest(self) -> tuple[Path, list[Record]] | None:
        """The newest earlier run that measured any of this session's cases.

        Runs that cannot be read are left out, with one `StoreWarning` for all.
        """
        from convmark.compare.earlier import EarlierRuns
        from convmark.results.store import same_file

        runs = self._store.runs(self._machine)
        earlier = EarlierRuns(self._store.folder / self._machine, runs)
        names = {case.name for case in self._run.cases}
        found = None
        for path in reversed(runs):
            if same_file(path, self._run.resumed):  # it is this run
                continue
            if any(name in names for name, _ in earlier.entry(path).judged):
                found = path, [row for _, _, row in earlier.rows(path)]
                break
        earlier.close()
        return found

    def load(self, *names: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the named runs, or the newest earlier one, as pytest-benchmark wants them.

        Raises:
            ConvmarkError: there is no such run, or it cannot be read.
        """
        from convmark.results.reading import read_run

        found = self.newest()
        runs = [found] if found and not names else []
        for name in names:
            path = self._store.find(name, self._machine, but=self._run.resumed)
            runs.append((path, read_run(path)))
        for path, records in runs:
            inside = path.parent == self._store.folder / self._machine
            yield Path(path.name) if inside else path, _as_benchmarks(path, records)


def comparability(
    machine: str | None, versions: Iterable[Mapping[str, Any]], threads: str | None
) -> dict[str, Any]:
    """Return the facts that two runs must share for pytest-benchmark to compare them silently.

    Args:
        versions: the frameworks' by their names, of each backend or each row.
    """
    known = {name: version for found in versions for name, version in found.items() if version}
    named = {name: known[name] for name in FRAMEWORKS if name in known}
    return {"machine": machine, **named, "threads": threads}


def _as_benchmarks(path: Path, records: Sequence[Record]) -> dict[str, Any]:
    from convmark.report.summary import by_case

    timed = [row for row in records if row.measured and row.step_time_p50_s is not None]
    benchmarks = [
        {"fullname": name, "name": name, "stats": _stats(path, rows)}
        for name, rows in by_case(timed).items()
    ]
    info = {}
    if records:
        first = records[0]
        versions = [{name: getattr(row, name) for name in FRAMEWORKS} for row in records]
        threads = ",".join(sorted({row.threads for row in records}))
        info = comparability(first.machine, versions, threads)
    return {"machine_info": info, "benchmarks": benchmarks}


def _stats(path: Path, rows: Sequence[Record]) -> dict[str, Any]:
    """Return pytest-benchmark's statistics of the case's pooled steps.

    They come from the raw step times beside the file, or, where those are gone, from the rows:
    exact but for the quartiles, which are then the median over processes.
    """
    from pytest_benchmark.stats import Stats

    from convmark.results.store import read_step_times

    times_s = read_step_times(path, [row.order for row in rows])
    if times_s is None:
        return _stats_of_rows(rows)
    stats = Stats()
    for seconds in times_s:
        stats.update(float(seconds))
    return {**stats.as_dict(), "iterations": 1}


def _stats_of_rows(rows: Sequence[Record]) -> dict[str, Any]:
    from statistics import median

    def values(name: str) -> list[float]:
        return [getattr(row, name) for row in rows]

    counts = [row.steps or 0 for row in rows]
    total = sum(counts)
    means = values("step_time_mean_s")
    mean = sum(n * m for n, m in zip(counts, means, strict=True)) / total
    squares = sum(
        (n - 1) * (std or 0.0) ** 2 + n * (m - mean) ** 2
        for n, m, std in zip(counts, means, values("step_time_std_s"), strict=True)
    )
    q1, q3 = median(values("step_time_p25_s")), median(values("step_time_p75_s"))
    return {
        "min": min(values("step_time_min_s")),
        "max": max(values("step_time_max_s")),
        "mean": mean,
        "stddev": (squares / (total - 1)) ** 0.5 if total > 1 else 0.0,
        "median": median(values("step_time_p50_s")),
        "q1": q1,
        "q3": q3,
        "iqr": q3 - q1,
        "ops": 1 / mean,
        "total": mean * total,
        "rounds": total,
        "iterations": 1,
        "outliers": "",
    }
