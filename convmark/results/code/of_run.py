"""The codes of one run: read from workers' events, compared with the commit, saved."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convmark.core.files import read_regular
from convmark.core.installed import in_environment
from convmark.results.code.manifest import (
    HERE,
    ZOO,
    Code,
    CodeFile,
    Roots,
    code_of,
    read_codes,
    write_codes,
)
from convmark.results.code.projects import changed_projects, other_copy
from convmark.results.code.snapshot import keep_files
from convmark.results.commit import are_of_commit, folder_changes
from convmark.worker.protocol import file_digest

__all__ = ["CodeReader", "KeptCodes", "ran_at"]

_WORD = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class CodeReader:
    """Tells the code of a process from what its worker says."""

    roots: Roots
    commit: str | None
    """Of the folder that the run was started in."""
    _known: dict[str, Code] = field(default_factory=dict, compare=False)

    @classmethod
    def at(cls, folder: Path, zoo: Path, commit: str | None) -> CodeReader:
        """Return the reader of a run that was started in a folder."""
        return cls(Roots.of(folder, zoo), commit)

    def code(self, event: Mapping[str, Any]) -> Code:
        """Return the code of an event `code`; the same code is held against the commit once.

        Raises:
            KeyError, TypeError: the event is garbled.
        """
        code = code_of(event, self.roots)
        if code.hash not in self._known:
            self._known[code.hash] = replace(code, of_commit=self._is_of_commit(code))
        return self._known[code.hash]

    def _is_of_commit(self, code: Code) -> bool:
        here = self.roots.folders[HERE]
        paths = [code.path_of(one.place) for one in code.files]
        inside = {path for path in paths if _is_in(here, path)}
        elsewhere = any(
            one.place.root != ZOO and path not in inside
            for one, path in zip(code.files, paths, strict=True)
        )
        if self.commit is None or elsewhere:
            return False
        if changed_projects(code.packages, here, here, self.commit):
            return False
        return _is_at(self.commit, here, inside)


def _is_in(repository: Path, path: Path) -> bool:
    """Whether a file is of a repository, and not of an environment that lies in it."""
    return path.is_relative_to(repository) and not in_environment(path, repository)


def ran_at(code: Code, repository: Path, sha: str) -> bool:
    """Whether a process would have run just this code at a commit of the repository.

    Of another copy of a project of the repository nothing is known.
    """
    top = repository.resolve()
    others = [Path(root) for name, root in code.roots.items() if name not in (HERE, ZOO)]
    if any(other_copy(one, top) for one in others):
        return False
    if changed_projects(code.packages, top, top, sha):
        return False
    inside = {}
    for one in code.files:
        path = code.path_of(one.place)
        if _is_in(top, path):
            inside[path] = one
    if any(file_digest(path) != (one.size_bytes, one.sha256) for path, one in inside.items()):
        return False
    return _is_at(sha, top, inside)


def _is_at(sha: str, top: Path, paths: Collection[Path]) -> bool:
    """Whether a process that read these files of a repository would do the same at a commit.

    Each file is the commit's. A process looks for files that are not there, too: so none of the
    commit's is gone, none leads elsewhere, and no new file or folder has a name that the code has
    in a string.
    """
    changes = folder_changes(top, sha)
    if changes is None or changes.altered or not are_of_commit(top, sha, paths):
        return False
    parts = {part for path in changes.added for part in (*path.parent.parts, path.stem)}
    names = {found[0] for part in parts if (found := _WORD.search(part))} - {"__init__"}
    return not names or all(names.isdisjoint(_words_of_strings(path)) for path in paths)


def _words_of_strings(path: Path) -> set[str]:
    """Return the words between quotes of a Python file; none of any other file."""
    if path.suffix != ".py":
        return set()
    lines = read_regular(path).decode(errors="replace").splitlines()
    quoted = (part for line in lines for part in re.split("['\"]", line)[1:-1])
    return {word for part in quoted for word in _WORD.findall(part)}


class KeptCodes:
    """The codes beside a run's file, and by which of them each case was measured."""

    def __init__(self, run: Path) -> None:
        """Describe them; nothing is read or written yet."""
        self._run = run
        self._codes: dict[str, Code] | None = None
        self._of_case: dict[str, str] = {}
        self.left_out: list[CodeFile] = []
        """Files that no commit has and that were too large to be kept."""

    def keep(self, code: Code) -> None:
        """Keep a code's manifest, and where no commit has it its files.

        Raises:
            StoreError: they cannot be written, or what is there is damaged.
        """
        if self._codes is None:
            self._codes = read_codes(self._run)
        if code.hash in self._codes:
            return
        self._codes[code.hash] = code
        if not code.of_commit:
            left_out = keep_files(self._run.parent, code)
            self.left_out += [one for one in left_out if one not in self.left_out]
        write_codes(self._run, self._codes)

    def other_than_before(self, case: str, code: str | None) -> str:
        """Say why a process's figures are not its case's; empty where its code is the case's.

        Args:
            case: the case's name in the plan.
            code: the hash of what the process ran; None where it is not known.
        """
        first = self._of_case.setdefault(case, code) if code else None
        if code is None or first == code:
            return ""
        changed = self._difference(first or "", code)
        return f"other code than the case's earlier processes ran: {changed} changed meanwhile"

    def _difference(self, first: str, second: str) -> str:
        """Name the files in which two codes differ."""
        codes = self._codes or {}
        if first not in codes or second not in codes:
            return "it"
        ours, theirs = set(codes[first].files), set(codes[second].files)
        names = sorted({str(one.place) for one in ours ^ theirs})
        return ", ".join(names[:3]) or "a package"
