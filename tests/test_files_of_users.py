"""Files of runtimes as people have them: what they take and give is measured or refused."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from forks import Forks, warm_interpreters
from workers import environ, measured

from convmark.core.case import Case
from convmark.interpreter import Interpreter
from convmark.worker import runtimes
from convmark.worker.failure import CaseFailure, UnknownModelError
from convmark.worker.model_files import files_of
from convmark.worker.other_samples import hold_each_sample
from convmark.worker.runtimes.engine import Taken
from convmark.worker.runtimes.export import Exported
from convmark.worker.runtimes.files import check_runtime_file, onnx_precision, onnx_products

if TYPE_CHECKING:  # it imports Keras
    from convmark.worker.exported import ExportedBackend

BATCH = 4
CASE = Case(model="net.onnx", task="infer", batch_size=BATCH, runtime="onnxruntime")

Run = Callable[[Sequence[Any]], Sequence[Any]]


def loaded(run: Run, *shapes: tuple[int | None, ...]) -> tuple[ExportedBackend, Any]:
    """Return the backend of a file that takes such inputs, and the file as it is loaded."""
    from convmark.worker.exported import ExportedBackend

    taken = [Taken(f"x{place}", shape, "float32") for place, shape in enumerate(shapes)]
    engine = SimpleNamespace(
        taken=taken,
        bound=lambda arrays: functools.partial(run, arrays),
        threads=lambda: None,
        resize=lambda shapes: None,
        stored_precision=lambda: "float32",
        multiplies_in=tuple,
        call_path="onnxruntime",
        settings=dict,
    )
    framework = SimpleNamespace(asked_shapes={}, _inputs={})
    exported = Exported("net.onnx", (), (), {})
    backend = ExportedBackend(framework, CASE, exported, 0, lambda *_, **__: None)
    return backend, backend.load(lambda *_: engine)


def whole(arrays: Sequence[Any]) -> list[Any]:
    return [arrays[0].sum(1)]


@pytest.mark.parametrize(
    ("shapes", "rule"),
    [
        ([()], "must have a batch axis and no axis of size 0, its input x0 has the shape scalar"),
        ([(None, 0)], "no axis of size 0, its input x0 has the shape [?]x0"),
        ([(2, 3)], "takes batches of size 2, got 4; use --batch-sizes 2"),
        ([], "the file has no input; convert it with one"),
    ],
)
def test_what_takes_no_batch_is_refused(shapes: list[Any], rule: str) -> None:
    with pytest.raises(CaseFailure, match=f"net.onnx: .*{rule}"):
        loaded(whole, *shapes)


@pytest.mark.parametrize(
    ("run", "computes"),
    [
        (whole, True),
        (lambda arrays: [arrays[0][:1]], False),
        (lambda arrays: [np.asarray(arrays[0].mean())], True),  # of all samples, without their axis
        (lambda arrays: [np.zeros(3, np.float32)], False),
        (lambda arrays: [np.argwhere(arrays[0].sum(1) > 3.3)], True),  # finds some, at times
    ],
)
def test_a_file_that_leaves_samples_out_has_no_throughput(run: Run, computes: bool) -> None:
    backend, file = loaded(run, (None, 5))
    step = backend.inference_step(file, BATCH, 0, False)
    if computes:
        hold_each_sample(CASE, file, step, 0, backend)
        return
    with pytest.raises(CaseFailure, match=r"must use each of the 4 samples of a batch"):
        hold_each_sample(CASE, file, step, 0, backend)


def test_what_a_timed_step_can_look_up_once_it_looks_up_before() -> None:
    backend, file = loaded(whole, (None, 5))
    made = file.engine.bound
    bound: list[Any] = []
    file.engine.bound = lambda arrays: bound.append(arrays) or made(arrays)
    step = backend.inference_step(file, BATCH, 0, False)
    timed = step.bound()
    assert [timed()[1][0].shape for _ in range(3)] == [(BATCH,)] * 3
    assert len(bound) == 1
    others = np.ones((BATCH, 5), np.float32)
    assert step.run(others)[1][0].tolist() == [5.0] * BATCH


def test_the_weights_that_keras_does_not_list_are_those_of_an_export_too() -> None:
    from convmark.worker.exported import ExportedBackend

    told = {"work": {"flops_per_sample": 8, "flops_note": None, "untracked": 772}}
    exported = Exported("net.onnx", (), (), told)
    backend = ExportedBackend(None, CASE, exported, 0, lambda *_, **__: None)
    assert (backend.work(None, BATCH).flops, backend.work(None, BATCH).untracked) == (8, 772)


def test_outputs_of_texts_count_by_their_lengths() -> None:
    backend, _ = loaded(whole, (None, 5))
    for texts in (np.array([b"abc", b"abc"]), np.array(["abc", "abc"], object)):
        assert backend.fingerprint((None, [texts])) == pytest.approx(3.0)


def test_a_file_of_open_axes_is_made_ready_when_its_shapes_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ai_edge_litert", reason="the engine is written against it")
    from convmark.worker.runtimes import lite_rt

    done: list[Any] = []
    stand_in = SimpleNamespace(
        allocate_tensors=lambda: done.append("allocated"),
        resize_tensor_input=lambda index, shape: done.append(shape),
        get_signature_list=dict,
        get_input_details=lambda: [{"index": 0, "shape_signature": np.array([-1, -1, -1, 3])}],
        get_output_details=list,
    )
    monkeypatch.setattr(lite_rt, "Interpreter", lambda *_, **__: stand_in)
    engine = lite_rt.LiteRT("net.tflite", "1", "cpu")
    engine.resize([(BATCH, 8, 8, 3)])
    assert done == [[BATCH, 8, 8, 3], "allocated"]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.tflite", b"nothing", "must be a TensorFlow Lite file"),
        ("a.xml", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><net/>', "without document"),
        ("a.xml", b"<net>" + b" " * 5000 + b"<!DOCTYPE a><net/>", "without document"),
        (
            "a.xml",
            b"<net></net>",
            "its weights, the .bin file of the same name, must be in the same folder",
        ),
        ("a.onnx", b"\xff" * 50, "must be an ONNX file, it cannot be read"),
    ],
)
def test_a_file_that_is_not_its_runtimes_is_refused(
    name: str, content: bytes, rule: str, tmp_path: Path
) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnx", reason="parts of ONNX files are checked by onnx")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnknownModelError, match=rule):
        check_runtime_file(str(tmp_path / name))


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd"])
def test_tensors_outside_the_folder_of_an_onnx_file_are_refused(place: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="parts of ONNX files are checked by onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value=place)
    graph = onnx.GraphProto(name="g", initializer=[tensor])
    (tmp_path / "a.onnx").write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    with pytest.raises(UnknownModelError, match=f"one is in {place}"):
        check_runtime_file(str(tmp_path / "a.onnx"))


def test_the_weights_beside_a_file_are_code_that_ran(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="parts of ONNX files are read by onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="a.weights")
    graph = onnx.GraphProto(name="g", initializer=[tensor])
    (tmp_path / "a.onnx").write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    for name in ("a.xml", "a.bin"):
        (tmp_path / name).touch()
    found = [[Path(one).name for one in files_of(str(tmp_path / f"a.{kind}"))]
             for kind in ("onnx", "xml", "tflite")]  # fmt: skip
    assert found == [["a.onnx", "a.weights"], ["a.xml", "a.bin"], ["a.tflite"]]


@pytest.mark.parametrize(
    ("left_out", "precision"),
    [([], "int8"), (["second"], "float32+int8"), (["first", "second"], "float32_from_int8")],
)
def test_an_onnx_file_of_which_a_part_is_quantised_is_of_both_precisions(
    left_out: list[str], precision: str, tmp_path: Path
) -> None:
    """As quantisers leave the first layer or the last one as it is."""
    onnx = pytest.importorskip("onnx", reason="parts of ONNX files are read by onnx")
    make = onnx.helper.make_node
    nodes = [make("QuantizeLinear", ["x", "s", "z"], ["xq"])]
    for taken, name in (("x", "first"), ("first", "second")):
        inputs = [taken, "w"]
        if name not in left_out:
            nodes += [
                make("QuantizeLinear", [taken, "s", "z"], [f"{name}_q"]),
                make("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_dq"]),
            ]
            inputs = [f"{name}_dq", "w"]
        nodes.append(make("MatMul", inputs, [name], name=name))
    graph = onnx.GraphProto(name="g", node=nodes)
    path = tmp_path / "a.onnx"
    path.write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    found = runtimes.precision_of(onnx_precision(str(path)), onnx_products(str(path)))
    assert found == precision


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's")
def test_the_memory_of_loading_a_file_is_without_that_of_reading_it_before(
    tmp_path: Path, forks_of: Callable[[str], Forks]
) -> None:
    """Checked by parsing all of it, an ONNX file takes more than twice its size."""
    for package in ("onnx", "onnxruntime", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from onnx import helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(0, 0.03, (1000, 1000)).astype(np.float32)
    held = [numpy_helper.from_array(weights, f"w{place}") for place in range(12)]
    names = ["x", *(f"y{place}" for place in range(12))]
    nodes = [
        helper.make_node("MatMul", [taken, one.name], [made])
        for taken, made, one in zip(names, names[1:], held, strict=False)
    ]
    ends = [helper.make_tensor_value_info(name, 1, [1, 1000]) for name in ("x", names[-1])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "a.onnx")
    with (
        warm_interpreters(forks_of("tensorflow")),
        Interpreter(environ=environ(tmp_path), folder=tmp_path) as interpreter,
    ):
        answer = interpreter.answer(measured("a.onnx", runtime="onnxruntime", threads="1"))
    assert answer.status == "ok", answer.message
    size = (tmp_path / "a.onnx").stat().st_size
    peaks = answer.event("peaks") or {}
    assert size < peaks["build_host_bytes"] < 2 * size
