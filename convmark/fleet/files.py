"""The caller's run files of a fleet: a run for each plan and node that measures it.

A case that went from a lost node to another is in a run of its own, for the other node has a run
already in which it may stand.
"""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Mapping
from pathlib import Path

from convmark.results.record import Record
from convmark.results.run_file import RunFile
from convmark.results.store import Store
from convmark.session.result import Result
from convmark.session.run import with_kept_code, with_kept_stack

__all__ = ["Key", "RunFiles", "hold_many_files"]

Key = tuple[str, str]
"""The node whose plan it is, and the node that measures."""


class RunFiles:
    """Made as rows come; a row is on the disk when `append` returns."""

    def __init__(self, store: Store, machines: Mapping[str, str]) -> None:
        """Describe the files; none is made yet.

        Args:
            machines: by node the machine's name, its results folder.
        """
        self._store = store
        self._machines = machines
        self._files: dict[Key, RunFile] = {}
        self.records: dict[Key, list[Record]] = {}
        """All rows of each run, those of before it was interrupted included."""

    def go_on(self, key: Key, run_file: RunFile, records: list[Record]) -> None:
        """Take over a run that was interrupted."""
        self._files[key] = run_file
        self.records[key] = list(records)

    def append(self, key: Key, result: Result) -> Record:
        """Keep a row, and return it as it is kept.

        Raises:
            StoreError: it cannot be written.
        """
        if key not in self._files:
            self._files[key] = self._store.create_run(self._machines[key[1]])
        run_file = self._files[key]
        record = with_kept_stack(with_kept_code(result, run_file), run_file.path).record
        record = dataclasses.replace(record, run=run_file.run)
        run_file.append(record, result.step_times_s)
        self.records.setdefault(key, []).append(record)
        return record

    def paths(self) -> dict[Key, Path]:
        """Return the files that have rows."""
        return {key: run_file.path for key, run_file in self._files.items() if self.records[key]}

    def close(self) -> None:
        """Close all files."""
        for run_file in self._files.values():
            run_file.close()


def hold_many_files(count: int) -> None:
    """Let this process hold so many files open, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
