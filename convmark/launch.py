"""Start worker processes, hand them requests, follow their events, and end them.

An `Interpreter` is one measured Python. With `fork` it keeps a zygote that forks a child for each
request; with `spawn` each request gets a new interpreter; with `none` one interpreter serves all of
them itself. Whatever becomes of a worker, `answer` returns an `Answer`: a death is a result too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from convmark.errors import WorkerError
from convmark.worker.protocol import (
    DATAGRAM_BYTES,
    LINE_BYTES,
    UNSAFE_FORK,
    decode_event,
    encode,
    one_line,
)

__all__ = ["Answer", "Interpreter", "LiveWorker", "zoo_folder"]

GRACE_S = 2.0
"""Seconds between asking a worker to end and killing it."""
START_LIMIT_S = 180.0
"""Seconds an interpreter may take to import its framework."""
LOG_TAIL_BYTES = 4096
NOISE = re.compile(
    r"cuInit|cudart_stub|absl::InitializeLog|TF-TRT|cpu_feature_guard|rebuild Tensor"
)
"""What TensorFlow logs wherever there is no GPU, and no reason for anything."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one request."""

    status: str
    """`ok`, `error`, `out_of_memory`, `timeout` or `crashed`."""
    message: str
    """One line for the user; empty when the status is `ok`."""
    events: list[dict[str, Any]] = field(default_factory=list)
    ready_s: float | None
    """Seconds from the request to `ready`: the price of a fresh process."""

    def event(self, name: str) -> dict[str, Any] | None:
        """The last event of that name, or None."""
        return next((event for event in reversed(self.events) if event["event"] == name), None)


def zoo_folder() -> Path:
    """Return the folder of the zoo: `models/` of a checkout, `convmark_zoo/` of an installation.

    Raises:
        WorkerError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "models", package.parent / "convmark_zoo"):
        if (folder / "registry.py").is_file():
            return folder
    raise WorkerError(
        f"the model zoo must lie beside {package}, as models/ or convmark_zoo/; install convmark "
        "again"
    )


class Interpreter:
    """One measured Python and its worker processes; a context manager that ends them all."""

    def __init__(
        self,
        python: str = sys.executable,
        *,
        isolation: str = "fork",
        backend: str = "tensorflow",
        time_limit_s: float = 600.0,
        environ: Mapping[str, str] | None = None,
        zoo: Path | None = None,
        first_on_path: Sequence[Path] = (),
    ) -> None:
        """Describe the interpreter; nothing is started yet.

        Args:
            zoo: the folder of the zoo, this harness's own by default.
            first_on_path: folders whose modules go before all others, such as another commit's.
        """
        self.python = python
        self.isolation = isolation
        self._backend = backend
        self._time_limit_s = time_limit_s
        self._environ = dict(os.environ if environ is None else environ)
        self._zoo = zoo
        self._first_on_path = [str(folder) for folder in first_on_path]
        self._environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._numbers = itertools.count(1)
        self._logs = tempfile.TemporaryDirectory(prefix="convmark-")
        self._server: _Server | None = None

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of this interpreter and remove the logs; harmless when done twice."""
        self._drop_server()
        self._logs.cleanup()

    def start(self) -> float:
        """Start the serving process where the isolation keeps one; return its seconds.

        Raises:
            WorkerError: the interpreter cannot be started, or its framework not imported.
        """
        began = time.perf_counter()
        if self.isolation != "spawn" and self._server is None:
            self._server = self._new_server()
        return time.perf_counter() - began

    def answer(self, request: Mapping[str, Any], on_event: OnEvent = lambda event: None) -> Answer:
        """Have one request served and return what came of it.

        The worker is gone when this returns or raises, Ctrl-C included.

        Raises:
            WorkerError: no process could be started to serve the request.
        """
        number = next(self._numbers)
        began = time.perf_counter()
        self.start()
        server = self._server or self._new_server()
        try:
            return self._follow(server, {**request, "id": number}, began, on_event)
        finally:
            if server is not self._server:
                server.close()

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[LiveWorker]:
        """Have one request served in steps, the worker waiting for a command between them.

        The worker is gone after the block.

        Raises:
            WorkerError: no process could be started to serve the request.
        """
        number = next(self._numbers)
        self.start()
        server = self._server or self._new_server()
        log = Path(self._logs.name) / f"{number}.log"
        full_request = {**request, "id": number, "commands": True}
        follower = _Follower(lambda event: None, time.perf_counter(), self._time_limit_s)
        try:
            with server.serving(full_request, log) as worker:
                yield LiveWorker(worker, follower, log)
        except _ServerLost as lost:
            self._drop_server()
            raise WorkerError(f"{self.python}: {lost}{_tail(log)}") from None
        finally:
            if server is not self._server:
                server.close()

    def _new_server(self) -> _Server:
        log = Path(self._logs.name) / "server.log"
        return _Server(
            [self.python],
            settings={
                "convmark": str(Path(__file__).resolve().parent),
                "zoo": str(self._zoo or zoo_folder()),
                "first": self._first_on_path,
                "path": [os.getcwd()],
                "backend": self._backend,
                "fork": self.isolation == "fork",
            },
            environ=self._environ,
            log=None if self.isolation == "none" else log,
        )

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _follow(
        self, server: _Server, request: dict[str, Any], began: float, on_event: OnEvent
    ) -> Answer:
        log = Path(self._logs.name) / f"{request['id']}.log"
        follower = _Follower(on_event, began, self._time_limit_s)
        shared = self.isolation == "none"
        try:
            with server.serving(request, None if shared else log) as worker:
                follower.follow(worker)
                status = worker.wait()
        except _ServerLost as lost:
            self._drop_server()
            return follower.answer("crashed", f"{lost}{_tail(log)}")
        if server is self._server and server.process.poll() is not None:
            self._drop_server()
        if follower.overrun:
            return follower.answer("timeout", follower.overrun)
        return follower.conclude(status, _tail(log))


class LiveWorker:
    """A worker that serves one request step by step."""

    def __init__(self, worker: _Worker, follower: _Follower, log: Path) -> None:
        self._worker = worker
        self._follower = follower
        self._log = log

    def command(self, **fields: Any) -> None:
        """Tell the waiting worker what to do next; a worker that has died shows in `expect`."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._worker.commands_fd, encode(fields))

    def expect(self, name: str) -> dict[str, Any]:
        """Return the next event of that name.

        Raises:
            WorkerError: the worker failed, died or is silent for longer than the time limit.
        """
        found = self._follower.follow(self._worker, until=name)
        if found is not None:
            return found
        if self._follower.overrun:
            raise WorkerError(self._follower.overrun)
        answer = self._follower.conclude(self._worker.wait(), _tail(self._log))
        raise WorkerError(answer.message or f"the worker ended before {name!r}")


class _ServerLost(Exception):
    """The serving process is gone or silent."""


class _Server:
    """A process that serves requests over its control socket."""

    def __init__(
        self,
        command: list[str],
        *,
        settings: dict[str, Any],
        environ: Mapping[str, str],
        log: Path | None,
    ) -> None:
        self.fork = bool(settings["fork"])
        self.statuses: dict[int, int] = {}
        """Exit statuses that were reported while another worker was waited for."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, _socket_kind())
        bootstrap = Path(__file__).resolve().parent / "worker" / "bootstrap.py"
        arguments = json.dumps({**settings, "control": theirs.fileno()})
        self._log = log
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(theirs.close)
                output = stack.enter_context(log.open("wb")) if log else None
                self.process = subprocess.Popen(
                    [*command, str(bootstrap), arguments],
                    stdin=subprocess.DEVNULL if log else None,
                    stdout=output,
                    stderr=output,
                    env=dict(environ),
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
        except _ServerLost as lost:
            raise WorkerError(f"{python}: {lost} before it served{_tail(self._log)}") from None
        if "failed" in reply:
            raise WorkerError(f"{python}: {reply['failed']}; see `convmark doctor`")

    def reply(self, limit_s: float) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            _ServerLost: none came within the limit, or the process is gone.
        """
        if not select.select([self.control], [], [], limit_s)[0]:
            raise _ServerLost(f"the worker's interpreter was silent for {limit_s:g} s")
        try:
            data = self.control.recv(DATAGRAM_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            status = self.process.wait(GRACE_S) if self._ended_soon() else None
            raise _ServerLost(f"the worker's interpreter ended ({_cause(status)})")
        reply: dict[str, Any] = json.loads(data)
        if "id" in reply and "status" in reply:
            self.statuses[reply["id"]] = reply["status"]
        return reply

    def _ended_soon(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
            return True
        return False

    @contextlib.contextmanager
    def serving(self, request: dict[str, Any], log: Path | None) -> Any:
        """Send the request and give its `_Worker`, ended and closed at the end of the block."""
        reader, writer = os.pipe()
        theirs, commands = os.pipe() if request.get("commands") else (-1, -1)
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, writer)
                if theirs >= 0:
                    stack.callback(os.close, theirs)
                descriptors = [writer]
                if log is not None:
                    output = stack.enter_context(log.open("wb"))
                    descriptors.append(output.fileno())
                if theirs >= 0:
                    descriptors.append(theirs)
                try:
                    socket.send_fds(self.control, [encode(request)], descriptors)
                except OSError as error:
                    raise _ServerLost(
                        f"the worker's interpreter takes no request: {error}"
                    ) from None
            reply = self.reply(START_LIMIT_S)
            while reply.get("id") != request["id"]:  # the late end of an earlier worker
                reply = self.reply(START_LIMIT_S)
            worker = _Worker(self, request["id"], reply, reader, commands)
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


class _Worker:
    """The process that serves one request: a forked child, or the server itself."""

    def __init__(
        self,
        server: _Server,
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

    def wait(self, limit_s: float = GRACE_S) -> int | None:
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
            with contextlib.suppress(_ServerLost):
                if self.wait() is not None:
                    return


class _Follower:
    """Reads one request's events up to the worker's end, and concludes what came of it."""

    def __init__(self, on_event: OnEvent, began: float, time_limit_s: float) -> None:
        self._on_event = on_event
        self._began = began
        self._limit_s = time_limit_s
        self._events: list[dict[str, Any]] = []
        self._ready_s: float | None = None
        self._violation = ""
        self._buffer = bytearray()
        self.overrun = ""

    def follow(self, worker: _Worker, until: str = "") -> dict[str, Any] | None:
        """Take events until the worker has ended, is silent for too long or writes what is none.

        The end of the pipe is not enough: a process that the model started may hold it open.
        With `until`, stop at the event of that name and return it: a worker that waits for a
        command writes nothing beyond it.
        """
        ended = worker.wait(0) is not None
        while True:
            sources: list[Any] = [worker.events_fd] if ended else [worker.events_fd, worker.control]
            readable = select.select(sources, [], [], 0 if ended else self._limit_s)[0]
            if worker.events_fd not in readable:
                if ended:
                    return None
                if readable:
                    ended = worker.wait(0) is not None
                    continue
                phase = self._events[-1]["event"] if self._events else "start"
                self.overrun = (
                    f"no sign of progress for {self._limit_s:g} s after {phase!r}; the worker was "
                    "ended (raise --time-limit for slow models)"
                )
                worker.end()
                return None
            data = os.read(worker.events_fd, 1 << 16)
            if not data:
                return None
            self._buffer += data
            lines: list[bytes] = []
            if b"\n" in data:
                *lines, rest = bytes(self._buffer).split(b"\n")
                self._buffer = bytearray(rest)
            if not all(self._take(line) for line in lines) or len(self._buffer) > LINE_BYTES:
                self._violation = self._violation or "the worker wrote an endless line"
                worker.end()
                return None
            if until and lines and self._events[-1]["event"] == until:
                return self._events.pop()

    def _take(self, line: bytes) -> bool:
        try:
            event = decode_event(line)
        except WorkerError as error:
            self._violation = one_line(error)
            return False
        if event["event"] == "ready":
            self._ready_s = time.perf_counter() - self._began
        if event["event"] == "progress" and self._events[-1:] == [event]:
            self._events.pop()  # signs of life need not pile up
        self._events.append(event)
        self._on_event(event)
        return True

    def answer(self, status: str, message: str) -> Answer:
        return Answer(
            status=status, message=one_line(message), events=self._events, ready_s=self._ready_s
        )

    def conclude(self, status: int | None, tail: str) -> Answer:
        """Return the answer of a worker that has ended with this exit status."""
        if self._violation:
            return self.answer("crashed", self._violation + tail)
        last = self._events[-1] if self._events else {"event": ""}
        if last["event"] == "failed" and last.get("status") in ("error", "out_of_memory"):
            return self.answer(last["status"], str(last.get("message", "")))
        if status == UNSAFE_FORK and not self._events:
            return self.answer(
                "error",
                "the framework has run something when it was imported, so that no worker can be "
                "forked; measure with --isolation=spawn",
            )
        if last["event"] in ("finished", "inspected") and status == 0:
            return self.answer("ok", "")
        phase = last["event"] or "start"
        died = "out_of_memory" if "bad_alloc" in tail else "crashed"
        return self.answer(died, f"the worker ended ({_cause(status)}) after {phase!r}{tail}")


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


def _cause(status: int | None) -> str:
    if status is None:
        return "no exit status"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _tail(log: Path | None) -> str:
    """What a log ends with, as the end of a message: a fatal error and its place, or a line."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        text = lines.read().decode(errors="replace")
    lines_said = [line.strip() for line in text.splitlines() if line.strip()]
    lines_said = [line for line in lines_said if not NOISE.search(line)]
    for index, line in enumerate(lines_said):
        if line.startswith("Fatal Python error"):
            place = next((word for word in lines_said[index:] if word.startswith("File ")), "")
            why = next((word for word in lines_said if "bad_alloc" in word), "")
            return f": {one_line(f'{why} {line} {place}')}"
    return f": {one_line(lines_said[-1])}" if lines_said else ""
