"""Runs Python code in forks of one process that has done the imports already; not a test itself.

Importing a framework takes seconds, and convmark with pandas most of one; a fork takes
milliseconds. What is imported must start no thread and run no operation.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class Forks:
    """A process that forks one for each code that it is given."""

    def __init__(self, imports: str, environ: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="convmark-forks-")
        self._process = subprocess.Popen(
            [sys.executable, __file__, imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environ),
        )

    def run(
        self,
        code: str | Path,
        *arguments: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, or its text, in a fork, to its end.

        Args:
            environ: variables that are added to those of the process.
        """
        out, error = (Path(self._folder.name) / name for name in ("out", "error"))
        order = {
            "code": None if isinstance(code, Path) else code,
            "argv": [str(code) if isinstance(code, Path) else "-c", *arguments],
            "cwd": str(cwd or Path.cwd()),
            "environ": dict(environ or {}),
            "files": [str(out), str(error)],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline() or "-1")
        return subprocess.CompletedProcess(
            order["argv"], status, out.read_text(), error.read_text()
        )

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()


@contextlib.contextmanager
def forks(imports: str, environ: Mapping[str, str]) -> Iterator[Forks]:
    """Give a process that has imported these modules, parted by commas."""
    made = Forks(imports, environ)
    try:
        yield made
    finally:
        made.close()


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the last line that a code has printed, as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _become(order: Mapping[str, Any]) -> None:
    """Run the code as a process of its own would, and end."""
    status = 1
    try:
        signal.alarm(500)  # a test that hangs is ended
        for descriptor, file in enumerate(order["files"], start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["environ"])
        os.chdir(order["cwd"])
        sys.argv = order["argv"]
        sys.path[0] = os.path.dirname(sys.argv[0])
        if order["code"] is None:
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            exec(order["code"], {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(imports: Sequence[str]) -> None:
    for name in imports:
        __import__(name)
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            _become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1].split(","))
