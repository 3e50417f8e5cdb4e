"""What lies beside the user's repository, which the code of a commit may read and not change.

The tree of a commit has links beside it to what the repository has beside it, so that `../data` is
found. What that code would write there is the user's own, and today's code may read it. Only what
Python itself opens, makes and removes is told before it is done; native code is not held to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

from convmark.core.installed import TREE_PREFIX
from convmark.worker.packages import is_inside

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ONE_PATH = ("os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime")
CHANGES = {
    **dict.fromkeys((*_ONE_PATH, "open", "shutil.rmtree"), (0,)),
    **{"os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,)},
}
"""Audit events of what may change a file or folder, and the places of its paths. Any other event
must cost the two codes of a comparison as much: there are many in a step."""


class Beside:
    """What the trees of commits have beside them by links; hidden names, such as caches, are free.

    Attributes:
        places: the real files and folders; none where no code is a commit's.
        refused: the first that was to be changed, until it is told; code may go on without.
    """

    def __init__(self, folders: Iterable[str], counts: Callable[[str], bool]) -> None:
        """Look for the links.

        Args:
            folders: those that a code lies in.
            counts: whether a real path may be the user's, and no part of an installation.
        """
        self._counts, self.refused = counts, ""
        found = []
        for folder in folders:
            before, prefix, after = folder.partition(os.sep + TREE_PREFIX)
            if prefix:
                top = before + prefix + after.partition(os.sep)[0]
                with contextlib.suppress(OSError), os.scandir(top) as entries:
                    links = [one.path for one in entries if one.is_symlink()]
                    found += [one for one in links if not os.path.basename(one).startswith(".")]
        self.places = tuple(dict.fromkeys(map(os.path.realpath, found)))

    def keep(self, event: str, arguments: Any) -> None:
        """Refuse what an audit event of `CHANGES` tells of before it is done.

        Raises:
            PermissionError: something of the user's would be changed.
        """
        if not self.places or (event == "open" and not is_to_write(*arguments[1:])):
            return
        for path in (arguments[place] for place in CHANGES[event]):
            if isinstance(path, (str, bytes, os.PathLike)):
                real = os.path.realpath(os.fsdecode(path))
                if is_inside(real, self.places) and self._counts(real):
                    self.refused = self.refused or real
                    reason = "a comparison changes nothing beside the repository"
                    raise PermissionError(errno.EACCES, reason, real)


def is_to_write(mode: Any, flags: Any) -> bool:
    """Whether an audit event `open` is of a file that may be changed."""
    return bool(set("wax+") & set(mode or "") or (flags or 0) & _WRITES)
