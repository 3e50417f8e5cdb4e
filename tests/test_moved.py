"""A tree's modules are imported in the place of the repository's own, however it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import convmark

MOVED = Path(convmark.__file__).parent / "worker" / "moved.py"

SCRIPT = """
import importlib, importlib.util, json, site, sys
moved, sites, names = json.loads(sys.argv[1])
for folder in sites:
    site.addsitedir(folder)
early = [importlib.import_module(name).__name__ for name in names if name.startswith("early")]
spec = importlib.util.spec_from_file_location("moved", sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.move_imports(moved)
found = {}
for name in names:
    try:
        one = importlib.import_module(name)
        found[name] = getattr(one, "__file__", None) or list(one.__path__)[0]
    except ImportError as error:
        found[name] = str(error)
print(json.dumps(found))
"""

Install = Callable[[Path, Path], None]


def files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


def imported(
    moved: dict[Path, Path], sites: list[Path], *names: str, environ: dict[str, str] | None = None
) -> dict[str, str]:
    """Return where each module comes from in a new process; its error where it does not."""
    places = {str(place): str(instead) for place, instead in moved.items()}
    arguments = json.dumps([places, list(map(str, sites)), names])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments, str(MOVED)],
        check=True,
        capture_output=True,
        text=True,
        env=environ,
        cwd=sites[0],
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def by_path_file(repository: Path, site: Path) -> None:
    (site / "shop.pth").write_text(f"{repository / 'src'}\n")


def by_link(repository: Path, site: Path) -> None:
    (site / "shop").symlink_to(repository / "src" / "shop")
    (site / "space").symlink_to(repository / "src" / "space")
    (site / "single.py").symlink_to(repository / "src" / "single.py")


def by_links_in_a_build_folder(repository: Path, site: Path) -> None:
    """As setuptools does with editable_mode=strict."""
    build = repository / "build" / "links"
    for source in (repository / "src").rglob("*.py"):
        link = build / source.relative_to(repository / "src")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    (site / "shop.pth").write_text(f"{build}\n")


def by_finder(repository: Path, site: Path) -> None:
    from setuptools.command.editable_wheel import _finder_template

    source = repository / "src"
    mapping = {name: str(source / name) for name in ("shop", "single", "space.inner")}
    text = _finder_template("shop", mapping, {"space": [str(source / "space")]})
    (site / "__editable___shop_finder.py").write_text(text)
    (site / "shop.pth").write_text(
        "import __editable___shop_finder; __editable___shop_finder.install()\n"
    )


@pytest.mark.parametrize("install", [by_path_file, by_link, by_finder, by_links_in_a_build_folder])
def test_every_kind_of_editable_installation_leads_to_the_tree(
    tmp_path: Path, install: Install
) -> None:
    names = ("shop/__init__.py", "shop/nets.py", "single.py", "space/inner/__init__.py")
    repository = files(tmp_path / "repo", *(f"src/{name}" for name in names), "src/shop/today.py")
    tree = files(tmp_path / "tree", *(f"src/{name}" for name in names))
    site = files(tmp_path / "site", "other.py")
    install(repository, site)
    modules = ("shop", "shop.nets", "single", "space", "space.inner", "shop.today", "other")
    found = imported({repository: tree}, [site], *modules)
    assert {
        name: str(Path(path).relative_to(tmp_path))
        for name, path in found.items()
        if name not in ("shop.today", "space")
    } == {
        "shop": "tree/src/shop/__init__.py",
        "shop.nets": "tree/src/shop/nets.py",
        "single": "tree/src/single.py",
        "space.inner": "tree/src/space/inner/__init__.py",
        "other": "site/other.py",
    }
    assert found["shop.today"] == "No module named 'shop.today'"


def test_a_package_under_another_name_than_its_folder_s_leads_to_the_tree(tmp_path: Path) -> None:
    from setuptools.command.editable_wheel import _finder_template

    repository = files(tmp_path / "repo", "lib/__init__.py", "lib/nets.py")
    tree = files(tmp_path / "tree", "lib/__init__.py", "lib/nets.py")
    site = files(tmp_path / "site", "other.py")
    text = _finder_template("shop", {"shop": str(repository / "lib")}, {})
    (site / "finder_of_shop.py").write_text(text)
    (site / "shop.pth").write_text("import finder_of_shop; finder_of_shop.install()\n")
    found = imported({repository: tree}, [site], "shop", "shop.nets")
    assert list(found.values()) == [str(tree / "lib" / "__init__.py"), str(tree / "lib/nets.py")]


def test_a_module_that_became_a_package_and_one_imported_too_early_come_from_the_tree(
    tmp_path: Path,
) -> None:
    repository = files(tmp_path / "repo", "shop.py", "early.py")
    tree = files(tmp_path / "tree", "shop/__init__.py", "early.py")
    site = files(tmp_path / "site", "other.py")
    (site / "shop").with_suffix(".pth").write_text(f"{repository}\nimport early\n")
    (site / "a.py").symlink_to(repository / "shop.py")
    found = imported({repository: tree}, [site], "shop", "early", "a")
    assert found["shop"] == str(tree / "shop" / "__init__.py")
    assert found["early"] == str(tree / "early.py")


def test_an_environment_in_the_repository_stays_and_a_tree_of_its_own_inside_is_moved(
    tmp_path: Path,
) -> None:
    """The innermost folder counts: a working tree may lie in another."""
    repository = files(tmp_path / "repo", "trees/one/nets.py", "src/more.py")
    tree = files(tmp_path / "tree", "nets.py", "src/more.py")
    site = files(tmp_path / "site", "other.py")
    inside = repository / "trees" / "one"
    (site / "a.pth").write_text(f"{inside}\n{repository / 'src'}\n")
    venv = repository / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (installed,) = venv.glob("lib/python*/site-packages")
    (installed / "kept.py").write_text("")
    arguments = json.dumps(
        [
            {str(repository): str(tree), str(inside): str(tree)},
            [str(site)],
            ["nets", "more", "kept"],
        ]
    )
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-c", SCRIPT, arguments, str(MOVED)],
        check=True,
        capture_output=True,
        text=True,
        cwd=site,
    )
    assert json.loads(done.stdout) == {
        "nets": str(tree / "nets.py"),
        "more": str(tree / "src" / "more.py"),
        "kept": str(installed / "kept.py"),
    }
