"""Complaints in a few lines each, kept beside the repository: which code ran, and what it cost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forks import COMMAND, SESSION, Forks
from workers import BUILDERS, environ

from convmark.results.reading import read_run
from convmark.results.record import Record

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not beside the checkout"),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
    ),
]


def made(name: str, *folders: Path) -> None:
    subprocess.run(["sh", str(CASES / name / "make.sh"), *map(str, folders)], check=True)


HERE = ("--results=results", "--ceilings=off")
SHORT_SESSIONS = f"""
import pytest, sys
sys.path.append({str(BUILDERS)!r})
import workers
workers.short_sessions(pytest.MonkeyPatch())
"""
SHORT = (
    *("--tasks=infer", "--batch-sizes=8", "--devices=cpu", "--processes=1", "--time-budget=0.1"),
)


def test_a_module_that_git_ignores_is_known_by_its_content_and_its_slowdown_is_found(
    harness: Forks, warm: None, tmp_path: Path
) -> None:
    made("19-code-that-git-does-not-see", tmp_path)
    (tmp_path / "repo/pyproject.toml").write_text("[tool.convmark]\nshort_options = true\n")
    suite = (SESSION, "test_shop.py", "--processes=1", "--time-budget=0.05", *HERE)
    here = {"cwd": tmp_path / "repo", "environ": environ(tmp_path, COLUMNS="200")}
    first = harness.run(*suite, **here)
    assert first.returncode == 0, first.stdout
    (tmp_path / "repo/gen/sizes.py").write_text("SINES = 8\n")
    second = harness.run(SHORT_SESSIONS + SESSION, *suite[1:], "--benchmark-compare", **here)
    assert second.returncode == 1, second.stdout
    assert "step_time regressed by" in second.stdout
    rows = [read_run(path)[0] for path in sorted((tmp_path / "repo/results").glob("*/000?.csv"))]
    assert rows[0].code != rows[1].code
    assert [row.commit for row in rows] == [None, None]


def test_the_working_folders_own_package_is_measured_and_not_a_stale_installed_copy(
    tmp_path: Path,
) -> None:
    repo, site = tmp_path / "repo", tmp_path / "site-packages"
    site.mkdir()
    made("27-stale-installed-copy", repo, site)
    done = subprocess.run(
        [sys.executable, "-m", "convmark", "run", "--models=shopflat.nets:net", *SHORT, *HERE],
        cwd=repo,
        env=environ(tmp_path, PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(repo)
    head = subprocess.run(
        ["git", "-C", str(repo), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    assert (row.parameters, row.commit) == (1792, head.stdout.strip())


def rows_of(repo: Path) -> list[Record]:
    (path,) = (repo / "results").glob("*/0001.csv")
    return read_run(path)


def test_a_models_own_variables_part_rows_that_they_make_different(
    harness: Forks, warm: None, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(
        "import os, keras\n\n\ndef net():\n"
        "    width = int(os.environ.get('NETS_WIDTH', '4'))\n"
        "    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(width)])\n"
    )
    os.mkdir(tmp_path / "results")
    given = environ(tmp_path, NETS_WIDTH="16")
    asked = ("run", "--models=nets:net", *SHORT, *HERE)
    done = harness.run(COMMAND, *asked, cwd=tmp_path, environ=given)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path)
    assert row.state == "env.NETS_WIDTH=16"
    assert (row.parameters, row.commit, bool(row.code)) == (144, None, True)
