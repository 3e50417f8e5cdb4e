"""Files of runtimes as people have them: what they take and give is measured or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from convmark.core.case import Case
from convmark.worker.each_sample import hold_each_sample
from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.engine import Taken
from convmark.worker.runtimes.export import Exported

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
        run=run,
        threads=lambda: None,
        resize=lambda shapes: None,
        stored_precision=lambda: "float32",
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
        set_tensor=None,
        invoke=None,
        get_tensor=None,
    )
    monkeypatch.setattr(lite_rt, "Interpreter", lambda *_, **__: stand_in)
    engine = lite_rt.LiteRT("net.tflite", "1", "cpu")
    engine.resize([(BATCH, 8, 8, 3)])
    assert done == [[BATCH, 8, 8, 3], "allocated"]
