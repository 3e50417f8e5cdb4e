"""The workflow of a gate: its file, and its commands as shell in a clone, with a stand-in worker.

`benchmarks/pull_request.py` does the same with real workers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from gates import CONV, LENET5, SUITE
from github_actions import (
    RESULTS,
    ROOT,
    TOKEN,
    WORKFLOW,
    GitHub,
    Sample,
    run_workflow,
    variables,
)

GATE, COMMENT = "Compare with the base", "Write the summary and the comment"

CONFTEST = """
from pathlib import Path

import fake_worker
import pytest
from gates import live

from convmark.compare.live import anchor

patch = pytest.MonkeyPatch()
patch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
patch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
patch.setattr(anchor, "zoo_folder", lambda: Path("models").resolve())
slow = "slow" in Path("models/registry.py").read_text()
live(patch, "regressed" if slow else "unchanged", 0.3 if slow else 0.0)
"""
FILES = {
    "conftest.py": CONFTEST,
    "bench/test_speed.py": SUITE,
    "models/registry.py": "",
    "pyproject.toml": "[tool.pytest.ini_options]\n[tool.convmark]\nwait = true\n",
}
SLOWED = {"models/registry.py": "slow = True\n"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_workflow_s_commands_fail_on_a_slowed_branch_and_pass_once_it_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    sample = Sample(tmp_path, FILES, SLOWED)
    base, slow, accepted = map(sample.commit, ("main", "slow", "accepted"))
    with GitHub().serving() as github:
        clone = sample.check_out("slow")
        merge = ["git", "update-ref", "refs/remotes/origin/main", slow]
        subprocess.run(merge, cwd=clone, check=True)  # the base stays that of the event
        environ = variables(github, tmp_path, slow, base=base)
        done = run_workflow(clone, environ)
        assert done[GATE].returncode == 1, done[GATE].stdout
        assert [done[name].returncode for name in done if name != GATE] == [0, 0, 0], done
        (comment,) = github.comments
        assert (
            comment["body"]
            .split("\n\n", 1)[1]
            .startswith(
                "**Benchmark gate failed: of 2 cases 2 regressed.** "
                f"Base: {base[:12]}. Head: {slow[:12]}.\n"
            )
        )
        summary = (tmp_path / "summary.md").read_text()
        assert comment["body"].endswith(summary.rstrip("\n"))
        assert TOKEN not in "".join(one.stdout + one.stderr for one in done.values())
        _hold_results(clone / RESULTS)

        clone = sample.check_out("accepted")
        done = run_workflow(clone, {**environ, **variables(github, tmp_path, accepted, base=base)})
        assert {one.returncode for one in done.values()} == {0}, done
        (comment,) = github.comments
        assert "passed: of 2 cases 2 changed as accepted.** Base: " in comment["body"]
        assert f"| regressed, `accepted by commit {accepted[:12]}` |" in comment["body"]

        same = variables(github, tmp_path, accepted, base=accepted) | {"GITHUB_RUN_ATTEMPT": "2"}
        done = run_workflow(clone, {**environ, **same})
        assert (done[GATE].returncode, done[COMMENT].returncode) == (1, 0)
        assert done[GATE].stdout.startswith("::error::base and head are the same commit, ")
        assert "failed: there is no verdict; the log of" in github.comments[0]["body"]


def _hold_results(folder: Path) -> None:
    """Hold the page, the badge and the report for other systems to what the gate found."""
    assert (folder / "report.html").is_file()
    badge = json.loads((folder / "badge.json").read_text())
    assert (badge["message"], badge["color"]) == ("2 regressed", "red")
    tests = ElementTree.parse(folder / "junit.xml").findall(".//testcase")
    assert {test.attrib["name"] for test in tests} == {
        f"test_speed[{case}]" for case in (LENET5, CONV)
    }
    for test in tests:
        (failure,) = test.findall("failure")
        said = "Failed: step_time regressed by +35.0 % [+33.6, +36.3]"
        assert failure.attrib["message"].startswith(said)


def checked(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflow_fits_its_schema_and_puts_no_expression_into_a_shell() -> None:
    done = checked("vendor.github-workflows", WORKFLOW)
    assert done.returncode == 0, done.stdout
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    (job,) = workflow["jobs"].values()
    assert "${{" not in "".join(step.get("run", "") for step in job["steps"])
    (cache,) = (step["with"]["key"] for step in job["steps"] if "cache@" in step.get("uses", ""))
    assert "-${{ github.workspace }}-" in cache
    assert "hashFiles('requirements.txt', 'pyproject.toml', 'setup.*')" in cache
    tokens = [step["name"] for step in job["steps"] if "GITHUB_TOKEN" in step.get("env", {})]
    assert tokens == [COMMENT]


def test_the_file_for_gitlab_fits_its_schema(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "gitlab-and-jenkins.md").read_text()
    path = tmp_path / ".gitlab-ci.yml"
    path.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    done = checked("vendor.gitlab-ci", path)
    assert done.returncode == 0, done.stdout
