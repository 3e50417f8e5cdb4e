"""Two codes beside each other in one process: real workers, throw-away packages."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import Forks, warm_interpreters
from workers import QUICK_XLA, environ, skip_without

from convmark.compare.live.session import DuetSide, Session, SessionPlan, duet_session
from convmark.core.case import Case
from convmark.interpreter import Interpreter, zoo_folder
from convmark.results.code.manifest import HERE, ZOO, Roots, code_of

NETS = """\
from convmark_zoo.keras_api import keras
from shop import sizes

@keras.saving.register_keras_serializable("shop")
class Block(keras.layers.Layer):
    def build(self, shape):
        from shop.late import LABEL
        assert LABEL == SIDE
        self.inner = [keras.layers.Dense(sizes.WIDTH) for _ in range(sizes.DEPTH)]
        for layer in self.inner:
            layer.build((shape[0], sizes.WIDTH))
        super().build(shape)

    def call(self, x):
        from shop.later import LABEL
        assert LABEL == SIDE
        for layer in self.inner:
            x = layer(x)
        return x

def net():
    first = keras.layers.Dense(sizes.WIDTH)
    copied = keras.layers.deserialize(keras.layers.serialize(Block()))
    assert type(copied) is Block and first.name == "dense"
    return keras.Sequential([keras.Input((32,)), first, copied, keras.layers.Dense(10)])

def policy():
    if SIDE == "new":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return net()

class Casts(keras.layers.Dense):
    def call(self, x):
        from keras import ops
        return ops.cast(ops.cast(x, "bfloat16") @ ops.cast(self.kernel, "bfloat16"), "float32")

def casts():
    if SIDE == "new":
        return keras.Sequential([net(), Casts(4)])
    return net()

def eager():
    import tensorflow
    tensorflow.config.run_functions_eagerly(SIDE == "old")
    return net()

def variable():
    import os
    if SIDE == "new":
        os.environ["OMP_SOMETHING"] = "1"
    return net()

def both_variable():
    import os
    os.environ["OMP_SOMETHING"] = "1"
    return net()

def patch():
    if SIDE == "old":
        keras.layers.Dense.call = lambda self, x: x @ self.kernel
    return net()

def bind():
    import functools
    if SIDE == "old":
        keras.layers.Dense.call = functools.partialmethod(keras.layers.Dense.call)
    return net()

def breaks():
    if SIDE == "old":
        def broken(self, x):
            raise TypeError
        keras.layers.Dense.call = broken
    return net()

def raises():
    if SIDE == "old":
        raise ValueError("a shape\\nthat cannot be")
    return net()

def too_big():
    import sys
    if hasattr(sys, "one_is_there"):
        raise MemoryError
    sys.one_is_there = True
    return net()

def threads():
    import threading
    if SIDE == "new":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return net()

def named():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name=SIDE)])

def first_weights():
    zeros = {"old": "zeros", "new": "ones"}[SIDE]
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, bias_initializer=zeros)])

def constant():
    return own(lambda x: x * {"old": 1.5, "new": 2.5}[SIDE])

def order():
    a, b = (1, 0) if SIDE == "old" else (0, 1)
    return own(lambda x: [x * x, x + x][a] - [x * x, x + x][b])

def loop():
    import tensorflow as tf
    steps = 3 if SIDE == "old" else 4
    def turn(n, x):
        return n + 1, x * x
    return own(lambda x: tf.while_loop(lambda n, x: n < steps, turn, (0, x))[1])

def python():
    import tensorflow as tf
    return own(lambda x: tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), x.shape))

def inlined():
    import tensorflow as tf
    attributes = {"_noinline": True} if SIDE == "new" else None
    inner = tf.function(tf.tanh, experimental_attributes=attributes)
    return own(lambda x: inner(x))

def drawn():
    import random
    return own(lambda x: x * x if random.random() < 0.5 else x)

def drawn_of_numpy():
    import numpy as np
    return own(lambda x: x * x if np.random.rand() < 0.5 else x)

def placed():
    import tensorflow as tf
    from tensorflow.python.framework.ops import colocate_with
    def work(x):
        one, other = x * 2, x * 3
        with colocate_with(one if SIDE == "new" else other):
            return one + other
    return own(work)

def file():
    import tensorflow as tf
    def work(x):
        size = tf.strings.length(tf.io.read_file("shop/late.py"))  # each side has its own
        return x + tf.cast(size, tf.float32)
    return own(work)

def by_name():
    import tensorflow as tf
    def work(x):
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="mine")
        tf.raw_ops.AssignVariableOp(resource=handle, value=1.0)
        return x + tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
    return own(work)

def clock():
    import tensorflow as tf
    return own(lambda x: x + tf.cast(tf.timestamp(), tf.float32))

def own(work):
    class Own(keras.layers.Layer):
        def call(self, x):
            return work(x)
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), Own()])

def packaged():
    import sys
    if not hasattr(sys, "table"):  # as a package that is there once reads its settings
        sys.table = open(sizes.TABLE).read()
    return net()

def other():
    if SIDE == "new":
        open(sizes.OTHER).close()
    return net()

SIDE = "{side}"
"""
WIDTHS = {"old": (128, 4), "new": (256, 8)}
"""Eight times the work: whatever else runs, the steps of the one are not taken for the other's."""


def parameters(side: str) -> int:
    width, depth = WIDTHS[side]
    return 33 * width + depth * width * (width + 1) + 10 * (width + 1)


def flops(side: str) -> int:
    return 2 * (parameters(side) - WIDTHS[side][0] * (WIDTHS[side][1] + 1) - 10)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DuetSide]:
    folder = tmp_path_factory.mktemp("duet").resolve()
    found, table = {}, str(folder / "table.txt")
    Path(table).touch()
    for side, (width, depth) in WIDTHS.items():
        package = folder / side / "shop"
        package.mkdir(parents=True)
        other = folder / "old" / "shop" / "late.py"
        texts = {
            "__init__": "",
            "nets": NETS.replace("{side}", side),
            "sizes": f"WIDTH, DEPTH, OTHER, TABLE = {width}, {depth}, {str(other)!r}, {table!r}\n",
            "late": f"LABEL = {side!r}\n",
            "later": f"LABEL = {side!r}\n",
        }
        for name, text in texts.items():
            (package / f"{name}.py").write_text(text)
        found[side] = DuetSide(folder=folder / side, import_roots=[folder / side])
    return found


@pytest.fixture(scope="module")
def interpreter(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    skip_without("tensorflow")
    variables = environ(tmp_path_factory.mktemp("interpreter"))
    with Interpreter(environ=variables, import_roots=[]) as made:
        yield made


def case(builder: str, **more: object) -> Case:
    fields = {"model": f"shop.nets:{builder}", "task": "train", "batch_size": 64, **more}
    return Case(**fields)  # type: ignore[arg-type]


def play(
    interpreter: Interpreter, sides: dict[str, DuetSide], what: Case, **plan: object
) -> Session:
    plan = {"seed": 1, "seconds": 0.02, "warm_up_s": 0.02, "builds": 1, **plan}
    return duet_session(interpreter, what, sides, SessionPlan(**plan))  # type: ignore[arg-type]


def holds(session: Session, sides: dict[str, DuetSide]) -> None:
    """Each side ran its own code, and the deeper one takes longer."""
    assert (session.refusal, session.failure) == ("", None)
    assert {side: session.sizes[side]["parameters"] for side in sides} == {
        side: parameters(side) for side in sides
    }
    for side in sides:
        files = {Path(file["path"]) for file in session.codes[side]["files"]}
        own = sides[side].folder / "shop"
        names = ("__init__", "nets", "sizes", "late", "later")
        assert {own / f"{name}.py" for name in names} <= files
        assert not any(path.is_relative_to(sides[one].folder) for one in sides if one != side
                       for path in files)  # fmt: skip
    assert session.wall is not None
    assert session.cpu is not None
    # PyTorch's threads spin between two steps: its CPU time tells little, on a quiet machine too
    assert max(session.wall.value, session.cpu.value) > math.log(1.3)


def surely_slower(session: Session) -> bool:
    clocks = filter(None, (session.wall, session.cpu))
    return any(clock.value - 3 * clock.error > math.log(1.3) for clock in clocks)


def test_two_versions_of_a_package_run_side_by_side(
    interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    long_enough = {"seconds": 0.2, "warm_up_s": 0.2, "builds": 6}
    session = play(interpreter, sides, case("net"), with_work=True, **long_enough)
    holds(session, sides)
    assert session.sizes["old"]["flops_per_sample"] == flops("old")
    assert "flops_per_sample" not in session.sizes["new"]  # its rows have them
    assert {state["call_path"] for state in session.states.values()} == {"tf.function"}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_so_they_do_on_another_framework(
    backend: str,
    sides: dict[str, DuetSide],
    tmp_path: Path,
    forks_of: Callable[[str], Forks],
) -> None:
    with (
        warm_interpreters(forks_of(backend)),
        Interpreter(
            backend=backend, environ=environ(tmp_path, **QUICK_XLA), import_roots=[]
        ) as interpreter,
    ):
        for _ in range(4):
            what = case(
                "net", backend=backend, threads="1"
            )  # several wait for each other on busy cores
            session = play(interpreter, sides, what, seconds=0.8, warm_up_s=0.2, builds=2)
            if session.wall is None or surely_slower(session):
                break  # else its own error says that it cannot tell, on a busy machine
        holds(session, sides)
        alike = play(interpreter, sides, case("named", backend=backend), with_work=True)
        assert alike.failure is None
        told = list(alike.graphs.values())
        assert told == (told[:1] * 2 if backend == "jax" else [])  # PyTorch runs Python each time


@pytest.mark.parametrize(
    ("builder", "task", "same"),
    [
        ("named", "train", True),
        ("named", "infer", True),
        ("first_weights", "infer", False),
        ("constant", "train", False),
        ("order", "infer", False),
        ("loop", "infer", False),
        ("inlined", "infer", False),
        ("placed", "infer", False),
        ("python", "infer", None),
        ("drawn", "infer", None),
        ("drawn_of_numpy", "train", None),
        ("file", "infer", None),
        ("by_name", "infer", None),
        ("clock", "infer", None),
    ],
)
def test_a_step_is_told_by_its_graph_and_by_the_values_that_it_reads(
    builder: str, task: str, same: bool | None, interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    session = play(interpreter, sides, case(builder, task=task, batch_size=8), with_work=True)
    assert (session.refusal, session.failure) == ("", None)
    told = session.graphs
    assert (told["old"] == told["new"] if told else None) == same


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        ("eager", "the old code changes settings of the process: run_functions_eagerly=True"),
        ("too_big", "the models do not fit into memory together"),
        ("threads", "the new code changes settings of the process: python_threads=2"),
        ("variable", "the two codes set environment variables differently: OMP_SOMETHING"),
        ("other", "the new code takes {old}/shop/late.py from the other side's files"),
    ],
)
def test_codes_that_would_disturb_each_other_share_no_process(
    builder: str, reason: str, interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    session = play(interpreter, sides, case(builder, task="infer"))
    assert session.refusal == reason.format(old=sides["old"].folder)
    assert session.wall is None


@pytest.mark.parametrize(
    ("builder", "code"), [("breaks", "the old"), ("patch", "the old"), ("bind", "a")]
)
def test_a_function_of_the_framework_that_one_side_replaces_ends_the_duet(
    builder: str, code: str, interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    session = play(interpreter, sides, case(builder), with_work=True)
    assert session.refusal.startswith(f"{code} code replaces functions of the framework: keras")
    assert "Dense.call" in session.refusal


def test_one_code_on_both_sides_is_one_whichever_is_built_first(
    interpreter: Interpreter, sides: dict[str, DuetSide], tmp_path: Path
) -> None:
    """What a package that both share reads once is told of the first alone."""
    old, twin = sides["old"], tmp_path.resolve() / "twin"
    shutil.copytree(old.folder, twin)
    three = {"old": old, "control": old, "new": DuetSide(folder=twin, import_roots=[twin])}
    for order in range(2):
        told = play(interpreter, three, case("packaged", task="infer"), order=order).codes
        roots = {
            name: Roots({ZOO: zoo_folder().resolve(), HERE: three[name].folder}) for name in told
        }
        codes = [code_of(told[name], roots[name]) for name in three]
        assert {one.hash for one in codes} == {codes[0].hash}
        assert "table.txt" in {Path(one.place.path).name for one in codes[0].files}


def test_what_both_set_alike_or_keras_holds_for_each_is_no_hindrance(
    interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    assert play(interpreter, sides, case("both_variable", task="infer")).refusal == ""
    for builder, new in (("policy", "mixed_bfloat16"), ("casts", "float32+mixed_bfloat16")):
        session = play(interpreter, sides, case(builder, task="infer"), with_work=True)
        assert session.refusal == ""
        found = {side: state["precision"] for side, state in session.states.items()}
        assert found == {"old": "float32", "new": new}


def test_settings_of_one_side_alone_are_held_where_they_can_be(
    interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    def with_settings(**settings: str) -> Session:
        new = dataclasses.replace(sides["old"], settings=settings)
        return play(interpreter, {"old": sides["old"], "new": new}, case("net", task="infer"))

    session = with_settings(jit="on", precision="mixed_bfloat16")
    assert session.refusal == ""
    assert session.states["new"]["precision"] == "mixed_bfloat16"
    assert session.states["old"]["precision"] == "float32"
    assert with_settings(threads="1").refusal == "threads=1 is a setting of the process"


def test_a_precision_that_the_user_has_named_is_held_to(
    interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    asked = {name: dataclasses.replace(side, asked=["precision"]) for name, side in sides.items()}
    failure = play(interpreter, asked, case("policy", task="infer")).failure
    assert failure is not None
    assert failure.side == "new"
    assert "precision float32 was asked for" in failure.reason


def test_a_side_that_cannot_be_built_is_named(
    interpreter: Interpreter, sides: dict[str, DuetSide]
) -> None:
    failure = play(interpreter, sides, case("raises", task="infer")).failure
    assert failure is not None
    assert failure.side == "old"
    assert failure.reason == "ValueError: a shape that cannot be"
