"""The workflow for a pull request with real workers: its commands in clones of a sample repository.

Run it from a checkout: `python tests/benchmarks/pull_request.py [--folder F] [--only BRANCH ...]`.
The commands are read from docs/github-actions/gate.yml; GitHub is a stand-in on this machine. The
environment counts as found in the cache; with `--install` it is installed, which takes minutes and
some 2 GB, and ends there: a further call goes on with it. It prints each comment. It can be stopped
and started again: a branch that is finished is not repeated.

slow        one of two models is slowed: exit status 1, and the comment says which
accepted    the same, with `Benchmark-Accept:` in a commit: exit status 0
same        no model is changed: exit status 0, and nothing is posted
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from github_actions import ROOT, GitHub, Sample, run_workflow, variables

GATE, INSTALL = "Compare with the base", "Install"
NET = """
    import keras
    from keras import ops


    def net():
        inputs = keras.Input((64, 64, 16))
        x = keras.layers.Conv2D(16, 3, padding="same")(inputs)
        for _ in range({sines}):
            x = ops.sin(x)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
"""
TEST = """
    import pytest
    from convmark.core.suites import Suite

    NETS = Suite(models=("nets:net", "others:net"), tasks=("infer",), batch_sizes=(8,))


    @pytest.mark.convmark(NETS)
    def test_nets(measured, benchmark):
        measured.replay(benchmark)
"""
SETTINGS = """
    [tool.pytest.ini_options]

    [tool.convmark]
    processes = 2
    time_budget = 0.3
    ceilings = "off"
    wait = true
"""
FILES = {
    "bench/test_nets.py": dedent(TEST),
    "nets.py": dedent(NET.format(sines=0)),
    "others.py": dedent(NET.format(sines=2)),
    "pyproject.toml": dedent(SETTINGS),
}
SLOWED = {"nets.py": dedent(NET.format(sines=30))}
WANTED = {
    "slow": (1, "failed: of 2 cases 1 regressed, 1 not compared (same code)."),
    "accepted": (0, "passed: of 2 cases 1 changed as accepted, 1 not compared (same code)."),
    "same": (0, ""),
}
"""The exit status of the gate, and what the comment says; empty where none may be posted."""


def installed(sample: Sample, branch: str) -> bool:
    """Run the workflow up to the installation, and return whether it went well."""
    checkout = sample.folder / f"clone-of-{branch}"
    with GitHub().serving() as github:
        given = variables(github, sample.folder, sample.commit(branch), base=sample.commit("main"))
        if not checkout.exists():
            sample.check_out(branch, cached=False)
        (done,) = run_workflow(checkout, given, last=INSTALL).values()
    print(done.stdout, done.stderr)
    return done.returncode == 0


def tried(sample: Sample, branch: str, checkout: Path) -> dict[str, object]:
    """Run the workflow at a branch, and return what came of it."""
    began = time.monotonic()
    with GitHub().serving() as github:
        head, base = sample.commit(branch), sample.commit("main")
        done = run_workflow(checkout, variables(github, sample.folder, head, base=base))
        comments = [one["body"] for one in github.comments]
    (sample.folder / f"{branch}.log").write_text(
        "".join(f"== {name}\n{one.stdout}{one.stderr}" for name, one in done.items())
    )
    status, words = WANTED[branch]
    others = [one.returncode for name, one in done.items() if name != GATE]
    right = words in comments[0] if words and len(comments) == 1 else not (words or comments)
    return {
        "branch": branch,
        "exit": done[GATE].returncode,
        "comments": comments,
        "holds": done[GATE].returncode == status and not any(others) and right,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Try the branches; return 1 where one does not end as it must."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "convmark-pull-request"
    )
    parser.add_argument("--only", nargs="*", choices=WANTED, default=list(WANTED))
    parser.add_argument("--install", action="store_true", help="convmark, from this checkout")
    options = parser.parse_args()
    wanted = {"requirements.txt": f"{ROOT}\n"} if options.install else {}
    diary = options.folder / "outcomes.jsonl"
    lines = diary.read_text().splitlines() if diary.exists() else []
    done = {one["branch"]: one for one in map(json.loads, lines)}
    for branch in options.only:
        if branch not in done:
            own, checkout = options.folder / branch, options.folder / branch / f"clone-of-{branch}"
            there = (own / INSTALL).exists()
            if not there and not options.install:
                shutil.rmtree(own, ignore_errors=True)  # of a call that was stopped
            sample = Sample(own, {**FILES, **wanted}, SLOWED)
            if options.install and not there:
                if not installed(sample, branch):
                    return 1
                (own / INSTALL).touch()
                continue
            checkout = checkout if there else sample.check_out(branch)
            done[branch] = tried(sample, branch, checkout)
            with diary.open("a") as file:
                file.write(json.dumps(done[branch]) + "\n")
        one = done[branch]
        print(f"{branch}: {'holds' if one['holds'] else 'FAILS'}: exit {one['exit']}, "
              f"{one['seconds']} s", *one["comments"], sep="\n")  # fmt: skip
    return int(not all(done[branch]["holds"] for branch in options.only if branch in done))


if __name__ == "__main__":
    sys.exit(main())
