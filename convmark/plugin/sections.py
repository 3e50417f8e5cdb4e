"""What a session shows of its measuring at the end: a summary, where the rows are, the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convmark.compare.judgement import Judgement
    from convmark.results.record import Record
    from convmark.results.store import RunFile
    from convmark.session.auto_batch import Choice

__all__ = ["sections"]


def sections(
    run_file: RunFile,
    records: Sequence[Record],
    judgements: Sequence[Judgement],
    choices: Sequence[Choice],
    *,
    interrupted: bool,
) -> list[tuple[str, str]]:
    """Return the titles and texts.

    Args:
        choices: of the batch sizes, where these were searched for.
    """
    from convmark.report.summary import cards_table, scaling_table, summary_table
    from convmark.session.run import kept

    text = f"{'interrupted; ' if interrupted else ''}{kept(run_file)}"
    made = (summary_table, cards_table, scaling_table)
    tables = [table(records) for table in made] if records else []
    if choices:
        from convmark.session.auto_batch import choices_table

        tables.insert(0, choices_table(choices, records))
    shown = [("convmark", "\n\n".join(filter(None, [*tables, text])))]
    if judgements:
        from convmark.report.verdicts import could_see, verdicts_report

        told = filter(None, [verdicts_report(judgements), could_see(judgements)])
        shown.append(("convmark verdicts", "\n\n".join(told)))
    return shown
