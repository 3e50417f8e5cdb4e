"""What a large site costs: seconds to build, bytes, and seconds of a filter in a real browser.

    python tests/benchmarks/publish_cost.py [RUNS ...]     default: 10000, which are 1,000,000 rows

The runs are of 100 machines and 10 versions, so that a million rows are 100,000 groups.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from report_cost import CASES, write_history

MACHINES, VERSIONS = 100, 10
GOAL_S, GOAL_PAGE, GOAL_FILTER_S = 120.0, 10**6, 1.0

FILTER = """
const began = performance.now();
document.getElementById("search").value = arguments[0];
document.getElementById("search").dispatchEvent(new Event("input"));
document.body.offsetHeight;
return [(performance.now() - began) / 1000, document.getElementById("found").textContent];
"""
WORDS = ("", "machine-7", "model_3 2.4.0", "infer", "machine-42 2.7.0 model_1")


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


def main(sizes: list[int]) -> None:
    """Print the cost of each size."""
    print(f"goal at 1,000,000 rows: {GOAL_S:g} s, {GOAL_PAGE / 1e6:g} MB, {GOAL_FILTER_S:g} s")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder, site = Path(temporary) / "results", Path(temporary) / "site"
            write_history(folder, runs, MACHINES, VERSIONS)
            command = [sys.executable, "-m", "convmark", "publish", str(folder), "-o", str(site)]
            began = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            if os.waitstatus_to_exitcode(status):
                sys.exit(f"the site of {runs} runs failed: {' '.join(command)}")
            whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
            print(
                f"{runs * CASES:,} rows: {seconds:.1f} s, of CPU "
                f"{used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss >> 10:,} MiB; index.html "
                f"{(site / 'index.html').stat().st_size / 1e6:.2f} MB, groups.js "
                f"{(site / 'groups.js').stat().st_size / 1e6:.2f} MB, all {whole / 1e6:.0f} MB"
            )
            for word, filter_s, answer in filtered(site / "index.html"):
                print(f"  filter {word!r}: {filter_s:.3f} s, {answer}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=int, nargs="*", default=[10_000], help=f"of {CASES} rows each")
    main(parser.parse_args().runs)
