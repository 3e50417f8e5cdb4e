"""Measure model files that were damaged at random: each has an error, or still gives numbers.

Run it from a checkout: `python tests/benchmarks/damaged_files.py --folder F [--files N]`. LeNet-5
is exported to each runtime; a seeded sequence cuts, changes, moves and fills parts of the files,
and real workers take each as `--models FILE`. Printed are the answers by runtime and status; the
script ends with status 1 where one is silent: a worker that hangs, an error without a text or of
more than one line.

It can be stopped and started again: a file that is done is not repeated.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from convmark.core.case import Case
from convmark.core.runtimes import EXPORTS, RUNTIMES
from convmark.interpreter import Answer, Interpreter

SEED = 20
NAMES = ("savedmodel", "litert", "onnxruntime", "openvino")

Damage = Callable[[bytearray, random.Random], bytes]


def cut(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])


def changed(content: bytearray, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 4, 64, 1024))):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def changed_head(content: bytearray, draw: random.Random) -> bytes:
    """Where a file says what it holds, and how much."""
    for _ in range(draw.choice((1, 4, 16))):
        content[draw.randrange(min(512, len(content)))] = draw.randrange(256)
    return bytes(content)


def filled(content: bytearray, draw: random.Random) -> bytes:
    begin = draw.randrange(len(content))
    length = draw.randrange(1, max(2, len(content) // 4))
    content[begin : begin + length] = bytes([draw.choice((0, 127, 255))]) * length
    return bytes(content)


def moved(content: bytearray, draw: random.Random) -> bytes:
    begin = draw.randrange(len(content))
    return bytes(content[begin:] + content[:begin])


def longer(content: bytearray, draw: random.Random) -> bytes:
    begin = draw.randrange(len(content))
    return bytes(content[:begin] + draw.randbytes(draw.randrange(1, 5000)) + content[begin:])


DAMAGE: tuple[Damage, ...] = (cut, changed, changed_head, filled, moved, longer)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--files", type=int, default=400, metavar="N")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    diary = Path("answers.jsonl")
    done = [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []
    with Interpreter(environ={**os.environ, EXPORTS: str(Path("exports").absolute())}) as workers:
        whole = {name: exported(name, workers) for name in NAMES}
        for number in range(len(done), options.files):
            draw = random.Random(f"{SEED} {number}")
            runtime = draw.choice(NAMES)
            what, file = damaged(whole[runtime], number, draw)
            answer = asked(file, runtime, workers)
            found = [number, runtime, what, answer.status, answer.message, wrong(answer)]
            with diary.open("a") as lines:
                lines.write(json.dumps(found) + "\n")
            done.append(found)
            remove(file)
    return told(done)


def asked(model: Path | str, runtime: str, workers: Interpreter) -> Answer:
    case = Case(model=str(model), task="infer", batch_size=1, runtime=runtime)
    request = {"kind": "measure", "case": case.as_fields(), "seed": 0, "smoke": True}
    return workers.answer({**request, "time_budget_s": 0.1, "fed": False})


def exported(runtime: str, workers: Interpreter) -> Path:
    """Return the file of an undamaged LeNet-5."""
    file = Path("whole") / f"{runtime}{RUNTIMES[runtime].suffix}"
    if file.exists():
        return file
    answer = asked("lenet5", runtime, workers)
    if answer.status != "ok":
        sys.exit(f"{runtime}: {answer.message}")
    path = max(Path("exports").glob("*/export.json"), key=lambda one: one.stat().st_mtime_ns)
    copy(path.parent / f"model{RUNTIMES[runtime].suffix}", file)
    return file


def copy(file: Path, to: Path) -> None:
    """Copy a model's file, or folder, with the weights beside it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, to)
        return
    shutil.copy(file, to)
    if file.suffix == ".xml":
        shutil.copy(file.with_suffix(".bin"), to.with_suffix(".bin"))


def remove(file: Path) -> None:
    shutil.rmtree(file.parent)


def damaged(whole: Path, number: int, draw: random.Random) -> tuple[str, Path]:
    """Return what was done to which file, and a copy of the model with that damage."""
    file = Path(f"damaged-{number}") / whole.name
    shutil.rmtree(file.parent, ignore_errors=True)
    copy(whole, file)
    parts = sorted(one for one in file.parent.rglob("*") if one.is_file() and one.stat().st_size)
    part, damage = draw.choice(parts), draw.choice(DAMAGE)
    part.write_bytes(damage(bytearray(part.read_bytes()), draw))
    return f"{part.relative_to(file.parent)} {damage.__name__}", file


def wrong(answer: Answer) -> str:
    """Return what is wrong with an answer; empty where nothing is."""
    if answer.status == "ok":
        return ""
    if not answer.message.strip():
        return "an error that says nothing"
    if "\n" in answer.message or "Traceback" in answer.message:
        return "an error of more than one line"
    if answer.status == "timeout":
        return "no answer in time"
    return ""


def told(done: list[list[str]]) -> int:
    counts = collections.Counter((runtime, status) for _, runtime, _, status, _, _ in done)
    for (runtime, status), count in sorted(counts.items()):
        print(f"{runtime}: {status}: {count}")
    bad = [one for one in done if one[5]]
    for number, runtime, what, status, message, fault in bad:
        print(f"{number}: {runtime}: {what}: {fault}: {status}: {message[:200]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
