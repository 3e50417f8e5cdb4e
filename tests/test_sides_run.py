"""Two sides run by real workers: each imports and reads the files of its own tree."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from workers import environ, git, measured, short_sessions

from convmark.cli import main
from convmark.compare.live.ab import SideSpec
from convmark.compare.live.anchor import origin_of
from convmark.compare.live.tree import ForeignCode, Tree
from convmark.core.case import Case
from convmark.core.errors import WorkerError
from convmark.interpreter import Interpreter

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

CASES = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"

NETS = """
import importlib.resources, json, os

import keras


def net(units):
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, use_bias=False)])


def package():
    from shop.sizes import UNITS
    return net(UNITS)


def namespace():
    from space.inner import UNITS
    return net(UNITS)


def renamed():
    from another.sizes import UNITS
    return net(UNITS)


def python_path():
    from tooling import UNITS
    return net(UNITS)


def working_folder():
    with open("configs/net.json") as file:
        return net(json.load(file))


def beside_the_module():
    return net(int(importlib.resources.files("shop").joinpath("units.txt").read_text()))


def through_a_link():
    with open("link.json") as file:
        return net(json.load(file))


def by_a_child_process():
    import subprocess, sys
    code = "import tooling; print(tooling.UNITS)"
    return net(int(subprocess.run([sys.executable, "-c", code], stdout=-1, check=True).stdout))


def every_way():
    inputs = keras.Input((1,))
    ways = (
        *(package, namespace, renamed, python_path, working_folder, beside_the_module),
        *(through_a_link, by_a_child_process),
    )
    return keras.Model(inputs, keras.layers.Concatenate()([way()(inputs) for way in ways]))


def whole_path():
    with open(os.environ["SHOP"] + "/configs/net.json") as file:
        return net(json.load(file))


def generated():
    from gen.sizes import UNITS
    return net(UNITS)
"""
WAYS = 8
"""Of `every_way`: a layer each, and one that is not of the side's own files has other units."""
OLD, NEW = 3, 5

Running = tuple[Interpreter, Tree]


def set_units(repository: Path, units: int) -> None:
    texts = {
        **dict.fromkeys(("src/shop/sizes.py", "lib/sizes.py"), f"UNITS = {units}\n"),
        **dict.fromkeys(("src/space/inner.py", "tools/tooling.py"), f"UNITS = {units}\n"),
        **dict.fromkeys(("configs/net.json", "src/shop/units.txt"), f"{units}\n"),
    }
    for name, text in texts.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def install(repository: Path, site: Path) -> None:
    """Install the repository as `pip install -e` does, by setuptools' own finder."""
    from setuptools.command.editable_wheel import _finder_template

    mapping = {"shop": str(repository / "src/shop"), "another": str(repository / "lib")}
    text = _finder_template("shop", mapping, {"space": [str(repository / "src/space")]})
    site.mkdir()
    (site / "__editable___shop_finder.py").write_text(text)
    (site / "shop.pth").write_text(
        "import __editable___shop_finder; __editable___shop_finder.install()\n"
    )
    (site / "sitecustomize.py").write_text("import site; site.addsitedir(__file__[:-17])\n")


@pytest.fixture(scope="module")
def sides(
    warm: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Running]]:
    """The commit, and the files as they are: edited, with a module that git ignores."""
    top = tmp_path_factory.mktemp("sides").resolve()
    repository, site = top / "repo", top / "site"
    set_units(repository, OLD)
    for package in ("src/shop", "lib"):
        (repository / package / "__init__.py").write_text("")
    (repository / "src/shop/nets.py").write_text(NETS)
    (repository / "link.json").symlink_to(repository / "configs/net.json")
    (repository / ".gitignore").write_text("gen/\n")
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "old")
    set_units(repository, NEW)
    (repository / "gen").mkdir()
    (repository / "gen/sizes.py").write_text(f"UNITS = {NEW}\n")
    install(repository, site)
    path = f"{site}:{repository / 'tools'}"
    variables = {**environ(top), "PYTHONPATH": path, "SHOP": str(repository)}
    case = Case(model="shop.nets:package", task="infer")
    source = {case.model: ["shop.nets", str(repository / "src/shop/nets.py")]}
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).chdir(repository)
        origin = origin_of(case, source)
        found = []
        for spec in (
            SideSpec(text="git:main", ref="main", environ=variables),
            SideSpec(text=".", environ=variables),
        ):
            tree = stack.enter_context(spec.tree(origin))
            assert tree is not None
            found.append((stack.enter_context(spec.interpreter(Interpreter, tree)), tree))
        yield found[0], found[1]


def units(side: Running, builder: str) -> int:
    """Return the model's units, once what its process ran was held against the tree."""
    interpreter, tree = side
    with interpreter.live({**measured(f"shop.nets:{builder}"), "with_sizes": True}) as worker:
        tree.check(worker.expect("code"))
        return int(worker.expect("sizes")["parameters"])


def test_each_side_imports_and_reads_its_own_files_however_they_are_reached(
    sides: tuple[Running, Running],
) -> None:
    found = [units(side, "every_way") for side in sides]
    assert found == [WAYS * OLD, WAYS * NEW]


def test_a_file_by_its_whole_path_is_refused_by_name_and_is_today_s_own(
    sides: tuple[Running, Running],
) -> None:
    theirs, today = sides
    with pytest.raises(ForeignCode) as error:
        units(theirs, "whole_path")
    opened = today[1].root / "configs/net.json"
    assert str(error.value).startswith(f"git:main: {opened} was opened in place of the commit's")
    assert units(today, "whole_path") == NEW


def test_a_generated_module_that_the_commit_does_not_have_is_named(
    sides: tuple[Running, Running],
) -> None:
    theirs, today = sides
    assert units(today, "generated") == NEW
    with pytest.raises(WorkerError) as error:
        units(theirs, "generated")
    message = theirs[1].explained(str(error.value))
    assert "No module named 'gen'; gen is not in the commit, which does not have it" in message


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")
def test_a_setting_read_by_a_relative_path_is_each_commit_s_own(
    warm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = CASES / "18-worktree-relative-config" / "make.sh"
    subprocess.run(["sh", str(make), str(tmp_path / "shop")], check=True, capture_output=True)
    monkeypatch.chdir(tmp_path / "shop")
    short_sessions(monkeypatch)
    options = ["--models", "nets:net", "--tasks", "infer", "--batch-sizes", "2", "--target=1000"]
    assert main(["ab", "git:HEAD~1", "git:HEAD", *options, "--allow-concurrent"]) == 1
    assert "regressed" in capsys.readouterr().out
