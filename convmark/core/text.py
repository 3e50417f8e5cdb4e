"""Text for a reader: units scaled, verdicts in colour, what comes from outside one line."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from convmark.core.files import read_regular
from convmark.core.interval import percent_digits, share_of, signed_percent

Say = Callable[[str], None]
"""Shows the user a line."""

NUMBER = re.compile(r"[0-9]{1,18}")
"""Of a run or a device, in a text from outside; Python reads none of thousands of digits."""

MOST_NAME_BYTES = 200
"""Of a folder's name; file systems have room for 255."""

_TERMINAL_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
)

_MOVING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves the cursor, turns the writing round or is no character."""

_MARKS = re.compile(r"([\\`*_\[\]|~#])")
_MARKS_BESIDE_CODE = re.compile(r"([\\*_\[\]|~#])")

_IN_CODE = re.compile(r"`([^`<>\n]+)`")

_CI_COMMAND = re.compile(r"##(?=\w*\[)")


MOST_DIGITS = 18
"""Of a part of a text that is taken for a number."""


_RED, _GREEN, _YELLOW = 31, 32, 33
_COLOURS: Mapping[str, int] = {
    "regressed": _RED,
    "failed": _RED,
    "error:": _RED,
    "crashed:": _RED,
    "out_of_memory:": _RED,
    "timeout:": _RED,
    "improved": _GREEN,
    "inconclusive": _YELLOW,
    "unsteady": _YELLOW,
    "not judged": _YELLOW,
}
_WORDS = rf"(?<![\w.:-])({'|'.join(map(re.escape, _COLOURS))})(?![\w.-])"
"""Alone between spaces or brackets, for a case may have such a word in its name; compiled late."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 case` or `2,000 cases`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names and how many more there are, such as `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


_FIGURE = re.compile(r"[:;]|(?: (?:by|in|of|at|to|least|most|a factor of))* [+-]?\d")
"""Where the part of a reason begins that is of one process alone."""


def reasons_text(reasons: Sequence[str]) -> str:
    """Return the reasons of several processes: the one that all have, or each kind with its count.

    Reasons of one kind begin with the same words, up to their first figure or colon.
    """
    if len(set(reasons)) < 2:
        return "".join(reasons[:1])
    kinds = Counter(_FIGURE.split(reason, maxsplit=1)[0] for reason in reasons)
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} ({count:,})" for kind, count in kinds.items())


DIRTY = " (dirty)"
"""Ends a commit whose files were changed."""


def commit_text(commit: str | None, dirty: object) -> str:
    """Return a commit as tables show it; empty where it is not known."""
    return f"{(commit or '')[:12]}{DIRTY * (dirty is True)}"


@functools.lru_cache(maxsize=4096)
def natural_order(value: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Return a key by which 2.9 comes before 2.10, 8 before 32, and names by their letters."""
    parts = re.findall(r"\d+|[^\d.]+", value)
    return tuple(
        (0, int(part)) if part.isdecimal() and len(part) <= MOST_DIGITS else (1, part)
        for part in parts
    ), value


def plain_text(text: str) -> str:
    """Return one printable line: no terminal escape, control or invisible character."""
    bare = _TERMINAL_ESCAPE.sub("", text)
    kept = (c for c in bare if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join("".join(kept).split())


def percent(log_ratio: float) -> str:
    """Return a change as per cent, from its logarithm."""
    return signed_percent(share_of(log_ratio))


def is_plain(text: str) -> bool:
    """Whether a text is one line without terminal escape, control or invisible character."""
    return text.isprintable() or not any(unicodedata.category(c) in _MOVING for c in text)


def shown(cell: str) -> str:
    """Return a table's cell as it may stand on a terminal and in the log of a CI: inert.

    Source:
        Commands in a log start with `::` or hold `##[`: actions/runner,
        src/Runner.Common/ActionCommand.cs; `##vso[`: Azure Pipelines, "Logging commands".
    """
    line = cell if cell.isprintable() else plain_text(cell)
    line = _CI_COMMAND.sub("# #", line)
    return f": :{line.lstrip()[2:]}" if line.lstrip().startswith("::") else line


def markdown_cell(cell: str, *, code: bool = False) -> str:
    """Keep a cell one cell of plain text in Markdown: no markup, no HTML.

    Args:
        code: whether back quotes stay: a note of ours names commands in them.
    """
    import html  # its table of entities takes longer to load than the rest of `--help`

    marks = _MARKS_BESIDE_CODE if code else _MARKS
    return marks.sub(r"\\\1", html.escape(shown(cell), quote=False))


def code_marked(escaped: str) -> str:
    """Return HTML in which what our texts have in back quotes is code.

    Args:
        escaped: texts, or a table of them, whose special characters are escaped.
    """
    return _IN_CODE.sub(r"<code>\1</code>", escaped)


def is_folder_name(text: str) -> bool:
    """Whether a text from outside may name a folder: one that leads nowhere else, not hidden."""
    plain = bool(text) and is_plain(text) and not any(mark in text for mark in "/\\:")
    return plain and text[0] not in ".-~ " and len(text.encode()) <= MOST_NAME_BYTES


def file_text(path: Path) -> str:
    """Return a file's text, nothing where it cannot be read."""
    try:
        return read_regular(path).decode("utf-8", errors="replace")
    except OSError:
        return ""


def command_text(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, limit_s: float = 10.0
) -> str:
    """Return what a command prints; nothing where it is not there, fails or takes too long."""
    import subprocess  # the rest of this module is for every `--help`

    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def painted(text: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """Return a printed table with the words that matter in colour, where the stream shows it.

    Source:
        no-color.org and force-color.org: each counts where it is set and not empty.
    """
    shows = environ.get("TERM") != "dumb" and stream.isatty()
    wanted = not environ.get("NO_COLOR") and (environ.get("FORCE_COLOR") or shows)
    return coloured(text) if wanted else text


def coloured(text: str) -> str:
    """Return a printed table with the words that matter in colour."""
    return re.sub(_WORDS, lambda found: f"\x1b[{_COLOURS[found[1]]}m{found[1]}\x1b[0m", text)


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    for size, unit in steps:
        if abs(value) >= size * 0.9995:  # so that 999.96 us reads 1.00 ms, not 1000 us
            return f"{_digits(value / size)} {unit}"
    size, unit = steps[-1]
    return f"{_digits(value / size)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    size = abs(value)
    places = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    if 0 < size < 0.9995:  # so that 0.004 samples/s does not read 0.00
        places = 2 - math.floor(math.log10(size))
    return f"{value:.{places}f}"


def seconds_text(value_s: float | None) -> str:
    """Return seconds as s, ms or us."""
    if value_s is None:
        return ""
    return _scaled(value_s, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")))


def bytes_text(value_bytes: float | None) -> str:
    """Return bytes as GiB, MiB, KiB or B."""
    if value_bytes is None:
        return ""
    return _scaled(value_bytes, ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")))


def count_text(value: float | None) -> str:
    """Return a count as T, G, M, k or itself."""
    if value is None:
        return ""
    if abs(value) < 1000:
        return f"{value:g}"
    return _scaled(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")))


def rate_text(value_per_s: float | None) -> str:
    """Return samples/s to three digits or whole."""
    return "" if value_per_s is None else f"{_digits(value_per_s)}"


def share_text(share: float | None) -> str:
    """Return a share as per cent."""
    return "" if share is None else f"{'-' * (share < 0)}{percent_digits(share)} %"


def spread_text(share: float | None) -> str:
    """Return a spread, a share of the median, as per cent; a larger one as so many medians."""
    return share_text(share) if share is None or share < 1 else f"{share:,.1f} times"


def load_text(share: float) -> str:
    """Return the share of the CPUs' time that other programs took, as every text and table has it.

    It is known to some per cent, so none of it stands behind a decimal point.
    """
    return f"{100 * share:.0f} %"


def change_text(share: float | None) -> str:
    return "" if share is None else signed_percent(share)


def duration_text(value_s: float) -> str:
    """Return seconds as a person says them: 45 s, 1 min 30 s, 12 min, 1 h 20 min.

    Up to ten minutes they are told to ten seconds, so that a time left is seen to become less.
    """
    whole = max(0, round(value_s))
    if whole < 60:
        return f"{whole} s"
    minutes, tens = divmod(round(whole / 10), 6)
    if minutes < 10:
        return f"{minutes} min{f' {tens}0 s' * bool(tens)}"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
