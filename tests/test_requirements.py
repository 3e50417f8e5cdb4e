"""What an anchor's commit would have installed, held against today's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workers import git

from convmark.compare.live.todays import changed_requirements, other_packages

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

PYPROJECT = """
[project]
name = "nets"
version = "1"
dependencies = ["keras"]
optional-dependencies = { gpu = ["cuda"] }
requires-python = ">=3.10"

[project.scripts]
nets = "nets:main"

[dependency-groups]
dev = ["pytest"]

[tool.ruff]
line-length = 100

[tool.poetry.dependencies]
numpy = "1"

[tool.uv.sources]
nets = { path = "." }

[tool.setuptools.dynamic]
optional-dependencies = { more = { file = ["more.pip.txt"] } }

[build-system]
requires = ["setuptools"]
"""
SETUP = 'setup(name="nets", version="1", install_requires=["keras"])'
CONFIG = "[metadata]\nversion = 1\n[options]\ninstall_requires =\n  keras\n"
INSTALL = (
    *(
        "requirements-dev.txt",
        "dev-requirements.in",
        "constraints.txt",
        "docker/requirements/gpu.txt",
    ),
    *("uv.lock", "tools/poetry.lock", "pdm.lock", "Pipfile", "Pipfile.lock", "pylock.gpu.toml"),
    *("pixi.toml", "environment-gpu.yml", "conda-lock.yml", "conda-linux-64.lock"),
    *("named/base.pip", "pins.pip", "more.pip.txt", ".python-version", "Dockerfile"),
    *("ops/_fast.pyx", "ops/fast.cu", "CMakeLists.txt", "Cargo.lock"),
)
OTHERS = ("notes.txt", "nets.py", "docs/config.toml", "named/nothing.pip")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    texts = {**dict.fromkeys((*INSTALL, *OTHERS), "1"), "pyproject.toml": PYPROJECT}
    texts |= {"setup.py": SETUP, "setup.cfg": CONFIG, "tox.ini": "[testenv]\ndeps = keras\n"}
    texts["named/requirements.txt"] = "-r base.pip\n--constraint=../pins.pip\n"
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_files_that_install_something_are_held_against_a_commit(repository: Path) -> None:
    for name in (*INSTALL, *OTHERS):
        (repository / name).write_text("2")
    assert set(changed_requirements(repository, "HEAD")) == set(INSTALL)
    assert changed_requirements(repository, "gone") == ()
    git(repository, "commit", "-qam", "two")
    assert other_packages(repository, "HEAD") == ""
    told = other_packages(repository, "HEAD~1", "HEAD")
    first = ".python-version, CMakeLists.txt, Cargo.lock"
    assert told.startswith(f"{first} and 20 more differ between HEAD~1")
    assert told.endswith(
        "both codes ran with the packages installed here, not with what each commit would have "
        "installed"
    )
    (repository / "uv.lock").unlink()
    assert changed_requirements(repository, "HEAD") == ("uv.lock",)


@pytest.mark.parametrize(
    ("name", "before", "now", "installs"),
    [
        ("pyproject.toml", '["keras"]', '["keras", "six"]', True),
        ("pyproject.toml", 'gpu = ["cuda"]', 'gpu = ["cuda>12"]', True),
        ("pyproject.toml", ">=3.10", ">=3.12", True),
        ("pyproject.toml", '["pytest"]', '["pytest<9"]', True),
        ("pyproject.toml", 'numpy = "1"', 'numpy = "2"', True),
        ("pyproject.toml", 'path = "."', 'git = "x"', True),
        ("pyproject.toml", '["setuptools"]', '["hatchling"]', True),
        ("pyproject.toml", "[build-system]", "[build-system", True),
        ("pyproject.toml", 'version = "1"', 'version = "2"', False),
        ("pyproject.toml", "line-length = 100", "line-length = 99", False),
        ("pyproject.toml", "nets:main", "nets:run", False),
        ("setup.py", "keras", "keras-core", True),
        ("setup.py", '"1"', '"2"', False),
        ("setup.cfg", "keras", "keras-core", True),
        ("setup.cfg", "version = 1", "version = 2", False),
        ("tox.ini", "keras", "keras-core", True),
        ("tox.ini", "testenv", "testenv:bench", True),
    ],
)
def test_of_files_that_hold_other_things_too_the_part_that_installs_counts(
    repository: Path, name: str, before: str, now: str, installs: bool
) -> None:
    text = (repository / name).read_text()
    assert text.count(before) == 1
    (repository / name).write_text(text.replace(before, now))
    assert changed_requirements(repository, "HEAD") == ((name,) if installs else ())
