"""A judgement that fails a run, said in one line."""

from __future__ import annotations

from collections.abc import Callable

from convmark.compare.judgement import Judgement
from convmark.core.text import shown
from convmark.core.units import bytes_text, rate_text, seconds_text

__all__ = ["failure_line"]

_PRINTED: dict[str, Callable[[float], str]] = {
    "s": seconds_text,
    "bytes": bytes_text,
    "samples/s": rate_text,
}


_IF_MEANT = (
    "if it is meant: --allow-change, a trailer `Benchmark-Accept:` of a commit or `convmark accept`"
)


def failure_line(judgement: Judgement) -> str:
    """Return which metric, by how much, against which runs, and how that is known."""
    words = [f"{judgement.case}: {judgement.metric} {judgement.verdict}"]
    if judgement.change is not None:
        words.append(f"by {100 * judgement.change:+.1f} %")
    if judgement.low is not None and judgement.high is not None:
        words.append(f"[{100 * judgement.low:+.1f}, {100 * judgement.high:+.1f}]")
    if judgement.baseline is not None and judgement.value is not None:
        printed = _PRINTED.get(judgement.unit, "{:,.6g}".format)
        words.append(f"from {printed(judgement.baseline)} to {printed(judgement.value)}")
    if judgement.baseline_runs:
        words.append(f"against run {', '.join(judgement.baseline_runs)}")
    meant = _IF_MEANT if judgement.verdict == "changed" else ""
    return shown("; ".join(filter(None, [" ".join(words), judgement.note, meant])))
