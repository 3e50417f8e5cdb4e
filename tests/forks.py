"""Processes forked off one that has done the imports already; not a test itself.

Importing a framework takes seconds, and convmark with pandas most of one; a fork takes
milliseconds. What is imported must start no thread and run no operation. What serves the requests
of a measured interpreter is the real zygote, in a fork with its own environment, working folder,
session and descriptors.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import convmark
from convmark.core.backends import BACKENDS
from convmark.interpreter import zoo_folder

COMMAND = "import sys; from convmark.cli import main; sys.exit(main())"
"""`convmark`, as code for `Forks.run`."""
SESSION = """
import sys, pytest
sys.exit(pytest.main(["-Wignore::pytest.PytestAssertRewriteWarning", *sys.argv[1:]]))
"""
"""`pytest`, as that; where convmark is installed, it warns of it as imported already."""
SOCKETS = "CONVMARK_TEST_SOCKETS"
"""Names the folder of the sockets of the frameworks that are imported, one each."""
_READ_AT_START = (
    *("HOME", "JAX_", "KERAS_", "LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON", "TF_"),
)
"""Variables that a process reads while it starts or imports: a fork would know them too late."""
_NO_MATTER = (
    "PYTHONPATH",  # of which the server makes up for what the fork has missed
    *("OMP_WAIT_POLICY", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED"),
    *("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"),
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
)
_PACKAGE = Path(convmark.__file__).resolve().parent


class Forked:
    """A process that a server has forked, as `subprocess.Popen` has it."""

    def __init__(self, path: str | Path, order: Mapping[str, Any], descriptors: list[int]) -> None:
        self.returncode: int | None = None
        self.stdout: Any = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        data = json.dumps(order).encode()
        socket.send_fds(self._connection, [len(data).to_bytes(4, "big")], descriptors)
        self._connection.sendall(data)
        self._lines = self._connection.makefile("rb")
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            self.returncode = int(self._lines.readline() or b"-9")
            self._lines.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Return what it has written and, as errors go there too, None."""
        found: list[str] = []
        reading = threading.Thread(target=lambda: found.append(self.stdout.read()), daemon=True)
        reading.start()
        reading.join(timeout)
        if reading.is_alive():
            raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
        self.stdout.close()
        self.wait(timeout)
        return found[0], None


STARTED: list[Any] = []
"""Scripts and commands that the test has started."""


def end_started() -> None:
    """Kill what a test that failed has left running."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait(10)


class Forks:
    """A process that forks one for each code that it is given."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *kind: str,
        path: Path | None = None,
        at_start: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; see `fork_server.py` for the kinds.

        Args:
            path: of its socket.
            at_start: variables that the process has and its forks have not.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="cm-", dir="/tmp")  # a path is short
        self.path = path or Path(self._folder.name, "socket")
        script = str(Path(__file__).with_name("fork_server.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, str(self.path), *kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, **(at_start or {})},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"listening\n":
            self.close()  # else the next test fails too, for what this one has left open
            raise AssertionError(
                f"{kind}: the process to fork ended with {self._process.returncode}"
            )
        self._environ = environ  # what it says when a fork is made, not now

    def start(
        self,
        code: str | Path,
        *arguments: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        files: Sequence[int] = (),
    ) -> Forked:
        """Run a script, or its text, in a fork.

        Args:
            environ: variables that are added to those of the process.
            files: descriptors for its output and its errors; by default both go to `stdout`.
        """
        order = {
            "code": None if isinstance(code, Path) else code,
            "argv": [str(code) if isinstance(code, Path) else "-c", *arguments],
            "cwd": str(cwd or Path.cwd()),
            "environ": {**self._environ, **(environ or {})},
        }
        if files:
            forked = Forked(self.path, order, list(files))
        else:
            reader, writer = os.pipe()
            try:
                forked = Forked(self.path, order, [writer, writer])
            finally:
                os.close(writer)
            forked.stdout = os.fdopen(reader)
        STARTED.append(forked)
        return forked

    def run(
        self,
        code: str | Path,
        *arguments: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, or its text, in a fork, to its end."""
        paths = [Path(self._folder.name, name) for name in ("out", "error")]
        with paths[0].open("w") as out, paths[1].open("w") as error:
            files = [out.fileno(), error.fileno()]
            forked = self.start(code, *arguments, cwd=cwd, environ=environ, files=files)
        said = [str(code), *arguments]
        return subprocess.CompletedProcess(said, forked.wait(), *(one.read_text() for one in paths))

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()


_LATE = (
    *("difflib", "html", "jinja2", "markupsafe", "pandas", "platformdirs", "rich.console"),
    *("rich.progress", "scipy.ndimage", "scipy.optimize", "scipy.special", "tabulate"),
)
"""What commands import within functions: a fork, or a session within a test, would each time."""


def load_harness() -> None:
    """Import every module but those of the worker, and what they import later."""
    for found in pkgutil.walk_packages(convmark.__path__, "convmark."):
        if not found.name.startswith("convmark.worker.") and not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for name in _LATE:
        importlib.import_module(name)


def packages_with_plugins() -> list[importlib.metadata.Distribution]:
    """Return those of pytest's plugins; each session would read twice what all packages tell."""
    return [
        one
        for one in importlib.metadata.distributions()
        if any(point.group == "pytest11" for point in one.entry_points)
    ]


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the last line that a code has printed, as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# -- measured interpreters -------------------------------------------------------------------------


def framework(backend: str, folder: Path, environ: Mapping[str, str]) -> Forks:
    """Return what runs scripts, and interpreters, in forks of a process that has a framework."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE"}  # PyTorch's threads spin while they wait
    variables = {**environ, **BACKENDS[backend].variables, **quiet, "PYTHONHASHSEED": "0"}
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "jax":  # what one fork has compiled, the others need not
        variables["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        variables["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    (folder / f"{backend}.json").write_text(json.dumps(_of_start(variables)))
    kind = ("worker", backend, str(_PACKAGE), str(zoo_folder()))
    return Forks(variables, *kind, path=folder / backend)


def _of_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_READ_AT_START) and name not in _NO_MATTER
    }


def _popen(command: list[str], **how: Any) -> Any:
    """Start an interpreter as `subprocess.Popen` does: by a fork where one can serve as well."""
    settings = json.loads(command[-1])
    path = Path(os.environ.get(SOCKETS, "none"), settings["backend"])
    own = (command[0], settings["convmark"], settings["fork"])
    known = path.with_suffix(".json")
    cold = settings.get("bound") or not known.exists()  # a framework counts CPUs at its import
    if own != (sys.executable, str(_PACKAGE), True) or cold:
        return subprocess.Popen(command, **how)
    if _of_start(how["env"]) != json.loads(known.read_text()):
        return subprocess.Popen(command, **how)
    order = {"settings": settings, "environ": how["env"], "cwd": str(how["cwd"])}
    return Forked(path, order, [*how["pass_fds"], how["stdout"].fileno()])


WARM = types.SimpleNamespace(
    Popen=_popen, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
)
"""What takes the place of `subprocess` in `convmark.interpreter.server`."""


@contextlib.contextmanager
def warm_interpreters(forks: Forks) -> Iterator[None]:
    """Have the interpreters of this process, and of forks of the harness, forked for the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SOCKETS, str(forks.path.parent))
        patch.setattr("convmark.interpreter.server.subprocess", WARM)
        yield
