"""A case's processes in a cluster: their places, and those that a worker forks and monitors.

The processes on one machine stay in the worker's process group, so whoever ends the worker ends
them too; one of them that fails ends the worker, which would wait for it for ever in the
framework's own code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.core.processes import die_with_parent


@dataclass(frozen=True)
class Place:
    """One process of the several that share a case."""

    addresses: tuple[str, ...]
    """HOST:PORT of all of them, in the same order everywhere."""
    index: int
    """Which of them this is."""
    one_machine: bool = False
    """Whether all are on this machine, forked by the first, and share its GPUs, one each."""
    companions: tuple[int, ...] = ()
    """Process ids of the others, where they are on this machine and this is the first."""

    @classmethod
    def told(cls, cluster: Mapping[str, Any] | None) -> Place | None:
        """Return the place that a request tells; None for a case of one process."""
        if not cluster:
            return None
        return cls(
            addresses=tuple(cluster["addresses"]),
            index=int(cluster["index"]),
            one_machine=bool(cluster.get("one_machine")),
            companions=tuple(cluster.get("companions", ())),
        )

    @property
    def others(self) -> list[str]:
        """The addresses but this one's."""
        return [name for number, name in enumerate(self.addresses) if number != self.index]


OWN_WORD_S = 1.0
"""What makes one process fail often makes all of them fail: the first then speaks for itself."""

Work = Callable[[int], int]
"""Works, writes its events to the descriptor, and returns the exit status."""


def free_addresses(count: int) -> list[str]:
    """Return so many different addresses on 127.0.0.1 that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


class Companions:
    """The other processes; a context manager that ends them all."""

    def __init__(self, works: Sequence[Work], inherited: Sequence[int]) -> None:
        """Fork one process per work, before the framework has run anything.

        Args:
            inherited: descriptors of this process that are none of theirs.
        """
        self.pids: list[int] = []
        self._readers: list[int] = []
        self._over = False
        for work in works:
            self._fork(work, inherited)

    def __enter__(self) -> Companions:
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def watch(self, report: Callable[[dict[str, Any]], None]) -> None:
        """From now on report the failure of any of them as an event, and end this process."""
        for number, reader in enumerate(self._readers, 2):
            arguments = (number, reader, report)
            threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def _fork(self, work: Work, inherited: Sequence[int]) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in the zygote: no threads work
            parent = os.getpid()
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                die_with_parent(parent)
                for descriptor in (*inherited, reader, *self._readers):
                    os.close(descriptor)
                status = work(writer)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(writer)
        self.pids.append(pid)
        self._readers.append(reader)

    def _watch(self, number: int, reader: int, report: Callable[[dict[str, Any]], None]) -> None:
        written = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
        os.close(reader)
        last = json.loads(written.splitlines()[-1]) if written.endswith(b"\n") else {}
        if last.get("event") == "finished":
            return
        time.sleep(OWN_WORD_S)
        if self._over:
            return
        said = last.get("message") or "ended without a message"
        report(
            {
                "event": "failed",
                "status": last.get("status", "error"),
                "message": f"process {number} of the cluster: {said}",
            }
        )
        os._exit(0)
