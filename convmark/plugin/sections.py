"""What a session shows of its measuring at the end: a summary, where the rows are, the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convmark.judging.judgement import Judgement
    from convmark.record import Record
    from convmark.store import RunFile

__all__ = ["sections"]


def sections(
    run_file: RunFile,
    records: Sequence[Record],
    judgements: Sequence[Judgement],
    *,
    interrupted: bool,
) -> list[tuple[str, str]]:
    """Return the titles and texts."""
    from convmark.report.scaling import scaling_table
    from convmark.report.summary import summary_table
    from convmark.run import kept

    text = f"{'interrupted; ' if interrupted else ''}{kept(run_file)}"
    tables = [summary_table(records), scaling_table(records)] if records else []
    shown = [("convmark", "\n\n".join(filter(None, [*tables, text])))]
    if judgements:
        from convmark.report.verdicts import verdicts_report

        shown.append(("convmark verdicts", verdicts_report(judgements)))
    return shown
