"""Answers one request in one process: sets the framework up, does the work, sends events.

Whatever goes wrong ends in a `failed` event with a status and one line; only a death of the
process itself (a signal, an abort) leaves none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from convmark.core.case import PRECISIONS, Case
from convmark.core.model_name import ModelName
from convmark.core.runtimes import (
    DEFAULT_RUNTIME,
    EXPORTS,
    RUNTIMES,
    parted_signature,
    runtime_of_file,
)
from convmark.core.tasks import TASKS
from convmark.worker import (
    backends,
    binding,
    ceiling,
    duet,
    flops,
    inspection,
    layers,
    measurement,
    mnist,
    process_state,
    runtimes,
)
from convmark.worker.builders import Builder, builder
from convmark.worker.code_watch import CodeWatch, Read, look_at_modules
from convmark.worker.companions import Companions, Place, free_addresses
from convmark.worker.exported import ExportedBackend
from convmark.worker.failure import CaseFailure, UnknownModelError, message_of, stack_of
from convmark.worker.host import forget_peak, give_back
from convmark.worker.model_files import check_file, files_of
from convmark.worker.protocol import encode
from convmark.worker.runtimes.export import Exported, export, in_a_process
from convmark.worker.runtimes.files import check_runtime_file

LINGER_S = 0.5
"""A process of a cluster stays so long at its end: others may still fetch what it has sent."""

_MODULES = {
    name: importlib.import_module(f"convmark.worker.{one.worker}")
    for name, one in TASKS.items()
    if not one.timed
}
"""What serves the tasks whose steps are not timed one by one."""

_WITH_CODE = ("layers", "measure", *_MODULES)
"""Requests whose events tell what code ran."""
_BEFORE_THE_FIRST_STEP = frozenset(
    ["ready", "environment", "waiting", "joined", "exported", "built", "progress", "phase"]
)

_LOADED_NS = time.time_ns()
"""When this module was imported: with the framework, before any fork."""

_OURS = frozenset(["PJRT_NPROC", "TORCHINDUCTOR_CACHE_DIR", "XLA_PYTHON_CLIENT_PREALLOCATE"])
"""Variables that the backends set for a case."""

_READ = Read()
"""By the cases that this process has measured: several with the isolation `none`."""

Emit = Callable[..., None]


def look_ahead(request: dict[str, Any]) -> None:
    """Do in the process that is forked what each of the forked ones would do for itself."""
    if request["kind"] in (*_WITH_CODE, "duet"):
        look_at_modules(len(sys.modules))


def answer(request: dict[str, Any], framework: Any, descriptors: list[int]) -> int:
    """Answer one request and return the exit status.

    Args:
        descriptors: the pipe of events first; with `commands` in the request that of commands last.
    """
    cluster = request.get("cluster") or {}
    if "processes" in cluster:
        return _answer_together(request, framework, descriptors)
    told = {"failed", "finished"} if cluster.get("companion") else None
    bound = request.get("bound") if "case" in request else None

    def emit(event: str, **fields: Any) -> None:
        if bound and event in binding.LOOKED_AT:
            binding.check_threads(Case(**request["case"]), bound)
        if told is None or event in told:
            _write_all(descriptors[0], encode({"event": event, **fields}))

    try:
        with _watching_code(request, emit) as emit_and_code:
            if request.get("commands"):
                with open(descriptors[-1], "rb", closefd=False) as commands:
                    _take_turns(request, framework, emit_and_code, map(json.loads, commands))
            else:
                _KINDS[request["kind"]](request, framework, emit_and_code)
    except BrokenPipeError:
        return 1
    except BaseException as error:
        traceback.print_exc()
        status = _status(error, framework)
        with contextlib.suppress(OSError):
            emit(
                "failed",
                status=status,
                message=_message(error, status, framework),
                stack=stack_of(error),
            )
        if isinstance(error, KeyboardInterrupt):
            raise
        return 0
    if cluster:
        time.sleep(LINGER_S)
    return 0


@dataclasses.dataclass(frozen=True)
class _Watched:
    """Reports events, and what code ran before the first that tells of a step."""

    watch: CodeWatch
    emit: Emit

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "finished":
            fields |= self.watch.told_late()
        if event == "code":  # an exporting process has told it
            self.watch.close()
        elif event not in _BEFORE_THE_FIRST_STEP:
            self.watch.report(self.emit)
        self.emit(event, **fields)


@contextlib.contextmanager
def _watching_code(request: dict[str, Any], emit: Emit) -> Iterator[Emit]:
    """Watch what code the case runs; give an `emit` that reports it once the first step is over."""
    if request["kind"] not in _WITH_CODE:
        yield emit
        return
    kept = [request.get("mnist"), os.environ.get(EXPORTS)]
    watch = CodeWatch(
        request["case"]["model"],
        [os.getcwd(), *sys.path],
        request.get("left_out", ()),
        left_out=list(filter(None, kept)),
        loaded_ns=_LOADED_NS,
        read=_READ,
    )

    try:
        yield _Watched(watch, emit)
    finally:
        watch.close()


def _answer_together(request: dict[str, Any], framework: Any, descriptors: list[int]) -> int:
    """Answer as the first of several processes on this machine; the others are forked here."""
    addresses = free_addresses(request["cluster"]["processes"])

    def in_place(index: int, **more: Any) -> dict[str, Any]:
        cluster = {"addresses": addresses, "index": index, "one_machine": True, **more}
        return {**request, "cluster": cluster}

    def accompany(index: int, events: int) -> int:
        return answer(in_place(index, companion=True), framework, [events])

    works = [functools.partial(accompany, index) for index in range(1, len(addresses))]
    with Companions(works, descriptors) as companions:
        companions.watch(lambda event: _write_all(descriptors[0], encode(event)))
        return answer(in_place(0, companions=companions.pids), framework, descriptors)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _status(error: BaseException, framework: Any) -> str:
    if isinstance(error, MemoryError) or framework.is_out_of_memory(error):
        return "out_of_memory"
    return "error"


def _message(error: BaseException, status: str, framework: Any) -> str:
    """Return what went wrong, with the shapes or targets that may have been the reason."""
    ours = isinstance(error, (CaseFailure, UnknownModelError))
    return message_of(error) + ("" if ours or status != "error" else framework.chosen(error))


def _make_ready(request: dict[str, Any], framework: Any, emit: Emit) -> tuple[Case, Any, Any, Emit]:
    """Set the framework up for the request's case, and read the process before the model's code.

    Return the case, the builder of the model, the backend, and what reports events from here on.

    Raises:
        CaseFailure: what is asked for is of Keras models, and this one is not run by Keras.
    """
    case, framework = _configured(request, framework, emit)
    of_file = runtime_of_file(case.model)
    if (runtime := case.runtime if of_file == DEFAULT_RUNTIME else of_file) != DEFAULT_RUNTIME:
        raise CaseFailure(
            f"{case.model}: {request['kind']} needs the runtime {DEFAULT_RUNTIME}, got {runtime}"
        )
    left = {one: value for one, value in request.get("left", {}).items() if one not in _OURS}
    witness = process_state.Witness(case, _asked(request, case), framework, emit, left)
    if TASKS[case.task].deterministic:
        framework.make_deterministic()
        witness.begin()
    build = builder(case.model, framework, case.task).varied(request.get("variant"), framework)
    return case, build.watched(witness.watched), framework, witness.emit


def _make_runtime_ready(
    request: dict[str, Any], framework: Any, emit: Emit
) -> tuple[Case, Any, Any, Emit]:
    """Do the same for a case whose steps a runtime may take: of a model that is then exported."""
    if request["case"].get("runtime", DEFAULT_RUNTIME) == DEFAULT_RUNTIME:
        return _make_ready(request, framework, emit)
    case, framework = _configured(request, framework, emit)
    if not framework.untouched():
        raise CaseFailure(
            f"{case.model}: the runtime {case.runtime} needs --isolation fork or spawn: the model "
            "is exported in a process that is forked before the framework has run anything"
        )
    runtimes.check_installed(case)
    if runtime_of_file(case.model) == case.runtime:
        path, _ = parted_signature(case.model)
        check_file(path)
        emit("exported", exported_bytes=sum(map(os.path.getsize, {*files_of(path)})))
        exported = Exported(case.model, (), (), {})
    else:
        exported = _exported(request, case, framework, emit)
        if RUNTIMES[case.runtime].takes_files:
            check_runtime_file(exported.path, ours=True)
    _, make = runtimes.imported(case.runtime, case.model)
    give_back()
    forget_peak()  # what reading the file took is none of loading it
    asked = _asked(request, case)
    backend = ExportedBackend(
        framework, case, exported, request["seed"], emit, precision_asked="precision" in asked
    )
    witness = process_state.Witness(case, asked, backend, emit)
    build = Builder(lambda: backend.load(make)).watched(witness.watched)
    return case, build, backend, witness.emit


def _exported(request: dict[str, Any], case: Case, framework: Any, emit: Emit) -> Exported:
    """Build the Keras model in a process of its own, and export it there."""

    def work(folder: str, pipe: Emit) -> None:
        told = _Watched(emit.watch, pipe) if isinstance(emit, _Watched) else pipe
        framework.seed(request["seed"])  # Python draws a seed of its own in a forked process
        keras_case = _of_keras(case)
        witness = process_state.Witness(keras_case, {"precision", "export"}, framework, told)
        build = builder(case.model, framework, case.task).watched(witness.watched)
        model = measurement.build(keras_case, build, request["seed"], framework, witness.emit)
        measurement.check_infers(case, model, framework)
        export(case, model, framework, request["seed"], folder, told)
        told("counted", **framework.sizes(model))
        counted = framework.work(model, case.batch_size)
        hidden = counted.untracked
        told("work", flops_per_sample=counted.flops, flops_note=counted.note, untracked=hidden)

    return in_a_process(work, emit, tempfile.mkdtemp(prefix="export-"), case.model)


def _configured(request: dict[str, Any], framework: Any, emit: Emit) -> tuple[Case, Any]:
    """Set the framework up for the request's case, before any code of the model's is imported."""
    case = Case(**request["case"])
    binding.check_process(case, request.get("bound"))
    place = Place.told(request.get("cluster"))
    if case.replicas > 1:
        framework = backends.replicated(case.replicas, place)
    if not framework.chooses_gpus:  # nothing has looked at a GPU yet
        os.environ.update(request.get("one_gpu") or {})
    framework.conventions.begin(of_the_zoo=ModelName.of(case.model).is_zoo)
    framework.asked_shapes = request.get("input_shapes") or {}
    framework.configure(
        device=case.device,
        threads=case.threads,
        precision=case.precision if case.precision in PRECISIONS else PRECISIONS[0],
        seed=request["seed"],
    )
    if request["kind"] == "measure" and not request.get("commands"):
        framework.compile_anew()  # the first step is timed
    emit("ready")
    emit("environment", **inspection.versions(framework))
    if case.replicas > 1:
        _join(request, framework, place, emit)
    return case, framework


def _asked(request: dict[str, Any], case: Case) -> set[str]:
    """Return which of precision and threads the user has asked for: by name, or by its value."""
    asked = set(request.get("asked") or ())
    if case.precision != PRECISIONS[0]:
        asked.add("precision")
    return asked | ({"threads"} if case.threads != "default" else set())


def _join(request: dict[str, Any], framework: Any, place: Place | None, emit: Emit) -> None:
    """Have the replicas come together, and those of all processes measure the same."""
    if place is not None:
        emit("waiting", what=", ".join(place.others))
    framework.join()
    if place is None:
        return
    its_own = ("id", "bound", "cluster", "one_gpu", "left_out", "each_sample")
    common = {name: value for name, value in request.items() if name not in its_own}
    digest = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).digest()
    asked = float(int.from_bytes(digest[:6], "big"))  # 48 bits: exact in a float
    if len(set(framework.everywhere(asked))) > 1:
        raise CaseFailure(
            f"{request['case']['model']}: the machines of the cluster measure different "
            "cases; start the same command on each, with the same options except --index"
        )
    emit("joined")


def _take_turns(
    request: dict[str, Any], framework: Any, emit: Emit, commands: Iterable[dict[str, Any]]
) -> None:
    case, builder, framework, emit = _make_runtime_ready(request, framework, emit)
    sizes, seed = request.get("with_sizes", False), request["seed"]
    measurement.take_turns(case, builder, seed, framework, emit, commands, with_sizes=sizes)


def _measure(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    case, builder, framework, emit = _make_runtime_ready(request, framework, emit)
    if request["smoke"]:
        measurement.smoke(case, builder, request["seed"], framework, emit)
    else:
        plan = measurement.Plan(
            seed=request["seed"],
            time_budget_s=request["time_budget_s"],
            fed=request.get("fed", True),
            each_sample=request.get("each_sample", True),
            sustain_s=request.get("sustain_s"),
            latency_limit_s=request.get("latency_limit_s"),
        )
        measurement.measure(case, builder, plan, framework, emit)


def _probe(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    case, builder, framework, emit = _make_ready(request, framework, emit)
    measurement.prove_instruments(
        case, builder, request["seed"], framework, emit, request["known_bytes"]
    )


def _describe(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    """Tell the model layer by layer; nothing is run."""
    case, builder, framework, emit = _make_ready(request, framework, emit)
    model = measurement.build(case, builder, request["seed"], framework, emit)
    framework.settle(model)  # counting calls the model
    found = flops.layer_records(model, framework.keras, framework.inputs(model))
    emit("described", layers=[dataclasses.asdict(layer) for layer in found])
    emit("finished")


def _ceiling(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    """Measure the device: no code of a model's is imported, which may set threads or precision."""
    _, framework = _configured(request, framework, emit)
    ceiling.measure(framework, emit, request.get("sizes"))


def _layers(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    case, builder, framework, emit = _make_ready(request, framework, emit)
    layers.serve(case, builder, request, framework, emit)


def _digits(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    """Find the file of the digits, have Keras download it where none is named, and read it."""
    path = request["mnist"]
    if path is None:
        emit("ready")
        load_data = framework.keras.datasets.mnist.load_data
        path = mnist.located(load_data, lambda: emit("progress", phase="downloading MNIST"))
    emit("digits", path=path, dataset=mnist.name_of(mnist.read(path)))
    emit("finished")


def _untimed(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    asked = Case(**request["case"])
    if asked.runtime != DEFAULT_RUNTIME:
        runtimes.check_installed(asked)
        trained = dataclasses.replace(_of_keras(asked), device=asked.device)
        request = {**request, "case": trained.as_fields(), "exported": request["case"]}
        emit = functools.partial(_emit_as_exported, emit, asked)
    case, builder, framework, emit = _make_ready(request, framework, emit)
    _MODULES[case.task].serve(case, builder, request, framework, emit)


def _of_keras(case: Case) -> Case:
    return dataclasses.replace(case, runtime=DEFAULT_RUNTIME, precision=PRECISIONS[0], device="cpu")


def _emit_as_exported(emit: Emit, case: Case, event: str, **fields: Any) -> None:
    """Report an event of the Keras model that a case exports; the row is of its precision."""
    if event == "read_back":
        fields["precision"] = case.precision
    emit(event, **fields)


def _duet(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    case, framework = _configured(request, framework, emit)
    duet.play(case, request, framework, emit)
    emit("finished")


_KINDS = {
    "ceiling": _ceiling,
    "describe": _describe,
    "digits": _digits,
    "duet": _duet,
    "inspect": inspection.inspect,
    "layers": _layers,
    "measure": _measure,
    "probe": _probe,
    **dict.fromkeys(_MODULES, _untimed),
}
