"""Regression gates in throw-away repositories, with real workers: what must fail, and what not.

Run it from a checkout: `python tests/benchmarks/gates.py [--folder F] [--only NAME ...]`. For each
way in which a model's code can change it makes a project of its own, keeps a run of it, compares an
unchanged run (no regression may be found), makes the model much slower, and compares again: that
must end as `regressed` with exit status 1, or be refused with its reason. It can be stopped and
started again: a project that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

FAST, SLOW = 0, 30
"""Sine layers: so many make the step several times slower."""

SHAPE = "(64, 64, 16)"

TEST = """
    import pytest
    from convmark.core.suites import Suite

    SHOP = Suite(models=("{model}",), tasks=("infer",), batch_sizes=(8,))

    @pytest.mark.convmark(SHOP)
    def test_shop(measured, benchmark):
        measured.replay(benchmark)
"""

NETS = """
    import json, os, pathlib
    import keras
    from keras import ops
    {imports}

    def net():
        sines = {sines}
        inputs = keras.Input({shape})
        x = keras.layers.Conv2D(16, 3, padding="same")(inputs)
        for _ in range(sines):
            x = ops.sin(x)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
"""


@dataclass(frozen=True)
class Gate:
    """A way in which a model's code changes."""

    nets: str
    """Expression of the number of sines, in the model's module."""
    files: Mapping[str, str]
    """Files besides, `{sines}` in them standing for the number."""
    change: str
    """The file that makes the model slow; empty for the model's module itself."""
    imports: str = ""
    where: str = "nets.py"
    """The model's module in the repository."""
    model: str = "nets:net"
    ignored: tuple[str, ...] = ()
    environ: Mapping[str, str] | None = None
    """`{folder}` stands for the project's folder."""
    commits_change: bool = True
    git: bool = True
    dirty_first: bool = False
    against: str = ""
    """What the run is compared with; the run before by default."""
    runtime: str = ""
    """One that the model is exported to."""
    installs: bool = False


GATES = {
    "src-editable": Gate(
        nets="SINES", imports="SINES = {sines}", files={}, change="",
        where="src/shop/nets.py", model="shop.nets:net", installs=True,
    ),
    "flat": Gate(nets="SINES", imports="SINES = {sines}", files={}, change=""),
    "relative-settings": Gate(
        nets='json.load(open("configs/net.json"))["sines"]',
        files={"configs/net.json": '{{"sines": {sines}}}'}, change="configs/net.json",
    ),
    "ignored-module": Gate(
        nets="sizes.SINES", imports="from gen import sizes",
        files={"gen/sizes.py": "SINES = {sines}\n"}, change="gen/sizes.py", ignored=("gen/",),
        commits_change=False,
    ),
    "untracked-settings": Gate(
        nets='json.loads(pathlib.Path("local.json").read_text())["sines"]',
        files={"local.json": '{{"sines": {sines}}}'}, change="local.json",
        ignored=("!local.json",), commits_change=False,
    ),
    "outside-library": Gate(
        nets="shoplib.SINES", imports="import shoplib",
        files={"../outside/shoplib.py": "SINES = {sines}\n"}, change="../outside/shoplib.py",
        environ={"PYTHONPATH": "{folder}/outside"}, commits_change=False,
    ),
    "weights": Gate(
        nets='len(__import__("h5py").File("weights.h5")["sines"][...])',
        files={"weights.h5": "{sines}"}, change="weights.h5", ignored=("weights.h5",),
        commits_change=False,
    ),
    "dirty-first": Gate(
        nets="SINES", imports="SINES = {sines}", files={}, change="", dirty_first=True,
        commits_change=False,
    ),
    "no-git": Gate(nets="SINES", imports="SINES = {sines}", files={}, change="", git=False),
    "head-named": Gate(
        nets="SINES", imports="SINES = {sines}", files={}, change="", commits_change=False,
        against="HEAD",
    ),
    "left-eager": Gate(
        nets="8", imports="import tensorflow as tf; tf.config.run_functions_eagerly({sines} > 0)",
        files={}, change="",
    ),
    "fewer-cores": Gate(
        nets="60", imports="if {sines}: os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})",
        files={}, change="",
    ),
    "file-onnx": Gate(
        nets="0", files={"net.onnx": ""}, change="net.onnx", model="net.onnx",
        ignored=("net.onnx",), commits_change=False, runtime="onnxruntime",
    ),
    "file-xml": Gate(
        nets="0", files={"net.xml": ""}, change="net.xml", model="net.xml", runtime="openvino",
    ),
    **{
        name: Gate(nets="SINES", imports="SINES = {sines}", files={}, change="", runtime=name)
        for name in ("savedmodel", "litert", "onnxruntime", "openvino")
    },
    "exported-head-before": Gate(
        nets="SINES", imports="SINES = {sines}", files={}, change="", runtime="onnxruntime",
        against="git:HEAD~1",
    ),
}  # fmt: skip


class Project:
    """A throw-away project with one gate."""

    def __init__(self, folder: Path, gate: Gate) -> None:
        self.gate = gate
        self.folder = folder
        self.repo = folder / "repo"
        self.repo.mkdir(parents=True)
        self.python = sys.executable
        ignored = ["__pycache__/", "results/", "*.egg-info/", *gate.ignored]
        (self.repo / ".gitignore").write_text("\n".join(ignored) + "\n")
        (self.repo / "test_shop.py").write_text(dedent(TEST.format(model=gate.model)))
        self.write(FAST)
        if gate.git:
            self.git("init", "-q", "-b", "main")
            self.git("add", "-A")
            if "!local.json" in gate.ignored:
                self.git("rm", "-q", "--cached", "local.json")
            self.git("commit", "-qm", "one")
            self.git("commit", "-qm", "one more", "--allow-empty")
        if gate.installs:
            self.install()
        if gate.dirty_first:
            with (self.repo / gate.where).open("a") as file:
                file.write("# not committed\n")

    def write(self, sines: int) -> None:
        """Write the model with so many sines."""
        gate = self.gate
        for name, text in gate.files.items():
            path = self.repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            writers = {".h5": _write_weights, ".onnx": _write_onnx, ".xml": _write_xml}
            if path.suffix in writers:
                writers[path.suffix](path, sines)
            else:
                path.write_text(text.format(sines=sines))
        imports = gate.imports.format(sines=sines)
        text = NETS.format(imports=imports, sines=gate.nets, shape=SHAPE)
        path = self.repo / gate.where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def change(self) -> None:
        """Make the model slow."""
        self.write(SLOW)
        if self.gate.git and self.gate.commits_change:
            self.git("commit", "-qam", "slow")

    def git(self, *arguments: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")
        command = ["git", "-C", str(self.repo), *named, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def install(self) -> None:
        """Install the project as editable, in an environment that has all that this one has."""
        (self.repo / "pyproject.toml").write_text(
            '[project]\nname = "shop"\nversion = "1"\n[build-system]\nrequires = ["setuptools"]\n'
            'build-backend = "setuptools.build_meta"\n[tool.convmark]\nshort_options = true\n'
        )
        environment = self.folder / "environment"
        _checked([sys.executable, "-m", "venv", "--without-pip", str(environment)])
        self.python = str(environment / "bin" / "python")
        (site,) = environment.glob("lib/*/site-packages")
        here = next(entry for entry in sys.path if entry.endswith("site-packages"))
        (site / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        _checked(
            [sys.executable, "-m", "pip", "--python", self.python, "install", "-q",
             "--no-deps", "--no-build-isolation", "-e", str(self.repo)]
        )  # fmt: skip

    def bench(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the project's suite."""
        variables = {**os.environ, "COLUMNS": "400"}
        for name, value in (self.gate.environ or {}).items():
            variables[name] = value.format(folder=self.folder)
        command = [self.python, "-m", "pytest", "test_shop.py", "-q", "-p", "no:cacheprovider"]
        options = [
            "--convmark-processes=2",
            "--convmark-time-budget=0.3",
            "--convmark-results=results",
        ]
        options += ["--convmark-ceilings=off", "--convmark-wait"]
        if self.gate.runtime:
            options.append(f"--convmark-runtime={self.gate.runtime}")
        return subprocess.run(
            [*command, *options, *more],
            cwd=self.repo, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def compare(self) -> subprocess.CompletedProcess[str]:
        against = self.gate.against
        named = self.git("rev-parse", "HEAD") if against == "HEAD" else against
        return self.bench("--benchmark-compare" + (f"={named}" if named else ""))


def _write_weights(path: Path, sines: int) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file["sines"] = np.zeros(sines)


def _write_onnx(path: Path, sines: int) -> None:
    from onnx import TensorProto, helper, save

    shape = [8, 64, 64, 16]
    names = [f"x{place}" for place in range(sines + 2)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in (names[0], names[-1])
    ]
    nodes = [
        helper.make_node("Relu" if place == 0 else "Sin", [names[place]], [names[place + 1]])
        for place in range(sines + 1)
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def _write_xml(path: Path, sines: int) -> None:
    import openvino
    from openvino import opset13

    given = opset13.parameter([8, 64, 64, 16], openvino.Type.f32)
    x = opset13.relu(given)
    for _ in range(sines):
        x = opset13.sin(x)
    openvino.save_model(openvino.Model([x], [given]), path, compress_to_fp16=False)


def _checked(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Outcome:
    """What a gate said."""

    name: str
    unchanged_exit: int
    unchanged_says: str
    slow_exit: int
    slow_says: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether it failed the slow run, by name or by refusal, and let the unchanged one pass."""
        found = self.slow_exit == 1 and "regressed" in self.slow_says
        refused = self.slow_exit not in (0, 1) and bool(self.slow_says)
        return self.unchanged_exit == 0 and (found or refused)


def tried(name: str, folder: Path, say: Callable[[str], None] = print) -> Outcome:
    """Return what the gate of that name said."""
    began = time.monotonic()
    project = Project(folder, GATES[name])
    first = project.bench()
    if first.returncode:
        raise SystemExit(f"{name}: the first run failed\n{first.stdout}{first.stderr}")
    same = project.compare()
    project.change()
    slow = project.compare()
    for what, done in (("unchanged", same), ("slow", slow)):
        (folder / f"{what}.txt").write_text(done.stdout + done.stderr)
    outcome = Outcome(
        name=name,
        unchanged_exit=same.returncode,
        unchanged_says=_verdict(same),
        slow_exit=slow.returncode,
        slow_says=_verdict(slow),
        seconds=round(time.monotonic() - began, 1),
    )
    say(f"{name}: {'holds' if outcome.holds else 'FAILS'}: {outcome}")
    return outcome


def _verdict(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that tells of the step time, or the last line of a refusal."""
    lines = (done.stdout + done.stderr).splitlines()
    told = [line for line in lines if re.search(r"\bstep[ _]time\b.*\b(regressed|improved|unchanged"
                                                r"|inconclusive|new)\b", line)]  # fmt: skip
    return " ".join((told or lines[-1:] or [""])[0].split())


def main() -> int:
    """Try the gates; return 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "convmark-gates"
    )
    parser.add_argument("--only", nargs="*", choices=GATES, default=list(GATES))
    options = parser.parse_args()
    diary = options.folder / "outcomes.jsonl"
    options.folder.mkdir(parents=True, exist_ok=True)
    done = {}
    if diary.exists():
        found = [Outcome(**json.loads(line)) for line in diary.read_text().splitlines()]
        done = {outcome.name: outcome for outcome in found}
    for name in options.only:
        if name not in done:
            outcome = tried(name, Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.folder)))
            done[name] = outcome
            with diary.open("a") as file:
                file.write(json.dumps(outcome.__dict__) + "\n")
    chosen = [done[name] for name in options.only]
    print(f"{sum(outcome.holds for outcome in chosen)} of {len(chosen)} hold")
    return int(not all(outcome.holds for outcome in chosen))


if __name__ == "__main__":
    sys.exit(main())
