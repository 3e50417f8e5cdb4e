"""Time per layer of a case: the table, and the bars in the order of execution as an SVG."""

from __future__ import annotations

import contextlib
import html
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convmark.core.errors import StoreError
from convmark.core.files import as_store_error, write_whole
from convmark.core.interval import share_of, signed_percent
from convmark.core.table import Table, headings, table_of
from convmark.core.text import counted, load_text, seconds_text, share_text
from convmark.report.describe import (
    FOLDER,
    DescribedModel,
    description_path,
    diagram,
    read_description,
)
from convmark.results.names import read_name
from convmark.results.reading import read_run
from convmark.results.record import Record, large_load
from convmark.session.layers import REST, LayerRow, layers_of, layers_path, read_layers
from convmark.session.remedies import CHANNELS, FEWEST_ROUNDS, VARIANTS, Remedy, Tried

if TYPE_CHECKING:
    from markupsafe import Markup

TOP = 20
"""Layers of the printed table."""

MOST_POINTS = 0.10
"""Of the step, by which a layer's share, forward, and the profiler's may differ without a doubt."""
MOST_OF_ONE = 0.9
"""Of the forward time of all layers, from which on a single group agrees with any profiler."""
ABOVE = 1.2
"""Of the measured peak; convolutions and that peak vary by some per cent."""
NAME = 40
"""Characters of a name in a printed table and beside a bar; the file has all."""
ROW, LEFT, WIDTH, RIGHT = 18, 260, 420, 130
"""Pixels: a bar's height with its gap, the names' width, the longest bar, the figures' width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseLayers:
    """The layers of one case of a report."""

    model: str
    title: str
    rows: Sequence[LayerRow]
    table: Table
    described: DescribedModel | None = None

    @property
    def connected(self) -> Markup | None:
        """The described model's diagram with these times, every text in it escaped."""
        from markupsafe import Markup

        if self.described is None:
            return None
        return Markup(diagram(self.model, self.described.layers, self.rows))

    @property
    def diagram(self) -> Markup:
        """The bars of the slowest as an SVG element, every text in it escaped."""
        from markupsafe import Markup

        return Markup(bars(self.rows, TOP))


def newest_layers(
    runs: Sequence[Path], described: Iterable[DescribedModel] = ()
) -> list[CaseLayers]:
    """Return the layers of each case, of those that ran what the rows of its newest run ran.

    Args:
        runs: the files of a report's runs, those of a machine oldest first.
        described: models whose diagram the times are drawn in.
    """
    found = []
    for folder in dict.fromkeys(path.resolve().parent for path in runs):
        wanted = {rows[0].case for rows in read_layers(layers_path(folder))}
        for path in reversed([path for path in runs if path.resolve().parent == folder]):
            if not wanted:
                break
            records = [row for row in read_run(path) if row.asked_case.name in wanted]
            wanted -= {row.asked_case.name for row in records if row.measured}
            found += [(folder, rows) for rows in layers_of(records, layers_path(folder))]
    models = {one.model: one for one in described}
    return [_case_layers(folder, rows, models.get(rows[0].model)) for folder, rows in found]


def _case_layers(
    folder: Path, rows: Sequence[LayerRow], described: DescribedModel | None
) -> CaseLayers:
    first = rows[0]
    title = f"{first.case} on {read_name(folder) or first.machine}"
    table = replace(layers_table(rows, TOP), key=f"layers-{first.machine}-{first.case}")
    return CaseLayers(model=first.model, title=title, rows=rows, table=table, described=described)


def layers_tables(
    records: Iterable[Record], machine_folder: Path, top: int | None = TOP
) -> list[Table]:
    """Return the table of each case of a run whose layers ran what its rows ran."""
    found = layers_of(records, layers_path(machine_folder))
    return [layers_table(rows, top) for rows in found]


def layers_table(rows: Sequence[LayerRow], top: int | None = None) -> Table:
    """Return the slowest layers of one case, the slowest first, and the rest.

    Args:
        top: how many layers of a printed table, whose interval is a text; None for all, in the
            order of execution, with the interval's ends as numbers.
    """
    layers = [row for row in rows if row.layer != REST]
    shown = layers if top is None else sorted(layers, key=lambda row: -row.time_s)[:top]
    step_s, first = rows[0].step_s, rows[0]
    trains = any(row.forward_s not in (None, row.time_s) for row in layers)
    records = [_record(row) for row in [*shown, *(row for row in rows if row.layer == REST)]]
    if top is not None:  # one long name would put the names of all in a list below the table
        records = [{**one, "layer": _short(str(one["layer"]))} for one in records]
    beside = ""
    if left_out := len(layers) - len(shown):
        others_s = sum(row.time_s for row in layers) - sum(row.time_s for row in shown)
        beside = f"; the other {left_out} take {share_text(others_s / step_s)}"
    of_forward = [
        words
        for key, words in (("flops_per_s", "FLOP/s"), ("of_peak", "the share of the peak"))
        if any(one[key] is not None for one in records)
    ]
    forward = f"The forward pass alone counts for {' and '.join(of_forward)}. "
    interval = "The interval is at 95 %. "
    caption = (
        f"{first.case}: step time {seconds_text(step_s)} in {counted(first.sessions, 'session')}, "
        f"measured {first.measured[:16].replace('T', ' ')} UTC; all layers and the rest sum to "
        f"it{beside}. Numbers are the order of execution. "
        f"{interval * any(one['interval'] for one in records)}{forward * bool(of_forward)}"
        f"The rest: dispatch, fusion over layers{', loss, update' if trains else ''}."
        f"{_agreement(rows)}{_doubts(rows)}{_load(first.other_cpu_share)}"
    )
    ends = "time_low_s time_high_s" if top is None else "interval"
    checked = top is None and any(row.profiled_share is not None for row in rows)
    columns = headings(
        f"place layer kind shape time_s {ends} share {'forward_s backward_s' * trains} "
        f"{'profiled_share' * checked} flops_per_s of_peak moved_bytes bound note",
        place=("number", "count"),
        shape="output shape",
        time_s=("time", "seconds"),
        time_low_s=("interval from", "seconds"),
        time_high_s=("to", "seconds"),
        share=("share", "share"),
        forward_s=("forward", "seconds"),
        backward_s=("backward", "seconds"),
        profiled_share=("forward, by the profiler", "share"),
        flops_per_s=("FLOP/s", "flops_rate"),
        of_peak=("of peak", "share"),
        moved_bytes=("bytes", "bytes"),
        bound="bound by",
    )
    return table_of(
        f"layers-{first.case}", f"Time per layer of {first.case}", caption, columns, records
    )


def _agreement(rows: Sequence[LayerRow]) -> str:
    """Return how the forward pass's shares of the step and those of a profiler agree, as a sentence
    after others; empty where no profiler has told two groups apart. Some may be fused.

    By a profiler the layers take as much of the step as here: it knows what they take of each
    other. Of layers that hardly take any, small differences are large shares of each other.
    """
    groups: list[list[LayerRow]] = []
    for row in rows[:-1]:
        if row.profiled_share is not None:
            groups.append([])
        for group in groups[-1:]:
            group.append(row)
    parts_s = [sum(row.forward_s or 0.0 for row in group) for group in groups]
    if len(groups) < 2 or (total_s := sum(parts_s)) <= 0:
        return ""
    step_s = rows[0].step_s
    shares = [
        (part_s / step_s, (group[0].profiled_share or 0.0) * total_s / step_s, group)
        for part_s, group in zip(parts_s, groups, strict=True)
    ]
    ours, theirs, group = max(shares, key=lambda one: abs(one[0] - one[1]))
    name = " to ".join(dict.fromkeys(_short(row.layer) for row in (group[0], group[-1])))
    furthest = f"furthest: {name}, {share_text(ours)} here and {share_text(theirs)} by it"
    if abs(ours - theirs) > MOST_POINTS:
        return (
            " In doubt: the framework's profiler finds other shares of the step, forward; "
            f"{furthest}."
        )
    points = math.ceil(round(100 * abs(ours - theirs), 6))
    most = max(parts_s) / total_s
    little = f" One group takes {share_text(most)} of all layers, so that this proves little."
    return (
        f" Shares of the step, forward, are within {counted(points, 'point')} of those by the "
        f"framework's profiler; {furthest}.{little * (most >= MOST_OF_ONE)}"
    )


def _doubts(rows: Sequence[LayerRow]) -> str:
    """Return why times are below 0 or too short, as sentences after others; empty where none is."""
    *layers, rest = rows
    times_s = (
        [row.time_s, forward := row.forward_s or 0.0, row.time_s - forward] for row in layers
    )
    below = sum(min(one) < 0 for one in times_s)
    noise = f" {counted(below, 'layer')} with a time below 0: the noise is larger." if below else ""
    if above := sum((row.of_peak or 0) > ABOVE for row in layers):
        noise += (
            f" {counted(above, 'layer')} above the measured peak: by noise, or an algorithm of "
            "fewer multiplications (Winograd)."
        )
    apart = (
        " A rest below 0: the layers took longer one after another than in the step, which may run "
        "branches at the same time, or other programs disturbed them."
    )
    is_noise = rest.time_high_s is not None and rest.time_high_s >= 0
    return noise + apart * (rest.time_s < 0 and not is_noise)


def _load(share: float | None) -> str:
    """Return how busy other programs kept the CPUs, as a sentence after others; empty if little."""
    load = large_load([share])
    return f" Other programs took {load_text(load)} of the CPUs' time." if load else ""


def _short(name: str) -> str:
    """Return a name of at most `NAME` characters: its beginning and its end."""
    kept = NAME // 2
    return name if len(name) <= NAME else f"{name[: NAME - kept - 1]}…{name[-kept:]}"


def _record(row: LayerRow) -> dict[str, object]:
    forward_s = row.time_s if row.forward_s is None else row.forward_s
    known = row.flops and forward_s > 0
    ends = (row.time_low_s, row.time_high_s)
    interval = "" if None in ends else " to ".join(seconds_text(end or 0.0) for end in ends)
    return {
        "place": row.place,
        "layer": row.layer,
        "kind": row.kind,
        "shape": row.shape,
        "time_s": row.time_s,
        "interval": interval,
        "time_low_s": row.time_low_s,
        "time_high_s": row.time_high_s,
        "share": row.share,
        "forward_s": row.forward_s,
        "backward_s": None if row.forward_s is None else row.time_s - row.forward_s,
        "profiled_share": row.profiled_share,
        "flops_per_s": row.flops / forward_s if known and row.flops else None,
        "of_peak": row.of_peak,
        "moved_bytes": row.moved_bytes,
        "bound": row.bound,
        "note": row.note,
    }


def remedies_table(tried: Tried, sure: Sequence[Remedy]) -> Table:
    """Return the step of a case, and what each setting does to it, the best first.

    Args:
        sure: the settings that make it faster, by those of all cases of the command.
    """
    columns = headings(
        "option step_time_s change interval helps",
        option="setting",
        step_time_s=("step time", "seconds"),
        change="change",
        helps="faster",
    )
    records: list[dict[str, object]] = [{"option": "as it is", "step_time_s": tried.step_s}]
    records += [
        {
            "option": one.option,
            "step_time_s": one.step_s,
            "change": signed_percent(share_of(one.change)),
            "interval": one.interval.shares().words,
            "helps": "yes" if one in sure else "not for sure",
        }
        for one in sorted(tried.remedies, key=lambda one: one.change)
    ]
    other = " Other channels make another network, which has to be trained anew." * any(
        one.option == VARIANTS[CHANNELS] for one in tried.remedies
    )
    few = (
        f" Fewer than {FEWEST_ROUNDS} processes tell no interval, so none is marked faster: give "
        f"--processes {FEWEST_ROUNDS} or more."
    ) * any(not one.interval.known for one in tried.remedies)
    caption = (
        f"{tried.case}: the whole step with other settings, in turns with its own settings, "
        "each in fresh processes. The interval of the change is at 95 %. All that is marked "
        "faster in this command is so at 95 % (Holm's correction for several comparisons). "
        "The step time of a setting is that of the case changed by so much. A lower "
        "precision also changes the outputs of the model; `convmark run --tasks "
        f"accuracy` measures that.{few}{other}{_load(tried.other_cpu_share)}"
    )
    return table_of(
        f"settings-{tried.case}", f"Settings for {tried.case}", caption, columns, records
    )


def bars(rows: Sequence[LayerRow], top: int | None = None) -> str:
    """Return an SVG: one bar per layer in the order of execution, and one of the rest.

    A bar begins where the one before it ends, so that all of them together are the step; one that
    takes less than nothing goes back.

    Args:
        top: how many layers have a bar, the slowest ones; the others leave a gap. None for all.
    """
    layers = sorted(rows[:-1], key=lambda row: -row.time_s)[:top]
    shown = {row.place for row in [*layers, rows[-1]]}
    height, width = ROW * len(shown) + 10, LEFT + WIDTH + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{html.escape(f'Time per layer of {rows[0].case}')}</title>",
    ]
    borders_s = list(itertools.accumulate((row.time_s for row in rows), initial=0.0))
    scale = WIDTH / (max(borders_s) - min(borders_s))
    for row, begin_s in zip(rows, borders_s, strict=False):
        if row.place in shown:
            left = LEFT + scale * (min(begin_s, begin_s + row.time_s) - min(borders_s))
            parts.append(_bar(len(parts) - 2, row, left, scale * abs(row.time_s)))
    return "\n".join([*parts, "</svg>"])


def keep_bars(machine_folder: Path, rows: Sequence[LayerRow]) -> list[Path]:
    """Write the bars of a case beside the descriptions of models; return the files.

    Where its model is described its diagram has the times too.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", rows[0].case)[:120]
    drawn = {machine_folder / FOLDER / f"{stem}.layers.svg": bars(rows)}
    with contextlib.suppress(StoreError):  # there is none, or it does not fit, as a report says
        model = read_description(description_path(machine_folder, rows[0].model))
        if model.model == rows[0].model:
            connected = diagram(model.model, model.layers, rows)
            drawn[machine_folder / FOLDER / f"{stem}.diagram.svg"] = connected
    for path, text in drawn.items():
        with as_store_error(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, f"{text}\n".encode())
    return list(drawn)


def bars_words(machine_folder: Path, rows: Sequence[LayerRow]) -> str:
    """Write the bars of a case as `keep_bars` does; say where they are, or why there are none."""
    try:
        return f"drawn in {' and '.join(map(str, keep_bars(machine_folder, rows)))}"
    except StoreError as error:
        return f"not drawn: {error}"


def _bar(place: int, row: LayerRow, left: float, width: float) -> str:
    top = 5 + ROW * place
    name = _short(row.layer)
    figures = f"{seconds_text(row.time_s)}, {share_text(row.share)}"
    return (
        f'<text x="{LEFT - 6}" y="{top + 11}" text-anchor="end" fill="currentColor">'
        f"{html.escape(name)}<title>{html.escape(row.layer)}</title></text>"
        f'<rect x="{left:.1f}" y="{top}" width="{max(1.0, width):.1f}" height="{ROW - 4}" '
        f'fill="currentColor" opacity="{0.35 if row.layer == REST else 0.75}"/>'
        f'<text x="{LEFT + WIDTH + 6}" y="{top + 11}" fill="currentColor">{figures}</text>'
    )
