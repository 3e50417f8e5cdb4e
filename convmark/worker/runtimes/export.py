"""Exports a case's model in a process of its own, which is gone before anything is timed.

The measured process then holds what a server would: the runtime and its file, no Keras model. The
exporting process is forked before the framework has run anything. It writes events, which the
measured process passes on, and beside the file the batches and what the Keras model gives for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.model_name import ModelName
from convmark.core.processes import die_with_parent
from convmark.core.runtimes import ERROR_BOUNDS, EXPORTS, RUNTIMES
from convmark.worker import runtimes
from convmark.worker.failure import CaseFailure, message_of, stack_of
from convmark.worker.inputs import Inputs, filled
from convmark.worker.protocol import encode
from convmark.worker.runtimes.agreement import (
    UNTRAINED_SPREAD,
    agreement,
    amplify,
    check_comparable,
    has_new_norms,
    told_apart,
)
from convmark.worker.runtimes.engine import Source

MOST_KEPT = 64
"""Files of that folder: those that were used longest ago go first."""
MOST_MAKING_S = 3600.0
"""A folder of an export that is older and not finished is that of a process that was killed."""
_MAKING, _TOLD = ".making-", "export.json"
COMPARED_SAMPLES = 16
"""At least so many samples are compared with the Keras model's outputs; of rounded weights the
largest error is that of the first so many."""
AMPLIFIED_SAMPLES = 4
"""At least so many are to differ of an untrained network; two may be alike by chance."""
RANGE_BATCHES = 16
"""What an int8 conversion finds the ranges of activations with."""

Emit = Callable[..., None]


@dataclass(frozen=True)
class Exported:
    """An exported model, and what the Keras model gives for some batches."""

    path: str
    batches: Sequence[Sequence[Any]]
    """The case's own batch first; each has an array for each input."""
    references: Sequence[Sequence[Any]]
    """The outputs of the Keras model in float32, one array each, for each batch."""
    events: Mapping[str, Mapping[str, Any]]
    """What the exporting process has told, the last of each kind."""


def in_a_process(
    work: Callable[[str, Emit], None], emit: Emit, folder: str, model: str
) -> Exported:
    """Have a forked process export, pass its events on, and return what it has written.

    Args:
        work: writes the result into a folder, and reports events.
        folder: of this process alone; it has the result.
        model: what is exported.

    Raises:
        CaseFailure: the export has failed; the message is the reason.
        MemoryError: it has run out of memory.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as in the zygote: no threads work
        parent, pid = os.getpid(), os.fork()
    if pid == 0:
        _work_and_exit(work, folder, writer, parent)
    os.close(writer)
    events: dict[str, dict[str, Any]] = {}
    with open(reader, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            name = event.pop("event")
            events[name] = event
            if name not in ("failed", "finished", "path"):
                emit(name, **event)
    _, status = os.waitpid(pid, 0)
    if (failed := events.get("failed")) is not None:
        if failed["status"] == "out_of_memory":
            raise MemoryError(failed["message"])
        raise CaseFailure(failed["message"])
    if "finished" not in events:
        code = os.waitstatus_to_exitcode(status)
        cause = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise CaseFailure(
            f"{model}: the exporting process ended ({cause}); signal 9 is most often want of "
            "memory: use a smaller --batch-sizes, or measure it with --runtime keras"
        )
    with np.load(os.path.join(folder, "batches.npz"), allow_pickle=False) as arrays:
        batches = _parted(arrays, "batch")
        references = _parted(arrays, "reference")
    return Exported(events["path"]["path"], batches, references, events)


def _work_and_exit(
    work: Callable[[str, Emit], None], folder: str, writer: int, parent: int
) -> None:
    """Do the work in a forked process, which does not return."""
    status = 1
    try:
        die_with_parent(parent)

        def emit(event: str, **fields: Any) -> None:
            os.write(writer, encode({"event": event, **fields}))

        try:
            work(folder, emit)
            emit("finished")
        except BaseException as error:
            traceback.print_exc()
            kind = "out_of_memory" if isinstance(error, MemoryError) else "error"
            emit("failed", status=kind, message=message_of(error), stack=stack_of(error))
        sys.stdout.flush()
        sys.stderr.flush()
        status = 0
    finally:
        os._exit(status)


def _parted(arrays: Any, kind: str) -> list[list[Any]]:
    """Return the arrays `KIND.BATCH.PLACE` of a file, by batch and place."""
    found: dict[int, dict[int, Any]] = {}
    for name in arrays.files:
        its_kind, batch, place = name.split(".")
        if its_kind == kind:
            found.setdefault(int(batch), {})[int(place)] = arrays[name]
    return [[found[one][place] for place in sorted(found[one])] for one in sorted(found)]


def export(case: Case, model: Any, backend: Any, seed: int, folder: str, emit: Emit) -> None:
    """Export a Keras model that is built, or find the file of an earlier export of the same.

    Raises:
        CaseFailure: it takes or gives what no runtime is fed with, or cannot be converted.
    """
    inputs = backend.inputs(model)
    count = max(2, math.ceil(COMPARED_SAMPLES / case.batch_size))
    batches = [_arrays(case, backend, inputs, seed + number) for number in range(count)]
    function = backend.exported_function(model, batches[0])

    def outputs(some: Sequence[list[Any]]) -> list[Any]:
        found = []
        for one in some:
            emit("progress", phase="outputs of the Keras model")
            found.append(backend.exported_outputs(function, one))
        return found

    references = outputs(batches)
    is_untrained = ModelName.of(case.model).is_zoo or has_new_norms(model)
    if is_untrained and not told_apart(references) > UNTRAINED_SPREAD:
        few = batches[: max(2, math.ceil(AMPLIFIED_SAMPLES / case.batch_size))]
        amplify(model, lambda: told_apart(outputs(few)))
        references = outputs(batches)
    check_comparable(references, case.precision, case.model)
    again = agreement(outputs(batches[:1]), references[:1])
    if again.largest_rel_error > ERROR_BOUNDS["float32"]:
        raise CaseFailure(
            f"{case.model}: an export cannot be compared, because the Keras model gives other "
            "outputs when it is called again on the same batch; draw no random numbers and change "
            "no variables in its inference, or measure it with --runtime keras"
        )
    _write(folder, batches, references)

    def samples() -> Iterator[Sequence[Any]]:
        for number in range(RANGE_BATCHES):
            yield _arrays(case, backend, inputs, seed + count + number)

    source = Source(function, model, samples)
    emit("progress", phase=f"export to {case.runtime}")
    digest = backend.exported_digest(function, model)
    if case.precision == "int8":
        digest += f" {seed + count} {RANGE_BATCHES}"
    places = backend.leaves(filled(inputs.structure, range(len(inputs.leaves))))
    emit("path", path=kept(case, source, digest, emit), places=places)


def _arrays(case: Case, backend: Any, inputs: Inputs, seed: int) -> list[Any]:
    for leaf in inputs.leaves:
        if leaf.ragged or leaf.dtype == "string":
            raise CaseFailure(
                f"{case.model}: an exported model needs dense arrays of numbers, but its "
                f"input {leaf.name} is {'ragged' if leaf.ragged else 'of strings'}; measure "
                "it with --runtime keras"
            )
    leaves = backend.leaves(inputs.batch(case.batch_size, seed))
    return [np.ascontiguousarray(one) for one in leaves]


def _write(folder: str, batches: Sequence[Any], references: Sequence[Any]) -> None:
    arrays: dict[str, Any] = {}
    for kind, found in (("batch", batches), ("reference", references)):
        for number, batch in enumerate(found):
            arrays |= {f"{kind}.{number}.{place}": one for place, one in enumerate(batch)}
    np.savez(os.path.join(folder, "batches.npz"), **arrays)


def kept(case: Case, source: Source, digest: str, emit: Emit) -> str:
    """Return the path of the export; report its size, and how long it took when it was made.

    Args:
        digest: of the model, and in int8 of the samples that ranges are found with.
    """
    runtime = RUNTIMES[case.runtime]
    told = [digest, case.runtime, case.precision, case.device, runtimes.code_hash(case.runtime)]
    made_by = runtimes.versions(case.runtime)
    first, second = (hashlib.sha256(one.encode()).hexdigest()[:16] for one in
                     ("\n".join(told), made_by))  # fmt: skip
    top = os.environ.get(EXPORTS) or tempfile.gettempdir()
    folder = os.path.join(top, first + second)
    if not os.path.isdir(folder):
        folder = _made_with_more(top, first, made_by) or folder
    path = os.path.join(folder, "model" + runtime.suffix)
    if (facts := _facts(folder)) and "sha256" not in facts:  # an earlier version of convmark's
        shutil.rmtree(folder, ignore_errors=True)
    if not os.path.isdir(folder):
        runtimes.check_makers(case)
        convert, _ = runtimes.imported(case.runtime, case.model)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        making = tempfile.mkdtemp(prefix=_MAKING, dir=os.path.dirname(folder))
        try:
            seconds = _converted(case, convert, source, os.path.join(making, "model"))
            facts = {"export_s": seconds, "case": case.name, "sha256": _digest(making)}
            facts["made_by"] = made_by
            with open(os.path.join(making, _TOLD), "w", encoding="utf-8") as file:
                json.dump(facts, file)
            try:
                os.rename(making, folder)
            except OSError:
                if not os.path.isdir(folder):  # else another process was first
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        _thin_out(os.path.dirname(folder))
    os.utime(folder)
    told_of = _told(case, folder)
    emit(
        "exported",
        export_s=told_of["export_s"],
        exported_bytes=_bytes(path),
        packages=told_of["made_by"],
    )
    return path


def _made_with_more(top: str, begins: str, made_by: str) -> str | None:
    """Return the newest export that was made with what is installed and more, such as a converter.

    Args:
        begins: the name of an export of the same model.
        made_by: what is installed.
    """
    installed, found = set(made_by.split()), []
    with contextlib.suppress(FileNotFoundError):
        for one in os.listdir(top):
            folder = os.path.join(top, one)
            made_by_then = str(_facts(folder).get("made_by"))
            if one.startswith(begins) and installed <= {*made_by_then.split()}:
                found.append(folder)
    return max(found, key=os.path.getmtime, default=None)


def _told(case: Case, folder: str) -> dict[str, Any]:
    """Return what was told of an export when it was made."""
    told = _facts(folder)
    if told.get("sha256") != _digest(folder):
        raise CaseFailure(
            f"{case.name}: the exported file was changed after it was made; remove {folder} to "
            "have it exported anew"
        )
    return told


def _facts(folder: str) -> dict[str, Any]:
    """Return what stands beside an export; nothing where that cannot be read."""
    facts = None
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, _TOLD), "rb") as file:
        facts = json.load(file)
    return facts if isinstance(facts, dict) else {}


def _digest(folder: str) -> str:
    """Return a hash of the files of an export, with their names."""
    found = hashlib.sha256()
    for path in sorted(_files(folder)):
        found.update(f"{os.path.relpath(path, folder)} {os.path.getsize(path)}\n".encode())
        with open(path, "rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                found.update(part)
    return found.hexdigest()


def _files(folder: str) -> list[str]:
    """Return the paths of an export's own files."""
    walked = ((parent, name) for parent, _, names in os.walk(folder) for name in names)
    return [os.path.join(parent, name) for parent, name in walked if name != _TOLD]


def _converted(case: Case, convert: Any, source: Source, stem: str) -> float:
    runtime = RUNTIMES[case.runtime]
    began = time.perf_counter()
    try:
        convert(source, stem + runtime.suffix, case.precision)
    except MemoryError:
        raise
    except ImportError as error:
        extras = dict.fromkeys([runtime.extra, *runtime.exports_with(case.precision).values()])
        raise CaseFailure(
            f"{case.model}: cannot be exported to {runtime.label} ({error}); install "
            f"{' and '.join(extras)} in the measured environment"
        ) from None
    except Exception as error:
        raise CaseFailure(
            f"{case.model}: cannot be exported to {runtime.label}: {runtimes.reason(error)}"
        ) from error
    return time.perf_counter() - began


def _thin_out(folder: str) -> None:
    """Remove the exports that were used longest ago, and what killed processes have left."""
    with contextlib.suppress(OSError):
        found = [os.path.join(folder, name) for name in os.listdir(folder)]
        making = [one for one in found if os.path.basename(one).startswith(_MAKING)]
        ours = [one for one in found if os.path.isfile(os.path.join(one, _TOLD))]
        kept = [one for one in ours if one not in making]
        left = [one for one in making if time.time() - os.path.getmtime(one) > MOST_MAKING_S]
        for old in [*left, *sorted(kept, key=os.path.getmtime)[:-MOST_KEPT]]:
            shutil.rmtree(old, ignore_errors=True)


def _bytes(path: str) -> int:
    """Return the bytes of an export: of a folder all files, of a file those of its stem."""
    folder = path if path.endswith("/") else os.path.dirname(path)
    return sum(map(os.path.getsize, _files(folder)))
