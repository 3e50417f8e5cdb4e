"""What a real worker tells of the code that it ran, and which copy of a package it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from workers import environ, smoked

from convmark.interpreter import Answer, Interpreter, import_roots

PROJECT = {
    "nets.py": """
        import ctypes, importlib.metadata, json, os, pathlib, sqlite3, subprocess
        import h5py, keras, numpy as np, scipy.signal
        import tensorflow as tf

        WIDTH = int(os.environ.get("NETS_WIDTH", "8"))
        TOKEN = os.environ["NETS_API_TOKEN"]
        OUTSIDE = pathlib.Path(os.environ["NETS_OUTSIDE"])

        class Late(keras.layers.Layer):
            def call(self, x):
                from package.late import factor  # at the first step
                return x * factor

        def net():
            json.load(open("settings.json"))
            pathlib.Path("path.txt").read_text()
            np.load("array.npy")
            os.close(os.open("by_os.txt", os.O_RDONLY))
            sqlite3.connect("lite.db").close()
            reads = "open('by_child.txt').read(); open('pyproject.toml').read()"
            subprocess.run([sys_python(), "-c", reads], check=True)
            importlib.import_module("package.by_name")
            importlib.import_module("plug" + "in")
            importlib.metadata.EntryPoint("one", "lo" + "ose.part:WIDTH", "nets").load()
            with h5py.File("native.h5") as file:
                file["x"][...]
            tf.io.read_file("by_tensorflow.txt")
            with h5py.File(OUTSIDE / "weights.h5") as file:
                file["x"][...]
            (OUTSIDE / "plain.txt").read_text()
            tf.io.read_file(str(OUTSIDE / "by_tensorflow.txt"))
            pathlib.Path("written.txt").write_text("log")
            if os.path.exists("absent.flag") or not pathlib.Path("here.flag").exists():
                raise ValueError
            if len(list(pathlib.Path("parts").glob("*.txt"))) != 1:
                raise ValueError
            pathlib.Path("results/0001.csv").read_text()
            inputs = keras.Input((16, 16, 3))
            x = Late()(keras.layers.Conv2D(WIDTH, 3)(inputs))
            return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))

        def sys_python():
            import sys
            return sys.executable

        def unused():
            import package.unused
    """,
    "package/__init__.py": "",
    "package/late.py": "factor = 2.0",
    "package/by_name.py": "import jinja2",
    "package/unused.py": "",
    "settings.json": "{}",
    "pyproject.toml": "",
    "path.txt": "",
    "by_os.txt": "",
    "by_child.txt": "",
    "by_tensorflow.txt": "",
    "not_opened.txt": "",
    "here.flag": "",
    "parts/one.txt": "",
    "results/0001.csv": "",
}
LOOSE = "WIDTH = 3"
"""Of a package that was copied to where packages lie, so that no version tells what it holds."""
SEEN = {
    *("nets.py", "package/__init__.py", "package/late.py", "package/by_name.py", "settings.json"),
    *("path.txt", "by_os.txt", "by_child.txt", "by_tensorflow.txt", "array.npy", "native.h5"),
    *("lite.db", "here.flag"),
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Answer]]]:
    """A project whose model opens files in every way, and a package with a stale installed copy."""
    place = tmp_path_factory.mktemp("code").resolve()
    write(place / "project", PROJECT)
    (place / "outside").mkdir()
    make = """
        import h5py, numpy, pathlib, sqlite3, sys
        numpy.save("project/array.npy", numpy.zeros(3))
        sqlite3.connect("project/lite.db").execute("create table t (x)").connection.commit()
        for path in ("project/native.h5", "outside/weights.h5"):
            with h5py.File(path, "w") as file:
                file["x"] = [1]
        for name in ("plain.txt", "by_tensorflow.txt"):
            pathlib.Path("outside", name).write_text("")
    """
    subprocess.run([sys.executable, "-c", dedent(make)], cwd=place, check=True)
    shop = (
        "import keras\n\ndef net():\n    x = inputs = keras.Input((32, 32, 3))\n"
        "    x = keras.layers.Conv2D(CHANNELS, 3)(x)\n"
        "    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))\n"
    )
    for folder, channels in (("project", 64), ("site-packages", 8)):
        files = {"__init__.py": "", "nets.py": f"CHANNELS = {channels}\n{shop}"}
        write(place / folder, {f"shopflat/{name}": text for name, text in files.items()})
    write(place / "site-packages", {"installed.py": f"CHANNELS = 4\n{shop}"})
    about = "Metadata-Version: 2.1\nName: Plugin\nVersion: 1.5\n"
    write(
        place / "site-packages",
        {
            "plugin-1.5.dist-info/METADATA": about,
            "plugin-1.5.dist-info/RECORD": "plugin.py,sha256=another,0\n",
            "plugin.py": "",
            "loose/__init__.py": "",
            "loose/part.py": LOOSE,
        },
    )
    variables = environ(
        place,
        PYTHONPATH=str(place / "site-packages"),
        NETS_API_TOKEN="hunter2",
        NETS_WIDTH="9",
        NETS_OUTSIDE=str(place / "outside"),
    )
    project = place / "project"
    request = {"left_out": [str(project / "results")]}
    with Interpreter(environ=variables, folder=project, import_roots=[project]) as interpreter:
        yield (
            place,
            {
                model: interpreter.answer({**smoked(model), **request})
                for model in ("nets:net", "shopflat.nets:net", "installed:net", "lenet5")
            },
        )


def told(answers: tuple[Path, dict[str, Answer]], model: str) -> dict[str, Any]:
    answer = answers[1][model]
    assert (answer.status, answer.message) == ("ok", "")
    event = answer.event("code")
    assert event is not None
    return event


def test_every_file_that_a_model_reads_is_named_however_it_is_read(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    files = [Path(one["path"]) for one in told(answers, "nets:net")["files"]]
    project, outside = answers[0] / "project", answers[0] / "outside"
    inside = {path.relative_to(project).as_posix() for path in files if project in path.parents}
    assert inside == SEEN
    assert {path.name for path in files if outside in path.parents} == {
        "weights.h5",
        "plain.txt",
        "by_tensorflow.txt",
    }
    loose = answers[0] / "site-packages/loose"
    assert {path.name for path in files if loose in path.parents} == {"__init__.py", "part.py"}


def test_what_a_model_looks_for_without_opening_it_is_told(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    looked = told(answers, "nets:net")["looked"]
    project = answers[0] / "project"
    assert looked.pop(str(project / "absent.flag")) == "absent"
    assert list(looked) == [str(project / "parts")]
    assert "looked" not in told(answers, "lenet5")


def test_what_lies_elsewhere_is_the_zoo_alone(answers: tuple[Path, dict[str, Answer]]) -> None:
    files = {one["path"] for one in told(answers, "lenet5")["files"]}
    assert {Path(path).name for path in files} == {
        *("__init__.py", "keras_api.py", "lenet.py", "registry.py", "shape.py"),
    }


def test_packages_are_those_that_the_models_own_files_import(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    packages = told(answers, "nets:net")["packages"]
    assert set(map(str.lower, packages)) == {"h5py", "scipy", "jinja2", "markupsafe", "plugin"}
    assert told(answers, "lenet5")["packages"] == {}


def test_variables_that_a_model_asks_for_are_told_and_secrets_as_a_hash(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    variables = told(answers, "nets:net")["environ"]
    assert variables["NETS_WIDTH"] == "9"
    assert variables["NETS_API_TOKEN"].startswith("sha256:")
    assert told(answers, "lenet5")["environ"] == {}


def test_a_package_of_the_working_folder_goes_before_an_installed_copy(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    built = answers[1]["shopflat.nets:net"].event("built")
    assert built is not None
    assert built["parameters"] == 1792
    files = {one["path"] for one in told(answers, "shopflat.nets:net")["files"]}
    assert str(answers[0] / "project/shopflat/nets.py") in files


def test_a_models_own_package_counts_where_it_is_installed_too(
    answers: tuple[Path, dict[str, Answer]],
) -> None:
    files = {one["path"] for one in told(answers, "installed:net")["files"]}
    assert str(answers[0] / "site-packages/installed.py") in files


def test_a_worker_can_import_what_a_test_file_can(tmp_path: Path) -> None:
    for name in ("work", "lib", "lib/site-packages", "stdlib/dynload"):
        (tmp_path / name).mkdir(parents=True)
    place = tmp_path.resolve()
    path = ["", str(place / "stdlib/dynload"), str(place / "lib"), str(place / "lib/site-packages")]
    installed = [str(place / "stdlib"), str(place / "lib/site-packages")]
    found = import_roots(place / "work", [*path, str(place / "gone")], installed)
    assert found == [place / "work", Path(os.getcwd()).resolve(), place / "lib"]
