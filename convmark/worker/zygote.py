"""The zygote: imports the framework once, then forks a fresh child for each request.

It executes no operation and looks at no device, so a child may set both up as it likes. Without
fork it serves the same requests itself, one after another: a new interpreter per request is the
isolation `spawn`, one interpreter for all of them the isolation `none`.

Strays are processes that a model started and left running: they are ended with the case, and named.
One that leaves the worker's process group (a daemon, `start_new_session=True`) would take CPU time
from every later case. On Linux the kernel hands it to the zygote, once its own parent has ended;
elsewhere such a process is not found.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from convmark.core.processes import die_with_parent
from convmark.worker import backends
from convmark.worker.binding import bind
from convmark.worker.moved import move_imports
from convmark.worker.protocol import DATAGRAM_BYTES, PROTOCOL_VERSION, UNSAFE_FORK, encode, one_line

_PR_SET_CHILD_SUBREAPER = 36
MOST_GENERATIONS = 50
"""Ended one after another: the children of a process that was ended come here in their turn."""

Answer = Callable[[dict[str, Any], list[int]], int]
"""Answers one request through its descriptors (events first) and returns the exit status."""


def serve(
    *,
    control_fd: int,
    backend: str,
    fork: bool,
    import_roots: list[str],
    moved: dict[str, str],
    bound: dict[str, Any] | None,
) -> None:
    """Answer requests until the harness closes its end of the control socket.

    Args:
        import_roots: folders of the user's code, put first on `sys.path` once the framework is
            imported, so that no module of theirs takes the place of one of the framework's.
        moved: folders of the user's code, and those that modules come from instead.
        bound: the CPUs and the memory that the process and all that it forks are bound to.
    """
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    die_with_parent()
    _adopt_orphans()
    try:
        bind(bound)  # before the framework, which counts the CPUs as it is imported
        framework = backends.load(backend)
        from convmark.worker import child  # needs NumPy, so it fails where the framework does
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        if isinstance(error, ModuleNotFoundError) and error.name == backend:
            reason += f"; install convmark[{backend}] in the measured environment"
        control.send(encode({"failed": f"{backend} cannot be imported: {reason}"}))
        return
    sys.path[:] = [*import_roots, *(entry for entry in sys.path if entry not in import_roots)]
    move_imports(moved)
    control.send(encode({"serving": PROTOCOL_VERSION, "pid": os.getpid()}))

    def answer(request: dict[str, Any], descriptors: list[int]) -> int:
        return child.answer(request, framework, descriptors)

    if fork:
        _serve_forking(control, answer, child.look_ahead, framework.untouched)
    else:
        _serve_in_place(control, answer)


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next request and its descriptors (events, log, commands), None at the end."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(4 * descriptors.itemsize)
    data, ancillary, _, _ = control.recvmsg(DATAGRAM_BYTES, room)
    if not data:
        return None
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) // descriptors.itemsize * 4])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # not for programs that the model starts
    return json.loads(data), list(descriptors)


def _serve_in_place(control: socket.socket, answer: Answer) -> None:
    folder, environ = os.getcwd(), dict(os.environ)
    while (received := _receive(control)) is not None:
        request, descriptors = received
        control.send(encode({"id": request["id"], "pid": os.getpid()}))
        if len(descriptors) > 1:
            os.dup2(descriptors[1], 1)
            os.dup2(descriptors[1], 2)
            faulthandler.enable()
        kept = _children()
        names = {*environ, *os.environ}  # a module is imported once: what it sets stays
        left = {one: environ.get(one) for one in names if environ.get(one) != os.environ.get(one)}
        answer({**request, "left": left}, descriptors)
        os.chdir(folder)  # a model's code may have chosen another, which the next would be read in
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(encode({"id": request["id"], "status": 0, "left": _end_strays(kept)}))


def _serve_forking(
    control: socket.socket,
    answer: Answer,
    look_ahead: Callable[[dict[str, Any]], None],
    untouched: Callable[[], bool],
) -> None:
    running: dict[int, int] = {}
    kept = _children()

    own = os.getpid()

    def end(*_: object) -> None:
        """End the workers with the programs that they have started; SIGKILL would leave these."""
        if os.getpid() != own:  # a child that has not set its own signals yet
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        _kill_all(running)
        _end_strays(kept)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    die_with_parent(how=signal.SIGTERM)
    gc.collect()
    gc.freeze()  # children share these objects' pages: the collector must not touch them
    with _child_signals() as (ended, wakeup):
        inherited = [control.fileno(), ended, wakeup]
        while True:
            readable, _, _ = select.select([control.fileno(), ended], [], [])
            if ended in readable:
                os.read(ended, 4096)
                _report_ended(control, running, kept)
            if control.fileno() in readable:
                received = _receive(control)
                if received is None:
                    _kill_all(running)
                    _end_strays(kept)
                    return
                request, descriptors = received
                if untouched():
                    look_ahead(request)
                    pid = _fork(inherited, answer, request, descriptors)
                    running[pid] = request["id"]
                    control.send(encode({"id": request["id"], "pid": pid}))
                else:
                    control.send(encode({"id": request["id"], "status": UNSAFE_FORK}))
                for descriptor in descriptors:
                    os.close(descriptor)


@contextlib.contextmanager
def _child_signals() -> Iterator[tuple[int, int]]:
    """Give the pipe that becomes readable whenever a child has ended: reading and writing end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    yield reader, writer


def _report_ended(control: socket.socket, running: dict[int, int], kept: set[int]) -> None:
    """Report the children that have ended, and end what their models have left running.

    A process outside the child's group may be of any child: it is ended with the last of them.
    """
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _kill_group(pid)
            number = running.pop(pid)
            left = [] if running else _end_strays(kept, group=pid)
            code = os.waitstatus_to_exitcode(status)
            control.send(encode({"id": number, "status": code, "left": left}))


def _kill_all(running: dict[int, int]) -> None:
    for pid in running:
        _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _fork(
    inherited: list[int], answer: Answer, request: dict[str, Any], descriptors: list[int]
) -> int:
    """Return the process of a new child that answers one request."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # The framework's import leaves idle threads; forking beside them was tried on every
        # supported version before any operation has run, which `untouched` has just checked.
        warnings.simplefilter("ignore", DeprecationWarning)
        parent = os.getpid()
        pid = os.fork()
    if pid == 0:
        _become_child(parent, inherited, lambda: answer(request, descriptors), descriptors)
    return pid


def _become_child(
    parent: int, inherited: list[int], answer: Callable[[], int], descriptors: list[int]
) -> None:
    """Run one request in the forked child and leave without the parent's exit handlers.

    The descriptors in `inherited` are the zygote's own: closed, so that no model reaches them.
    """
    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in inherited:
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(descriptors[1], 1)
        os.dup2(descriptors[1], 2)
        faulthandler.enable()
        status = answer()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _adopt_orphans() -> None:
    """Have the kernel make this process the parent of its descendants whose own has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _children() -> set[int]:
    """Return this process's children, those that have ended and were not waited for included."""
    return {pid for pid, parent in _parents() if parent == os.getpid()}


def _end_strays(kept: set[int], group: int = 0) -> list[str]:
    """End every child that is not kept; return the names of those that had left the group.

    Args:
        group: the process group of the worker, whose processes are ended with it as a rule.
    """
    names = []
    for _ in range(MOST_GENERATIONS):
        strays = _children() - kept
        if not strays:
            break
        for pid in strays:
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue  # it had ended by itself
            if os.getpgid(pid) != group:
                names.append(_name(pid))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return sorted(names)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process and its parent, where the kernel lists them."""
    if not os.path.isdir("/proc/self"):
        return
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                yield int(entry), int(fields[1])


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return "a process"
