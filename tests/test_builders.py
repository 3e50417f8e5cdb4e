"""From a name to a model: users' own builders, models and files, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from forks import Forks
from workers import environ, measured

from convmark.core.errors import WorkerError
from convmark.core.model_name import TRUST, ModelName
from convmark.interpreter import Answer, Interpreter
from convmark.interpreter.inspection import inspect as inspect_models
from convmark.worker.builders import _own, builder
from convmark.worker.failure import UnknownModelError
from convmark.worker.model_files import check_file


class NoKeras:
    """A backend that knows its models by their class."""

    class Model:
        def __call__(self) -> None:
            raise AssertionError("a model is no builder")

    def is_model(self, candidate: Any) -> bool:
        return isinstance(candidate, self.Model)

    def other_keras(self, candidate: Any) -> None:
        return None


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's module; beside it one that fails, and one that ends the program."""
    module = ModuleType("own_nets")
    module.__dict__.update(net=lambda width, depth=1: (width, depth), width=32, Family=NoKeras)
    module.__dict__["instance"] = NoKeras.Model()
    module.__dict__["pair"] = lambda width, depth: (width, depth)
    module.__dict__["given"] = functools.wraps(module.net)(lambda: module.net("its own"))
    monkeypatch.setitem(sys.modules, "own_nets", module)
    monkeypatch.setitem(sys.modules, "convmark_zoo", ModuleType("convmark_zoo"))
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('first line\\nsecond line')")
    old = "cannot import name 'generic_utils' from 'keras.utils' (utils.py)"
    (tmp_path / "own_older.py").write_text(f'raise ImportError("{old}")')
    (tmp_path / "own_script.py").write_text("raise SystemExit(2)")
    (tmp_path / "token.py").write_text("def net(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("own_nets:net(2)", (2, 1)),
        ("own_nets:net(depth=3,width=4)", (4, 3)),
        ("own_nets:given", ("its own", 1)),
    ],
)
def test_a_builder_is_called_with_the_arguments_of_its_name(
    own_module: ModuleType, name: str, model: tuple[int, int]
) -> None:
    assert builder(name, NoKeras())() == model


def test_a_model_in_a_module_is_taken_as_it_is(own_module: ModuleType) -> None:
    found = builder("own_nets:instance", NoKeras())
    assert found() is own_module.instance


def test_a_watched_builder_keeps_its_input_and_target_specs(own_module: ModuleType) -> None:
    own_module.Family.input_spec = staticmethod(len)
    own_module.Family.target_spec = staticmethod(max)
    found = builder("own_nets:Family", NoKeras()).watched(lambda build: lambda: [build()])
    assert isinstance(found()[0], NoKeras)
    assert (found.input_spec, found.target_spec) == (len, max)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_missing.nets:small",
            "own_missing.nets:small: cannot import own_missing.nets: "
            "ModuleNotFoundError: No module named 'own_missing'; it must be in the working folder "
            "or be installed",
        ),
        (
            "own_broken:small",
            "own_broken:small: cannot import own_broken: RuntimeError: first line second line",
        ),
        (
            "own_older:small",
            "own_older:small: cannot import own_older: ImportError: cannot import name "
            "'generic_utils' from 'keras.utils' (utils.py); it may be written for another Keras: "
            "Keras 2 is measured with TF_USE_LEGACY_KERAS=1 in the environment, or with --env "
            "'tensorflow==2.15.*', Keras 3 without them",
        ),
        (
            "own_script:net",
            "own_script:net: own_script ends the program when it is imported (exit status 2); move "
            'its main program below if __name__ == "__main__"',
        ),
        ("own_nets:large", "own_nets:large: own_nets has no attribute large"),
        (
            "token:net",
            "token:net: token has no attribute net; it is not the token of the working folder, "
            "which needs another name",
        ),
        ("own_nets:Family.big", "own_nets:Family.big: own_nets.Family has no attribute big"),
        (
            "own_nets:width",
            "own_nets:width: width must be a keras.Model or return one when it is called, got int",
        ),
        (
            "own_nets:instance()",
            "own_nets:instance(): instance is a model and takes no arguments; leave them out",
        ),
        (
            "own_nets:net(widht=2)",
            "own_nets:net(widht=2): net has no argument widht, only (width, depth=1)",
        ),
        (
            "own_nets:net",
            "own_nets:net: missing a required argument: 'width'; give literal arguments, as in "
            "own_nets:net(width=2), of those in (width, depth=1), or write a builder "
            "that calls it with others",
        ),
        (
            "own_nets:pair(3)",
            "own_nets:pair(3): missing a required argument: 'depth'; give literal arguments, as in "
            "own_nets:pair(width=2,depth=2), of those in (width, depth), or write a builder "
            "that calls it with others",
        ),
        (
            "own_nets:Family.is_model",
            "own_nets:Family.is_model: Family.is_model is a method of an instance; make it a "
            "staticmethod, or name a function or a class that returns the model",
        ),
        ("own_nets:", "own_nets:: write a model of your own as package.module:attribute"),
        (":small", ":small: write a model of your own as package.module:attribute"),
    ],
)
def test_a_users_own_name_is_refused_with_the_part_that_failed(
    own_module: ModuleType, name: str, message: str
) -> None:
    with pytest.raises(UnknownModelError) as caught:
        builder(name, NoKeras())
    assert str(caught.value) == message


def test_a_preset_is_its_config_on_the_disk_and_is_never_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backbone:
        presets: ClassVar[dict[str, Any]] = {
            "small": {"kaggle_handle": "kaggle://keras/net/keras/small/2"}
        }

        @staticmethod
        def from_preset(folder: str, load_weights: bool) -> tuple[str, bool]:
            return folder, load_weights

    hub = SimpleNamespace(models=SimpleNamespace(Backbone=Backbone))
    monkeypatch.setitem(sys.modules, "keras_hub", hub)  # type: ignore[arg-type]  # stands for it
    monkeypatch.setitem(sys.modules, "convmark_zoo", ModuleType("convmark_zoo"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(UnknownModelError, match="has no preset large"):
        builder("keras_hub:large", NoKeras())
    with pytest.raises(UnknownModelError, match="not on this disk, and nothing is downloaded"):
        builder("keras_hub:small", NoKeras())
    folder = tmp_path / "models/keras/net/keras/small/2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert builder("keras_hub:small", NoKeras())() == (str(folder), False)


NETS = """
    import keras
    from keras import layers

    @keras.saving.register_keras_serializable("nets")
    class Gate(layers.Layer):
        def call(self, x):
            return 0.5 * x

    def net(width, act="relu"):
        parts = [layers.Dense(width, activation=act), layers.Dense(2)]
        return keras.Sequential([keras.Input((8,)), *parts])

    def open_net():
        return keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(9, 2)])

    def batch(samples):
        import numpy as np
        return np.full((samples, 5), 7, "int32")

    open_net.input_spec = batch
    instance = net(3)

    def around():
        return keras.Sequential([instance, layers.Dense(2)])
"""
SCRIPT = """
    import argparse, nets

    parser = argparse.ArgumentParser()
    parser.add_argument("width", nargs="?", default=3, type=int)
    options = parser.parse_args()

    def net():
        return nets.net(options.width)
"""
FILES = """
    import keras, pathlib
    from keras import layers
    import nets

    def network(*parts):
        return keras.Sequential([keras.Input((8, 8, 1)), *parts])

    for folder in ("a", "b"):
        pathlib.Path(folder).mkdir()
    small = network(layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(10, "softmax"))
    small.compile("adam", "sparse_categorical_crossentropy")
    small.save("a/net.keras")
    small.save("small.h5")
    small.save_weights("only.weights.h5")
    small.export("exported", verbose=False)
    network(layers.Flatten(), layers.Dense(10)).save("b/net.keras")
    half = layers.Dense(3, dtype="mixed_bfloat16")
    network(layers.Flatten(), half).export("half a net", verbose=False)
    whole = network(layers.Flatten(), layers.Dense(10))
    whole.quantize("int8")
    whole.export("int8", verbose=False)
    for name in ("lambda.keras", "lambda.h5"):
        network(layers.Lambda(lambda x: 2 * x)).save(name)
    network(nets.Gate(), layers.Flatten(), layers.Dense(2)).save("gate.keras")
    pathlib.Path("text.keras").write_text("no archive")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, forks_of: Callable[[str], Forks]) -> Path:
    """A folder of a module and of models that Keras has saved."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    folder = tmp_path_factory.mktemp("files").resolve()
    (folder / "nets.py").write_text(dedent(NETS))
    (folder / "script.py").write_text(dedent(SCRIPT))
    (folder / "ends.py").write_text("import os; os._exit(3)")
    done = forks_of("tensorflow").run(dedent(FILES), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def interpreter(warm: None, project: Path) -> Iterator[Interpreter]:
    with Interpreter(environ=environ(project), folder=project) as found:
        yield found


def answered(interpreter: Interpreter, name: str, task: str = "infer", **more: Any) -> Answer:
    """Return what ten steps tell, or a measurement where `smoke` is False."""
    return interpreter.answer({**measured(name, task=task, batch_size=4), "smoke": True, **more})


def parameters(answer: Answer) -> int:
    assert (answer.status, answer.message) == ("ok", "")
    return int((answer.event("built") or {})["parameters"])


def test_files_of_one_name_are_two_models_of_their_own_training(interpreter: Interpreter) -> None:
    compiled, bare, legacy = (
        answered(interpreter, name, "train", smoke=False)
        for name in ("a/net.keras", "b/net.keras", "small.h5")
    )
    assert [parameters(one) for one in (compiled, bare, legacy)] == [1490, 650, 1490]
    first_steps = [one.event("first_step") or {} for one in (compiled, bare, legacy)]
    assert [one["training"] for one in first_steps] == ["model", "harness", "model"]
    assert [one["optimizer"] for one in first_steps] == ["Adam", "SGD", "Adam"]


def test_a_models_file_is_code_wherever_it_lies(project: Path, interpreter: Interpreter) -> None:
    asked = {"left_out": [str(project / "a"), str(project / "exported")]}
    file = answered(interpreter, "a/net.keras", **asked).event("code") or {}
    folder = answered(interpreter, "exported/", **asked).event("code") or {}
    assert str(project / "a/net.keras") in {one["path"] for one in file["files"]}
    assert str(project / "b/net.keras") not in {one["path"] for one in file["files"]}
    found = {one["path"] for one in folder["files"]}
    assert {str(path) for path in (project / "exported").rglob("*") if path.is_file()} <= found


def test_a_saved_model_infers_and_says_what_its_graph_computes_in(
    interpreter: Interpreter,
) -> None:
    answer = answered(interpreter, "exported/")
    assert parameters(answer) == 1490
    assert (answer.event("read_back") or {})["precision"] == "float32"
    half = answered(interpreter, "half a net/")
    assert (half.event("read_back") or {})["precision"] == "mixed_bfloat16"
    whole = answered(interpreter, "int8/")
    assert "products must be of one dtype, got float32, int8" in whole.message
    train = answered(interpreter, "exported/", "train")
    assert train.message.startswith("exported/: nothing to train: a SavedModel is measured in")


def test_a_module_before_a_file_registers_its_classes(interpreter: Interpreter) -> None:
    assert parameters(answered(interpreter, "nets:gate.keras")) == 130
    alone = answered(interpreter, "gate.keras")
    assert alone.message == (
        "gate.keras: cannot be loaded: Could not locate class 'Gate'; put the module that "
        "registers it before the file, as in package.module:gate.keras, or measure a builder of "
        "yours that loads it"
    )


def test_arguments_instances_and_input_specs_reach_the_worker(interpreter: Interpreter) -> None:
    answer = answered(interpreter, "nets:net(act='tanh',width=3)", smoke=False)
    assert parameters(answer) == 35
    assert (answer.event("peaks") or {})["host_bytes"]
    for name, count in (("nets:instance", 35), ("nets:around", 41)):
        instance = answered(interpreter, name, smoke=False)
        assert parameters(instance) == count
        assert (instance.event("peaks") or {})["host_bytes"] is None  # weights were there before
    spec = answered(interpreter, "nets:open_net")
    assert (spec.event("built") or {})["input_shape"] == [5]


def test_a_module_that_parses_the_command_line_finds_no_arguments(interpreter: Interpreter) -> None:
    assert parameters(answered(interpreter, "script:net")) == 35


def test_a_module_whose_import_ends_the_process_is_named(interpreter: Interpreter) -> None:
    with pytest.raises(WorkerError, match=r"^ends:net: cannot be imported: the worker ended"):
        inspect_models(interpreter, ["script:net", "ends:net"])


def test_code_in_a_file_runs_where_it_is_trusted(warm: None, project: Path) -> None:
    variables = environ(project, **{TRUST: "1"})
    with Interpreter(environ=variables, folder=project) as trusting:
        for name in ("lambda.keras", "lambda.h5"):
            assert parameters(answered(trusting, name)) == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("lambda.keras", "contains code (a Lambda layer), which loading would run; "),
        ("lambda.h5", "contains code (a Lambda layer), which loading would run; "),
        ("only.weights.h5", "has weights but no architecture; write a builder"),
        ("text.keras", "must be a .keras archive that Keras saved, it cannot be read: "),
        ("none.keras", "no such file in the working folder"),
        ("a/", "must be a SavedModel, it has no saved_model.pb"),
        (
            "nets.py",
            "must be a .keras, .h5, .onnx, .tflite or .xml file, or the folder of a SavedModel; ",
        ),
    ],
)
def test_what_is_no_model_or_would_run_code_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv(TRUST, raising=False)
    with pytest.raises(UnknownModelError) as caught:
        check_file(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


CLASSES = ("of_classes:Layer", "of_classes:Given")


def test_a_class_is_a_builder_and_the_property_of_its_layers_no_input_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    class Layer:
        input_spec = property(lambda self: None)
    class Given:
        input_spec = staticmethod(list)
    """
    (tmp_path / "of_classes.py").write_text(inspect.cleandoc(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = SimpleNamespace(is_model=lambda one: False, other_keras=lambda one: None)
    found = [_own(name, ModelName.of(name), backend).input_spec for name in CLASSES]
    assert found == [None, list]


def test_tf_keras_is_followed_and_a_model_of_the_other_keras_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("tf-keras is not installed")
    source = inspect.cleandoc(
        """
        def old():
            import tf_keras
            return tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])

        def older():
            import tf_keras
            tf_keras.mixed_precision.set_global_policy("mixed_float16")
            model = old()
            model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
            return model

        def new():
            import keras
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

        def mirrored(compiled=True):
            import tensorflow as tf
            with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
                model = old()
                if compiled:
                    model.compile("sgd", "mse")
                return model
        """
    )
    (tmp_path / "both.py").write_text(source)
    legacy = environ(tmp_path, TF_USE_LEGACY_KERAS="1")
    with Interpreter(environ=legacy, folder=tmp_path) as interpreter:
        old = answered(interpreter, "both:old", "train")
        new = answered(interpreter, "both:new")
        zoo = answered(interpreter, "lenet5")
        older = interpreter.answer(measured("both:older", task="train", batch_size=4))
        mirrored = [
            answered(interpreter, f"both:mirrored{called}", "train")
            for called in ("", "(compiled=False)")
        ]
    for one in mirrored:
        assert "has built it for a MirroredStrategy, whose step Keras 2 takes in" in one.message
    assert (older.event("trained") or {})["optimizer"] == "Adam"
    assert (older.event("read_back") or {})["model"] == {"dtype_policy": "mixed_float16"}
    assert (parameters(old), parameters(zoo)) == (15, 61_706)
    assert (old.event("environment") or {})["keras"].startswith("2.")
    assert "both:new: the model is one of Keras 3, this is Keras 2." in new.message
    with Interpreter(environ=environ(tmp_path), folder=tmp_path) as interpreter:
        other = answered(interpreter, "both:old")
    assert other.message.startswith("both:old: the model is one of tf-keras (Keras 2), this is ")
    assert other.message.endswith("measure with TF_USE_LEGACY_KERAS=1 in the environment")
