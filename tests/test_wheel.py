"""What pip installs from the repository's address has the harness and the whole zoo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from workers import git

from convmark.results.reading import read_run

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = ("convmark", "models", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as an installation by the lines of README has it."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:  # of this checkout, committed or not
        source = CHECKOUT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy / name)
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all")):
        git(copy, *command)
    (line,) = re.findall(r'pip install "convmark @ (.*?)"', (CHECKOUT / "README.md").read_text())
    address = line.replace("https://HOST/OWNER/convmark", f"file://{copy}")
    address = address.replace("COMMIT", git(copy, "rev-parse", "HEAD"))
    offline = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(folder), address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith("convmark-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_nothing_generic_reaches_site_packages(installed: Path) -> None:
    packages = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert packages == {"convmark", "convmark_zoo"}


def test_every_module_is_in_the_wheel(installed: Path) -> None:
    for package, source in (("convmark", "convmark"), ("convmark_zoo", "models")):
        expected = {
            path.relative_to(CHECKOUT / source) for path in (CHECKOUT / source).rglob("*.py")
        }
        found = {
            path.relative_to(installed / package) for path in (installed / package).rglob("*.py")
        }
        assert found == expected


def test_the_templates_of_the_page_are_in_the_wheel(installed: Path) -> None:
    folder = Path("convmark") / "report" / "page" / "templates"
    names = {path.name for path in (CHECKOUT / folder).iterdir()}
    assert {path.name for path in (installed / folder).iterdir()} == names
    assert {"report.html", "report.css", "report.js"} <= names


def test_the_zoo_is_there_as_convmark_zoo(
    installed: Path, tmp_path: Path, forks_of: Callable[[str], Forks]
) -> None:
    script = (
        "import sys\n"
        "for name in [one for one in sys.modules if one.startswith('convmark')]:\n"
        "    del sys.modules[name]\n"
        f"sys.path.insert(0, {str(installed)!r})\n"
        "import convmark_zoo\n"
        "print(convmark_zoo.__file__)\n"
        "print('lenet5' in convmark_zoo.names(), 'resnet50' in convmark_zoo.names())"
    )
    done = forks_of("tensorflow").run(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place, *found = done.stdout.split()[-3:]
    assert Path(place).is_relative_to(installed)
    assert found == ["True", "True"]


def test_it_measures_a_model_of_the_zoo_and_a_users_own(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from convmark_zoo.layers import conv_layer as mine\n")
    done = python(
        installed, tmp_path, "-m", "convmark", "run", "--models=lenet5,shop:mine",
        "--tasks=infer", "--batch-sizes=1", "--processes=1", "--time-budget=0.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("results/*/0001.csv")
    assert {row.model: row.parameters for row in read_run(path)} == {
        "lenet5": 61_706,
        "shop:mine": 72,
    }
