"""The ceilings of a device in each precision, as a check of it shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from convmark.core.case import Case
from convmark.core.table import heading, printed
from convmark.interpreter import Answer
from convmark.session.ceilings import Ceiling, Key, ceiling_of, ceiling_request, gather, key_of

__all__ = ["ceilings_table", "measured_ceilings"]


def measured_ceilings(
    cases: Sequence[Case],
    ask: Callable[[Mapping[str, Any]], Answer],
    path: Path,
    *,
    sizes: int | None,
    say: Callable[[str], None],
) -> dict[Key, Ceiling]:
    """Return the ceilings of the cases' device and precisions, as far as it has them.

    Args:
        path: where ceilings are kept; those there are not measured again.
        sizes: how many sizes are tried; such a look is neither kept nor taken from what is.

    Raises:
        StoreError: the file does not fit, or cannot be written.
        WorkerError: no worker can be started at all.
    """
    if sizes is None:
        known = gather(cases, ask, path, which="on", say=say)
        return {key_of(case): known[key_of(case)] for case in cases if key_of(case) in known}
    found = {}
    for case in cases:
        answer = ask(ceiling_request(case, sizes=sizes))
        ceiling = ceiling_of(case, answer, datetime.now(timezone.utc))
        if ceiling is None:
            say(f"no ceilings of {case.device} in {case.precision}: {answer.message}")
        else:
            found[key_of(case)] = ceiling
    return found


def ceilings_table(ceilings: Iterable[Ceiling]) -> str:
    """Return one line per precision: the best rates, and the sizes that reached them."""
    records = [
        {**asdict(one), "matrices": f"{one.matrix_size} x {one.matrix_size}"} for one in ceilings
    ]
    headings = [
        heading("precision", "ceilings in"),
        heading("peak_flops_per_s", "FLOP/s", "flops_rate"),
        heading("matrices", "matrices"),
        heading("peak_bytes_per_s", "bytes/s", "bytes"),
        heading("copy_bytes", "copy", "bytes"),
    ]
    return printed(headings, records) if records else "no ceilings known"
