"""The process that serves requests, and the worker processes that it makes for them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from convmark.core.errors import WorkerError
from convmark.interpreter.follower import cause, tail
from convmark.worker.protocol import DATAGRAM_BYTES, encode, one_line

INTERPRETER_LOST = "the worker's interpreter"
"""How a message begins whose subject is the serving process, and not what it served."""
GRACE_S = 1.0
"""Seconds between asking a worker to end and killing it."""
STATUS_S = 2.0
"""Seconds to wait for the exit status of a worker that has closed its pipe."""
START_LIMIT_S = 180.0
"""Seconds an interpreter may take to import its framework."""

_BOOTSTRAP = Path(__file__).resolve().parent.parent / "worker" / "bootstrap.py"
_SERVES = "convmark.worker.zygote"


class ServerLost(Exception):
    """The serving process is gone or silent."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A process that serves requests over its control socket."""

    def __init__(
        self,
        command: list[str],
        *,
        settings: dict[str, Any],
        environ: Mapping[str, str],
        folder: Path,
        log: Path | None,
    ) -> None:
        self.fork = bool(settings["fork"])
        self.statuses: dict[int, int] = {}
        """Exit statuses that were reported while another worker was waited for."""
        self.left: dict[int, list[str]] = {}
        """Names of the processes that each worker left running, and that were ended."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, _socket_kind())
        more = {"control": theirs.fileno(), "module": _SERVES}
        arguments = json.dumps({**settings, **more})
        self._log = log
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(theirs.close)
                output = stack.enter_context(log.open("wb")) if log else None
                self.process = subprocess.Popen(
                    [*command, str(_BOOTSTRAP), arguments],
                    stdin=subprocess.DEVNULL if log else None,
                    stdout=output,
                    stderr=output,
                    env=dict(environ),
                    cwd=folder,
                    pass_fds=[theirs.fileno()],
                    start_new_session=log is not None,
                )
        except OSError as error:
            self.control.close()
            raise WorkerError(
                f"{command[0]}: the interpreter cannot be started: {one_line(error)}"
            ) from None
        try:
            self._await_serving(command[0])
        except BaseException:
            self.close()
            raise

    def _await_serving(self, python: str) -> None:
        try:
            reply = self.reply(START_LIMIT_S)
        except ServerLost as lost:
            raise WorkerError(f"{python}: {lost} before it served{tail(self._log)}") from None
        if "failed" in reply:
            raise WorkerError(f"{python}: {reply['failed']}; see `convmark doctor`")

    def reply(self, limit_s: float) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            ServerLost: none came within the limit, or the process is gone.
        """
        if not select.select([self.control], [], [], limit_s)[0]:
            raise ServerLost(f"{INTERPRETER_LOST} was silent for {limit_s:g} s")
        try:
            data = self.control.recv(DATAGRAM_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            status = self.process.wait(GRACE_S) if self._ended_soon() else None
            raise ServerLost(f"{INTERPRETER_LOST} ended ({cause(status)})", status)
        reply: dict[str, Any] = json.loads(data)
        if "id" in reply and "status" in reply:
            self.statuses[reply["id"]] = reply["status"]
            self.left[reply["id"]] = reply.get("left", [])
        return reply

    def _ended_soon(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
            return True
        return False

    @contextlib.contextmanager
    def serving(self, request: dict[str, Any], log: Path | None) -> Any:
        """Send the request and give its `Worker`, ended and closed at the end of the block."""
        reader, writer = os.pipe()
        theirs, commands = os.pipe() if request.get("commands") else (-1, -1)
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, writer)
                if theirs >= 0:
                    stack.callback(os.close, theirs)
                descriptors = [writer]
                if log is not None:
                    descriptors.append(stack.enter_context(_opened(log)).fileno())
                if theirs >= 0:
                    descriptors.append(theirs)
                try:
                    socket.send_fds(self.control, [encode(request)], descriptors)
                except OSError as error:
                    raise ServerLost(f"{INTERPRETER_LOST} accepts no request: {error}") from None
            reply = self.reply(START_LIMIT_S)
            while reply.get("id") != request["id"]:  # the late end of an earlier worker
                reply = self.reply(START_LIMIT_S)
            worker = Worker(self, request["id"], reply, reader, commands)
            try:
                yield worker
            finally:
                worker.end()
        finally:
            os.close(reader)
            if commands >= 0:
                os.close(commands)

    def close(self) -> None:
        """End the process: at once, for whatever it does is no longer wanted."""
        if self.control.fileno() < 0:
            return
        self.control.close()
        group = self._log is not None
        if self.process.poll() is None:
            _signal(self.process.pid, signal.SIGTERM, group)
            if not self._ended_soon():
                _signal(self.process.pid, signal.SIGKILL, group)
                self.process.wait()
        if group:  # what a model has started and left behind
            _signal(self.process.pid, signal.SIGKILL, group)


class Worker:
    """The process that serves one request: a forked child, or the server itself."""

    def __init__(
        self,
        server: Server,
        number: int,
        reply: dict[str, Any],
        events_fd: int,
        commands_fd: int,
    ) -> None:
        self._server = server
        self._number = number
        self.control = server.control
        self.events_fd = events_fd
        self.commands_fd = commands_fd
        self._pid = reply.get("pid")
        self._status: int | None = reply.get("status")

    def wait(self, limit_s: float = STATUS_S) -> int | None:
        """Return the exit status once the process has ended, None when it does not say in time."""
        deadline = time.monotonic() + limit_s
        while self._status is None:
            if self._number in self._server.statuses:
                self._status = self._server.statuses.pop(self._number)
                break
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._server.control], [], [], left_s)[0]:
                return None
            self._server.reply(left_s)
        return self._status

    @property
    def left(self) -> list[str]:
        """Names of the processes that it left running, once it has ended."""
        return self._server.left.get(self._number, [])

    def end(self) -> None:
        """End the process and its group, politely first; nothing to do when it has ended."""
        if self._status is not None:
            return
        if not self._server.fork:
            self._server.close()
            self._status = self._server.process.returncode
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            _signal(self._pid, how, True)
            with contextlib.suppress(ServerLost):
                if self.wait(GRACE_S) is not None:
                    return


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("ab")  # what `shorten` leaves of it, the worker goes on with
    except OSError as error:
        raise WorkerError(
            f"{log}: a worker's output cannot be written: {error.strerror or error}; TMPDIR names "
            "another folder"
        ) from None


def _socket_kind() -> socket.SocketKind:
    return (
        getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
        if sys.platform == "linux"
        else (socket.SOCK_DGRAM)
    )


def _signal(pid: int | None, how: signal.Signals, group: bool) -> None:
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, how)
