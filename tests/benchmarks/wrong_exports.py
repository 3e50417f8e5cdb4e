"""What quantised exports of right and of wrong models differ by from the Keras model.

    python tests/benchmarks/wrong_exports.py --mnist PATH --folder FOLDER [--models NAMES]
        [--runtimes NAMES] [--seed 0]

Of each network, untrained and trained as exported_accuracy.py does, each runtime's quantised forms
are made and compared on noise, on 16 digits and on 512: of the network itself, with wrong
preprocessing, and of networks that are spoilt. A line for each comparison, the bounds of a row at
its end. The folder keeps the weights that were trained.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from exported_accuracy import EPOCHS, _silent, _trained
from runtimes import _is_there

from convmark.core.case import Case
from convmark.core.runtimes import RUNTIME_PRECISIONS, RUNTIMES
from convmark.core.suites import NETWORKS
from convmark.core.tasks import TASKS
from convmark.worker import backends, measurement, mnist, runtimes
from convmark.worker.builders import builder
from convmark.worker.failure import CaseFailure
from convmark.worker.runtimes.agreement import UNTRAINED_SPREAD, agreement, amplify, told_apart
from convmark.worker.runtimes.agreement import check as held
from convmark.worker.runtimes.engine import Source
from convmark.worker.runtimes.export import RANGE_BATCHES

BATCH = 16
Batches = Sequence[Any]
PREPROCESSING: Mapping[str, Callable[[Any], Any]] = {
    "inputs x 255": lambda images: images * 255,
    "inputs / 2": lambda images: images / 2,
    "inputs - 0.5": lambda images: images - np.float32(0.5),
    "inputs inverted": lambda images: 1 - images,
    "inputs turned": lambda images: np.swapaxes(images, 1, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mnist", required=True, metavar="PATH")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--models", default=",".join(NETWORKS), metavar="NAMES")
    parser.add_argument("--runtimes", default="litert,onnxruntime,openvino", metavar="NAMES")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the digits to train on")
    parser.add_argument("--spoilt", type=int, help="how many networks are spoilt; all by default")
    options = parser.parse_args()
    options.most = EPOCHS
    options.folder.mkdir(parents=True, exist_ok=True)
    framework = backends.load("tensorflow")
    framework.configure(device="cpu", threads="default", precision="float32", seed=options.seed)
    digits = mnist.split(mnist.read(options.mnist), options.seed, options.fraction)
    forms = [
        (one, precision)
        for one in filter(_is_there, options.runtimes.split(","))
        for precision in RUNTIMES[one].precisions
        if precision in RUNTIME_PRECISIONS and precision != "float16"
    ]
    print("| model | weights | inputs | form | export | largest | between samples | top-1 | row |")
    for name in options.models.split(","):
        for is_trained in (False, True):
            if is_trained:
                batch = TASKS["accuracy"].batch_sizes[0]
                case = Case(model=name, task="accuracy", batch_size=batch)
                model = _trained(case, framework, digits, options)
            else:
                model = _made(name, options.seed, framework)
            given = _inputs(model, digits, framework, is_trained=is_trained)
            for form in forms:
                head = f"| {name} | {'trained' if is_trained else 'untrained'}"
                for line in _lines(model, form, given, framework, options):
                    print(f"{head} | {line} |", flush=True)


def _made(name: str, seed: int, framework: Any) -> Any:
    framework.seed(seed)
    case = Case(model=name, task="infer", batch_size=BATCH)
    return measurement.build(case, builder(name, framework, "infer"), seed, framework, _silent)


def _inputs(
    model: Any, digits: Any, framework: Any, *, is_trained: bool
) -> dict[str, tuple[Batches, Batches]]:
    """Return batches to compare by what they are of, each with those that ranges are found with."""
    noise = [framework.leaves(framework.inputs(model).batch(BATCH, n))[0] for n in range(18)]
    images = digits.test.images[: 32 * BATCH]
    shown = digits.training.images[: RANGE_BATCHES * BATCH]
    ranges = [shown[n : n + BATCH] for n in range(0, len(shown) - BATCH + 1, BATCH)]
    some: dict[str, tuple[Batches, Batches]] = {"noise": (noise[:2], noise[2:])}
    if is_trained:
        some["16 digits"] = (np.split(images[:BATCH], 1), ranges)
        some["512 digits"] = (np.split(images, len(images) // BATCH), ranges)
        return some
    function = framework.exported_function(model, [noise[0]])

    def spread() -> float:
        return told_apart([framework.exported_outputs(function, [one]) for one in noise[:2]])

    if spread() <= UNTRAINED_SPREAD:
        amplify(model, spread)
    return some


def _lines(
    model: Any, form: tuple[str, str], given: Mapping[str, Any], framework: Any, options: Any
) -> Iterator[str]:
    """Yield the cells of each comparison of a form of the model."""
    kernels = [one for one in model.trainable_variables if len(one.shape) > 1]
    kept = [one.numpy() for one in kernels]
    for kind, (batches, ranges) in given.items():
        function = framework.exported_function(model, [batches[0]])
        wanted = [framework.exported_outputs(function, [one]) for one in batches]

        def told(export: str, made: Any, change: Callable[[Any], Any] = np.asarray) -> str:
            changed = (np.ascontiguousarray(change(one)) for one in batches)  # noqa: B023
            found = agreement([made.run([one]) for one in changed], wanted)  # noqa: B023
            row = "passes"
            try:
                held(found, form[1], "", "")
            except CaseFailure:
                row = "is refused"
            top1 = "" if found.top1_agreement is None else f"{found.top1_agreement:.3f}"
            figures = f"{found.largest_rel_error:.3g} | {found.error_between_samples:.3g} | {top1}"
            return f"{kind} | {' '.join(form)} | {export} | {figures} | {row}"  # noqa: B023

        made = _engine(function, model, form, ranges, options)
        yield told("right", made)
        for name, change in PREPROCESSING.items():
            yield told(name, made, change)
        if form[1] == "int8":
            zeros = [np.zeros_like(one) for one in ranges]
            yield told("ranges of zeros", _engine(function, model, form, zeros, options))
        for name, values in itertools.islice(_spoilt(model, kept, framework), options.spoilt):
            for kernel, its in zip(kernels, values, strict=True):
                kernel.assign(its)
            yield told(name, _engine(function, model, form, ranges, options))
            for kernel, its in zip(kernels, kept, strict=True):
                kernel.assign(its)


def _engine(function: Any, model: Any, form: tuple[str, str], ranges: Batches, options: Any) -> Any:
    runtime = RUNTIMES[form[0]]
    convert, make = runtimes.imported(runtime.name, "")
    path = os.path.join(options.folder, f"{os.getpid()}{runtime.suffix}")
    convert(Source(function, model, lambda: ([one] for one in ranges)), path, form[1])
    return make(path, "1", "cpu")


def _spoilt(model: Any, kept: Sequence[Any], framework: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield kernels of wrong models by what is wrong."""
    noise, last = np.random.default_rng(7), len(kept) - 1

    def but(place: int, values: Any) -> list[Any]:
        return [*kept[:place], values.astype(np.float32), *kept[place + 1 :]]

    for place in sorted({0, len(kept) // 2, last}):
        yield (
            f"kernel {place} shuffled",
            but(place, noise.permutation(kept[place].ravel()).reshape(kept[place].shape)),
        )
    for place in sorted({0, len(kept) // 2}):
        for factor in (0.0, 2.0):
            values = kept[place].copy()
            values[..., 0] *= factor
            yield f"a channel of kernel {place} x {factor:g}", but(place, values)
    yield "classes in another order", but(last, np.roll(kept[last], 1, -1))
    shapes = [one.shape for one in kept]
    if alike := [(a, b) for b in range(len(kept)) for a in range(b) if shapes[a] == shapes[b]]:
        (first, second) = alike[0]
        swapped = list(kept)
        swapped[first], swapped[second] = kept[second], kept[first]
        yield f"kernels {first} and {second} swapped", swapped
    for name, axes in (("channel", -1), ("tensor", 0)):
        steps = [
            np.abs(one).max(tuple(range(one.ndim + axes)) if axes else None) / 7 for one in kept
        ]
        yield (
            f"int4 by {name}",
            [
                (np.round(one / step) * step).astype(np.float32)
                for one, step in zip(kept, steps, strict=True)
            ],
        )
    other = _made(model.name, 5, framework)
    yield "another seed", [one.numpy() for one in other.trainable_variables if len(one.shape) > 1]


if __name__ == "__main__":
    main()
