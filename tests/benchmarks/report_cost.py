"""What a large report, or site, costs: seconds, memory and size, of generated histories.

    python tests/benchmarks/report_cost.py [--site] [RUNS ...]     default: 1000, 100,000 rows

Each run has one row of each of 100 cases, on one of 3 machines. With `--site`, `convmark publish`
is timed too: by default 10000 runs, of 100 machines and 10 versions, so that a million rows are
100,000 groups; the site's filter is timed in a real browser.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report_rows import measured

from convmark.results.reading import HEADER
from convmark.results.record import to_cells

CASES, MACHINES = 100, 3
GOAL = "10 s, 1024 MiB, 3 MB"
SITE_MACHINES, SITE_VERSIONS = 100, 10
SITE_GOAL = "120 s, 1 MB, 1 s"

DRAWN = 30
"""Runs whose figures are drawn; the others repeat them, for drawing a million rows takes long."""

RUN, STARTED, COMMIT, MACHINE, TENSORFLOW = (
    HEADER.index(name) for name in ("run", "started", "commit", "machine", "tensorflow")
)


FILTER = """
const began = performance.now();
document.getElementById("search").value = arguments[0];
document.getElementById("search").dispatchEvent(new Event("input"));
document.body.offsetHeight;
return [(performance.now() - began) / 1000, document.getElementById("found").textContent];
"""
WORDS = ("", "machine-7", "model_3 2.4.0", "infer", "machine-42 2.7.0 model_1")


def write_history(folder: Path, runs: int, machines: int = MACHINES, versions: int = 0) -> None:
    """Write the runs; as in a real history, each is a file of its own.

    Args:
        versions: of TensorFlow, that follow one another; 0 for those of the drawn rows.
    """
    drawn: dict[int, list[list[str]]] = {}
    first = datetime(2024, 1, 1, tzinfo=timezone.utc)
    for run in range(1, runs + 1):
        machine, place = f"machine-{run % machines}", run % DRAWN
        rows = drawn.get(place)
        if rows is None:
            rows = drawn[place] = [
                to_cells(measured(machine, place, f"model_{case // 4}", 1,
                                  batch_size=4 ** (case % 4)))
                for case in range(CASES)
            ]  # fmt: skip
        for row in rows:
            row[RUN], row[COMMIT] = f"{run:05d}", f"{run // 2:040x}"
            row[MACHINE] = machine
            if versions:
                row[TENSORFLOW] = f"2.{run // machines % versions}.0"
            row[STARTED] = (first + timedelta(hours=run)).isoformat(timespec="milliseconds")
        path = folder / machine / f"{run:05d}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def filtered(page: Path) -> list[tuple[str, float, str]]:
    """Return word, seconds and answer of each filter; nothing where there is no browser."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        return []
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser: Any = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    try:
        browser.get(page.as_uri())
        ready = "return document.querySelectorAll('#table-cases tbody tr').length > 0"
        WebDriverWait(browser, 120).until(lambda one: one.execute_script(ready))
        return [(word, *browser.execute_script(FILTER, word)) for word in WORDS]
    finally:
        browser.quit()


def timed(folder: Path, *arguments: str) -> tuple[float, float, int]:
    """Run a command on the history; return its seconds, those of CPU time, and MiB of memory."""
    command = [sys.executable, "-m", "convmark", arguments[0], str(folder), *arguments[1:]]
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"it failed: {' '.join(command)}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10


def reports(sizes: list[int]) -> None:
    """Print one line per size."""
    print(f"rows      files   seconds    of CPU    peak memory    page    at 100,000: {GOAL}")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder, page = Path(temporary) / "results", Path(temporary) / "report.html"
            write_history(folder, runs)
            seconds, busy_s, memory = timed(folder, "report", "-o", str(page))
            print(
                f"{runs * CASES:<9,} {runs:<7,} {seconds:<10.1f} {busy_s:<9.1f} "
                f"{memory:>6,} MiB    {page.stat().st_size / 1e6:>6.2f} MB"
            )


def sites(sizes: list[int]) -> None:
    """Print the cost of the site of each size, and of its filter."""
    print(f"goal at 1,000,000 rows: {SITE_GOAL}")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder, site = Path(temporary) / "results", Path(temporary) / "site"
            write_history(folder, runs, SITE_MACHINES, SITE_VERSIONS)
            seconds, busy_s, memory = timed(folder, "publish", "-o", str(site))
            whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
            print(
                f"{runs * CASES:,} rows: {seconds:.1f} s, of CPU {busy_s:.1f} s, {memory:,} MiB; "
                f"index.html {(site / 'index.html').stat().st_size / 1e6:.2f} MB, groups.js "
                f"{(site / 'groups.js').stat().st_size / 1e6:.2f} MB, all {whole / 1e6:.0f} MB"
            )
            for word, filter_s, answer in filtered(site / "index.html"):
                print(f"  filter {word!r}: {filter_s:.3f} s, {answer}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=int, nargs="*", help=f"of {CASES} rows each")
    parser.add_argument("--site", action="store_true", help="then a site of 10,000 runs, or RUNS")
    given = parser.parse_args()
    reports(given.runs or [1000])
    if given.site:
        sites(given.runs or [10_000])
