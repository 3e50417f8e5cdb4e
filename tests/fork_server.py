"""A process that has done its imports, and forks others; not a test itself.

Run with the path of its socket and its kind. `imports NAME,...` imports modules, for scripts and
commands; `worker BACKEND PACKAGE ZOO` imports what a zygote does, the standard library besides, for
measured interpreters. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
import types
from dataclasses import dataclass, field
from typing import Any

_CONVERTED = (
    ("tensorflow", "TensorFlow._training_step", "train", True),
    ("tensorflow", "TensorFlow._inference_step", "infer", True),
    ("tensorflow", "TensorFlow.work", "infer", True),
    ("tensorflow", "TensorFlow.reference_step", "infer", True),
    ("tensorflow", "TensorFlow.reference_step", "train", True),
    ("tensorflow", "TensorFlow.leaves", None, False),
    ("tensorflow", "_reference_logits", None, False),
    ("tensorflow_training", "gradients_of", "differentiated", False),
    ("tensorflow_training", "loss_of", "class_loss", False),
    ("tensorflow_training", "leaves", None, False),
    ("tensorflow_training", "tensors", None, False),
    ("tensorflow_training", "_scaled", None, False),
    ("tensorflow_training", "_unscaled", None, False),
)
"""Modules, functions, those within them, and whether TensorFlow itself calls them."""


@dataclass
class Server:
    """Forks one process for each connection, and tells it when that has ended, and how."""

    listener: socket.socket
    zoo: str
    imported: dict[str, str]
    """Environment variables that the imports have set."""
    waiting: dict[int, socket.socket] = field(default_factory=dict)
    pipe: tuple[int, int] = field(default_factory=os.pipe)

    def serve(self) -> None:
        reader, writer = self.pipe
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        while True:
            readable, _, _ = select.select([0, reader, self.listener], [], [])
            if 0 in readable:
                return
            if reader in readable:
                os.read(reader, 4096)
                self.report_ended()
            if self.listener in readable:
                self.fork(self.listener.accept()[0])

    def report_ended(self) -> None:
        for pid in list(self.waiting):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self.waiting.pop(pid) as connection, contextlib.suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())

    def fork(self, connection: socket.socket) -> None:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
        with connection.makefile("rb") as file:
            order = json.loads(file.read(int.from_bytes(head, "big")))
        pid = os.fork()
        if pid == 0:
            self.waiting[0] = connection
            self.become(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.waiting[pid] = connection
        with contextlib.suppress(OSError):
            connection.sendall(f"{pid}\n".encode())

    def become(self, order: Any, descriptors: list[int]) -> None:
        """Be the process that was ordered, to its end."""
        status = 1
        try:
            self.set_up(order)
            if "settings" in order:
                self.serve_as_zygote(order["settings"], *descriptors)
            else:
                _run(order, *descriptors)
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def set_up(self, order: Any) -> None:
        """Let go of what is the server's own; take the order's folder and environment."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for mine in (*self.waiting.values(), self.listener):
            mine.close()
        for descriptor in self.pipe:
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(order["environ"] | self.imported)
        os.chdir(order["cwd"])
        tempfile.tempdir = None
        sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
        sys.pycache_prefix = os.environ.get("PYTHONPYCACHEPREFIX")

    def serve_as_zygote(self, settings: Any, control: int, log: int) -> None:
        os.setsid()
        _write_to(log, log)
        _search_first(os.environ.get("PYTHONPATH", ""))
        if settings["zoo"] != self.zoo:
            for name in [name for name in sys.modules if name.partition(".")[0] == "convmark_zoo"]:
                del sys.modules[name]
            sys.modules["bootstrap"].load_package("convmark_zoo", settings["zoo"])
        sys.modules["__main__"] = sys.modules.pop("bootstrap")  # as it is of an interpreter
        own = ("control", "convmark", "module", "zoo")  # the rest is the zygote's
        served = {name: value for name, value in settings.items() if name not in own}
        sys.modules["convmark.worker.zygote"].serve(control_fd=control, **served)


def _write_to(out: int, error: int) -> None:
    os.dup2(out, 1)
    os.dup2(error, 2)
    for descriptor in {out, error}:
        os.close(descriptor)


def _search_first(path: str) -> None:
    """Search the folders, and import the `sitecustomize` there, as an interpreter does at first."""
    folders = [one for one in filter(None, path.split(os.pathsep)) if one not in sys.path]
    sys.path[:0] = folders
    if importlib.machinery.PathFinder.find_spec("sitecustomize", folders):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def _run(order: Any, out: int, error: int) -> None:
    """Run the code, or the script, as a process of its own would."""
    signal.alarm(500)  # a test that hangs is ended
    # a shell that starts a job in the background has it ignore Ctrl-C; a terminal's does not
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _write_to(out, error)
    sys.argv = order["argv"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    if order["code"] is None:
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        exec(order["code"], {"__name__": "__main__"})


def _load_worker(backend: str, package: str, zoo: str) -> None:
    """Import as `bootstrap.py` has a measured interpreter do."""
    sys.argv[:] = ["-c"]
    place = os.path.join(package, "worker", "bootstrap.py")
    spec = importlib.util.spec_from_file_location("bootstrap", place)
    assert spec is not None
    assert spec.loader is not None
    bootstrap = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = bootstrap
    spec.loader.exec_module(bootstrap)
    bootstrap.load_package("convmark", package)
    bootstrap.load_package("convmark_zoo", zoo)
    importlib.import_module("convmark.worker.zygote")
    importlib.import_module("convmark.worker.backends").load(backend)
    importlib.import_module("convmark.worker.child")
    if backend == "tensorflow":
        _convert_steps()
    if backend == "jax":  # a process that measures turns it off, which the tests of that still see
        importlib.import_module("jax._src.compilation_cache")._is_cache_enabled = lambda: True
    # as each zygote does for the workers that it forks: here once for all zygotes
    importlib.import_module("convmark.worker.code_watch").look_at_modules(len(sys.modules))
    # shorter, and fewer, than where a figure is to be right: the tests of that start cold
    timing = importlib.import_module("convmark.worker.timing")
    vars(timing).update(WINDOW_S=0.012, MIN_WINDOW_S=0.005, MIN_ROUNDS=4)


def _convert_steps() -> None:
    """Have AutoGraph convert what the steps of every fork call; it keeps that by code object.

    Nothing runs, and no module is added that a fork would take for the model's.
    """
    from tensorflow.python.autograph.core.converter import ConversionOptions, ProgramContext
    from tensorflow.python.autograph.impl.api import _TRANSPILER

    earlier = set(sys.modules)
    for name, outer, inner, of_tensorflow in _CONVERTED:
        module = sys.modules[f"convmark.worker.backends.{name}"]
        code = functools.reduce(getattr, outer.split("."), module).__code__
        if inner:
            code = next(one for one in code.co_consts if getattr(one, "co_name", None) == inner)
        cells = tuple(types.CellType(None) for _ in code.co_freevars)
        function = types.FunctionType(code, vars(module), code.co_name, None, cells)
        options = ConversionOptions(
            recursive=True, user_requested=of_tensorflow, optional_features=None
        )
        _TRANSPILER.transform(function, ProgramContext(options))
    for name in set(sys.modules) - earlier:
        del sys.modules[name]


def main(path: str, kind: str, *arguments: str) -> None:
    """Import, say so, and serve."""
    before = dict(os.environ)
    if kind == "worker":
        del sys.path[0]
        _load_worker(*arguments)
    else:
        for name in arguments[0].split(","):
            __import__(name)
        del sys.path[0]
    imported = {name: text for name, text in os.environ.items() if before.get(name) != text}
    gc.collect()
    gc.freeze()  # the forks share these objects' pages: the collector must not touch them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("listening", flush=True)
        Server(listener, arguments[-1], imported).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
