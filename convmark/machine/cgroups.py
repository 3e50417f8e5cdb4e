"""Limits of CPU time and memory by Linux cgroups, such as those of a container.

In a container the path in /proc/self/cgroup may be the host's, which does not exist below the
mount; its ancestors are looked at too, and the last of them is the container's own cgroup.

Sources: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from convmark.core.text import file_text

__all__ = ["cpu_quota", "memory_left_bytes", "own_cpu_quota"]

_RECLAIMABLE = ("inactive_file", "total_inactive_file")
"""Of memory.stat: file pages that the kernel drops before it lets an allocation fail."""


def cpu_quota(membership: str, mount: Path) -> float | None:
    """Return the cores' worth of CPU time that the strictest cgroup allows, None if unlimited.

    Args:
        membership: the text of /proc/self/cgroup.
        mount: where the cgroups are mounted, usually /sys/fs/cgroup.
    """
    folders = _folders(membership, mount, "cpu")
    quotas = [quota for folder in folders if (quota := _folder_quota(folder)) is not None]
    return min(quotas, default=None)


def own_cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the cores' worth of CPU time that this process may use, None if unlimited."""
    return cpu_quota(file_text(root / "proc/self/cgroup"), root / "sys/fs/cgroup")


def memory_left_bytes(membership: str, mount: Path) -> int | None:
    """Return how much more memory the strictest cgroup allows, None where none limits it.

    Args:
        membership, mount: as those of `cpu_quota`.
    """
    folders = _folders(membership, mount, "memory")
    left = [size for folder in folders if (size := _folder_left(folder)) is not None]
    return min(left, default=None)


def _folders(membership: str, mount: Path, controller: str) -> list[Path]:
    """Return where a controller's files of the process's cgroup and its ancestors may lie."""
    folders: dict[Path, None] = {}
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        bases = [mount, mount / "unified"]
        if controllers:
            bases = [mount / controller, mount / controllers]
        inner = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(inner) + 1):
            folders.update({base.joinpath(*inner[:depth]): None for base in bases})
    return list(folders)


def _folder_quota(folder: Path) -> float | None:
    """Read one cgroup: `cpu.max` of version 2, or the pair of files of version 1."""
    words = file_text(folder / "cpu.max").split() or [
        *file_text(folder / "cpu.cfs_quota_us").split(),
        *file_text(folder / "cpu.cfs_period_us").split(),
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # no limit: `max` in version 2, -1 in version 1
    quota_us, period_us = map(int, words)
    return quota_us / period_us if quota_us and period_us else None


def _folder_left(folder: Path) -> int | None:
    """Read one cgroup's limit and use; version 1 has no limit as a number that no machine has."""
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _bytes(folder / most), _bytes(folder / now)
        if limit is not None and used is not None:
            return max(0, limit - used + _reclaimable(file_text(folder / "memory.stat")))
    return None


def _bytes(path: Path) -> int | None:
    text = file_text(path).strip()
    return int(text) if text.isdecimal() else None


def _reclaimable(stat: str) -> int:
    found = dict(re.findall(r"^(\w+) (\d+)$", stat, re.MULTILINE))
    return int(next((found[name] for name in reversed(_RECLAIMABLE) if name in found), 0))
