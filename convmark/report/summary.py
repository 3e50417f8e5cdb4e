"""The tables at the end of a run: a line per case, each value with its spread and count.

One table for the tasks whose steps are timed and one for each other task; what the cards did, of
cases on GPUs; and how throughput grows, where several replicas were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from operator import itemgetter
from statistics import mean, stdev
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIMES
from convmark.core.statistics import QUANTILE_STEPS, grouped, middle_of, spread
from convmark.core.table import SAMPLES_PER_S, Heading, Table, headings, plain, table_of
from convmark.core.tasks import TASKS, TIMED_TASKS
from convmark.core.text import counted, listed, load_text, natural_order, reasons_text, seconds_text
from convmark.report.tables.cost import ENERGY_COLUMNS, ENERGY_HEADINGS, of_scopes
from convmark.report.tables.scaling import cores, scaling_of_run
from convmark.results.record import OF_MANY_STEPS, Record, large_load, shown_in
from convmark.session.learning import WAYS

FAR, MOST_KINDS = 0.1, 3
"""Of what the step time gives: so much less or more of a throughput is explained; and the kinds of
device that are named."""

MOST_WAIT_S = 1e-4
"""That a step on a CPU which is timed alone may wait for its result."""

_SUSTAINED = shown_in("sustained")
_AT_LIMIT = shown_in("latency_limit")

Groups = Mapping[str, Sequence[Record]]
"""The rows of each case by its name."""


def by_case(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each case, cases in order of model, task, batch size and name."""
    tasks = list(TASKS)
    ordered = sorted(
        records,
        key=lambda row: (
            *(row.model, tasks.index(row.task), row.device, row.batch_size),
            *(row.replicas, natural_order(row.case.name), row.process),
        ),
    )
    return grouped((record.case.name, record) for record in ordered)


def run_tables(records: Sequence[Record]) -> list[Table]:
    """Return all tables of a run's rows: first the summary, the others where rows have figures."""
    return [
        *summary(records),
        *cards(records),
        *energy(records),
        *latency_limit(records),
        *sustained(records),
        *scaling_of_run(records),
        *_over_cores(records),
    ]


def summary_text(records: Sequence[Record]) -> str:
    """Return the tables of a run's rows as text."""
    return "\n\n".join(map(plain, run_tables(records)))


def summary(records: Sequence[Record]) -> list[Table]:
    """Return a line per case; a case that failed has its reason in place of figures.

    The step time is the median over processes of each one's median; `spread` is half the range of
    those; `n` is the number of processes measured. Tasks that are not timed have tables of their
    own after it.
    """
    tables = []
    timed = by_case([record for record in records if record.task in TIMED_TASKS])
    if timed or not records:
        tables.append(_timed(timed))
    for task in TASKS:
        groups = by_case([record for record in records if record.task == task])
        if groups and task not in TIMED_TASKS:
            columns = list(map(Heading.of, shown_in(task)))
            tables.append(_OWN[task](groups) if task in _OWN else _columns(task, columns, groups))
    return tables


def values_of(rows: Sequence[Record], column: str) -> list[Any]:
    found = [getattr(row, column) for row in rows if row.measured]
    return [value for value in found if value is not None]


def _middle(rows: Sequence[Record], column: str) -> Any:
    values = values_of(rows, column)
    return None if column in OF_MANY_STEPS and len(values) < _count(rows) else middle_of(values)


def _count(rows: Sequence[Record]) -> int:
    return sum(row.measured for row in rows)


def _first(rows: Sequence[Record], column: str) -> Any:
    return next((one for row in rows if (one := getattr(row, column)) is not None), None)


def _timed(groups: Groups) -> Table:
    columns = headings(
        "case step_time_p50_s spread step_time_p99_s throughput_samples_per_s "
        "time_to_first_step_s peak_host_memory_bytes peak_device_memory_bytes parameters "
        "flops_per_sample n note",
        step_time_p99_s=("p99", "seconds"),
        peak_device_memory_bytes=("device peak", "bytes"),
        flops_per_sample=("FLOPs", "flops"),
    )
    said: set[tuple[str, str | None]] = set()
    records = []
    for name, rows in groups.items():
        sizes = {key: _first(rows, key) for key in ("parameters", "flops_per_sample")}
        records.append(
            {
                **{one.key: _middle(rows, one.key) for one in columns[1:8] if one.key != "spread"},
                **sizes,
                "case": name,
                "spread": spread(values_of(rows, "step_time_p50_s")),
                "n": _count(rows),
                "note": _note(rows, said),
            }
        )
    timed = [row for rows in groups.values() for row in rows if row.throughput_samples_per_s]
    runtimes = {row.runtime or DEFAULT_RUNTIME for row in timed}
    caption = SAMPLES_PER_S if DEFAULT_RUNTIME in runtimes else ""
    if len(runtimes) > 1:  # a step of an exported model ends before the next begins
        caption = caption.replace("samples/s is", "samples/s of Keras is")
    far = _far(groups, DEFAULT_RUNTIME if caption else "")
    caption = " ".join([*filter(None, [caption]), *far, *_gaps(groups, records)])
    return table_of("summary", "Step times", caption, columns, records, keep=["case"])


_SLOW_STEPS = (
    " A window is as long as all its steps, and the median step is not moved by the slow ones."
)
_ONE_WAIT = " A step that is timed alone ends with a wait for its result, which may be all of it."
_NOT_KNOWN = " The cause is not known."


def _far(groups: Groups, runtime: str) -> Iterator[str]:
    """Say of which cases the throughput is far from what the step time gives, how far, and why.

    Args:
        runtime: cases of it come first, as the sentence before is of it; empty where there is none.
    """
    below: list[tuple[bool, float, str, str]] = []
    above: list[tuple[bool, float, str, str]] = []
    for name, rows in groups.items():
        columns = ("throughput_samples_per_s", "step_time_p50_s", "step_time_mean_s")
        rate, step_s, mean_s = (_middle(rows, column) for column in columns)
        samples, load = _first(rows, "effective_batch_size"), load_of(rows)
        if not (rate and step_s and samples):
            continue
        share = rate * step_s / samples - 1
        is_above = share > FAR and rows[0].device == "cpu"  # on a GPU the steps of a window overlap
        if not (is_above or share < -FAR):
            continue
        why = f"its windows ran {'faster' if is_above else 'slower'} than its steps before them"
        reason = _NOT_KNOWN if load is None else ""
        if mean_s and not is_above and rate >= (1 - FAR) * samples / mean_s:
            why, reason = f"the mean step took {seconds_text(mean_s)}", _SLOW_STEPS
        elif load is None and is_above and step_s - samples / rate <= MOST_WAIT_S:
            why, reason = f"by {seconds_text(step_s - samples / rate)} a step", _ONE_WAIT
        if load is not None:
            why = f"other programs took {load_text(load)} of the CPUs' time"
        words = f"{load_text(abs(share))} in {name} ({why})"
        is_its = (rows[0].runtime or DEFAULT_RUNTIME) == runtime
        (above if is_above else below).append((is_its, abs(share), words, reason))
    for way, found in (("lower", below), ("higher", above)):
        if found:
            worst = sorted(found, reverse=True)
            is_its, _, _, reason = worst[0]
            subject = "It" if is_its else "samples/s"
            told = listed([words for _, _, words, _ in worst], 1)
            yield f"{subject} is {way} by {told}.{reason}"


def _gaps(groups: Groups, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say why cells of cases with a step time are empty in a column that others fill."""

    def lacking(column: str) -> list[Sequence[Record]]:
        if all(row[column] is None for row in records):
            return []  # there is no such column
        timed = (row for row in records if row["step_time_p50_s"] is not None)
        return [groups[row["case"]] for row in timed if row[column] is None]

    if lacking("step_time_p99_s"):
        enough = counted(QUANTILE_STEPS["p99"], "step")
        yield f"p99 is empty of cases with a process of fewer than {enough}."
    kinds = dict.fromkeys(_ran_by(row) for row, *_ in lacking("peak_device_memory_bytes"))
    if kinds:
        told = listed(list(kinds), MOST_KINDS)
        yield f"device peak is empty where the device's allocator counts nothing: {told}."


def _ran_by(row: Record) -> str:
    if (runtime := row.runtime or DEFAULT_RUNTIME) != DEFAULT_RUNTIME:
        return f"{RUNTIMES[runtime].label} on {row.device}"
    small = " (the smallest models)" * (row.backend == DEFAULT_BACKEND)
    return f"{BACKENDS[row.backend].label} on {row.device}{small}"


def _note(rows: Sequence[Record], said: set[tuple[str, str | None]]) -> str:
    """Return why a case has failed, and what to be wary of in the figures of its processes."""
    failures = dict.fromkeys((row.status, row.model, row.error) for row in rows if not row.measured)
    reasons = []
    for status, *failed in failures:
        known = tuple(failed) in said
        reasons.append(f"{status}: {'as above' if known else failed[1] or ''}")
    said.update((model, error) for _, model, error in failures)
    measured = [row for row in rows if row.measured]
    notes = [listed(reasons, 3)]
    if measured:
        notes.append(_doubt(measured))
        if (load := load_of(measured)) is not None:
            notes.append(f"other programs took {load_text(load)} of the CPUs' time")
        notes += ["beside other benchmark runs"] * any(row.concurrent for row in measured)
    return "; ".join(filter(None, notes))


def load_of(rows: Sequence[Record]) -> float | None:
    """Return the share of the CPUs' time that other programs took, where it is large.

    As the figures it is of the processes that have some.
    """
    return large_load(row.other_cpu_share for row in rows if row.measured)


def _doubt(rows: Sequence[Record]) -> str:
    for column, unit in (("parameters", "parameters"), ("flops_per_sample", "FLOPs")):
        if len(found := sorted(set(values_of(rows, column)))) > 1:
            return f"its processes ran unlike models, of {found[0]:,} to {found[-1]:,} {unit}"
    unjudged = [row for row in rows if row.not_judged]
    if unjudged:
        why = reasons_text([row.not_judged or "" for row in unjudged])
        return f"{len(unjudged)} of {len(rows)} not judged: {why}"
    unsteady = [row for row in rows if row.status == "unsteady"]
    if unsteady:
        why = reasons_text([row.unsteady for row in unsteady if row.unsteady])
        return f"{len(unsteady)} of {len(rows)} unsteady{f': {why}' * bool(why)}"
    unknown = next((row.flops_note for row in rows if row.flops_note), None)
    return f"no FLOPs: {unknown}" if unknown else ""


def _failure(rows: Sequence[Record]) -> str:
    return "" if all(row.measured for row in rows) else _note(rows, set())


def _learned(groups: Groups) -> Table:
    """Figures are means over seeds, times medians; `sd` is the standard deviation over seeds.

    The time to the target is of the seeds that reached it, and `reached` says how many did.
    """
    every = [row for rows in groups.values() for row in rows]
    goals = {row.target_accuracy for row in every}
    goal = f"to {goals.pop():g}" if len(goals) == 1 and None not in goals else "to the target"
    columns = headings(
        "case accuracy accuracy_sd loss loss_sd epoch_time_s time_to_target_s reached n note",
        time_to_target_s=(goal, "seconds"),
        reached=("reached", "figure"),
        n=("seeds", "count"),
    )
    records = [_learned_row(name, rows) for name, rows in groups.items()]
    fractions = {row.fraction for row in every}
    shares = ", ".join(f"{share:g}" for share in sorted(filter(None, fractions)))
    part = f"trained on only a part of the data (--fraction {shares}): do not quote these results"
    caption = "" if fractions == {1.0} else part
    return table_of("accuracy", "Accuracy", caption, columns, records, keep=["case"])


def _learned_row(name: str, rows: Sequence[Record]) -> dict[str, Any]:
    n, reached = _count(rows), len(values_of(rows, "time_to_target_s"))
    found: dict[str, Any] = {"case": name, "n": n, "note": _failure(rows)}
    for column in ("accuracy", "loss"):
        values = values_of(rows, column)
        found[column] = mean(values) if values else None
        found[f"{column}_sd"] = stdev(values) if len(values) > 1 else None
    times = {key: _middle(rows, key) for key in ("epoch_time_s", "time_to_target_s")}
    return {**found, **times, "reached": f"{reached} of {n}" if n else ""}


def _ways(groups: Groups) -> Table:
    """The seconds per step of each way to call a model."""
    labels = {column: way.replace("_", " ") for way, column in WAYS.items()}
    labels |= {"fit_call_s": "fit call", "predict_call_s": "predict call"}
    kinds = {key: (label, "seconds") for key, label in labels.items()}
    return _columns("waterfall", headings(" ".join(kinds), **kinds), groups)


def _columns(task: str, columns: Sequence[Heading], groups: Groups) -> Table:
    """Medians over processes of columns of the schema."""
    records = [
        {
            **{one.key: _middle(rows, one.key) for one in columns},
            **{"case": name, "n": _count(rows), "note": _failure(rows)},
        }
        for name, rows in groups.items()
    ]
    whole = [*headings("case"), *columns, *headings("n note")]
    return table_of(task, task.capitalize(), "", whole, records, keep=["case"])


_OWN: Mapping[str, Callable[[Groups], Table]] = {"accuracy": _learned, "waterfall": _ways}
"""Of tasks whose table is more than the columns of their group."""


def cards(records: Sequence[Record]) -> list[Table]:
    """Return the table of one line per case that was measured on a GPU; none where none was.

    Figures are medians over processes. `fed` is the throughput of steps fed from host memory,
    `allocator` and `card` are the peaks of the memory in use as the framework's allocator and the
    driver see it; `clock lowered by` names every reason that any process has seen.
    """
    found = [
        _card_row(name, rows)
        for name, rows in by_case(records).items()
        if any(row.measured and row.gpu_samples for row in rows)
    ]
    columns = headings(
        "case sm memory temperature_c power busy efficiency input_bound_throughput_samples_per_s "
        "energy peak_device_memory_bytes card_peak_memory_bytes reasons",
        sm=("SM MHz", "figure", "MHz"),
        memory=("memory MHz", "figure", "MHz"),
        temperature_c=("degrees C", "whole", "degrees Celsius"),
        power=("card W", "figure", "W"),
        busy=("busy", "figure"),
        efficiency=("of ceiling", "share"),
        input_bound_throughput_samples_per_s=("fed samples/s", "rate"),
        energy=("card mJ/sample", "figure", "mJ/sample"),
        peak_device_memory_bytes=("allocator", "bytes"),
        card_peak_memory_bytes=("card", "bytes"),
        reasons="clock lowered by",
    )
    return [table_of("cards", "GPUs", "", columns, found, keep=["case"])] if found else []


def _card_row(name: str, rows: Sequence[Record]) -> dict[str, Any]:
    medians = ("temperature_c", "efficiency", "input_bound_throughput_samples_per_s",
               "peak_device_memory_bytes", "card_peak_memory_bytes")  # fmt: skip
    busy, energy_j = _middle(rows, "gpu_utilisation"), _middle(rows, "joules_per_sample")
    told = values_of(rows, "throttle_reasons")
    reasons = dict.fromkeys(one for text in told for one in text.split() if one != "none")
    return {
        **{column: _middle(rows, column) for column in medians},
        "case": name,
        "sm": _of_most(rows, "sm_clock_mhz", "max_sm_clock_mhz"),
        "memory": _of_most(rows, "memory_clock_mhz", "max_memory_clock_mhz"),
        "power": _of_most(rows, "power_w", "power_limit_w"),
        "busy": None if busy is None else load_text(busy),
        "energy": None if energy_j is None else f"{1000 * energy_j:.3g}",
        "reasons": " ".join(reasons) or ("none" if any(told) else ""),
    }


def _of_most(rows: Sequence[Record], column: str, limit: str) -> str:
    """Return what was reached, and beside it the most that the card can, where that is known."""
    value, most = _middle(rows, column), _middle(rows, limit)
    if value is None:
        return ""
    return f"{value:.0f}" + ("" if most is None else f" of {most:.0f}")


def energy(records: Sequence[Record]) -> list[Table]:
    """Return the energy of each case and scope where the CPU packages' was measured, else none."""
    measured = [row for row in records if row.cpu_joules_per_sample is not None]
    columns = ("throughput_samples_per_s", "cluster", *ENERGY_COLUMNS)
    found = [
        {**one, "case": name, "n": _count(rows)}
        for name, rows in by_case(measured).items()
        for one in of_scopes({column: _middle(rows, column) for column in columns})
    ]
    whole = [*headings("case"), *ENERGY_HEADINGS, *headings("n")]
    return [table_of("energy", "Energy", "", whole, found, keep=["case"])] if found else []


def latency_limit(records: Sequence[Record]) -> list[Table]:
    """Return the rate at a latency limit of the cases it was searched for; none without."""
    found = [
        {**{one.name: getattr(row, one.name) for one in _AT_LIMIT}, "case": row.case.name}
        for row in records
        if row.latency_limit_s is not None
    ]
    columns = [*headings("case"), *map(Heading.of, _AT_LIMIT)]
    title = "At a latency limit"
    return [table_of("latency_limit", title, "", columns, found, keep=["case"])] if found else []


def sustained(records: Sequence[Record]) -> list[Table]:
    """Return what became of the speed of cases whose steps went on; none where none did."""
    found = [
        {**{one.name: getattr(row, one.name) for one in _SUSTAINED}, "case": row.case.name,
         "burst": row.throughput_samples_per_s}
        for row in records
        if row.sustained_s is not None
    ]  # fmt: skip
    first = headings("case burst", burst=("burst samples/s", "rate"))
    columns = [*first, *map(Heading.of, _SUSTAINED)]
    caption = "drop is of the later level of the intervals below the earlier one, not below burst"
    whole = table_of("sustained", "Sustained", caption, columns, found, keep=["case"])
    return [whole] if found else []


def _over_cores(records: Sequence[Record]) -> list[Table]:
    """Return the table of the numbers of threads; none where no case has several."""
    timed = [row for row in records if row.measured and row.task in TIMED_TASKS]
    rows = [{**asdict(row), "case": replace(row.case, threads="default").name} for row in timed]
    found = cores([{**row, "source": 0} for row in rows], itemgetter("case"))
    return [replace(found, caption="")] if found.rows else []
