"""pytest-benchmark's own tests, with convmark's plugin beside it and without: no new failure.

    python tests/benchmarks/guest_trial.py --folder=EMPTY_FOLDER

Fetches the source distribution of the pytest-benchmark that is installed here, and runs its tests
twice in an environment of their own: before convmark is installed there, and after (without
TensorFlow, which the plugin does not import). Prints both outcomes; exits 1 where a test fails in
the second run alone. Takes some minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pytest-benchmark"
SUITE_NEEDS = (
    *("aspectlib", "elasticsearch", "freezegun", "nbmake", "pygal", "pygaljs", "pytest-xdist"),
    "setuptools>=80",
)


def pip(python: str | Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", *arguments, "--quiet"], check=True)


def unpacked(version: str, folder: Path) -> Path:
    """Return the folder of the source distribution."""
    wanted = ("--no-deps", "--no-binary", PACKAGE, f"{PACKAGE}=={version}")
    pip(sys.executable, "download", *wanted, "--dest", str(folder))
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def needs_of_convmark() -> list[str]:
    """Return the dependencies of convmark but for TensorFlow."""
    found = map(Requirement, importlib.metadata.requires("convmark") or ())
    here = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [f"{one.name}{one.specifier}" for one in here if one.name != "tensorflow"]


def outcome(python: Path, suite: Path) -> tuple[str, set[str]]:
    """Return the last line of the suite's run, and the tests that fail."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # its tests call its own command
    environ = {**os.environ, "COLUMNS": "80", "PATH": path, "PYTHONPATH": str(suite / "tests")}
    done = subprocess.run(
        [python, "-m", "pytest", "--ignore=src", "-q", "-rfE", "-p", "no:cacheprovider"],
        cwd=suite,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return (done.stdout.splitlines() or [done.stderr])[-1], set(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder.resolve()
    version = importlib.metadata.version(PACKAGE)
    suite = unpacked(version, folder)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    pytest = f"pytest=={importlib.metadata.version('pytest')}"
    pip(python, "install", f"{PACKAGE}=={version}", pytest, *SUITE_NEEDS)
    without, failed_without = outcome(python, suite)
    print(f"{PACKAGE} {version}, {pytest}, without convmark: {without}", flush=True)
    pip(python, "install", *needs_of_convmark())
    pip(python, "install", "--no-deps", str(ROOT))
    beside, failed_beside = outcome(python, suite)
    print(f"with convmark: {beside}")
    new = sorted(failed_beside - failed_without)
    print(*(f"new failure: {name}" for name in new), sep="\n")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
