"""One measured interpreter: sends it requests and follows its worker processes.

With `fork` it keeps a zygote that forks a child for each request; with `spawn` each request gets a
new interpreter; with `none` one interpreter serves all of them itself. Whatever becomes of a
worker, `answer` returns an `Answer`: a death is a result too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.errors import OptionError, WorkerError
from convmark.core.files import TemporaryFolder, cache_folder
from convmark.core.installed import import_roots as find_import_roots
from convmark.core.model_name import ModelName
from convmark.core.runtimes import EXPORTS
from convmark.interpreter.follower import Answer, Follower, OnEvent, tail
from convmark.interpreter.server import INTERPRETER_LOST, Server, ServerLost, Worker
from convmark.machine.gpu.cards import alone
from convmark.machine.state import bound
from convmark.worker.protocol import encode

RESTARTS = 1
"""How often in a row a zygote that was lost is started again."""

_PACKAGE = Path(__file__).resolve().parent.parent


def zoo_folder() -> Path:
    """Return the folder of the zoo: `models/` of a checkout, `convmark_zoo/` of an installation."""
    for folder in (_PACKAGE.parent / "models", _PACKAGE.parent / "convmark_zoo"):
        if (folder / "registry.py").is_file():
            return folder
    raise WorkerError(
        f"the model zoo must be next to {_PACKAGE}, as models/ or convmark_zoo/; "
        "install convmark again"
    )


def check_zoo(models: Iterable[str]) -> None:
    """Refuse to measure an installed zoo in a checkout of convmark that has another."""
    here, zoo = Path.cwd().resolve(), zoo_folder().resolve()
    tops = (one for one in (here, *here.parents) if (one / "convmark/worker").is_dir())
    own = next((one / "models" for one in tops if (one / "models/registry.py").is_file()), zoo)
    if own == zoo or not any(ModelName.of(model).is_zoo for model in models):
        return
    ours, theirs = ({one.name: one.read_bytes() for one in at.glob("*.py")} for at in (own, zoo))
    differing = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if differing:
        raise OptionError(
            f"--models: the networks of {zoo} would be measured, but {own} has others "
            f"({differing[0]}); run pip install -e {own.parent}, or start outside it"
        )


class Interpreter(contextlib.AbstractContextManager["Interpreter"]):
    """One measured Python and its worker processes; a context manager that ends them all."""

    def __init__(
        self,
        python: str = sys.executable,
        *,
        isolation: str = "fork",
        backend: str = DEFAULT_BACKEND,
        time_limit_s: float = 600.0,
        cpus: str | None = None,
        environ: Mapping[str, str] | None = None,
        zoo: Path | None = None,
        folder: Path | None = None,
        import_roots: Sequence[Path] | None = None,
        moved: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the interpreter; nothing is started yet.

        Args:
            cpus: what its processes are bound to, as a case has it.
            zoo: the folder of the zoo, this harness's own by default.
            folder: the working folder of the measured processes; this process's by default.
            import_roots: folders whose modules go before all others once the framework is
                imported, in order; by default those that `launch.import_roots` finds.
            moved: folders without symbolic links, and those that modules come from instead.

        Raises:
            OptionError: this process may not bind others to these CPUs.
        """
        self._bound = bound(cpus)
        self.python = python
        self.isolation = isolation
        self._backend = backend
        self._time_limit_s = time_limit_s
        self._environ = dict(os.environ if environ is None else environ)
        self._zoo = zoo
        self._folder_of_work = Path.cwd() if folder is None else folder
        roots = find_import_roots(self._folder_of_work) if import_roots is None else import_roots
        self._import_roots = [str(root) for root in roots]
        self._moved = dict(moved or {})
        self._environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # the driver's own order, so that gpu:1 of a case is the card that NVML calls 1
        self._environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._environ |= BACKENDS[backend].variables
        self._environ["PYTHONHASHSEED"] = "0"  # the order of a set of texts is the same in any run
        self._environ.setdefault(EXPORTS, str(cache_folder() / "exports"))
        self._numbers = itertools.count(1)
        self._folder = TemporaryFolder()
        # a worker is ended without its exit handlers, which would remove what TensorFlow has there
        temporary = self._folder.path / "tmp"
        temporary.mkdir()
        self._environ["TMPDIR"] = str(temporary)
        self._server: Server | None = None
        self._losses = 0
        """Serving processes lost since one last served to the end."""
        self.started_s = 0.0
        """Seconds that its serving processes have taken to start, all together."""

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of this interpreter and remove its files; harmless when done twice."""
        self._drop_server()
        self._folder.close()

    def start(self) -> float:
        """Start the serving process where the isolation keeps one; return its seconds.

        Raises:
            WorkerError: the interpreter cannot be started, or its framework not imported.
        """
        began = time.perf_counter()
        if self.isolation != "spawn" and self._server is None:
            self._server = self._new_server()
        took_s = time.perf_counter() - began
        self.started_s += took_s
        return took_s

    def answer(self, request: Mapping[str, Any], on_event: OnEvent = lambda event: None) -> Answer:
        """Serve one request and return its answer.

        The worker is gone when this returns or raises, Ctrl-C included. A zygote that is lost is
        started again; where that one is lost too before it has served anything to the end, every
        later answer says so.
        """
        number = next(self._numbers)
        began = time.perf_counter()
        if self.isolation == "fork" and self._losses > RESTARTS:
            message = f"{INTERPRETER_LOST} ended again after a restart: nothing was measured"
            return Answer(status="crashed", message=message, ready_s=None)
        self.start()
        server = self._server or self._new_server()
        try:
            return self._follow(server, self._addressed(request, number), began, on_event)
        finally:
            if server is not self._server:
                server.close()

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[LiveWorker]:
        """Serve one request in steps; between them the worker waits for a command.

        The worker is gone after the block.
        """
        number = next(self._numbers)
        self.start()
        server = self._server or self._new_server()
        log = self._folder.path / f"{number}.log"
        full_request = {**self._addressed(request, number), "commands": True}
        follower = Follower(lambda event: None, time.perf_counter(), self._time_limit_s, log)
        try:
            with server.serving(full_request, log) as worker:
                yield LiveWorker(worker, follower, log)
        except ServerLost as lost:
            self._drop_server()
            raise WorkerError(f"{self.python}: {lost}{tail(log)}") from None
        finally:
            if server is not self._server:
                server.close()

    def _addressed(self, request: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Return the request with its number, its CPUs and what shows the worker its one GPU."""
        device = request.get("case", {}).get("device", "cpu")
        return {
            **request,
            **({"bound": self._bound} if self._bound else {}),
            "id": number,
            "one_gpu": alone(device, self._environ),
        }

    def _new_server(self) -> Server:
        log = self._folder.path / "server.log"
        return Server(
            [self.python],
            settings={
                "convmark": str(_PACKAGE),
                "zoo": str(self._zoo or zoo_folder()),
                "import_roots": self._import_roots,
                "moved": self._moved,
                "backend": self._backend,
                "fork": self.isolation == "fork",
                "bound": self._bound,
            },
            environ=self._environ,
            folder=self._folder_of_work,
            log=None if self.isolation == "none" else log,
        )

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _follow(
        self, server: Server, request: dict[str, Any], began: float, on_event: OnEvent
    ) -> Answer:
        log = self._folder.path / f"{request['id']}.log"
        follower = Follower(on_event, began, self._time_limit_s, log)
        shared = self.isolation == "none"
        try:
            with server.serving(request, None if shared else log) as worker:
                follower.follow(worker)
                status = worker.wait()
            follower.note_left(worker.left)
        except ServerLost as lost:
            self._drop_server()
            self._losses += 1
            return follower.told() or follower.death(str(lost), lost.status, tail(log))
        self._losses = 0
        if server is self._server and server.process.poll() is not None:
            self._drop_server()
        if follower.overrun:
            return follower.answer("timeout", follower.overrun)
        return follower.conclude(status, tail(log))


class LiveWorker:
    """A worker that serves one request step by step."""

    def __init__(self, worker: Worker, follower: Follower, log: Path) -> None:
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
        answer = self._follower.conclude(self._worker.wait(), tail(self._log))
        raise WorkerError(answer.message or f"the worker ended before {name!r}")
