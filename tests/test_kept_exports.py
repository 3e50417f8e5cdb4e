"""Kept exports: when a file is made anew, what two makers of one leave, what a kept one needs."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS
from convmark.worker import learning as testing
from convmark.worker import runtimes
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, Leaf, flat
from convmark.worker.runtimes import export as exporting
from convmark.worker.runtimes.export import export


def case(**changes: Any) -> Case:
    return Case(**{"model": "lenet5", "task": "infer", "runtime": "onnxruntime", **changes})


class ExportingBackend:
    """A framework whose model gives a batch's own numbers."""

    def inputs(self, model: Any) -> Inputs:
        return Inputs(Leaf("input", (4,), "float32"))

    def leaves(self, batch: Any) -> list[Any]:
        return flat(batch)

    def exported_function(self, model: Any, batch: Any) -> None:
        """Nothing: the converter of the test takes none."""

    def exported_outputs(self, function: None, batch: Any) -> Any:
        return batch

    def exported_digest(self, function: None, model: Any) -> str:
        return "one model"


def test_a_file_is_made_anew_for_another_converter_and_in_int8_for_other_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def convert(source: Any, path: str, precision: str) -> None:
        made.append(precision)
        Path(path).write_text("a file")

    def exports(precision: str, seed: int = 0) -> int:
        """Return how many files a process has made."""
        made.clear()
        asked = case(runtime="litert", precision=precision)
        export(asked, None, ExportingBackend(), seed, str(tmp_path), lambda event, **fields: None)
        return len(made)

    monkeypatch.setenv(EXPORTS, str(tmp_path / "exports"))
    monkeypatch.setattr(runtimes, "imported", lambda name, model: (convert, None))
    assert [exports("float32"), exports("float32", seed=7)] == [1, 0]
    assert [exports("int8"), exports("int8"), exports("int8", seed=7)] == [1, 0, 1]
    monkeypatch.setattr(exporting, "RANGE_BATCHES", 32)
    assert [exports("float32"), exports("int8")] == [0, 1]
    monkeypatch.setattr(runtimes, "code_hash", lambda name: "another")
    assert [exports("float32"), exports("int8")] == [1, 1]


def test_a_kept_export_needs_nothing_that_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[dict[str, Any]]()

    def convert(source: Any, path: str, precision: str) -> None:
        Path(path).write_text("a file")

    def exported(installed: str, digest: str = "one model") -> dict[str, Any]:
        """Return what is told of an export where only these packages are installed."""
        names = {word.partition("==")[0] for word in installed.split()}
        find = lambda name: name if name in names else None  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setattr(runtimes, "versions", lambda name: installed)
        asked, told[:] = case(), []
        runtimes.check_installed(asked)
        source = SimpleNamespace()
        exporting.kept(asked, source, digest, lambda _, **fields: told.append(fields))  # type: ignore[arg-type]
        return told[0]

    monkeypatch.setenv(EXPORTS, str(tmp_path))
    monkeypatch.setattr(runtimes, "imported", lambda name, model: (convert, None))
    lacks = "lenet5: onnx, which exports to ONNX Runtime, is not installed; install convmark"
    with pytest.raises(CaseFailure, match=lacks):
        exported("onnxruntime==1.32")
    whole = "onnxruntime==1.32 onnx==1.23 tf2onnx==1.17"
    first = exported(whole)
    assert first["packages"] == whole
    assert exported("onnxruntime==1.32") == first
    for installed, digest in (("onnxruntime==1.33", "one model"), ("onnxruntime==1.32", "other")):
        with pytest.raises(CaseFailure, match=lacks):
            exported(installed, digest)
    assert len(list(tmp_path.iterdir())) == 1


def test_two_that_export_the_same_at_once_leave_one_file_and_a_killed_one_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins while the first converts, which ends last."""
    kept = tmp_path / "exports"
    killed = kept / ".making-of-a-killed-process"
    killed.mkdir(parents=True)
    (killed / "model.tflite").write_text("half a fi")
    os.utime(killed, (0, 0))
    paths: list[str] = []
    began: list[str] = []

    def one() -> None:
        def emit(event: str, **fields: Any) -> None:
            paths.extend([fields["path"]] if event == "path" else [])

        export(case(runtime="litert"), None, ExportingBackend(), 0, str(tmp_path), emit)

    def convert(source: Any, path: str, precision: str) -> None:
        began.append(path)
        Path(path).write_text("a file")
        if len(began) == 1:
            one()

    monkeypatch.setenv(EXPORTS, str(kept))
    monkeypatch.setattr(runtimes, "imported", lambda name, model: (convert, None))
    one()
    assert len(began) == len(paths) == 2
    assert paths[0] == paths[1]
    assert [path.name for path in kept.iterdir()] == [Path(paths[0]).parent.name]
    told = Path(paths[0]).with_name("export.json")
    told.write_text('{"export_s": 1.0, "case": "of a version without hashes"}')
    one()
    assert len(began) == 3
    for damaged in ("half a", "[]"):
        told.write_text(damaged)
        with pytest.raises(CaseFailure, match="the exported file was changed after it was made"):
            one()


def test_an_exporting_process_that_is_killed_is_told_with_what_to_do(tmp_path: Path) -> None:
    def work(folder: str, emit: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    rule = r"^lenet5: the exporting process ended \(signal 9\); .* use a smaller --batch-sizes"
    with pytest.raises(CaseFailure, match=rule):
        exporting.in_a_process(work, lambda event, **fields: None, str(tmp_path), "lenet5")


def test_an_export_that_gives_nan_on_the_digits_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.zeros((2, 28, 28, 1), np.float32)
    part = SimpleNamespace(images=images, labels=np.zeros(2, np.int64))
    engine = SimpleNamespace(run=lambda one: [np.full((2, 10), math.nan)], multiplies_in=tuple)
    backend = SimpleNamespace(
        exported_function=lambda model, batch: None,
        exported_outputs=lambda function, batch: [np.zeros((2, 10))],
        exported_digest=lambda function, model: "",
    )
    for name, value in (("imported", (None, None)), ("loaded", engine), ("check_stored", None)):
        monkeypatch.setattr(runtimes, name, lambda *_, value=value: value)
    monkeypatch.setattr(testing, "kept", lambda *_: "folder/model.tflite")
    asked = case(task="accuracy", runtime="litert", precision="float16", batch_size=2)
    digits: Any = SimpleNamespace(training=part, test=part)
    with pytest.raises(CaseFailure, match=r"^lenet5-accuracy.*NaN or infinite .*; use another"):
        testing.tested(asked, None, digits, backend, lambda event, **fields: None)
