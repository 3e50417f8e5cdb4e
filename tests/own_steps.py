"""Takes training steps of the networks of `trained_nets` with one backend; for test_training.

Its argument is the backend. Prints one JSON object: by network what it is trained with, how its
step is called, its losses, its sizes and whether its weights moved; or the reason of a refusal.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import trained_nets
from convmark_zoo.keras_api import keras
from first_losses import draw_by_numpy
from trained_kinds import ANYWHERE, CASE, OF_TENSORFLOW

from convmark.core.case import Case
from convmark.worker import backends, measurement, timing
from convmark.worker.failure import CaseFailure

RECIPES = {
    "adam": "optimizer=adam",
    "slow": "learning_rate=0.001",
    "mae": "loss=mean_absolute_error",
    "no optimizer": "optimizer=adan",
    "no loss of that name": "loss=l3",
}


def counted(work: Any) -> dict[str, Any]:
    return {"flops": work.flops, "note": work.note}


def of_net(backend: Any, model: Any, recipe: str | None, compiled: bool = False) -> dict[str, Any]:
    backend.make_variables(model, trains=True)
    try:
        step, describe = backend.chosen_training(model, 4, 0, compiled, recipe)
    except CaseFailure as error:
        return {"refused": str(error)}
    before = [weight.copy() for weight in model.get_weights()]
    values = []
    if step.trace is not None:
        step.trace()
    for _ in range(3):
        token = step()
        backend.synchronise(token)
        values.append(backend.fingerprint(token))
        describe()
    if step.takes_any:
        feed = backend.feed(model, "train", 4, 0)
        values.append(backend.fingerprint(step.run(*next(feed))))
        feed.close()
    backend.settle(model)
    pairs = zip(before, model.get_weights(), strict=True)
    still = [old for old, new in pairs if bool((old == new).all())]
    return {
        **describe(),
        **backend.sizes(model),
        "call_path": backend.call_path,
        "values": values,
        "work": counted(backend.training_work(step, 4)),
        "moved": len(still) < len(before),
        "still": len(still),
        "rests": backend.rates_are_zero(model),
    }


def paths(backend: Any, *nets: str) -> list[str]:
    """Return how the steps of networks are called that are made one after another."""
    found = []
    for net in nets:
        case = Case(model=net, task="train", batch_size=4, backend=backend.name)
        measurement.make_step(case, getattr(trained_nets, net)(), 0, backend)
        found.append(backend.call_path)
    return found


def fed(backend: Any, *nets: str) -> dict[str, Any]:
    """Return the shapes of the targets that each network is fed, once all have a step."""
    models = {net: getattr(trained_nets, net)() for net in nets}
    kept = [backend.chosen_training(one, 4, 0, False, None) for one in models.values()]
    found = {}
    for net, model in models.items():
        feed = backend.feed(model, "train", 4, 0)
        found[net] = [list(one.shape) for one in next(feed)[1]]
        feed.close()
    del kept
    return found


def twice_the_work(backend: Any, plain: Any, twice: Any) -> dict[str, Any]:
    """Return the FLOPs of a step of both models, and the second one's updates in ten steps."""
    steps = [backend.chosen_training(model, 4, 0, False, None)[0] for model in (plain, twice)]
    flops = [backend.training_work(step, 4).flops for step in steps]
    before = int(twice.optimizer.iterations.numpy())
    for _ in range(10):
        timing.timed_step(steps[1], backend)
    return {"flops": flops, "updates": int(twice.optimizer.iterations.numpy()) - before}


def main() -> None:
    name = sys.argv[1]
    backend = backends.load(name)
    backend.configure(device="cpu", threads="default", precision="float32", seed=0)
    if name == "jax":
        draw_by_numpy()
    results = {}
    for net in (*ANYWHERE, *(OF_TENSORFLOW if name == "tensorflow" else ())):
        fresh = type(backend)()
        results[net] = of_net(fresh, getattr(trained_nets, net)(), None)
    if name == "tensorflow":
        try:
            of_net(type(backend)(), trained_nets.several_a_call(), None)
        except CaseFailure as error:
            results["several a call"] = {"refused": str(error)}
    else:
        own = trained_nets.own_train_function()
        results["own_train_function"] = of_net(type(backend)(), own, None)
    results["eager, jit on"] = of_net(type(backend)(), trained_nets.eager(), None, compiled=True)
    of_boxes, fresh = trained_nets.detector_of_boxes, type(backend)()
    fresh.take_targets(model := of_boxes(), of_boxes.target_spec)  # type: ignore[attr-defined]
    results["of_boxes"] = of_net(fresh, model, None)
    results["fed"] = fed(type(backend)(), "regression", "uncompiled", "binary")
    results["paths"] = paths(type(backend)(), "eager", "uncompiled", "sparse")
    for kind, recipe in RECIPES.items():
        results[kind] = of_net(type(backend)(), trained_nets.uncompiled(), recipe)
    results["recipe for compiled"] = of_net(
        type(backend)(), trained_nets.sparse(), "optimizer=adam"
    )
    if name == "tensorflow" and CASE.is_dir():
        sys.path.append(str(CASE))
        ownstep = importlib.import_module("ownstep")
        results["twice"] = twice_the_work(backend, ownstep.plain(), ownstep.twice())
    keras.mixed_precision.set_global_policy("mixed_float16")
    results["mixed"] = of_net(type(backend)(), trained_nets.categorical(), None)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
