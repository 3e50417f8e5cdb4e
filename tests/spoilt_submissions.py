"""Acts that make a valid submission hostile or implausible; not a test itself.

An act changes the files of a submission and returns in words what it did.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
from mutations import TOKENS, mutated
from valid_submission import (
    CORES,
    CPUS,
    MODELS,
    NAMES,
    NOW,
    OWN,
    Files,
    csv_file,
    honest,
    run_file,
    steps_of,
    timed,
)  # fmt: skip

from convmark.results.reading import HEADER
from convmark.results.record import COLUMNS

csv.field_size_limit(2**24)

# -- what is done to it ----------------------------------------------------------------------------


def cells_of(data: bytes) -> list[dict[str, str]]:
    lines = list(csv.reader(io.StringIO(data.decode())))
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def changed(files: Files, rows: list[dict[str, str]], name: str = OWN) -> None:
    files[f"{name}.csv"] = csv_file([list(HEADER), *(list(row.values()) for row in rows)])


PAYLOADS = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</script><script>alert(1)//"),
    *("javascript:alert(1)", '"><svg onload=alert(1)>', "{{7*7}}", "${7*7}", "{% raw %}"),
    *("=cmd|' /C calc'!A0", "'=1+1", "+1+1", "@SUM(A1)", "-2+3", "\uff1d1+1", "\t=1"),
    *("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\0", "a\0b", "\x08\x08", "a\rb", "a\nb"),
    *("\u202eexe.txt", "\u2028", "\u200b", "\ufeff", "e\u0301" * 50, "\U0001f600", "\ud800"),
    *("../../etc/passwd", "/etc/passwd", "C:\\x", "file:///etc/passwd", "CON", "~root"),
    *("__proto__", "constructor", "toString", "null", "None", "nan", "undefined", "true"),
    *("x" * 500, "x" * 5_000, "x" * 200_000, "-->", "<!--", "]]>", "';--", "`id`", "$(id)"),
    *("::error::x", "::set-output name=x::y", "|a|b|", "[x](javascript:alert(1))", "%s%n", "\\"),
)
FACTORS = (
    0,
    -1,
    1e-300,
    1e-9,
    0.001,
    0.1,
    0.3,
    0.5,
    0.7,
    0.9,
    1.1,
    1.5,
    2,
    3,
    10,
    1000,
    1e9,
    1e300,
)
TEXTS = [one.name for one in COLUMNS if one.type is str]
NUMBERS = [one.name for one in COLUMNS if one.type in (int, float)]


def text_cell(files: Files, rng: random.Random) -> str:
    """Put a payload in the place of a text, in one row or in all."""
    rows = cells_of(files[f"{OWN}.csv"])
    column, payload = rng.choice(TEXTS), rng.choice(PAYLOADS)
    for row in rows if rng.random() < 0.5 else [rng.choice(rows)]:
        row[column] = payload
    changed(files, rows)
    return column


def number_cell(files: Files, rng: random.Random) -> str:
    """Multiply a number, or write one where none is, in one row or in all; raw steps are left."""
    rows = cells_of(files[f"{OWN}.csv"])
    column, factor = rng.choice(NUMBERS), rng.choice(FACTORS)
    whole = next(one for one in COLUMNS if one.name == column).type is int
    for row in rows if rng.random() < 0.5 else [rng.choice(rows)]:
        value = float(row[column] or rng.choice((1, 0.5, 1e6))) * factor
        row[column] = str(int(value)) if whole and math.isfinite(value) else repr(value)
    if rng.random() < 0.5:
        files.pop(f"{OWN}.steps.npz")
    changed(files, rows)
    return column


def token_cell(files: Files, rng: random.Random) -> str:
    """Put a token that is no value in the place of a cell, or leave it empty."""
    rows = cells_of(files[f"{OWN}.csv"])
    column = rng.choice(HEADER)
    token = rng.choice(TOKENS) if rng.random() < 0.7 else b""
    rng.choice(rows)[column] = token.decode(errors="replace")
    if rng.random() < 0.5:
        del files[f"{OWN}.steps.npz"]
    changed(files, rows)
    return column


def spoilt_bytes(files: Files, rng: random.Random) -> str:
    """Change bytes, lines, columns and cells of one of the files, whatever they mean."""
    name = rng.choice(sorted(files))
    files[name] = mutated(files[name], rng)
    return name.partition("/")[2].replace("0001", "published").replace("0002", "new")


def whole_rows(files: Files, rng: random.Random) -> str:
    """Remove, repeat or swap rows, or take published ones."""
    rows = cells_of(files[f"{OWN}.csv"])
    kind = rng.choice(("remove", "repeat", "renumber", "published", "swap figures"))
    place, other = rng.sample(range(len(rows)), 2)
    if kind == "remove":
        del rows[place]
    elif kind == "repeat":
        rows.append({**rows[place], "order": str(len(rows) + 1)})
    elif kind == "renumber":
        rows.append({**rows[place], "order": str(len(rows) + 1), "processes": "3", "process": "3"})
    elif kind == "published":
        rows[place] = {**cells_of(run_file(honest("slow", 11)))[place], "run": "0002"}
    else:
        for column in rng.sample(NUMBERS, 40):
            rows[place][column], rows[other][column] = rows[other][column], rows[place][column]
    changed(files, rows)
    return kind


# -- what a cheat would do -------------------------------------------------------------------------


_TIMES = [one.name for one in COLUMNS if one.name.startswith("step_time_")]
_TIMES += ["paired_step_time_p50_s"]


def faster(row: dict[str, str], factor: float, *, careful: int) -> None:
    """Divide all times of a row; the more careful, the more goes with it."""
    for name in (*_TIMES, *(["reference_step_time_p50_s"] if careful > 2 else [])):
        row[name] = repr(float(row[name]) / factor) if row[name] else ""
    rate = float(row["throughput_samples_per_s"]) * factor
    row["throughput_samples_per_s"] = repr(rate)
    if careful == 2:
        row["paired_log_ratio"] = repr(float(row["paired_log_ratio"]) - math.log(factor))
    if careful > 0:
        counts = timed(float(row["step_time_p50_s"]), float(row["time_budget_s"]))
        row["steps"], row["window_steps"] = str(counts["steps"]), str(counts["window_steps"])
        for name in ("step_time_p95_s", "step_time_p99_s"):
            row[name] = "" if counts[name] is None else repr(counts[name])


def scaled(files: Files, rng: random.Random) -> str:
    """Divide the times and multiply the throughput by a factor."""
    rows, careful = cells_of(files[f"{OWN}.csv"]), rng.randrange(4)
    factor = rng.choice((1.1, 1.3, 1.5, 2, 3, 5, 9, 11, 30, 100, 1000))
    model = rng.choice([*MODELS, ""])
    for row in rows:
        if model in row["model"]:
            faster(row, factor, careful=careful)
    files.pop(f"{OWN}.steps.npz")
    changed(files, rows)
    how = ("alone", "counts too", "counts and ratio too", "counts and reference too")[careful]
    return f"{how}, x {factor:g}"


def another_batch(files: Files, rng: random.Random) -> str:
    """Say that the steps were of larger batches."""
    rows, factor = cells_of(files[f"{OWN}.csv"]), rng.choice((2, 4, 16, 256))
    rates = rng.random() < 0.5
    for row in rows:
        row["batch_size"] = str(int(row["batch_size"]) * factor)
        if rates:
            row["throughput_samples_per_s"] = repr(float(row["throughput_samples_per_s"]) * factor)
    changed(files, rows)
    return f"{'throughput too, ' if rates else ''}x {factor}"


def fast_as_slow(files: Files, rng: random.Random) -> str:
    """Bring the published rows of the fast machine as those of the slow one, or as one's own."""
    rows = cells_of(run_file(honest("fast", 12)))
    kind = rng.choice(("machine's name", "hardware too", "digits too", "as they are"))
    target = OWN if kind != "as they are" else f"{NAMES['fast']}/0002"
    for row in rows:
        row["run"] = "0002"
        if kind != "as they are":
            row["machine"] = NAMES["slow"]
        if kind in ("hardware too", "digits too"):
            row["cpu"], row["cores"] = CPUS["slow"], str(CORES["slow"])
        if kind == "digits too":
            for name in ("step_time_mean_s", "time_to_first_step_s"):
                row[name] = repr(float(row[name]) * 1.0001)
    files.pop(f"{OWN}.steps.npz")
    changed(files, rows, target)
    return kind


def less_work(files: Files, rng: random.Random) -> str:
    """Change losses and outputs, FLOPs or parameters, as a smaller network would have them."""
    rows, factor = cells_of(files[f"{OWN}.csv"]), rng.choice((0, 0.3, 0.7, 0.97, 1.03, 1.5, 30))
    columns = rng.choice((("loss_first", "loss", "output_rms"), ("parameters",), ("code",),
                          ("flops_per_sample", "training_flops_per_sample")))  # fmt: skip
    for row in rows:
        for name in columns:
            if name == "code":
                row["code"] = "beef" * 4
            elif row[name]:
                value = float(row[name]) * factor
                row[name] = str(int(value)) if name[0] in "fpt" else repr(value)
    files.pop(f"{OWN}.steps.npz") if rng.random() < 0.5 else None
    changed(files, rows)
    return f"{columns[0]} x {factor:g}" if columns != ("code",) else "another code"


def other_hardware(files: Files, rng: random.Random) -> str:
    """Say that another machine measured."""
    rows = cells_of(files[f"{OWN}.csv"])
    kind = rng.choice(("cpu", "cores", "ram_bytes", "gpu", "device", "peak_flops_per_s", "machine"))
    value = {"cpu": "CPU 9999", "cores": "1024", "ram_bytes": str(2**40), "gpu": "NVIDIA H100",
             "device": "gpu:0", "peak_flops_per_s": rng.choice(("1e9", "1e11", "1e15", "1e30")),
             "machine": "a-faster-1cpu-1gib-00000000"}[kind]  # fmt: skip
    for row in rows:
        row[kind] = value
    changed(files, rows)
    return kind


def dates(files: Files, rng: random.Random) -> str:
    """Change when the processes were started."""
    rows, days = cells_of(files[f"{OWN}.csv"]), rng.choice((-30_000, -9_000, -700, -100, 1, 400,
                                                          20_000))  # fmt: skip
    form = rng.choice(("iso", "zone", "day", "text"))
    for row in rows:
        when = NOW + timedelta(days=days)
        row["started"] = {"iso": when.isoformat(), "day": f"{when:%Y-%m-%d}",
                          "zone": f"{when:%Y-%m-%dT%H:%M:%S}+09:00",
                          "text": f"{when:%c}"}[form]  # fmt: skip
    changed(files, rows)
    return f"{form}, {days} days"


# -- files -----------------------------------------------------------------------------------------


ODD_NAMES = (
    *("0003.html", "index.html", "run.py", ".git/hooks/post-checkout", ".github/workflows/x.yml"),
    *("0003.CSV", "0003.csv.exe", "-rf", "--output=x.csv", "\x1b[31m.csv", "a\nb.csv", "CON.csv"),
    *(
        "\u202evsc.exe",
        "\uff10\uff10\uff10\uff13.csv",
        "9" * 200 + ".csv",
        " .csv",
        "0003.csv ",
        "~",
    ),
    *("models/x.html", "models/../x.svg", "code/00/" + "0" * 62, "code/zz/x", "a/b/c/d/e/f.csv"),
    *("0003.steps.npz", "0003.csv", "name.txt/x", "ab/0001.csv", "conftest.py", "results.csv"),
)


def odd_file(files: Files, rng: random.Random) -> str:
    """Add a file of another name or place."""
    name = rng.choice(ODD_NAMES)
    content = rng.choice((b"", b"\0" * 100, b"<script>alert(1)</script>\n", files[f"{OWN}.csv"]))
    folder = rng.choice((f"{NAMES['slow']}/", "", "other/", f"{NAMES['fast']}/"))
    files.setdefault(folder + name, content)
    return repr(name[:24])


def beside(files: Files, rng: random.Random) -> str:
    """Add a file that may lie beside a run, with other things in it."""
    name = rng.choice(("name.txt", "accepted.csv", "ceilings.csv", "layers.csv", "noise.csv",
                       "verdicts.csv", "0002.code.json", "0002.epochs.csv", "0002.plan.json",
                       "0002.layers.csv", "0002.verdicts.csv", "0002.steps.npz", "0002.log",
                       "0002.sessions.csv", "0002.sustained.csv", "models/x.svg", "models/x.json",
                       "README.md"))  # fmt: skip
    payload = rng.choice(PAYLOADS).encode(errors="surrogatepass")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><text x="1">%s</text></svg>' % payload
    files[f"{NAMES['slow']}/{name}" if name != "README.md" else name] = rng.choice(
        (payload, payload + b"\n", svg, b"{" * 50_000, b'{"schema": 1}', b"\xff\xfe" + payload,
         b"a,b\n1," + payload + b"\n", b"PK\5\6" + b"\0" * 18, b"\0" * 4096)
    )  # fmt: skip
    return name


def bomb(files: Files, rng: random.Random) -> str:
    """Put an archive of raw steps that is large, damaged or holds objects."""
    rows, kind = honest("slow", 2), rng.choice(("zeros", "objects", "header", "doubles", "shape"))
    data = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for row in rows[: 1 if kind == "zeros" else None]:
            array = io.BytesIO()
            times = {"zeros": np.zeros(1_000_000), "shape": steps_of(row).reshape(2, -1)
                     if row.steps % 2 == 0 else np.zeros((1, 1)), "doubles": steps_of(row) * 2,
                     "objects": np.array([{}]), "header": steps_of(row)}[kind]  # fmt: skip
            np.save(array, times, allow_pickle=True)
            content = array.getvalue()
            content = content.replace(b"NUMPY", b"NUMPX") if kind == "header" else content
            archive.writestr(f"{row.order:05d}.npy", content)
    files[f"{OWN}.steps.npz"] = data.getvalue()
    return kind


def moved(files: Files, rng: random.Random) -> str:
    """Remove, rename or copy a file, published ones too."""
    kind = rng.choice(("remove", "copy", "rename machine", "change published", "rename run"))
    name = rng.choice(sorted(files))
    if kind == "remove":
        del files[name]
        return f"remove {name.rpartition('/')[2]}"
    if kind == "copy":
        files[name.replace("0001", "0004").replace("0002", "0005")] = files[name]
    elif kind == "rename machine":
        for one in sorted(files):
            files[one.replace(NAMES["slow"], rng.choice((NAMES["fast"], "x")))] = files.pop(one)
    elif kind == "change published":
        published_one = f"{NAMES['slow']}/0001.csv"
        files[published_one] = files[published_one].replace(b"lenet5", b"lenet6")
    else:
        files[f"{NAMES['slow']}/0007.csv"] = files.pop(f"{OWN}.csv")
    return kind


def special(folder: Path, rng: random.Random) -> str:
    """Put a link, pipe, socket or huge file among the files."""
    machine = folder / NAMES["slow"]
    kind = rng.choice(("link out", "link in", "link to nothing", "link to itself", "linked folder",
                       "pipe", "huge", "hard link", "linked machine"))  # fmt: skip
    place = machine / rng.choice(("0002.csv", "0009.csv", "name.txt", "code", "0002.log", "x"))
    if kind != "hard link" and kind != "linked machine":
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
    if kind == "linked machine":
        (folder / NAMES["fast"]).symlink_to(machine)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "huge":
        place.touch()
        os.truncate(place, 2**26 + 1)
    elif kind == "hard link":
        (machine / "0003.csv").hardlink_to(machine / "0002.csv")
    else:
        target = {"link out": "/etc/passwd", "link in": "0001.csv", "link to nothing": "nowhere",
                  "link to itself": place.name, "linked folder": "/etc"}[kind]  # fmt: skip
        place.symlink_to(target)
    return kind


Act = Callable[[Files, random.Random], str]
ACTS: dict[str, tuple[int, Act]] = {
    "payload in a text": (22, text_cell),
    "number multiplied": (22, number_cell),
    "cell spoilt": (10, token_cell),
    "bytes spoilt": (12, spoilt_bytes),
    "rows removed, repeated, taken": (4, whole_rows),
    "times scaled": (8, scaled),
    "another batch": (3, another_batch),
    "fast rows as slow ones": (2, fast_as_slow),
    "less work": (3, less_work),
    "other hardware": (2, other_hardware),
    "dates": (2, dates),
    "other files": (3, odd_file),
    "files beside a run": (3, beside),
    "raw steps": (1, bomb),
    "files moved": (2, moved),
    "links, pipes, sizes": (1, lambda files, rng: ""),
}
