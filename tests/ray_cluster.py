"""A real Ray cluster on 127.0.0.1: a head and one more node, ended by their process ids.

Not a test itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from fast_worker import PAUSE
from workers import happens, is_running

LAUNCHER = Path(__file__).with_name("ray_node.py")

QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    # a driver, too, takes this host for 127.0.0.1 then
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    PAUSE: "0.1",  # a second a job, for who is killed in it
}
START_LIMIT_S = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RayNode:
    """One `ray start --block` and everything under it."""

    def __init__(self, environ: dict[str, str], log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(LAUNCHER),
                    *("start", "--block", "--disable-usage-stats", "--num-cpus=1"),
                    *("--node-ip-address=127.0.0.1", "--object-store-memory=80000000"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *arguments,
                ],
                env=environ,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def under(self) -> list[psutil.Process]:
        """Return the processes of the node."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def await_start(self) -> None:
        started = "Ray runtime started"
        assert happens(lambda: started in self.log.read_text(), START_LIMIT_S), self.log.read_text()

    def raylet(self) -> psutil.Process:
        return next(process for process in self.under() if process.name() == "raylet")

    def addresses(self) -> set[str]:
        """Return where the node's processes listen."""
        found = set()
        for process in self.under():
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {
                    connection.laddr.ip
                    for connection in process.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                }
        return found

    def end(self) -> None:
        """End every process by its id, the parent first."""
        pids = [self.process.pid, *(process.pid for process in self.under())]
        for how, limit_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            deadline = time.monotonic() + limit_s
            self.process.poll()
            while any(map(is_running, pids)) and time.monotonic() < deadline:
                self.process.poll()
                time.sleep(0.05)
        self.process.wait()


class LocalCluster:
    """The head, in rack 1, and another node, in rack 2."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environ = {**os.environ, **QUICK}
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environ.pop("RAY_ADDRESS", None)
        self._folder = folder
        self.head = RayNode(
            self._of_nodes,
            folder / "head.log",
            *("--head", f"--port={self.port}", "--include-dashboard=false"),
            *(f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}"),
            f"--dashboard-agent-listen-port={free_port()}",  # its usual one may be taken by another
            "--labels=rack=1",
        )
        self.other: RayNode | None = None

    @property
    def _of_nodes(self) -> dict[str, str]:
        return {**self.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}

    def join(self) -> RayNode:
        """Start the other node."""
        self.other = RayNode(
            self._of_nodes,
            self._folder / "other.log",
            *(f"--address={self.address}", "--labels=rack=2"),
        )
        return self.other

    def leave(self) -> None:
        """End the other node."""
        if self.other is not None:
            self.other.end()
        self.other = None

    def end(self) -> None:
        self.leave()
        self.head.end()


@contextlib.contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """Give a cluster of two nodes; nothing of it is left after the block."""
    folder = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))  # the paths of sockets are short
    cluster = LocalCluster(folder)
    try:
        cluster.head.await_start()
        cluster.join().await_start()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
