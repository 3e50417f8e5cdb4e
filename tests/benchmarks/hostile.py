"""Measure builders that do harm at random moments: does each have a row that is true, or an error?

Run it from a checkout: `python tests/benchmarks/hostile.py [--folder F] [--builders N] [--seconds
S]`. Each builder is an act of `ACTS` at a moment of `MOMENTS`, drawn by a seeded sequence, around
one honest network. Real workers measure them, `BATCH` in a run with an honest builder first and
last. Afterwards must hold, or the script says which builder broke it and ends with status 1:

- the run ends, and prints no traceback of the harness;
- each builder has one row: an error that says something, or a step time that is no less than half
  the honest one; one that cannot be imported is refused by its name before anything is measured;
- no process of the run lives, the temporary folder is empty, no lock is held, and beside the
  results nothing lies in the working folder.

It can be stopped and started again: a batch that is done is not repeated.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import csv
import ctypes
import gc
import json
import locale
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

BATCH = 10
SEED = 20
MARK = "CONVMARK_HOSTILE"


# -- what is done ----------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Broken:
    """In the place of a stream."""

    def write(self, text: str) -> int:
        raise OSError("no stream")

    flush = isatty = fileno = write  # type: ignore[assignment]


def refuse(*values: Any, **named: Any) -> Any:
    raise RuntimeError("patched")


def endless() -> None:
    while True:
        pass


def recursion() -> Any:
    return recursion()


def daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)


def fork_and_go_on() -> None:
    os.fork()


def close_all() -> None:
    os.closerange(3, 256)


def grow() -> None:
    KEPT.append(bytearray(b"x" * (64 << 20)) if len(KEPT) < 8 else b"")


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def busy_thread() -> None:
    def work() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass

    threading.Thread(target=work, daemon=True).start()


def signals_ignored() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def slower(function: Any) -> Any:
    begin = function()
    return lambda: begin + (function() - begin) / 10


def say(count: int) -> None:
    for _ in range(count):
        print("x" * 8191)
        os.write(2, b"y" * 8191 + b"\n")


def remove_results() -> None:
    for path in sorted(Path("results").rglob("*.csv")):
        path.unlink()


def spoil_results() -> None:
    for path in sorted(Path("results").rglob("*.csv")):
        with path.open("a") as file:
            file.write("not,a,row\n")


def remove_temporary_files() -> None:
    for path in sorted(Path(os.environ["TMPDIR"]).rglob("*")):
        with contextlib.suppress(OSError):
            path.unlink()


def raising(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def setting(holder: Any, name: str, value: Any) -> Any:
    return lambda: setattr(holder, name, value)


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("convmark.")]:
        del sys.modules[name]


KEPT: list[Any] = []
ACTS: dict[str, Any] = {
    "nothing": lambda: None,
    "perf_counter ten times slower": lambda: setattr(
        time, "perf_counter", slower(time.perf_counter)
    ),
    "perf_counter_ns ten times slower": lambda: setattr(
        time, "perf_counter_ns", slower(time.perf_counter_ns)
    ),
    "all clocks ten times slower": lambda: [
        setattr(time, name, slower(getattr(time, name)))
        for name in ("perf_counter", "perf_counter_ns", "monotonic", "time", "process_time")
    ],
    "clocks that stand still": lambda: [
        setattr(time, name, lambda: 1.0) for name in ("perf_counter", "monotonic", "time")
    ],
    "a sleep that does not": setting(time, "sleep", lambda seconds: None),
    "sys.exit(0)": raising(SystemExit(0)),
    "sys.exit('text')": raising(SystemExit("=cmd()")),
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(3)": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "SIGALRM in a second": lambda: signal.alarm(1),
    "SIGPROF all the time": lambda: signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01),
    "signals ignored": signals_ignored,
    "the zygote killed": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "the group ended": lambda: os.killpg(0, signal.SIGTERM),
    "results removed": remove_results,
    "results spoilt": spoil_results,
    "temporary files removed": remove_temporary_files,
    "80 MB of output": lambda: say(5000),
    "descriptors closed": close_all,
    "standard streams closed": lambda: os.closerange(0, 3),
    "sys.stdout that fails": lambda: [setattr(sys, name, Broken()) for name in STREAMS],
    "no sys.stdout": lambda: [setattr(sys, name, None) for name in STREAMS],
    "a busy thread": busy_thread,
    "a thread that stays": lambda: threading.Thread(target=time.sleep, args=(3600,)).start(),
    "a daemon": daemon,
    "a program in its own session": lambda: KEPT.append(
        subprocess.Popen(["sleep", "3600"], start_new_session=True)
    ),
    "a fork that returns twice": fork_and_go_on,
    "another working folder": lambda: os.chdir("/"),
    "umask 777": lambda: os.umask(0o777),
    "another locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "seeds": lambda: random.seed(1),
    "no environment": os.environ.clear,
    "an empty sys.path": sys.path.clear,
    "modules forgotten": forget_modules,
    "json.dumps refuses": setting(json, "dumps", refuse),
    "json.loads refuses": setting(json, "loads", refuse),
    "csv.writer refuses": setting(csv, "writer", refuse),
    "open refuses": setting(builtins, "open", refuse),
    "os.write refuses": setting(os, "write", refuse),
    "os.read refuses": setting(os, "read", refuse),
    "len lies": setting(builtins, "len", lambda one: 1),
    "sorted refuses": setting(builtins, "sorted", refuse),
    "gc on at each object": lambda: gc.set_threshold(1),
    "a recursion limit": lambda: sys.setrecursionlimit(120),
    "recursion": recursion,
    "a trace function": lambda: sys.settrace(lambda *event: None),
    "an endless loop": endless,
    "sleep": lambda: time.sleep(3600),
    "64 MB more each time": grow,
    "16 open files": lambda: limit(resource.RLIMIT_NOFILE, 16),
    "a second of CPU": lambda: limit(resource.RLIMIT_CPU, 1),
    "no larger files": lambda: limit(resource.RLIMIT_FSIZE, 0),
    "nice": lambda: os.nice(5),
    "one CPU": lambda: os.sched_setaffinity(0, {0}),
    "an error without text": raising(Unprintable()),
    "an error of a megabyte": raising(ValueError("z" * (1 << 20))),
    "an error in colours": raising(ValueError("\x1b[31m\x00\r\n=cmd()|' /C calc'!A0,\"")),
    "an error that is no Exception": raising(BaseException("base")),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "StopIteration": raising(StopIteration(3)),
    "MemoryError": raising(MemoryError("much")),
}
STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
SPOILS = {"results removed", "results spoilt", "the zygote killed"}
"""They harm the other rows of their run, too."""
CALLS = (1, 3, 13, 60)
MOMENTS = ("found", "built", "traced", *(f"call {number}" for number in CALLS), "later", "at exit")


def network(at_call: Any = None, number: int = 0, traced: Any = None, kind: str = "") -> Any:
    """Return three products of matrices; `at_call` is called in the step of that number."""
    import keras
    import tensorflow as tf

    calls = [0]

    def counted(values: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            at_call()
        return values

    class Harm(keras.layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            if traced:
                traced()
            if not number:
                return values
            found = tf.py_function(counted, [values], values.dtype)
            return tf.ensure_shape(found, values.shape)

    layers = [keras.layers.Dense(1024) for _ in range(3)]
    return keras.Sequential([keras.Input((1024,)), Harm(), *layers, *OUTPUTS.get(kind, list)()])


def _layer(called: Any) -> list[Any]:
    import keras

    kind = type("Ending", (keras.layers.Layer,), {"call": lambda self, values: called(values)})
    return [kind()]


def _stale() -> list[Any]:
    """Return a layer that computes nothing after its twelfth call."""
    import keras

    class Stale(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.calls = self.add_weight(shape=(), dtype="int32", trainable=False)

        def call(self, values: Any) -> Any:
            self.calls.assign(self.calls + 1)
            return keras.ops.cond(
                self.calls <= 12, lambda: values, lambda: keras.ops.zeros_like(values)
            )

    return [Stale()]


OUTPUTS: dict[str, Any] = {
    "NaN": lambda: _layer(lambda values: values / 0.0 * 0.0),
    "zeros": lambda: _layer(lambda values: values * 0.0),
    "no work after the proof": _stale,
}
MODELS: dict[str, Any] = {
    "None": lambda: None,
    "a number": lambda: 3,
    "a class": lambda: dict,
    "a generator": lambda: (one for one in range(3)),
    "a function": lambda: network,
    "two models": lambda: (network(), network()),
    "NaN": lambda: network(kind="NaN"),
    "zeros": lambda: network(kind="zeros"),
    "no work after the proof": lambda: network(kind="no work after the proof"),
    "a pretended model": lambda: type("Model", (), {"__class__": property(_model_class)})(),
    "an awkward name": lambda: _named("=cmd(),\n\"'"),
}


def _model_class(self: Any) -> Any:
    import keras

    return keras.Model


def _named(name: str) -> Any:
    model = network()
    model._name = name
    return model


def _in_a_while(act: Any) -> None:
    timer = threading.Timer(random.uniform(0.05, 1.5), act)
    timer.daemon = True
    timer.start()


def drawn(count: int) -> list[tuple[str, str]]:
    """Return what each builder is: an act and its moment, or "returns" and what; acts first."""
    source = random.Random(SEED)
    every = [(act, moment) for act in ACTS for moment in MOMENTS]
    first = [(act, source.choice(MOMENTS)) for act in ACTS]
    rest = [one for one in every if one not in first]
    source.shuffle(rest)
    return [*first, *(("returns", name) for name in MODELS), *rest][:count]


def builder(name: str) -> Any:
    """Return the builder of a name: `honest`, or b and its number."""
    if name.startswith("honest"):
        return network
    act, moment = drawn(10_000)[int(name[1:])]
    if act == "returns":
        return MODELS[moment]
    done = ACTS[act]
    if moment == "found":
        done()
        return network
    if moment == "traced":
        return lambda: network(traced=done)
    if moment.startswith("call"):
        return lambda: network(done, int(moment.split()[1]))

    def build() -> Any:
        {
            "built": done,
            "later": lambda: _in_a_while(done),
            "at exit": lambda: atexit.register(done),
        }[moment]()
        return network()

    return build


def __getattr__(name: str) -> Any:
    if name.startswith(("honest", "b")) and name[-1:].isdigit():
        return builder(name)
    raise AttributeError(name)


# -- what becomes of it ----------------------------------------------------------------------------


def measured(folder: Path, names: list[str]) -> tuple[int | None, str, list[Any], list[str]]:
    """Run the builders; return status, output, rows and what does not hold of the run."""
    import shutil

    from faults import rows_in

    shutil.rmtree(folder, ignore_errors=True)
    project, temporary, runtime = folder / "project", folder / "tmp", folder / "runtime"
    for path in (project, temporary, runtime):
        path.mkdir(parents=True, mode=0o755)
    shutil.copy(__file__, project / "hostile.py")
    models = ",".join(f"hostile:{name}" for name in names)
    mark = f"{os.getpid()}-{folder.name}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "convmark", "run", "--models", models, "--tasks=infer"),
            *("--batch-sizes=32", "--processes=1", "--time-budget=0.2", "--time-limit=10"),
            *("--threads=1", "--results=results"),
        ],
        cwd=project,
        env={
            **os.environ, MARK: mark, "TMPDIR": str(temporary), "CONVMARK_RUNTIME": str(runtime),
            "PYTHONPATH": f"{project}{os.pathsep}{Path(__file__).resolve().parent.parent.parent}",
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )  # fmt: skip
    wrong = []
    try:
        output, _ = process.communicate(timeout=60 + 30 * len(names))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        wrong.append("the run did not end")
    if "Traceback" in output:
        wrong.append(f"a traceback: {output[-800:]}")
    try:
        rows = rows_in(project)
    except Exception as error:  # of spoilt results
        rows, wrong = [], [*wrong, f"the results do not read: {error}"]
    return process.returncode, output, rows, wrong + left(folder, mark)


def left(folder: Path, mark: str) -> list[str]:
    """Return what a run has left behind."""
    import psutil

    wrong = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                wrong.append(f"still alive: {process.pid} {' '.join(process.cmdline())[:100]}")
                process.kill()
    wrong += [f"left in the temporary folder: {one.name}" for one in (folder / "tmp").iterdir()]
    wrong += [f"left: {one.name}" for one in (folder / "runtime").glob("[0-9]*")]
    known = {"hostile.py", "results", "__pycache__"}
    wrong += [
        f"left in the working folder: {one.name}"
        for one in (folder / "project").iterdir()
        if one.name not in known
    ]
    return wrong


def judged(names: list[str], rows: list[Any]) -> dict[str, str]:
    """Return what became of each builder; what must not be begins with "WRONG"."""
    by_name = {row.model.partition(":")[2]: row for row in rows}
    honest = [by_name[one].step_time_p50_s for one in ("honest0", "honest1") if one in by_name]
    least_s = 0.5 * min(filter(None, honest), default=0.0)
    found = {}
    for name in names:
        row = by_name.get(name)
        if row is None:
            found[name] = "WRONG: no row"
        elif row.status in ("ok", "unsteady"):
            short = row.step_time_p50_s is not None and row.step_time_p50_s < least_s
            told = f"{row.step_time_p50_s} s where an honest one has {2 * least_s:.6f}"
            found[name] = f"WRONG: {told}" if short else row.status
        else:
            text = (row.error or "").strip()
            found[name] = f"{row.status}: {text}" if text else "WRONG: an error without a word"
    return found


def main() -> int:
    """Measure; return 1 if something is wrong or left."""
    import argparse
    import tempfile

    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parent.parent)]
    from slowed import Diary

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "convmark-hostile"
    )
    parser.add_argument("--builders", type=int, default=200)
    parser.add_argument("--seconds", type=float, help="begin no run after so many")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    diary = Diary(options.folder / "diary.json")
    plan = drawn(options.first + options.builders)
    numbers = range(options.first, len(plan))
    alone = [one for one in numbers if plan[one][0] in SPOILS or plan[one][1] == "found"]
    gentle = [one for one in numbers if one not in alone]
    batches = [gentle[at : at + BATCH] for at in range(0, len(gentle), BATCH)]
    batches += [[one] for one in alone]
    until = time.monotonic() + (options.seconds or float("inf"))
    for batch in batches:
        if time.monotonic() > until:
            break
        names = [name for number in batch if (name := f"b{number}") not in diary.done]
        if names:
            for name, one in _batch(options.folder / "run", names, plan).items():
                diary.keep(name, one)
    return _summary(diary, [f"b{number}" for batch in batches for number in batch])


def _batch(folder: Path, names: list[str], plan: list[tuple[str, str]]) -> dict[str, Any]:
    status, output, rows, wrong = measured(folder, ["honest0", *names, "honest1"])
    became = judged(names, rows)
    if status == 2 and len(names) == 1 and f"hostile:{names[0]}: " in output:
        became = {names[0]: f"refused: {output.strip()}"}
    for one in wrong:
        print(f"{names[0]} to {names[-1]}, status {status}: {one}", flush=True)
    for name, text in became.items():
        act, moment = plan[int(name[1:])]
        print(f"{name}, {act}, {moment}: {text[:200]}", flush=True)
        if text == "WRONG: no row":
            print(output[-1500:], flush=True)
    return {
        name: {"builder": plan[int(name[1:])], "became": text[:300], "run": wrong}
        for name, text in became.items()
    }


def _summary(diary: Any, names: list[str]) -> int:
    from collections import Counter

    done = [diary.done[name] for name in names if name in diary.done]
    kinds = Counter(one["became"].partition(":")[0] for one in done)
    print(f"{len(done)} builders: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}")
    runs = sum(bool(one["run"]) for one in done)
    print(f"in runs that left something or did not end: {runs}")
    return int(bool(kinds["WRONG"] or runs))


if __name__ == "__main__":
    sys.exit(main())
