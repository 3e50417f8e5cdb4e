"""The options of a report: the command, `convmark.report()` and their pages are made from these."""

from __future__ import annotations

from dataclasses import dataclass

from convmark.core.option import option_field, options_of

STYLES = ("full", "applications", "accuracy")
RANKS = ("burst", "sustained")


def _as_it_is(flag: str, text: str) -> str:
    """Return the text; the report refuses it where it is read."""
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What a report is made of and with; each field is an option, refused where it is read."""

    style: str = option_field(
        "--style STYLE",
        _as_it_is,
        "full; applications, the table of the Keras documentation; or accuracy, with published "
        "values",
        default=STYLES[0],
    )
    prices: str | None = option_field(
        "--prices FILE",
        _as_it_is,
        "prices of machines, a TOML file with currency, date and source, for the cost of samples "
        "and of a training",
    )
    reference: str | None = option_field(
        "--reference MACHINE",
        _as_it_is,
        "compare the other machines with this one (default: the one with the most cases)",
    )
    power_logs: tuple[str, ...] = option_field(
        "--power-log FILE",
        _as_it_is,
        "CSV log of a wall meter, joined with the rows by time; with several machines MACHINE=FILE",
        repeatable=True,
    )
    rank: str = option_field(
        "--rank THROUGHPUT",
        _as_it_is,
        "compare machines by burst or by sustained throughput, that of --sustain",
        default=RANKS[0],
    )
    names: tuple[str, ...] = option_field(
        "--name MACHINE=NAME",
        _as_it_is,
        "name a machine; kept in its results folder and shown in place of its fingerprint",
        repeatable=True,
    )
    figures: str | None = option_field(
        "--figures FOLDER", _as_it_is, "also write the plots as SVG and PNG files"
    )
    against: str | None = option_field(
        "--against REF", _as_it_is, "start with the verdicts of the newest run against a commit"
    )


REPORT_OPTIONS = options_of(ReportOptions)
"""By field."""
