"""Accuracy on MNIST of the lecture's networks in each form that is deployed.

    python tests/benchmarks/exported_accuracy.py --mnist PATH --folder FOLDER [--models NAMES]
        [--runtimes NAMES] [--seed 0] [--most EPOCHS]

A row of convmark trains for each form. Here a network is trained once, as such a row's is, and each
form is made of it and tested by the function that makes the rows. Weights are kept after each epoch
and figures after each form: the script can be stopped and taken up. A form whose runtime is not
installed is left out with a line; one that cannot be made is a line with the reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtimes import Done, _is_there

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS, RUNTIMES
from convmark.core.suites import NETWORKS
from convmark.core.tasks import TASKS
from convmark.worker import backends, learning, measurement, mnist
from convmark.worker.builders import builder
from convmark.worker.failure import CaseFailure
from convmark.worker.learning import tested

EPOCHS = 5
FORMS = [one.name for one in RUNTIMES.values() if one.backend == "tensorflow"]


def main() -> None:
    options = _options()
    os.environ[EXPORTS] = str((options.folder / "exports").absolute())
    done = Done(options.folder)
    framework = backends.load("tensorflow")
    framework.configure(device="cpu", threads="default", precision="float32", seed=options.seed)
    framework.make_deterministic()
    digits = mnist.split(mnist.read(options.mnist), options.seed, options.fraction)
    forms = [
        (one.name, precision)
        for one in map(RUNTIMES.__getitem__, options.runtimes.split(","))
        if _is_there(one.name)
        for precision in (one.precisions if one.suffix else ("float32",))
    ]
    for name in options.models.split(","):
        case = Case(model=name, task="accuracy", batch_size=TASKS["accuracy"].batch_sizes[0])
        model = _trained(case, framework, digits, options)
        if model is None:
            continue
        for runtime, precision in forms:
            form = dataclasses.replace(case, runtime=runtime, precision=precision)

            def test(form: Case = form, model: Any = model) -> dict[str, Any]:
                return _tested(form, model, framework, digits)

            found = done(f"{form.name} {options.seed}", test)
            figures = [found.get("failed", "")] if "failed" in found else _cells(found)
            print(f"| {name} | {runtime} | {precision} | {' | '.join(figures)} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mnist", required=True, metavar="PATH")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--models", default=",".join(NETWORKS), metavar="NAMES")
    parser.add_argument("--runtimes", default=",".join(FORMS), metavar="NAMES")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the digits to train on")
    parser.add_argument("--most", type=int, default=EPOCHS, help="epochs before it ends")
    return parser.parse_args()


def _trained(case: Case, framework: Any, digits: Any, options: argparse.Namespace) -> Any:
    """Return the network once all epochs are done; None where they are not yet."""
    framework.seed(options.seed)
    model = measurement.build(
        case, builder(case.model, framework, case.task), options.seed, framework, _silent
    )
    learning.compiled_model(case, model, framework)
    kept = sorted(options.folder.glob(f"{case.model}-{options.seed}-*.weights.h5"))
    if kept:
        model.load_weights(kept[-1])
    for epoch in range(len(kept) + 1, EPOCHS + 1):
        if epoch > len(kept) + options.most:
            return None
        learning.fit(model, digits.training, case.batch_size, [], validation=digits.validation)
        model.save_weights(options.folder / f"{case.model}-{options.seed}-{epoch}.weights.h5")
        print(f"{case.model}: epoch {epoch} of {EPOCHS}", flush=True)
    return model


def _tested(case: Case, model: Any, framework: Any, digits: Any) -> dict[str, Any]:
    """Return what a row of this form would have, or why it would fail."""
    if case.runtime == "keras":
        loss, accuracy = model.evaluate(digits.test.images, digits.test.labels, verbose=0)
        return {"loss": loss, "accuracy": accuracy}
    found: dict[str, Any] = {}

    def emit(event: str, **fields: Any) -> None:
        found.update(fields if event in ("agreement", "exported") else {})

    try:
        return found | tested(case, model, digits, framework, emit)
    except CaseFailure as error:
        return {"failed": str(error)}


def _cells(found: dict[str, Any]) -> Sequence[str]:
    forms = (
        *(("accuracy", ".4f"), ("loss", ".4f"), ("largest_rel_error", ".1e")),
        *(("top1_agreement", ".2%"), ("exported_bytes", ",")),
    )
    return [format(found[key], form) if found.get(key) is not None else "" for key, form in forms]


def _silent(event: str, **fields: Any) -> None:
    """Nothing is told of the build."""


if __name__ == "__main__":
    main()
