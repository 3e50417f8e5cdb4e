"""What is the user's and within reach of a commit's or a run's code, which may read it alone.

The tree of a commit has links beside it to what the repository has beside it, so that `../data` is
found; that of a run has second names of files that are too large to be kept. What the code would
write there is the user's own, and today's code may read it. Only what Python itself opens, makes
and removes is told before it is done; native code is not held to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any

from convmark.core.installed import TREE_PREFIX
from convmark.worker.packages import is_inside

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OF_CONTENT = ("open", "os.chmod", "os.truncate", "os.utime")
CHANGES = {
    **dict.fromkeys((*_OF_CONTENT, "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"), (0,)),
    **{"os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,)},
}
"""Audit events of what may change a file or folder, and the places of its paths. Any other event
must cost the two codes of a comparison as much: there are many in a step."""
_FAILS_IF = {"os.mkdir": True, **dict.fromkeys(("os.remove", "os.rmdir", "shutil.rmtree"), False)}
"""Events whose call changes nothing where its path is there, or is not, which it says itself."""


class Beside:
    """What the trees have beside them by links; hidden names, such as caches, are free.

    Attributes:
        refused: the first file that was to be changed, until it is told; code may go on without.
    """

    def __init__(self, folders: Iterable[str], counts: Callable[[str], bool]) -> None:
        """Look for the links.

        Args:
            folders: those that a code lies in.
            counts: whether a real path may be the user's, and no part of an installation.
        """
        self._counts, self.refused = counts, ""
        parts = (folder.partition(os.sep + TREE_PREFIX) for folder in folders)
        tops = {before + tree + name.partition(os.sep)[0] for before, tree, name in parts if tree}
        self._tops = tuple(map(os.path.realpath, tops))
        found = []
        for top in self._tops:
            with contextlib.suppress(OSError), os.scandir(top) as entries:
                links = [one for one in entries if one.is_symlink()]
                found += [one.path for one in links if not one.name.startswith(".")]
        self._places = tuple(map(os.path.realpath, found))

    def keep(self, event: str, arguments: Any) -> None:
        """Refuse what an audit event of `CHANGES` tells of before it is done.

        Raises:
            PermissionError: something of the user's would be changed.
        """
        if not self._tops or (event == "open" and not is_to_write(*arguments[1:])):
            return
        for path in (arguments[place] for place in CHANGES[event]):
            if isinstance(path, (str, bytes, os.PathLike)):
                if _FAILS_IF.get(event) is os.path.lexists(path):
                    continue
                real = os.path.realpath(os.fsdecode(path))
                is_beside = is_inside(real, self._places) and self._counts(real)
                if is_beside or (event in _OF_CONTENT and self._has_another_name(real)):
                    self.refused = self.refused or real
                    reason = "a comparison changes no file of yours"
                    raise PermissionError(errno.EACCES, reason, real)

    def _has_another_name(self, real: str) -> bool:
        """Whether a file of a tree is a file of the user's too."""
        with contextlib.suppress(OSError):
            if is_inside(real, self._tops):
                told = os.stat(real)
                return stat.S_ISREG(told.st_mode) and told.st_nlink > 1
        return False


def is_to_write(mode: Any, flags: Any) -> bool:
    """Whether an audit event `open` is of a file that may be changed."""
    return bool(set("wax+") & set(mode or "") or (flags or 0) & _WRITES)
