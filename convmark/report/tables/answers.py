"""Answers: the fastest models, the ratios of machines and versions, what changed, and how far the
figures can be trusted; what a report says first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmark.compare.ab_rows import VerdictRow
from convmark.compare.files import read_verdicts
from convmark.compare.intended import pass_accepted
from convmark.compare.judgement import Judgement
from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.interval import Interval, interval_text
from convmark.core.statistics import grouped, is_known
from convmark.core.table import Table, headings, table_of
from convmark.core.tasks import TASKS
from convmark.core.text import counted, load_text, seconds_text
from convmark.report.comment import Gate, main_of
from convmark.report.measured import of_processes, unlike_words
from convmark.report.ratios import Ratio, brackets_text, figure_text, ratio, times_as_fast
from convmark.report.rows import SERIES, latest, newest_rows, setting, text_of
from convmark.report.tables.comparisons import newest_comparison
from convmark.report.tables.hardware import BY_RATE, GEOMETRIC_MEAN, UNLIKE
from convmark.report.tables.overview import FEW_PROCESSES, WIDE_SPREAD
from convmark.report.verdicts import worth_reading
from convmark.results.reading import read_head
from convmark.results.store import RunSource

if TYPE_CHECKING:
    import pandas as pd

FASTEST, RATIOS, CHANGED, TRUST = "fastest model", "machines and versions", "changes", "trust"

MOST_LINES = 3
"""Lines of one answer, and one more where it is the last; another line counts what is left."""

OPEN = ("inconclusive", "new", "missing")
"""Verdicts that decide nothing of a case."""

_OF_STATES = (
    ("failed", ("failed to run", "changed")),
    ("regressed", ("regressed",)),
    ("changed as accepted", ("accepted",)),
    ("improved", ("improved",)),
)
"""The states of cases that have a line, by its words."""

MEANS_APART = 0.02
"""A ratio of means says so where that of the medians beside it differs by a larger share."""

NO_ORDER = 1.25
"""A ratio below it tells no order without an interval: between two processes plain step times move
by 5 to 10 % each."""

GOOD_SHARE, FAIR_SHARE = 0.05, 0.25
"""At most this share of the figures is doubtful where they can be trusted well, or fairly."""


def answers(
    frame: pd.DataFrame,
    table: pd.DataFrame,
    hardware: Table,
    versions: Versions | None,
    runs: Sequence[RunSource],
    moved: int,
    compared: Sequence[VerdictRow] = (),
) -> Table:
    """Return the answers, one row for each line.

    Args:
        frame: rows of timed tasks.
        table: their points.
        hardware: the table of machines against each other.
        versions: two versions of a framework, where they can be compared.
        runs: the files by `source`.
        moved: cases whose level has moved in the history.
        compared: verdicts of `convmark ab`, the newest comparison first.
    """
    records = [
        *_fastest(frame, table, runs),
        *_machines(hardware),
        *([_versions(versions)] if versions else []),
        *_changes(table, runs, moved),
        *(_line(CHANGED, *told) for told in [newest_comparison(compared)] if told),
        _trust(table),
    ]
    but_for = ", but those of machines of sustained throughput" * _is_sustained(hardware)
    return table_of(
        "answers",
        "In short",
        "Fastest: the model with the lowest median step time in the newest run of each case, "
        "against all others on the same hardware with the same setting, input shape, recipe and "
        "version; those that may be as fast are named, else the next one. Settings with at most "
        "half as many models as another one are left out. Ratios are of plain step "
        f"times{but_for}: above 1 is faster; brackets have 95 % intervals. They are of geometric "
        "means over the processes, a step time alone is their median. Ratios of versions are over "
        "cases with the same code and the same conditions except packages. Changes are the "
        "verdicts of each machine's newest judged run, and of the newest comparison by convmark "
        "ab. Trust is good if at most 5 % of the newest figures are doubtful for one of the "
        "reasons given, fair if at most 25 % are, and otherwise poor.",
        headings("answer of found detail"),
        records,
    )


def _line(answer: str, of: str, found: str, *details: str) -> dict[str, str]:
    return {"answer": answer, "of": of, "found": found, "detail": ", ".join(filter(None, details))}


# The fastest model


def _first(found: Sequence[Any], most: int) -> tuple[Sequence[Any], int]:
    """Return the first ones, and how many are left: never one, which has room in its own line."""
    shown = found if len(found) == most + 1 else found[:most]
    return shown, len(found) - len(shown)


def _fastest(
    frame: pd.DataFrame, table: pd.DataFrame, runs: Sequence[RunSource]
) -> Iterator[dict[str, str]]:
    """Yield the fastest model of each task, batch size, input shape and recipe.

    Those of most models are chosen.
    """
    groups: dict[tuple[int, int, str, str], list[dict[str, Any]]] = {}
    for row in newest_rows(table):
        if row["replicas"] == 1 and row["step_time_p50_s"] > 0:
            shape, recipe = text_of(row["asked_shape"]), text_of(row["recipe"])
            key = (list(TASKS).index(row["task"]), int(row["batch_size"]), shape, recipe)
            place = setting({**row, "asked_shape": "", "recipe": ""})  # the group has them
            groups.setdefault(key, []).append({**row, "setting": place})
    shared = {key: _of_most_models(rows) for key, rows in groups.items()}
    models = {key: len({row["model"] for row in rows}) for key, rows in shared.items()}
    chosen, left = _first(sorted(groups, key=lambda key: (-models[key], key)), MOST_LINES)
    enough = table[table["n"] >= FEW_PROCESSES].drop_duplicates(list(SERIES), keep="last")
    earlier = {tuple(row[name] for name in SERIES): row for row in enough.to_dict("records")}
    for key in sorted(chosen):
        several = len({_place(row)[-1] for row in groups[key]}) > 1
        told, line = _winner(shared[key], frame, several=several)
        thin = [_thin(row, earlier.get(tuple(row[name] for name in SERIES)), runs) for row in told]
        yield {**line, "detail": ", ".join(filter(None, [line["detail"], *thin]))}
    if left:
        yield _line(FASTEST, counted(left, "more setting"), "see Architectures")


def _thin(
    row: Mapping[str, Any], enough: Mapping[str, Any] | None, runs: Sequence[RunSource]
) -> str:
    """Say which earlier run has enough processes, where the newest of the case has not."""
    if row["n"] >= FEW_PROCESSES or enough is None:
        return ""
    newest, earlier = (runs[int(one["source"])].label for one in (row, enough))
    few, many = (counted(int(one["n"]), "process") for one in (row, enough))
    return f"{row['model']} by {few} of run {newest}, though run {earlier} has {many}"


def _of_most_models(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, the fastest first, of the fastest place where many models ran.

    Many are more than half of the most that ran in one place: a single model that was exported too,
    or measured on another machine, has nobody to be compared with there.
    """
    fastest_first = sorted(rows, key=lambda row: row["step_time_p50_s"])
    places = grouped((_place(row), row) for row in fastest_first)
    models = {place: len({row["model"] for row in alike}) for place, alike in places.items()}
    most = max(models.values())
    return next(alike for place, alike in places.items() if 2 * models[place] > most)


def _winner(
    rows: Sequence[dict[str, Any]], frame: pd.DataFrame, *, several: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return what may be the fastest of models that ran in one place, and the line of it.

    Args:
        rows: the fastest first.
        several: whether rows of other versions are left out, so that the version is named.
    """
    best = rows[0]
    batch = f"batch {int(best['batch_size'])}"
    given = [best["task"], batch, text_of(best["asked_shape"]), text_of(best["recipe"])]
    hardware, its_setting, framework = _place(best)
    if several:  # the framework is named, so that its backend is known
        plain = {"backend": DEFAULT_BACKEND, "asked_shape": "", "recipe": ""}
        its_setting = setting({**best, **plain})
    where = f"on {', '.join(filter(None, [hardware, its_setting, framework * several]))}"
    step = seconds_text(best["step_time_p50_s"])
    found, by, told = f"{best['model']}: {step} a step", "no other model", [best]
    rivals: dict[str, dict[str, Any]] = {}
    for row in rows[1:]:
        if row["model"] != best["model"]:
            rivals.setdefault(row["model"], row)
    if rivals:
        own, *others = of_processes(frame, [best, *rivals.values()], "step_time_p50_s")
        ratios = [(row, ratio(its, own)) for row, its in zip(rivals.values(), others, strict=True)]
        unclear = [(row, one) for row, one in ratios if one and _may_be_slower(one)]
        told += [row for row, _ in unclear or ratios[:1]]
        rival, faster = (unclear or ratios)[0]
        if unclear:
            names = [str(row["model"]) for row in told]
            more = [f"{len(names) - MOST_LINES} more"] if len(names) > MOST_LINES else []
            *first, last = [*names[:MOST_LINES], *more]
            found = f"{', '.join(first)} or {last}; {best['model']}: {step}"
        if faster:
            by = _by(faster, str(rival["model"]), unclear=len(unclear))
            medians = rival["step_time_p50_s"] / best["step_time_p50_s"]
            if not unclear and abs(medians / faster.value - 1) > MEANS_APART:
                by += f" in geometric means, {figure_text(medians)} times in medians"
    hosts = {text_of(row["node"]) for row in told}
    other = "each on another host" * (len(hosts) > 1)
    load = _load(row["load"] for row in told)
    return told, _line(FASTEST, ", ".join(filter(None, given)), found, by, where, other, load)


def _may_be_slower(faster: Ratio) -> bool:
    if not faster.interval.known:
        return faster.value < NO_ORDER
    return faster.interval.low <= 1


def _by(faster: Ratio, rival: str, *, unclear: int) -> str:
    """Return by how much a model is faster than a rival, or that it is not distinguishable."""
    if not unclear:
        return f"{times_as_fast(faster)} as {rival} {brackets_text(faster)}"
    of = f" of {rival}" * (unclear > 1)
    ratio_in = f": ratio{of} in" * faster.interval.known
    return f"not distinguishable{ratio_in} {brackets_text(faster)}"


def _load(shares: Iterable[float | None]) -> str:
    """Say under how much other load figures were measured; empty where it was little."""
    known = [share for share in shares if share is not None and is_known(share)]
    return f"under {load_text(max(known))} other load" if known else ""


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return where and by what a model ran, which is alike where two are compared."""
    return str(row["hardware"]), str(row["setting"]), text_of(row["framework"])


# Machines and versions


def _is_sustained(hardware: Table) -> bool:
    return hardware.title.endswith("sustained")


def _machines(hardware: Table) -> Iterator[dict[str, str]]:
    """Yield the geometric mean of each machine against the one that has most cases."""
    rows = [row for row in hardware.records() if row.get("speedup")]
    means = [row for row in rows if row["model"] == GEOMETRIC_MEAN]
    held = {row["hardware"] for row in hardware.records() if row["model"] == GEOMETRIC_MEAN}
    base = next((row["hardware"] for row in rows if row["hardware"] not in held), "")
    means.sort(key=lambda row: row["speedup"], reverse=True)
    shown, left = _first(means, MOST_LINES - 1)
    for row in shown:
        interval = Interval.of_cells(row.get("low"), row.get("high"))
        found = Ratio(value=row["speedup"], interval=interval)
        notes = [one.get("note") or "" for one in rows if one["hardware"] == row["hardware"]]
        told = [one.partition(f"{UNLIKE} {base}: ")[2].partition(";")[0] for one in notes]
        software = unlike_words(name for text in told if text for name in text.split(", "))
        pair = [one for one in rows if one["hardware"] in (row["hardware"], base)]
        load = _load(one.get(name) for one in pair for name in ("load", "earlier_load"))
        rates = "samples/s tell another ratio" * any(BY_RATE in text for text in notes)
        cases = row["note"].partition(",")[0]
        sustained = ", sustained" * _is_sustained(hardware)
        of = f"{row['hardware']} against {base}{sustained}"
        detail = f"{cases} {brackets_text(found)}"
        yield _line(RATIOS, of, times_as_fast(found), detail, rates, load, software)
    if left:
        yield _line(RATIOS, counted(left, "more machine"), f"see {hardware.title}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The newest version on some hardware against the one before."""

    hardware: str
    before: str
    after: str
    cases: int
    """Of which both have like measurements."""
    mean: Ratio
    load: float
    """The most that other programs took while one of them was measured; 0 where it was little."""
    other: tuple[str, ...]
    """What of the software is another one too."""


def _versions(found: Versions) -> dict[str, str]:
    cases = f"over {counted(found.cases, 'case')} on {found.hardware}"
    other = f"other {' and '.join(found.other)} too" if found.other else ""
    of = f"{found.after} against {found.before.rpartition(' ')[2]}"
    detail = f"{cases} {brackets_text(found.mean)}"
    ran = "measured in different runs"
    load = _load([found.load or None])
    return _line(RATIOS, of, times_as_fast(found.mean), detail, other, ran, load)


# What changed


def _changes(
    table: pd.DataFrame, runs: Sequence[RunSource], moved: int
) -> Iterator[dict[str, str]]:
    """Yield what the newest judged run of each machine was found to have changed."""
    judged: dict[str, tuple[str, list[Judgement]]] = {}
    machines = table.drop_duplicates("source").set_index("source")["machine"]
    several = machines.nunique() > 1
    for source in range(len(runs) - 1, -1, -1):
        machine = str(machines.get(source, ""))
        if machine and machine not in judged and (found := read_verdicts(runs[source].path)):
            path = runs[source].path
            commits = [head.commit] if (head := read_head(path)) else []
            judged[machine] = (runs[source].label, pass_accepted(found, path, commits))
    for machine, (label, found) in judged.items():
        where = f"run {label}{f' of {machine}' * several}"
        yield from _verdicts(where, Gate(judgements=found))
    if not judged:
        compare = "`convmark compare` compares the newest run with the accepted one"
        yield _line(CHANGED, "verdicts", "none", f"no run was judged: {compare}")
    if moved:
        cases = f"{counted(moved, 'case')} moved"
        yield _line(CHANGED, "history", cases, "see levels and change points")


def _verdicts(where: str, gate: Gate) -> Iterator[dict[str, str]]:
    total = f"of {counted(len(gate.cases), 'case')} in {where}"
    for words, states in _OF_STATES:
        cases = [case for case in gate.moved if gate.states[case] in states]
        if cases:
            ones = [one for case in cases for one in gate.cases[case] if worth_reading(one)]
            yield _line(CHANGED, words, f"{len(cases)} {total}", _largest(ones))
    decided = [one.verdict for one in map(main_of, gate.cases.values()) if not one.fails]
    open_ = [f"{decided.count(word)} {word}" for word in OPEN if word in decided]
    if not gate.moved:
        yield _line(CHANGED, "regressed", f"none {total}", *open_)
    elif open_:
        count = sum(word in OPEN for word in decided)
        yield _line(CHANGED, "not decided", f"{count} {total}", *open_)


def _largest(ones: Sequence[Judgement]) -> str:
    """Return the largest change of those that moved, in words."""
    moved = [one for one in ones if one.fails or one.verdict not in ("unchanged", *OPEN)]
    one = max(moved, key=lambda one: (one.fails, one.metric == "step_time", abs(one.change or 0)))
    if one.change is None:
        return f"{one.case}: {one.metric}"
    change = interval_text(one.change, one.interval)
    return f"{one.case}: {one.metric.replace('_', ' ')} {change}"


# How far the figures can be trusted


def _trust(table: pd.DataFrame) -> dict[str, str]:
    """Return one word, and the sentence with its cause."""
    newest = latest(table)
    if newest.empty:
        return _line(TRUST, "newest figures", "none", "no case has a figure", *_failed(table))
    most = load_text(newest["load"].max())
    doubts = {
        f"measured under other load of up to {most}": newest["load"].notna(),
        "measured beside other benchmark runs": newest["concurrent"] > 0,
        "unsteady": newest["unsteady"] > 0,
        f"spread by more than {load_text(WIDE_SPREAD)} between processes": newest["spread"]
        > WIDE_SPREAD,
        f"of fewer than {FEW_PROCESSES} processes": newest["n"] < FEW_PROCESSES,
        "of a GPU with lowered clocks": newest["throttled"].map(text_of) != "",
        "no ground for a verdict": newest["not_judged"].map(text_of) != "",
    }
    counts = {words: int(mask.sum()) for words, mask in doubts.items() if mask.any()}
    doubtful = sum(doubts.values()) > 0
    share = float(doubtful.mean())
    word = "good" if share <= GOOD_SHARE else "fair" if share <= FAIR_SHARE else "poor"
    return _line(TRUST, "newest figures", word, *_causes(newest, counts), *_failed(table))


def _causes(newest: pd.DataFrame, counts: Mapping[str, int]) -> Iterator[str]:
    total = counted(len(newest), "figure")
    if not counts:
        whole = f"all {total} are steady, each" if len(newest) > 1 else f"{total} is steady,"
        yield f"{whole} of {FEW_PROCESSES} processes or more"
    for place, words in enumerate(sorted(counts, key=counts.__getitem__, reverse=True)[:3]):
        yield f"{counts[words]:,}{f' of {total}' * (place == 0)} {words}"
    for machine, hosts in newest.groupby("machine", observed=True)["node"].nunique().items():
        if hosts > 1:
            yield f"{machine} is {hosts} hosts of one kind"
    unknown = int(newest["other_cpu_share"].isna().sum())
    if unknown:
        yield f"other load is not known of {'any' if unknown == len(newest) else f'{unknown:,}'}"


def _failed(table: pd.DataFrame) -> Iterator[str]:
    newest = latest(table, measured=False)
    failed = int((newest["failed"] > 0).sum())
    if failed:
        yield f"{counted(failed, 'case')} failed"
