"""Real work put into one model's step, in a clone of the checkout with a commit for each size.

Shared by the live trials; nothing here is a trial itself.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
VICTIM = "lenet5"
TRIAL_ELEMENTS = (50_000, 200_000)
"""About 2 and 9 % of LeNet-5's training step, near the sizes that are asked for."""

BURN = '''

class Burn(keras.layers.Layer):
    """Real work that changes nothing: tanh of some elements of the input, forward and backward."""

    def call(self, images):
        flat = tf.reshape(images, [-1])
        tiled = tf.tile(flat[:784], [BURN_ELEMENTS // 784 + 1])[:BURN_ELEMENTS]
        return images + 1e-30 * tf.reduce_mean(tf.tanh(tf.tanh(tiled)))
'''
LAYERS = ("C1", "C3", "C5", "F6", "classifier")
"""The victim's layers that have weights."""
SLOWED = '''

def lenet5():
    """LeNet-5, one of whose layers does real work more, forward alone, that changes nothing."""
    model = _plain()
    layer = model.get_layer({layer!r})
    layer.call = functools.wraps(layer.call)(functools.partial(_more, layer.call))
    return model


def _more(call, maps, *args, **kwargs):
    flat = tf.reshape(tf.stop_gradient(maps), [-1])[:64]
    tiled = tf.tile(flat, [{elements} // 64 + 1])[:{elements}]
    return call(maps, *args, **kwargs) + 1e-30 * tf.reduce_mean(tf.tanh(tf.tanh(tiled)))
'''
FULL_IMPORTS = "import tensorflow as tf\n\nfrom .keras_api import keras"


def run(*command: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, **settings
    )  # type: ignore[call-overload, no-any-return]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=live", "-c", "user.email=live@example.invalid")
    done = run("git", *identity, *arguments, folder=folder)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit(project: Path, note: str, elements: int, layer: str = "") -> None:
    """Commit a version of the victim that burns so much, with a note that makes it a new one.

    Args:
        layer: the one of `LAYERS` that burns it; by default a layer of its own before them.
    """
    path = project / "models" / "lenet.py"
    original = git(project, "show", "origin/HEAD:models/lenet.py")
    text = original
    if layer:
        text = text.replace("def lenet5(", "def _plain(", 1)
        text = text.replace(
            "from .keras_api import keras", f"import functools\n\n{FULL_IMPORTS}", 1
        )
        text += SLOWED.format(layer=layer, elements=elements)
    elif elements:
        text = text.replace(
            "def lenet5(", f"BURN_ELEMENTS = {elements}\n{BURN}\n\ndef lenet5(", 1
        ).replace("keras.Input(MNIST_SHAPE),", "keras.Input(MNIST_SHAPE),\n            Burn(),", 1)
        text = text.replace("from .keras_api import keras", FULL_IMPORTS, 1)
    path.write_text(f"{text}\n# {note}\n")
    git(project, "commit", "--quiet", "--all", "--message", note)


def clone(folder: Path) -> Path:
    """Return a clone of the checkout in the folder, made unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    project = folder / "project"
    if not project.is_dir():
        git(folder, "clone", "--quiet", str(CHECKOUT), str(project))
    sys.path.insert(0, str(project))
    return project


def elements_for(project: Path, share: float) -> int:
    """Return how much to burn for so large a share of the victim's CPU time, by duets.

    A layer costs something however little it burns, so the size is read off a line through two.
    """
    (few, little), (many, much) = (
        (elements, _cost(project, elements)) for elements in TRIAL_ELEMENTS
    )
    return max(1, round(few + (share - little) * (many - few) / (much - little)))


def _cost(project: Path, elements: int) -> float:
    """Return by what share the CPU time of a victim that burns so much has grown."""
    from convmark.compare.live.session import DuetSide, SessionPlan, duet_session
    from convmark.core.case import Case
    from convmark.interpreter import Interpreter

    sides = {}
    for name, burnt in (("old", 0), ("new", elements)):
        commit(project, f"trial of {burnt}", burnt)
        folder = project.parent / f"{name}-{burnt}"
        shutil.copytree(project / "models", folder / "models", dirs_exist_ok=True)
        sides[name] = DuetSide(folder=folder, import_roots=[folder], zoo=folder / "models")
    case = Case(model=VICTIM, task="train", batch_size=32)
    with Interpreter() as interpreter:
        plans = [SessionPlan(seed=seed, seconds=2.0, enough_error=0.002) for seed in range(6)]
        found = [duet_session(interpreter, case, sides, plan).cpu for plan in plans]
    slower = statistics.median(one.value for one in found if one is not None)
    print(f"  {elements} elements cost {100 * math.expm1(slower):.1f} % of CPU time", flush=True)
    return math.expm1(slower)


class Diary:
    """What has been done, kept after every run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done = json.loads(path.read_text()) if path.is_file() else {}

    def keep(self, name: str, value: object) -> None:
        self.done[name] = value
        self._path.write_text(json.dumps(self.done, indent=1))
