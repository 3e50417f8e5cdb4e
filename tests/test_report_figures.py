"""Figures as specifications: what they draw, and that sessions are drawn from plain numbers."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from report_rows import HOSTILE, SLOW, keep_run, measured, results_of_two_machines
from rich_rows import rich_results

from convmark.core.errors import MeasurementError
from convmark.core.interval import Interval
from convmark.core.table import headings, table_of
from convmark.report.build import build
from convmark.report.figures import drawn, figures_of
from convmark.report.figures.figure import (
    MOST_OF_TITLE,
    PALETTE,
    UNKNOWN,
    Figure,
    drawn_svg,
    figure_rows,
    painted,
    slots_of,
    whole_spec,
)
from convmark.report.figures.sessions import CONTROL, sessions_spec
from convmark.report.rows import points, read_rows
from convmark.report.tables import markdown_text, terminal_text
from convmark.report.tables.scaling import scaling
from convmark.report.tables.steps import roofline

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    report = build([results_of_two_machines(tmp_path_factory.mktemp("figures"))])
    return {figure.key: figure for figure in figures_of(report.tables)}


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def marks(svg: str, role: str) -> list[str]:
    """Return what a screen reader is told of each mark of a kind."""
    return [
        node.get("aria-label") or ""
        for node in ET.fromstring(svg).iter()
        if node.get("aria-roledescription") == role
    ]


def test_every_table_with_a_figure_has_one_where_its_rows_do(figures: dict[str, Figure]) -> None:
    assert list(figures) == [
        "architectures",
        "hardware",
        "history",
        "batch",
        "distribution",
        "pareto",
    ]


def test_a_specification_holds_no_numbers_of_its_own(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        for spec in figure.specs:
            assert "data" not in spec
            assert "The table below the figure has its numbers." in spec["description"]
            json.dumps(spec)


def test_rows_carry_each_number_as_the_table_prints_it(figures: dict[str, Figure]) -> None:
    table = figures["hardware"].table
    for row, printed in zip(figure_rows(table), table.texts(), strict=True):
        for heading, text in zip(table.headings, printed, strict=True):
            assert row[f"{heading.key}_text" if heading.numeric else heading.key] == text


def test_a_case_that_one_machine_alone_has_is_not_drawn(figures: dict[str, Figure]) -> None:
    figure = figures["hardware"]
    assert not any(row["model"] == "mini_resnet" for row in figure.table.records())
    chosen = [row for row in figure_rows(figure.table)  # as a reader of a page may choose rows
              if (row["model"], row["hardware"]) != ("lenet5", f"{SLOW} cpu")]  # fmt: skip
    svg = drawn_svg(whole_spec(figure.specs[0], chosen))
    assert f"{HOSTILE} train b32" in texts(svg)
    assert "lenet5 train b32" not in texts(svg)
    assert not [label for label in marks(svg, "point") if "lenet5 train" in label]


def test_a_choice_draws_its_rows_alone(figures: dict[str, Figure]) -> None:
    figure = figures["history"]
    assert len(figure.choices) == 9
    rows = [row for row in figure_rows(figure.table) if row["case"] == figure.choices[0]]
    svg = drawn_svg(whole_spec(figure.specs[0], rows))
    assert len(marks(svg, "point")) == 6  # four runs of one machine, two of the other


def test_the_axis_of_the_history_is_even_and_in_the_order_of_the_runs(
    figures: dict[str, Figure],
) -> None:
    figure = figures["history"]
    rows = [row for row in figure_rows(figure.table) if row["case"] == figure.choices[0]]
    rows = [row for row in rows if row["hardware"] == f"{SLOW} cpu"]
    days = ("2026-01-01", "2026-01-02", "2026-12-01", "2026-12-02")
    for row, day, commit in zip(rows, days, ("b" * 12, "a" * 12, "a" * 12, ""), strict=True):
        row.update(started=f"{day} 15:00:00", commit=commit, level="1", level_s=0.01)
    svg = drawn_svg(whole_spec(figure.specs[0], rows))
    ticks = re.findall(
        r'translate\(([\d.]+),16\)".*?<tspan>(\w+)</tspan><tspan[^>]*>([\d.]+)<', svg
    )
    assert [(commit, version) for _, commit, version in ticks] == [
        ("bbbbbbbb", "2.20.0"), ("aaaaaaaa", "2.20.0"), ("aaaaaaaa", "2.21.0"),
        ("unknown", "2.21.0"),
    ]  # fmt: skip
    places = [float(place) for place, _, _ in ticks]
    steps = {round(after - before) for before, after in pairwise(places)}
    assert len(steps) == 1
    bars = re.findall(r'<line [^>]*stroke-width="7"', svg)
    assert len(bars) == len(ticks)  # one level, over all of them


def test_a_run_without_a_level_keeps_its_place_on_the_axis_of_the_history(
    figures: dict[str, Figure],
) -> None:
    figure = figures["history"]
    rows = [row for row in figure_rows(figure.table) if row["case"] == figure.choices[0]]
    rows = [row for row in rows if row["hardware"] == f"{SLOW} cpu"]
    for number, (row, commit) in enumerate(zip(rows, "dbca", strict=True)):
        row.update(commit=commit * 12, level="1" if number else "",
                   level_s=0.01 if number else None)  # fmt: skip
    svg = drawn_svg(whole_spec(figure.specs[0], rows))
    ticks = re.findall(r'translate\([\d.]+,16\)".*?<tspan>(\w+)</tspan>', svg)
    assert ticks == [letter * 8 for letter in "dbca"]
    line = re.search(r'aria-roledescription="line mark"[^>]*? d="M([^"]*)"', svg) or re.search(
        r' d="M([^"]*)"[^>]*aria-roledescription="line mark"', svg
    )
    assert line
    places = [float(point.split(",")[0]) for point in line[1].split("L")]
    assert places == sorted(places)
    assert len(places) == 4


def test_what_a_layer_leaves_out_changes_no_order() -> None:
    """A case of too few processes for an interval keeps its line."""
    records = [
        {"model": model, "task": "train", "batch_size": 1, "hardware": hardware, "speedup": 1.5,
         "low": None if model == "zeta" else 1.4, "high": None if model == "zeta" else 1.6}
        for model in ("zeta", "beta", "eta")
        for hardware in ("one", "two")
    ]  # fmt: skip
    columns = headings(
        "model task batch_size hardware speedup low high",
        speedup=("speed-up", "ratio"), low=("interval from", "ratio"), high=("to", "ratio"),
    )  # fmt: skip
    (figure,) = figures_of([table_of("hardware", "Hardware", "", columns, records)])
    found = texts(drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table))))
    named = [text for text in found if text.endswith("train b1")]
    assert named == ["zeta train b1", "beta train b1", "eta train b1"]


def test_threads_are_in_order_though_the_first_case_lacks_some() -> None:
    threads = {"a": ("1", "8", "default (4)"), "b": ("1", "2", "4", "8", "16", "default (16)")}
    records = [
        {"series": case, "threads": number, "efficiency": 0.9}
        for case, numbers in threads.items()
        for number in numbers
    ]
    columns = headings("series threads efficiency", series="case", threads=("threads", "figure"))
    (figure,) = figures_of([table_of("cores", "Cores", "", columns, records)])
    found = texts(drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table))))
    named = [text for text in found if text in threads["a"] + threads["b"]]
    assert named == ["1", "2", "4", "default (4)", "8", "16", "default (16)"]


def test_roofline_and_scaling_are_drawn_where_rows_know_enough(tmp_path: Path) -> None:
    frame = read_rows([results_of_two_machines(tmp_path)]).frame
    known = frame.copy().assign(peak_flops_per_s=1e12, peak_bytes_per_s=1e10, bytes_per_sample=1e5,
                                training_flops_per_sample=3e6)  # fmt: skip
    one = known[known["run"] == "0002"].copy()
    two = one.assign(replicas=2.0, case=one["case"].astype(str) + "-r2")
    both = type(one)({name: [*one[name], *two[name]] for name in one})
    tables = [roofline(points(known), {}), scaling(points(both), both)]
    drawn = {figure.key: figure for figure in figures_of(tables)}
    assert list(drawn) == ["roofline", "scaling"]
    figure = drawn["roofline"]
    rows = [
        row for row in figure_rows(figure.table) if row["group"] == figure.table.column("group")[0]
    ]
    svg = drawn_svg(whole_spec(figure.specs[0], rows))
    assert len(marks(svg, "point")) == len(rows)
    figure = drawn["scaling"]
    assert set(figure.table.column("efficiency")) == {1, 0.5}
    svg = drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table)))
    assert {"40 %", "100 %"} <= set(texts(svg))


def test_an_efficiency_of_replicas_is_drawn_with_its_interval_and_in_a_ring_under_load() -> None:
    shares = {name: (name, "share") for name in ("efficiency", "low", "high")}
    columns = headings("series replicas efficiency low high load", series="case", **shares)
    known = {"efficiency": 0.9, "low": 0.8, "high": 1.0}
    records = [
        {"series": "a", "replicas": 1, "efficiency": 1.0},
        {"series": "a", "replicas": 2, **known},
        {"series": "a", "replicas": 4, **known, "load": 0.5},
    ]
    (figure,) = figures_of([table_of("scaling", "Scaling", "", columns, records)])
    svg = drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table)))
    assert len(marks(svg, "rule mark")) == 2
    assert len(marks(svg, "point")) == 3 + 1
    assert "replicas; in a ring: under other load" in texts(svg)


# The sessions of a lock-step comparison

SESSIONS = [(middle, Interval.around(middle, 0.02)) for middle in (0.05, 0.06, 0.04)]
SAME = [(middle, Interval.around(middle, 0.01)) for middle in (0.001, -0.002, 0.0)]


def test_sessions_are_drawn_with_intervals_band_and_control() -> None:
    spec = sessions_spec(
        SESSIONS, interval=Interval(0.03, 0.07), control=SAME, title="lenet5, B / A"
    )
    svg = drawn_svg(spec)
    assert {"lenet5, B / A", "session", "change of the step time (%)", CONTROL} <= set(texts(svg))
    points_ = marks(svg, "point")
    assert len(points_) == 6
    assert any("session: 2" in label and "change of the step time (%): 6" in label
               for label in points_)  # fmt: skip
    kinds = [label for label in points_ if CONTROL in label]
    assert len(kinds) == 3
    assert "+3.0 % to +7.0 %" in json.dumps(sessions_spec(SESSIONS, interval=Interval(0.03, 0.07)))


def test_a_band_and_a_control_are_drawn_only_where_they_are_given() -> None:
    def layers(**more: Any) -> list[str]:
        spec = sessions_spec(SESSIONS, **more)
        return [layer["mark"]["type"] for layer in spec["layer"]]

    assert layers() == ["rule", "rule", "point"]
    assert layers(interval=Interval(0.0, 0.1)) == ["rect", "rule", "rule", "point"]
    assert CONTROL not in texts(drawn_svg(sessions_spec(SESSIONS)))


def test_a_title_longer_than_a_figure_is_wide_takes_several_lines() -> None:
    title = "lenet5-infer-cpu-b32-float32: inconclusive, -21.1 %; " + "; ".join(
        f"{side}: tensorflow==2.2{number}.*" for number, side in enumerate("BA")
    )
    assert len(title) > MOST_OF_TITLE
    lines = sessions_spec(SESSIONS, title=title)["title"]
    assert " ".join(lines) == title
    assert max(map(len, lines)) <= MOST_OF_TITLE
    assert sessions_spec(SESSIONS, title="short")["title"] == "short"


def test_no_session_is_refused() -> None:
    with pytest.raises(MeasurementError, match="needs at least one session, got none"):
        sessions_spec([])


def test_a_label_of_an_axis_has_no_more_digits_than_a_table(tmp_path: Path) -> None:
    keep_run(tmp_path, [measured(SLOW, 1, "lenet5", number, step_s=0.0100032) for number in (1, 2)])
    (svg, *_) = drawn(figures_of(build([tmp_path]).tables), most=1)
    assert "10 ms" in texts(svg)


def test_what_marks_mean_is_said_beside_a_figure_alone(tmp_path: Path) -> None:
    tables = build([results_of_two_machines(tmp_path)]).tables
    text = f"{terminal_text(tables)} {markdown_text(tables)}"
    assert not re.findall(r"\b(?:axis|bar|dashed|triangle|diamond|tick|large points?)\b", text)
    told = {figure.key: str(figure.specs[0]["description"]) for figure in figures_of(tables)}
    assert "the purple triangle p95" in told["distribution"]
    assert "a dashed line a change point" in told["history"]


def labels_of(figure: Figure) -> list[str]:
    svg = drawn_svg(whole_spec(figure.specs[0], figure_rows(figure.table)))
    return [text for text in texts(svg) if re.fullmatch(r"[\d.]+( %| [mu]?s)?", text)]


def test_labels_of_a_narrow_axis_of_shares_differ() -> None:
    records = [
        {"model": name, "group": "g", "step_time_p50_s": step_s, "top_1": top_1, "front": ""}
        for name, step_s, top_1 in (("a", 0.02, 0.704), ("b", 0.03, 0.713))
    ]
    columns = headings(
        "model group step_time_p50_s top_1 front", top_1=("top-1, published", "share")
    )
    table = table_of("published", "Published", "", columns, records, keep=["front"])
    found = [text for text in labels_of(figures_of([table])[0]) if text.endswith(" %")]
    assert len(found) == len(set(found)) > 2
    assert "70.6 %" in found


def test_a_wide_axis_of_seconds_has_labels_at_1_2_and_5_in_the_units_of_the_tables() -> None:
    records = [
        {
            "model": name,
            "task": "infer",
            "batch_size": 1,
            "hardware": "h",
            "step_time_p50_s": step_s,
        }
        for name, step_s in (("a", 0.0004), ("b", 0.090))
    ]
    columns = headings("model task batch_size hardware step_time_p50_s")
    table = table_of("architectures", "Architectures", "", columns, records)
    found = labels_of(figures_of([table])[0])
    assert {"500 us", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"} <= set(found)


def test_a_spread_of_more_than_the_step_time_leaves_the_others_where_they_are() -> None:
    """Half the range of a slow process may be many times the median, of which no scale is drawn."""
    records = [
        {"model": name, "task": "infer", "batch_size": 1, "hardware": "m cpu",
         "step_time_p50_s": step_s, "spread": spread}
        for name, step_s, spread in (("a", 0.001, 4.4), ("b", 0.02, 0.1))
    ]  # fmt: skip
    columns = headings("model task batch_size hardware step_time_p50_s spread")
    table = table_of("architectures", "Architectures", "", columns, records)
    assert {"1 ms", "2 ms", "5 ms", "10 ms", "20 ms"} <= set(labels_of(figures_of([table])[0]))


def test_a_value_has_one_colour_and_shape_wherever_it_is_drawn(tmp_path: Path) -> None:
    figures_ = figures_of(build([rich_results(tmp_path)]).tables)
    slots, seen = slots_of(figures_), {}
    assert {"hardware", "model", "series", "framework"} <= set(slots)
    drawings_ = [
        (spec, rows)
        for figure in figures_
        for spec in figure.specs
        for rows in figure.drawings().values()
    ]
    for spec, rows in drawings_:
        for field, looks in looks_of(painted(spec, rows, slots)).items():
            assert set(looks) == {row[field] or UNKNOWN for row in rows}
            most = len(PALETTE) if field == "framework" else len(looks)  # it has no shape
            assert len(set(looks.values())) == min(len(looks), most)
            for value, look in looks.items():
                assert seen.setdefault((field, value), look) == look, (field, value)


def looks_of(spec: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return by field colour and shape of each value, as a specification has them."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for part in spec.values() if isinstance(spec, dict) else spec:
        if isinstance(part, (dict, list)):
            found |= looks_of(part)
    channels = [spec.get(name) for name in ("color", "shape")] if isinstance(spec, dict) else []
    for one in channels:
        if isinstance(one, dict) and one.get("field", "judged") not in ("judged", "part"):
            looks = found.setdefault(one["field"], {})
            for value, look in zip(one["scale"]["domain"], one["scale"]["range"], strict=True):
                looks[value] = (*looks.get(value, ()), look)
    return found
