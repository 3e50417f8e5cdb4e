"""Exported models: which cases there are, the files that are made and refused, real LeNet-5s.

The workers' cases share one interpreter; a runtime that is not installed is skipped and says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forks import Forks, warm_interpreters
from workers import environ, measured

from convmark.core.case import Case, expand
from convmark.core.errors import CaseError, OptionError
from convmark.core.options import Options
from convmark.core.runtimes import EXPORTS, RUNTIMES
from convmark.core.suites import refuse_runtimes
from convmark.interpreter import Answer, Interpreter
from convmark.worker import runtimes
from convmark.worker.failure import CaseFailure, UnknownModelError
from convmark.worker.runtimes import export as exporting
from convmark.worker.runtimes import files
from convmark.worker.runtimes.export import Exported

EXPORTING = sorted(name for name in RUNTIMES if name != "keras")
OF_TENSORFLOW = [name for name in EXPORTING if RUNTIMES[name].backend == "tensorflow"]


def case(**changes: Any) -> Case:
    return Case(**{"model": "lenet5", "task": "infer", "runtime": "onnxruntime", **changes})


def test_a_runtime_is_named_in_the_case_where_it_is_not_keras() -> None:
    assert case().name == "lenet5-infer-cpu-b1-float32-onnxruntime"
    assert case(runtime="keras").name == "lenet5-infer-cpu-b1-float32"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"task": "train"}, "runtime onnxruntime needs task infer or accuracy, got 'train'"),
        ({"task": "accuracy", "model": "a.onnx"}, "needs task infer, got 'accuracy'"),
        ({"backend": "jax"}, "runtime onnxruntime needs backend tensorflow, got 'jax'"),
        ({"runtime": "torchexport"}, "torchexport needs backend torch, got 'tensorflow'"),
        ({"jit": "on"}, "runtime onnxruntime needs jit off, got 'on'"),
        ({"precision": "int8"}, "needs precision float32 or dynamic_int8, got 'int8'"),
        ({"runtime": "openvino", "device": "gpu:0"}, "openvino needs device cpu, got 'gpu:0'"),
        ({"runtime": "tvm"}, "runtime must be one of keras, savedmodel, "),
    ],
)
def test_a_case_refuses_what_its_runtime_cannot_run(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(CaseError, match=rule):
        case(**changes)


def test_a_file_may_be_of_a_precision_that_nothing_is_exported_in() -> None:
    assert case(model="a.xml", runtime="openvino", precision="float16").precision == "float16"


def test_each_runtime_has_the_cases_that_it_can_run() -> None:
    found = expand(
        models=["lenet5"],
        tasks=["train", "infer"],
        devices=["cpu"],
        batch_sizes=[1],
        precisions=["float32", "int8"],
        runtimes=["keras", "onnxruntime", "openvino"],
    )
    assert [(one.task, one.precision, one.runtime) for one in found] == [
        ("train", "float32", "keras"),
        ("infer", "float32", "keras"),
        ("infer", "float32", "onnxruntime"),
        ("infer", "float32", "openvino"),
        ("infer", "int8", "openvino"),
    ]


def test_a_runtime_of_which_there_would_be_no_case_is_refused() -> None:
    with pytest.raises(
        OptionError, match="--tasks: the runtime openvino needs infer or accuracy, got"
    ):
        refuse_runtimes(Options(tasks=("train",), runtimes=("openvino",)))
    refuse_runtimes(Options(tasks=("train",), runtimes=("keras",)))


def test_the_code_of_each_runtime_has_a_hash_of_its_own_and_of_what_all_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({runtimes.code_hash(name) for name in EXPORTING}) == len(EXPORTING)
    before = runtimes.code_hash("litert")
    shutil.copytree(Path(runtimes.__file__).parent, tmp_path / "copy")
    monkeypatch.setattr(runtimes, "__file__", str(tmp_path / "copy" / "__init__.py"))
    assert runtimes.code_hash("litert") == before
    (tmp_path / "copy" / "engine.py").write_text("# another way to freeze a function")
    assert runtimes.code_hash("litert") != before


def export_of(path: str, batch: list[Any]) -> Exported:
    """Return an export of a model with one input, and nothing to compare it with."""
    built = {"built": {"input_shape": [2]}, "path": {"places": [0]}}
    return Exported(path, [batch], [], built)


def test_a_step_that_ends_before_its_outputs_are_in_host_memory_is_refused() -> None:
    from convmark.worker.exported import ExportedBackend, Loaded

    class Late:
        """As a tensor of a framework that computes behind the caller's back."""

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.ones((1, 2), np.float32)

    class Engine:
        def __init__(self, output: Any) -> None:
            self.run = lambda arrays: [output]
            self.threads = lambda: 1

    def backend_of(its_case: Case) -> Any:
        return ExportedBackend(None, its_case, export_of("a", batch), 0, lambda *_, **__: None)

    batch = [np.ones((1, 2), np.float32)]
    backend = backend_of(case(threads="1"))
    backend.described_inference(Loaded(Engine(batch[0])))
    with pytest.raises(CaseFailure, match="asked for threads 2, but the runtime uses 1; leave"):
        backend_of(case(threads="2")).described_inference(Loaded(Engine(batch[0])))
    with pytest.raises(CaseFailure, match="must return NumPy arrays, got Late"):
        backend.described_inference(Loaded(Engine(Late())))


def test_quantised_forms_are_held_to_the_bound_of_16_samples_whatever_the_batch_size() -> None:
    from convmark.worker.exported import ExportedBackend, Loaded

    wanted = np.random.default_rng(0).normal(0, 1, (64, 10))
    far = wanted.copy()
    far[40, 3] += 2
    its_export = export_of("folder/a", [wanted])
    its_export = dataclasses.replace(its_export, references=[[wanted]])
    engine = SimpleNamespace(run=lambda arrays: [far], threads=lambda: 1)
    for precision, why in (("int8", None), ("float32", "computes something else")):
        asked = case(runtime="litert", precision=precision, batch_size=64)
        backend = ExportedBackend(None, asked, its_export, 0, lambda *_, **__: None)
        refused = pytest.raises(CaseFailure, match=why) if why else contextlib.nullcontext()
        with refused:
            backend.described_inference(Loaded(engine))


# -- real workers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtimes") / "exports"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def interpreter(
    warm: None, kept: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interpreter]:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("models are exported by TensorFlow, which is not installed")
    variables = environ(tmp_path_factory.mktemp("runtimes"), **{EXPORTS: str(kept)})
    with Interpreter(environ=variables, folder=kept.parent) as made:
        yield made


Measured = Callable[..., Answer]


@pytest.fixture(scope="module")
def lenet5(interpreter: Interpreter) -> Measured:
    """Measures LeNet-5 by a runtime, once."""
    kept: dict[tuple[str, str], Answer] = {}

    def answered(runtime: str, precision: str = "float32") -> Answer:
        package = RUNTIMES[runtime].package
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        if (runtime, precision) not in kept:
            asked = measured("lenet5", runtime=runtime, precision=precision, threads="1")
            kept[runtime, precision] = interpreter.answer(asked)
        return kept[runtime, precision]

    return answered


NAMED = """
import keras

def net():
    image, age = keras.Input((8, 8, 3), name="image"), keras.Input((1,), name="age")
    seen = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(image))
    both = keras.layers.Concatenate()([seen, age])
    return keras.Model({"image": image, "age": age}, keras.layers.Dense(3)(both))

class Guess(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, scores):
        return scores + keras.random.normal(keras.ops.shape(scores), seed=self.seed)

def guess():
    scores = keras.Input((8,))
    return keras.Model(scores, Guess()(keras.layers.Dense(3)(scores)))

class Trained(keras.Model):
    def train_step(self, data):
        return {}

def trained():
    return Trained()

trained.input_spec = lambda samples: __import__("numpy").ones((samples, 4), "float32")

def norms():
    layers = [keras.Input((8,))]
    for _ in range(12):
        layers += [keras.layers.Dense(8, kernel_initializer="random_normal"),
                   keras.layers.BatchNormalization()]
    return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])

def half():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, dtype="mixed_bfloat16")])
"""


def test_models_as_people_write_them_are_exported_or_refused_with_the_reason(
    interpreter: Interpreter, kept: Path
) -> None:
    (kept.parent / "named_nets.py").write_text(NAMED)
    answer = interpreter.answer(measured("named_nets:net", runtime="savedmodel"))
    assert answer.status == "ok", answer.message
    shapes = [one["input_shape"] for one in answer.events if one["event"] == "built"]
    assert shapes == [{"image": [8, 8, 3], "age": [1]}] * 2
    for name, why in (
        ("half", "an export is made from a model in float32, 1 of 1 layers with weights compute "
         "otherwise: mixed_bfloat16; measure it with --runtime keras, or have the model's code set "
         "no policy or dtype"),
        ("guess", "an export cannot be compared, because the Keras model gives other outputs "
         "when it is called again on the same batch; draw no random numbers and change no "
         "variables in its inference, or measure it with --runtime keras"),
        ("trained", "a model without its own call() cannot infer; measure its training "
         "(--tasks train), or write a call()"),
    ):  # fmt: skip
        refused = interpreter.answer(measured(f"named_nets:{name}", runtime="savedmodel"))
        assert refused.message == f"named_nets:{name}: {why}"
    untrained = interpreter.answer(measured("named_nets:norms", runtime="savedmodel"))
    assert untrained.status == "ok", untrained.message


@pytest.mark.parametrize("runtime", OF_TENSORFLOW)
def test_an_exported_lenet5_is_timed_and_computes_the_same(runtime: str, lenet5: Measured) -> None:
    answer = lenet5(runtime)
    assert answer.status == "ok", answer.message
    found = answer.event("agreement")
    assert found is not None
    assert found["largest_rel_error"] < 1e-5
    assert found["top1_agreement"] == 1
    assert [one["event"] for one in answer.events].count("agreement") == 1
    exported = answer.event("exported")
    assert exported is not None
    assert exported["exported_bytes"] > 4 * 61_706
    assert exported["export_s"] > 0
    built, steps = answer.event("built"), answer.event("steps")
    assert built is not None
    assert built["parameters"] == 61_706
    assert steps is not None
    assert min(steps["times_s"]) > 0


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_program_of_torch_export_computes_what_the_model_of_its_backend_does(
    kept: Path, tmp_path: Path, forks_of: Callable[[str], Forks]
) -> None:
    variables = environ(tmp_path, **{EXPORTS: str(kept)})
    with (
        warm_interpreters(forks_of("torch")),
        Interpreter(environ=variables, folder=kept.parent, backend="torch") as torch,
    ):
        answer = torch.answer(measured("lenet5", runtime="torchexport", backend="torch"))
    assert answer.status == "ok", answer.message
    found = answer.event("agreement") or {}
    assert found["largest_rel_error"] < 1e-5
    assert found["runtime_threads"] == 1


def test_without_onnx_an_onnx_file_of_ours_is_checked_and_its_precision_is_known(
    lenet5: Measured, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("float32", "dynamic_int8"):
        assert lenet5("onnxruntime", precision).status == "ok"
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    monkeypatch.setitem(sys.modules, "onnx", None)
    files._onnx.cache_clear()
    for precision in ("float32", "dynamic_int8"):
        path = str(exported(kept, "onnxruntime", precision) / "model.onnx")
        files.check_runtime_file(path, ours=True)
        assert files.onnx_precision(path) == precision
        with pytest.raises(UnknownModelError, match="its parts cannot be checked"):
            files.check_runtime_file(path)


def test_a_quantised_onnx_file_is_alone_in_its_folder(lenet5: Measured) -> None:
    answer = lenet5("onnxruntime", "dynamic_int8")
    assert answer.status == "ok", answer.message
    told = answer.event("exported")
    assert told is not None
    assert told["exported_bytes"] < 100_000  # 61,706 weights of one byte


def test_what_code_ran_is_that_of_the_exporting_process(lenet5: Measured) -> None:
    codes = [event for event in lenet5("savedmodel").events if event["event"] == "code"]
    assert len(codes) == 1
    assert any(file["path"].endswith("lenet.py") for file in codes[0]["files"])


def test_threads_that_were_asked_for_are_in_force(lenet5: Measured) -> None:
    found = lenet5("onnxruntime").event("agreement")
    assert found is not None
    assert found["runtime_threads"] == 1
    for runtime in ("onnxruntime", "savedmodel"):  # TensorFlow begins others, which compute nothing
        told = [one["pool_threads"] for one in lenet5(runtime).events if "pool_threads" in one]
        assert told == [1], runtime


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        ("litert", {"xnnpack": "True"}),
        ("onnxruntime", {"graph_optimization": "ORT_ENABLE_ALL", "spinning": "default",
                         "providers": "CPUExecutionProvider", "execution_mode": "ORT_SEQUENTIAL"}),
        ("openvino", {"hint": "LATENCY", "streams": "1", "mode": "PERFORMANCE"}),
    ],
)  # fmt: skip
def test_how_a_runtime_runs_is_read_back_from_it(
    runtime: str, settings: dict[str, str], lenet5: Measured
) -> None:
    found = (lenet5(runtime).event("read_back") or {})["inherited"]
    assert found == {f"{runtime}.{name}": value for name, value in settings.items()}


@pytest.mark.parametrize("kind", ["describe", "layers", "probe"])
def test_what_keras_alone_can_be_asked_for_is_refused_of_a_runtime(
    kind: str, interpreter: Interpreter, kept: Path
) -> None:
    (kept.parent / "any.tflite").write_bytes(bytes(40))
    for model, runtime, refused in (
        ("lenet5", "savedmodel", "savedmodel"),
        ("any.tflite", "keras", "litert"),
    ):
        asked = {**measured(model, runtime=runtime), "kind": kind, "seconds": 0.0, "known_bytes": 1}
        answer = interpreter.answer(asked)
        assert answer.message == f"{model}: {kind} needs the runtime keras, got {refused}"


def test_the_ceilings_of_a_runtimes_case_are_the_devices(interpreter: Interpreter) -> None:
    asked = {**measured("lenet5", runtime="savedmodel"), "kind": "ceiling", "sizes": 1}
    assert interpreter.answer(asked).status == "ok"


def exported(kept: Path, runtime: str, precision: str = "float32") -> Path:
    """Return the folder of the one file that was exported to a runtime in a precision."""
    (folder,) = [
        path
        for path in kept.iterdir()
        if json.loads((path / "export.json").read_text())["case"].endswith(
            f"{precision}-t1-{runtime}"
        )
    ]
    return folder


def as_if_exported_so(folder: Path) -> None:
    """Have an export that was changed have the hash of what it holds."""
    told = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(
        json.dumps({**told, "sha256": exporting._digest(str(folder))})
    )


def test_a_file_that_is_there_already_is_a_case_of_its_runtime(
    lenet5: Measured, interpreter: Interpreter, kept: Path
) -> None:
    lenet5("litert")
    shutil.copy(exported(kept, "litert") / "model.tflite", kept.parent / "small.tflite")
    (found,) = expand(models=["small.tflite"], tasks=["infer"], devices=["cpu"], batch_sizes=[1])
    assert found.runtime == "litert"
    answer = interpreter.answer(measured("small.tflite", runtime="litert", threads="1"))
    assert answer.status == "ok", answer.message
    built, compared = answer.event("built"), answer.event("agreement")
    assert built is not None
    assert built["input_shape"] == [28, 28, 1]
    size = (kept.parent / "small.tflite").stat().st_size
    assert (answer.event("exported") or {})["exported_bytes"] == size
    assert compared is not None
    assert "largest_rel_error" not in compared
    other = interpreter.answer(measured("small.tflite", runtime="litert", batch_size=2))
    assert other.message == ("small.tflite: takes batches of size 1, got 2; use --batch-sizes 1")


SIGNED = """
import tensorflow as tf

class Two(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal((4, 3), (1, 2)))

    @tf.function(input_signature=[tf.TensorSpec((2, 4), tf.float32, name="x")])
    def encode(self, x):
        return {"codes": tf.tanh(x @ self.weights)}

    @tf.function(input_signature=[tf.TensorSpec((2, 3), tf.float32, name="y")])
    def decode(self, y):
        return {"samples": tf.matmul(y, self.weights, transpose_b=True)}

two = Two()
named = {"encode": two.encode, "serving_default": two.decode}
tf.saved_model.save(two, "two", signatures=named)
converted = tf.lite.TFLiteConverter.from_saved_model("two", signature_keys=list(named)).convert()
open("two.tflite", "wb").write(converted)
"""


def test_of_several_signatures_the_one_that_is_asked_for_runs_and_the_row_says_which(
    interpreter: Interpreter, kept: Path, forks_of: Callable[[str], Forks]
) -> None:
    done = forks_of("tensorflow").run(SIGNED, cwd=kept.parent)
    assert done.returncode == 0, done.stderr
    asked = [("two/", "keras", "tf.function, signature serving_default", [3])]
    asked += [("two/#encode", "keras", "tf.function, signature encode", [4])]
    if importlib.util.find_spec("ai_edge_litert"):
        asked += [("two.tflite#encode", "litert", "litert, signature encode", [4])]
        asked += [
            ("two.tflite#serving_default", "litert", "litert, signature serving_default", [3])
        ]
    for model, runtime, path, shape in asked:
        answer = interpreter.answer(measured(model, runtime=runtime, batch_size=2))
        assert answer.status == "ok", answer.message
        assert (answer.event("built") or {})["input_shape"] == shape
        assert (answer.event("read_back") or {})["call_path"] == path
    other = interpreter.answer(measured("two/#train", batch_size=2))
    assert other.message == (
        "two/: must have a signature train, it has encode, serving_default; choose one, as in "
        "two/#encode"
    )


def test_a_file_of_the_same_model_is_used_again_and_weights_changed_in_it_are_an_error(
    lenet5: Measured, interpreter: Interpreter, kept: Path
) -> None:
    lenet5("litert")
    file = exported(kept, "litert") / "model.tflite"
    stored = bytearray(file.read_bytes())
    dense = np.frombuffer(stored, np.float32, count=25_000, offset=100_000)
    dense[:] = dense * 1.5
    file.write_bytes(stored)
    asked = measured("lenet5", runtime="litert", threads="1")
    changed = interpreter.answer(asked)
    as_if_exported_so(file.parent)
    again = interpreter.answer(asked)
    shutil.rmtree(file.parent)
    name = "lenet5-infer-cpu-b1-float32-t1-litert"
    assert changed.status == again.status == "error"
    assert f"{name}: the exported file was changed after it was made; remove" in changed.message
    assert f"{name}: computes something else" in again.message
    assert "remove" in again.message


@pytest.mark.parametrize(
    "text",
    [
        "INVALID_GRAPH : Load model from a.onnx failed:This is an invalid model. In Node, "
        '("odd", Betainc, "", -1) : (), Error No Op registered for Betainc with domain_version',
        "Could not translate MLIR.\nCustom ops: Betainc\nDetails:\n\ttf.Betainc(tensor)",
        "Some ops are not supported by the native runtime\nTF Select ops: Betainc\nDetails:",
        "Summary:\n-- No conversion rule found for operations: Betainc\nTo facilitate",
    ],
)
def test_an_operation_that_a_runtime_does_not_know_is_named(text: str) -> None:
    assert runtimes.reason(RuntimeError(text)) == "it does not know the operation Betainc"


def test_what_openvino_says_stands_before_the_places_in_its_source() -> None:
    text = "Exception from src/core.cpp:132:\nException from src/reader.cpp:14:\nno weights\n"
    assert runtimes.reason(RuntimeError(text)) == "RuntimeError: no weights"


def test_openvino_gives_each_output_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO makes and loads the file")
    import openvino
    from openvino import opset13

    from convmark.worker.runtimes.open_vino import OpenVino

    given = opset13.parameter([1, 2], openvino.Type.f32)
    outputs = [opset13.relu(given), opset13.abs(given)]
    openvino.save_model(openvino.Model(outputs, [given]), tmp_path / "a.xml")
    found = OpenVino(str(tmp_path / "a.xml"), "1", "cpu").run([np.array([[-2, 3]], np.float32)])
    assert [one.tolist() for one in found] == [[[0, 3]], [[2, 3]]]


def test_litert_takes_each_input_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="the engine is written against it")
    from convmark.worker.runtimes import lite_rt

    given: dict[int, Any] = {}
    stand_in = SimpleNamespace(
        allocate_tensors=lambda: None,
        get_signature_list=dict,
        get_input_details=lambda: [
            {"index": 4, "shape_signature": [1, 2]},
            {"index": 2, "shape_signature": [1, 3]},
        ],
        get_output_details=lambda: [{"index": 7}, {"index": 5}],
        set_tensor=given.__setitem__,
        invoke=lambda: given.update({7: given[4] - given[2], 5: given[4]}),
        get_tensor=given.__getitem__,
    )
    monkeypatch.setattr(lite_rt, "Interpreter", lambda *_, **__: stand_in)
    engine = lite_rt.LiteRT("net.tflite", "1", "cpu")
    assert engine.run([5, 3]) == [2, 5]
    for wrong in ([5], [5, 3, 1]):
        with pytest.raises(ValueError, match="zip"):
            engine.run(wrong)
    for names, path, rule in (
        ("ab", "net.tflite", "must have one signature, but it has a, b; choose one, as in net.*#a"),
        ("ab", "net.tflite#c", "must have a signature c, but it has a, b; choose"),
        ("a", "net.tflite#c", "must have a signature c, but it has a; choose"),
        ("", "net.tflite#c", "must have a signature c, but it has none$"),
    ):
        stand_in.get_signature_list = lambda names=names: dict.fromkeys(names)
        with pytest.raises(CaseFailure, match=rule):
            lite_rt.LiteRT(path, "1", "cpu")


@pytest.mark.parametrize("precision", ["dynamic_int8", "float16", "int8"])
def test_a_quantised_lenet5_agrees_and_one_with_weights_of_zero_is_an_error(
    precision: str, lenet5: Measured, interpreter: Interpreter, kept: Path
) -> None:
    answer = lenet5("litert", precision)
    assert answer.status == "ok", answer.message
    file = exported(kept, "litert", precision) / "model.tflite"
    from convmark.worker.runtimes.lite_rt import LiteRT

    assert LiteRT(str(file), "1", "cpu").stored_precision() == precision
    stored = bytearray(file.read_bytes())
    middle, part = len(stored) // 2, len(stored) // 6  # of the largest layer's weights
    stored[middle - part : middle + part] = bytes(2 * part)
    file.write_bytes(stored)
    as_if_exported_so(file.parent)
    asked = measured("lenet5", runtime="litert", precision=precision, threads="1")
    again = interpreter.answer(asked)
    shutil.rmtree(file.parent)
    assert f"lenet5-infer-cpu-b1-{precision}-t1-litert: computes something else" in again.message


@pytest.mark.parametrize(
    ("asked", "missing", "rule", "others"),
    [
        ({}, "onnxruntime", "ONNX Runtime is not installed; install convmark[onnxruntime]", {}),
        ({}, "tf2onnx", "tf2onnx, which exports to ONNX Runtime, is not installed; install "
         "convmark[onnxruntime]", {"model": "a.onnx"}),
        ({"runtime": "openvino", "precision": "int8"}, "nncf", "nncf, which exports to OpenVINO, "
         "is not installed; install convmark[nncf]", {"runtime": "openvino"}),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_one_line_with_its_extra_before_anything_is_built(
    asked: dict[str, Any],
    missing: str,
    rule: str,
    others: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != missing or None)
    with pytest.raises(CaseFailure) as refused:
        runtimes.check_installed(case(**asked))
    assert str(refused.value) == f"lenet5: {rule} in the measured environment"
    if others:
        runtimes.check_installed(case(**others))


def test_what_a_converter_refuses_names_the_model_and_what_it_lacks_its_extra() -> None:
    def failing(error: Exception) -> str:
        def convert(*_: Any) -> None:
            raise error

        asked = case(runtime="openvino", precision="int8")
        with pytest.raises(CaseFailure) as refused:
            exporting._converted(asked, convert, None, "a")  # type: ignore[arg-type]
        return str(refused.value)

    cannot = "lenet5: cannot be exported to OpenVINO"
    assert failing(CaseFailure("its input x is unused")) == f"{cannot}: its input x is unused"
    assert failing(ImportError("no symbol")) == (
        f"{cannot} (no symbol); install convmark[openvino] and convmark[nncf] in the measured "
        "environment"
    )


def test_the_version_of_a_build_for_gpus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.32.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert runtimes.versions("onnxruntime") == "onnxruntime-gpu==1.32.0"


def test_onnx_runtime_computes_float32_on_a_gpu_without_tf32_and_nothing_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="a session is made by ONNX Runtime")
    from convmark.worker.runtimes.onnx_runtime import OnnxRuntime

    asked, cuda = list[Any](), "CUDAExecutionProvider"

    class Session:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            asked.extend(providers)
            asked.append(options.get_session_config_entry("session.disable_cpu_ep_fallback"))

        def get_providers(self) -> list[str]:
            return [cuda]

        def get_inputs(self) -> list[Any]:
            return []

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    OnnxRuntime("a.onnx", "default", "gpu:1")
    assert asked == [(cuda, {"device_id": 1, "use_tf32": 0}), "1"]
