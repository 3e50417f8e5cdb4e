"""Change a valid submission in 100,000 seeded ways: is each refused, or else inert and plausible?

    python tests/benchmarks/submissions.py [--folder F] [--trials 100000] [--seconds 270]

Each trial is one act of `ACTS`, of files, bytes, cells or a cheat's, on the files that a pull
request brings to a repository with results of other people. The trial is refused where
`convmark check-submission` has a finding. What has none is published with others, and the script
looks at the site: it has the files of a site alone, every script in it is data in ASCII, and the
page has no text of the rows. Of each accepted number it notes how far it lies from the true one.

The script ends with status 1 if a site is not inert, a check fails or writes something, or a figure
that the site shows is off by more than what `convmark check-submission` says that it finds. It can
be stopped and started again: it goes on where it was, and prints the counts of all trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from slowed import Diary
from spoilt_submissions import ACTS, cells_of, special
from valid_submission import NOW, OWN, Files, published, submission

from convmark.core.errors import ConvmarkError
from convmark.report import submission as checked
from convmark.report.page import own
from convmark.report.page.site import site_files
from convmark.report.submission import check
from convmark.report.suspicion import Known, Level, Published
from convmark.results.columnar import read_columns

SEED = 21
PUBLISHED = 100
"""Accepted submissions of a site."""
FOUND_WITHIN = 10
"""Times that are off by more are found where others have measured the case on such a machine."""
SHOWN = ("throughput_samples_per_s", "step_time_p50_s", "accuracy")
"""The figures of the site."""
HANGS_S = 20
MOST_MEMORY = 8 << 30
"""Bytes; a check that takes more fails with an error."""


def write(folder: Path, files: Files) -> None:
    for name, data in files.items():
        path = folder / name
        with contextlib.suppress(OSError):  # of a name that the disk does not take
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def paths(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def _know(runs: list[Path]) -> None:
    """Let each check know published runs, which stay as they are, without reading them again."""
    known = Known()
    for path in runs:
        known.add(Published(path=path, columns=read_columns(path, path.read_bytes())))

    class Informed(Known):
        def __init__(self) -> None:
            self._doubles = defaultdict(list, {k: list(v) for k, v in known._doubles.items()})
            self._levels = defaultdict(Level)
            for key, level in known._levels.items():
                self._levels[key]._values += level._values
            self._facts = dict(known._facts)

        def add(self, run: Published) -> None:
            """Nothing: it is known."""

    checked.Known = Informed  # type: ignore[misc]
    checked.read_columns = lambda path, data: {} if path in runs else read_columns(path, data)


# -- one trial -------------------------------------------------------------------------------------


class Trials:
    """Trials by number, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.ada = folder, folder / "new" / "ada"
        for name in ("main", "new"):
            write(folder / name, published())
        self._against = sorted((folder / "main").iterdir())
        _know(sorted((folder / "main").rglob("*.csv")))
        self._valid = submission()
        self._truth = {row["order"]: row for row in cells_of(self._valid[f"{OWN}.csv"])}
        write(self.ada, self._valid)
        if found := check([self.ada], self._against, NOW).findings:
            raise SystemExit(f"the valid submission is refused: {found[0]}")

    def run(self, number: int) -> tuple[str, str, str, bool]:
        """Return the act, what it did, the rule that refused it or "", and whether it is wrong."""
        rng = random.Random(f"{SEED}-{number}")
        names, weights = list(ACTS), [weight for weight, _ in ACTS.values()]
        act = rng.choices(names, weights)[0]
        files = dict(self._valid)
        what = ACTS[act][1](files, rng)
        shutil.rmtree(self.ada, ignore_errors=True)
        self.ada.mkdir(parents=True)
        write(self.ada, files)
        if not what:
            what = special(self.ada, rng)
        before = paths(self.folder)
        try:
            signal.alarm(HANGS_S)
            findings = check([self.ada], self._against, NOW).findings
        except ConvmarkError:
            return act, what, "no results", False
        except BaseException as error:
            return act, what, f"{type(error).__name__}: {error}"[:200], True
        finally:
            signal.alarm(0)
        if paths(self.folder) != before:
            return act, what, "the check has written something", True
        if findings:
            return act, what, findings[0].rule, False
        if files == self._valid and act != "links, pipes, sizes":
            return act, "the same", "", False
        worst = max(self._off(files).items(), key=lambda one: one[1], default=("", 1.0))
        return act, what, "", worst[1] > FOUND_WITHIN

    def _off(self, files: Files) -> dict[str, float]:
        """Return by what factor the site's figures are off, at most."""
        off: dict[str, float] = {}
        for row in cells_of(files.get(f"{OWN}.csv", self._valid[f"{OWN}.csv"])):
            truth = self._truth.get(row["order"], {})
            if any(row[name] != truth.get(name) for name in ("model", "task", "batch_size")):
                continue
            for name in SHOWN:
                if row[name] == truth[name] or not row[name]:
                    continue
                one, other = float(row[name]), float(truth[name] or 0)
                far = max(one / other, other / one) if one > 0 and other > 0 else float("inf")
                off[name] = max(off.get(name, 1.0), far)
        return off


# -- the site of what was accepted -----------------------------------------------------------------


class Scripts(HTMLParser):
    """What of a page runs or loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link", "img", "base", "form"):
            self.found.append(f"{tag} {dict(attrs).get('src') or ''}".strip())
        for name, value in attrs:
            if name.startswith("on") or "javascript:" in (value or "").lower():
                self.found.append(f"{tag} {name}={value}")


def not_inert(folders: list[Path]) -> Iterator[str]:
    """Publish folders and yield what of the site is not as it must be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in site_files(folders, made="today"):
            if not re.fullmatch(r"index\.html|groups\.js|parts/\d{4}\.js|rows\.parquet", name):
                yield f"the site has {name}"
            if name.endswith(".js"):
                call = re.fullmatch(r"site\.\w+\((.*)\);\n", content.decode("ascii"), re.DOTALL)
                json.loads(f"[{call[1] if call else 'nothing'}]")
            if name == "index.html":
                page = Scripts()
                page.feed(content.decode())
                if page.found != ["script", "script groups.js"] or own("site.js") not in str(
                    content, "utf-8"
                ):
                    yield f"the page has {page.found}"


# -- all of them -----------------------------------------------------------------------------------


def main() -> int:
    """Run trials for some seconds; return 1 if something is wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "convmark-submissions"
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seconds", type=float, default=270, help="of this portion")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    diary = Diary(options.folder / "diary.json")
    done = diary.done.get("done", 0)
    counts: dict[str, Counter[str]] = {
        name: Counter(diary.done.get(name, {})) for name in ("refused", "accepted", "wrong")
    }
    with tempfile.TemporaryDirectory(dir=_memory()) as temporary:
        trials, kept = Trials(Path(temporary) / "trial"), Path(temporary) / "accepted"
        ends = time.monotonic() + options.seconds
        signal.signal(signal.SIGALRM, _hangs)
        while done < options.trials and time.monotonic() < ends:
            act, what, rule, wrong = trials.run(options.first + done)
            kind = "wrong" if wrong else "refused" if rule else "accepted"
            counts[kind][f"{act} / {what} / {rule}"] += 1
            done += 1
            if kind == "accepted" and what != "the same":
                shutil.copytree(trials.ada, kept / f"{done:06d}", symlinks=True)
            full = kept.is_dir() and len(list(kept.iterdir())) >= PUBLISHED
            last = done == options.trials or time.monotonic() >= ends
            if kept.is_dir() and (full or last):
                counts["wrong"].update(not_inert(sorted(kept.iterdir())))
                shutil.rmtree(kept)
            if full or last:
                diary.keep("done", done)
                for name, counter in counts.items():
                    diary.keep(name, dict(counter))
    return _summary(done, counts)


def _hangs(*_: Any) -> None:
    raise TimeoutError(f"the check has not ended in {HANGS_S} s")


def _memory() -> str | None:
    """Return a folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _summary(done: int, counts: dict[str, Counter[str]]) -> int:
    totals = {name: sum(counter.values()) for name, counter in counts.items()}
    print(f"{done:,} trials: {', '.join(f'{total:,} {name}' for name, total in totals.items())}")
    for name in ("refused", "accepted"):
        by_act: dict[str, Counter[str]] = {}
        for text, number in counts[name].items():
            act, what, rule = text.split(" / ", 2)
            by_act.setdefault(act, Counter())[rule or what] += number
        for act, kinds in by_act.items():
            listed = ", ".join(f"{kind} {number:,}" for kind, number in kinds.most_common())
            print(f"{name}: {act}: {sum(kinds.values()):,}: {listed}")
    for text, number in counts["wrong"].most_common():
        print(f"WRONG: {number:,} x {text}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
