"""Time per layer: how pieces are solved for layers, sessions for rows, and how a model is cut."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.interpreter import Answer
from convmark.machine.hardware import read_machine
from convmark.report.tables.layers import LEFT, WIDTH, bars, layers_table
from convmark.results.commit import Commit
from convmark.session.ceilings import Ceiling
from convmark.session.facts import facts_of
from convmark.session.layers import (
    LAYERS_TABLE,
    REST,
    combined,
    layers_path,
    measure_layers,
    read_layers,
    why_no_layers,
)
from convmark.worker.layer_passes import Pass
from convmark.worker.layers import ROUNDED, ROUNDED_LOW, Heads, agree, solved

CASE = Case(model="lenet5", task="infer", batch_size=32)
CEILING = Ceiling(
    measured="2026-01-02T03:04:05+00:00",
    device="cpu",
    backend="tensorflow",
    precision="float32",
    threads="default",
    version="2.21.0",
    matrix_size=2048,
    peak_flops_per_s=1e9,
    copy_bytes=1 << 28,
    peak_bytes_per_s=1e8,
)


KNOWN = {"measured": "now", "version": "2.21.0", "machine": "box", "ran": "0" * 16}


STEPS_S = (1.0, 1.0, 1.0)


def heads(times_s: dict[tuple[int, int], float], *cuts_s: float) -> Heads:
    found = Heads()
    for error in (-1e-3, 0.0, 1e-3):
        for number, (place, seconds) in enumerate(times_s.items()):
            found.add(number, Pass({place: seconds + error}, {}, list(cuts_s)))
    return found


def test_a_layer_takes_what_it_adds_and_a_cut_is_taken_off_once_a_span() -> None:
    times_s = {(0, 1): 0.5, (1, 3): 0.7, (0, 2): 0.75, (2, 3): 0.35, (0, 3): 1.0}
    one_span, borders = [[(0, 1), (1, 2), (2, 3)]], {0, 2}  # unit 1 is fused: no border
    rows, cut_s = solved(heads(times_s), STEPS_S, one_span, borders)
    assert cut_s == pytest.approx(0.1)
    assert rows == pytest.approx([0.4, 0.25, 0.25])
    rows, _ = solved(heads(times_s), STEPS_S, [[(0, 2), (2, 3)]], borders)
    assert rows == pytest.approx([0.65, 0.25])
    clocked = heads(times_s, 0.04, 0.06, 0.05)
    timed, cut_s = solved(clocked, STEPS_S, [[(0, 1), (1, 2)], [(2, 3)]], {0, 2})
    assert cut_s == pytest.approx(0.05)
    assert timed == pytest.approx([0.45, 0.25, 0.3])


def test_short_pieces_tell_a_row_better_than_long_ones() -> None:
    times_s = {(0, 1): 9.1, (1, 3): 0.3, (0, 2): 9.3, (2, 3): 0.2, (0, 3): 9.1}
    rows, cut_s = solved(heads(times_s), STEPS_S, [[(0, 1), (1, 2), (2, 3)]], {0, 1, 2})
    assert cut_s == pytest.approx(0.35)
    rows, _ = solved(heads(times_s, 0.1), STEPS_S, [[(0, 1), (1, 2), (2, 3)]], {0, 1, 2})
    assert rows[1:] == pytest.approx([0.1, 0.1], abs=1e-3)  # and not 0.2 and -0.2


def test_a_first_row_that_is_quicker_than_a_cut_changes_no_other() -> None:
    times_s = {(0, 1): 0.05, (1, 2): 0.8, (0, 2): 0.7, (2, 3): 0.6, (3, 4): 0.6, (2, 4): 1.05}
    spans = [[(0, 1), (1, 2)], [(2, 3), (3, 4)]]
    rows, cut_s = solved(heads(times_s), STEPS_S, spans, {0, 2, 3})  # unit 1 is fused
    assert cut_s == pytest.approx(0.15)
    assert rows == pytest.approx([0.0, 0.65, 0.45, 0.45])


def test_pieces_sum_to_the_step_times_the_ratio_of_a_pass_to_the_step_of_its_round() -> None:
    found = Heads()
    for disturbed in range(3):  # each pass somewhere
        seconds = {(one, one + 1): 2.0 if one == disturbed else 1.0 for one in range(3)}
        found.add(0, Pass(seconds, {}))
    assert sum(found.medians(STEPS_S).values()) == pytest.approx(4.0)
    for slower in (5.0, 5.0):  # a load of whole rounds
        found.add(0, Pass({(one, one + 1): slower * 4 / 3 for one in range(3)}, {}))
    assert sum(found.medians((*STEPS_S, 5.0, 5.0)).values()) == pytest.approx(4.0)


def unit(name: str, **more: Any) -> dict[str, Any]:
    facts = {"name": name, "kind": "Conv2D", "shape": [32, 8], "note": "", "span": 0}
    return {**facts, "flops": 10**6, "moved_bytes": 10**4, **more}


def session(step_s: float, *times_s: float, **more: Any) -> dict[str, Any]:
    units = [unit(f"conv{place}") for place, _ in enumerate(times_s)]
    return {"event": "layers", "step_s": step_s, "forward_s": list(times_s), "units": units, **more}


def rows_of(*sessions: dict[str, Any]) -> list[Any]:
    return combined(CASE, sessions, **KNOWN, ceiling=CEILING)


def test_layers_and_rest_sum_to_the_step_also_where_a_busy_machine_slows_a_session() -> None:
    rows = rows_of(session(1.0, 0.5, 0.3), session(2.0, 1.0, 0.6))
    assert [row.layer for row in rows] == ["conv0", "conv1", REST]
    assert [row.share for row in rows] == pytest.approx([0.5, 0.3, 0.2])
    assert sum(row.time_s for row in rows) == pytest.approx(rows[0].step_s)
    assert rows[0].time_low_s == rows[0].time_high_s == pytest.approx(0.75)


def test_a_layer_that_makes_the_one_before_it_faster_is_one_row_with_it() -> None:
    rows = rows_of(session(1.0, 0.5, -0.1, 0.2), session(1.0, 0.51, -0.11, 0.2))
    assert [row.layer for row in rows] == ["conv0 + conv1", "conv2", REST]
    assert (rows[0].share, rows[0].note) == (pytest.approx(0.4), "run as one")
    assert (rows[0].flops, rows[0].of_peak) == (2 * 10**6, pytest.approx(2e6 / 0.4 / 1e9))
    assert (rows[0].moved_bytes, rows[0].bound) == (None, None)
    unknown = session(1.0, 0.5, -0.1)
    unknown["units"][1]["flops"] = None
    assert (rows_of(unknown)[0].flops, rows_of(unknown)[0].of_peak) == (None, None)
    noisy = rows_of(session(1.0, 0.5, -0.1, 0.2), session(1.0, 0.4, 0.05, 0.2))
    assert len(noisy) == 4
    apart = session(1.0, 0.5, -0.1)
    apart["units"][1]["span"] = 1
    assert [row.layer for row in rows_of(apart)] == ["conv0", "conv1", REST]


def test_a_layer_is_bound_by_the_ceiling_that_is_lower_for_it() -> None:
    one = session(1.0, 0.01, 0.01)
    one["units"] = [unit("conv"), unit("relu", flops=0, moved_bytes=10**6)]
    conv, relu, _ = rows_of(one)
    assert (conv.of_peak, conv.bound) == (pytest.approx(0.1), "compute")
    assert (relu.of_peak, relu.bound) == (None, "memory")


def test_a_layer_of_another_precision_has_no_share_of_the_peak() -> None:
    one = session(1.0, 0.01, 0.01)
    one["units"] = [unit("conv", computes="float32"), unit("head", computes="float64")]
    conv, head, _ = rows_of(one)
    assert (conv.bound, conv.note) == ("compute", None)
    assert (head.of_peak, head.bound, head.note) == (None, None, "computes in float64")


def test_a_layer_above_the_peak_is_doubted() -> None:
    rows = rows_of(session(1.0, 1e-5, 0.5))
    caption = layers_table(rows, top=2).caption
    assert rows[0].of_peak is not None
    assert rows[0].of_peak > 1
    assert "1 layer above the measured peak: by noise, or an algorithm of fewer" in caption


def test_the_backward_pass_is_the_rest_of_a_training_layer() -> None:
    rows = rows_of(session(1.0, 0.1, 0.2, with_backward_s=[0.4, 0.5]))
    table = layers_table(rows)
    assert [row.time_s for row in rows] == pytest.approx([0.4, 0.5, 0.1])
    assert table.column("backward_s")[:2] == pytest.approx([0.3, 0.3])


def test_the_table_has_the_slowest_layers_first_and_the_rest_last() -> None:
    table = layers_table(rows_of(session(1.0, 0.1, 0.5, 0.2)), top=2)
    assert table.column("layer") == ["conv1", "conv2", REST]
    assert "the other 1 take 10.0 %" in table.caption
    assert "backward_s" not in [heading.key for heading in table.headings]


def test_the_interval_is_a_text_where_it_is_printed_and_two_numbers_elsewhere() -> None:
    rows = rows_of(session(1.0, 0.5), session(1.0, 0.25))
    keys = [heading.key for heading in layers_table(rows, top=1).headings]
    assert "interval" in keys
    assert "time_low_s" not in keys
    table = layers_table(rows)
    assert "interval" not in [heading.key for heading in table.headings]
    for key in ("time_low_s", "time_high_s"):
        assert table.column(key) == [getattr(row, key) for row in rows]
    assert table.column("time_low_s")[0] == pytest.approx(0.375 - 12.706 * 0.125, rel=1e-3)


def test_the_caption_explains_only_columns_that_are_shown() -> None:
    one = session(1.0, 0.5)
    known = layers_table(rows_of(one, one), top=1).caption
    assert "counts for FLOP/s and the share of the peak" in known
    assert "interval" in known
    one["units"] = [unit("conv", flops=None)]
    unknown = layers_table(rows_of(one), top=1).caption
    assert not re.search("FLOP|peak|interval", unknown)


def test_the_caption_says_what_a_time_below_0_and_other_load_are() -> None:
    sound = layers_table(rows_of(session(1.0, 0.5, 0.4)), top=2).caption
    assert not re.search("below 0|Other programs", sound)
    noisy = rows_of(session(1.0, 0.8, -0.002, 0.4))
    loaded = [replace(row, other_cpu_share=0.43) for row in noisy]
    caption = layers_table(loaded, top=2).caption
    assert "1 layer with a time below 0: the noise is larger. A rest below 0: the lay" in caption
    either = rows_of(session(1.0, 0.8, 0.3), session(1.0, 0.75, 0.24))
    assert either[-1].time_s < 0
    assert "A rest below 0" not in layers_table(either, top=2).caption  # its interval holds 0
    trained = rows_of(session(1.0, 0.5, -0.001, with_backward_s=[0.4, 0.1]))
    assert "2 layers with a time below 0" in layers_table(trained, top=2).caption
    assert caption.endswith("Other programs took 43 % of the CPUs' time.")


@pytest.mark.parametrize("lacks", [{"profiled_share"}, {"profiled_share", "other_cpu_share"}])
def test_a_file_of_earlier_columns_is_read(lacks: set[str], tmp_path: Path) -> None:
    path, rows = layers_path(tmp_path), rows_of(session(1.0, 0.5))
    LAYERS_TABLE.append(path, rows)
    lines = list(csv.reader(path.read_text().splitlines()))
    places = [place for place, name in enumerate(lines[0]) if name not in lacks]
    assert len(places) == len(lines[0]) - len(lacks)
    cut = [",".join(line[place] for place in places) for line in lines]
    path.write_text("\n".join([*cut, ""]))
    assert read_layers(path) == [rows]


def grouped(profiled: list[float], *times_s: float, groups: tuple[int, ...]) -> dict[str, Any]:
    """Return a session that a profiler has seen, with rows in groups."""
    one = session(1.0, *times_s, profiled=profiled)
    for facts, group in zip(one["units"], groups, strict=True):
        facts["group"] = group
    return one


def test_shares_are_held_to_those_of_the_profiler_group_by_group() -> None:
    rows = rows_of(grouped([3.0, 1.0], 0.5, 0.1, 0.2, groups=(0, 0, 1)))
    assert [row.profiled_share for row in rows] == [0.75, None, 0.25, None]
    caption = layers_table(rows, top=2).caption
    assert "are within 0 points of those by the framework's profiler; furthest: conv" in caption
    assert "profiled_share" not in [one.key for one in layers_table(rows, top=2).headings]
    assert layers_table(rows).column("profiled_share")[:3] == [0.75, None, 0.25]
    other = rows_of(grouped([4.0, 3.0, 3.0], 0.5, 0.1, 0.2, 0.2, groups=(0, 0, 1, 2)))
    words = "In doubt: the framework's profiler finds other shares of the step, forward; furthest: "
    words += "conv0 to conv1, 60.0 % here and 40.0 % by it."
    assert words in layers_table(other, top=2).caption
    little = rows_of(grouped([1.0, 3.0], 0.06, 0.06, groups=(0, 1)))  # 6 % of the step, not 3
    assert "are within 3 points of those" in layers_table(little, top=2).caption
    near = rows_of(grouped([0.364, 0.636], 0.3, 0.7, groups=(0, 1)))  # 6.4 points
    assert "are within 7 points of those" in layers_table(near, top=2).caption
    near = rows_of(grouped([0.304, 0.696], 0.3, 0.7, groups=(0, 1)))
    assert "are within 1 point of those" in layers_table(near, top=2).caption
    assert "proves little" not in layers_table(near, top=2).caption
    alone = rows_of(grouped([0.997, 0.003], 0.9, 0.0027, groups=(0, 1)))
    words = " by it. One group takes 99.7 % of all layers, so that this proves little."
    assert words in layers_table(alone, top=2).caption
    assert "profiler" not in layers_table(rows_of(session(1.0, 0.5)), top=2).caption


def test_a_profiler_that_tells_no_two_groups_apart_is_no_check() -> None:
    rows = rows_of(grouped([3.0], 0.5, 0.1, groups=(0, 0)))
    assert [row.profiled_share for row in rows] == [1.0, None, None]
    assert "profiler" not in layers_table(rows, top=2).caption


def test_groups_that_one_session_has_fused_are_one_in_all() -> None:
    times_s = (0.5, 0.2, 0.1, 0.1)
    apart = grouped([4.0, 2.0, 1.0, 1.0], *times_s, groups=(0, 1, 2, 3))
    fused = grouped([3.0, 1.0], *times_s, groups=(0, 0, 1, 1))
    for sessions in ((apart, fused), (fused, apart)):
        assert [row.profiled_share for row in rows_of(*sessions)] == [0.75, None, 0.25, None, None]
    other = grouped([3.0, 1.0], *times_s, groups=(0, 0, 0, 1))
    assert [row.profiled_share for row in rows_of(fused, other)] == [1.0, None, None, None, None]


def test_a_row_of_all_groups_has_no_more_than_all_that_a_profiler_saw() -> None:
    one = grouped([6.0, 23.0, 1.0], 0.9, -0.1, -0.1, groups=(0, 1, 2))
    assert rows_of(one, one)[0].profiled_share == 1.0


def test_a_row_that_is_run_as_one_with_another_groups_takes_the_profilers_share_along() -> None:
    times_s, groups = (0.5, 0.2, -0.1, 0.2), (0, 0, 1, 1)
    rows = rows_of(*[grouped([3.0, 1.0], *times_s, groups=groups) for _ in range(2)])
    assert [row.layer for row in rows] == ["conv0", "conv1 + conv2", "conv3", REST]
    assert [row.profiled_share for row in rows] == [1.0, None, None, None]


def test_a_long_name_is_cut_in_its_middle_where_it_is_printed() -> None:
    one = session(1.0, 0.5)
    one["units"] = [unit("stage1/" + "deep/" * 99 + "conv")]
    rows = rows_of(one)
    (name, _), (whole, _) = (layers_table(rows, top).column("layer") for top in (1, None))
    assert len(str(name)) == 40
    assert str(name).startswith("stage1/")
    assert str(name).endswith("/conv")
    assert whole == rows[0].layer
    assert f">{name}<" in bars(rows)


def test_each_bar_begins_where_the_one_before_it_ends() -> None:
    drawn = bars(rows_of(session(1.0, 0.25, 0.5)))
    lefts = [float(part.split('"')[1]) for part in drawn.split("<rect ")[1:]]
    assert lefts == [260.0, 365.0, 575.0]


def test_bars_of_layers_that_take_less_than_nothing_stay_beside_their_texts() -> None:
    for times_s in ((1.5, -0.5), (-0.5, 1.5), (-0.25, 0.5)):
        drawn = bars(rows_of(session(1.0, *times_s)))
        found = [part.split('"') for part in drawn.split("<rect ")[1:]]
        ends = [(float(part[1]), float(part[1]) + float(part[5])) for part in found]
        assert min(begin for begin, _ in ends) == pytest.approx(LEFT, abs=0.2)
        assert max(end for _, end in ends) == pytest.approx(LEFT + WIDTH, abs=1.1)


class Worker:
    """Answers like one that measures layers."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.asked: list[Any] = []
        self.more: list[Any] = []
        self.layers = [session(1.0, 0.5)] * len(statuses)

    def __call__(self, request: Any) -> Answer:
        self.asked.append(request)
        status, found = self.statuses.pop(0), self.layers.pop(0)
        events = [{"event": "environment", "tensorflow": "2.21.0"}, found, *self.more]
        message = "" if status == "ok" else "lenet5: has no layers"
        return Answer(status=status, message=message, events=events, ready_s=0.1)


def test_sessions_differ_in_their_seed_and_a_failed_one_is_named() -> None:
    said: list[str] = []
    options = Options(processes=2, seed=3)

    def measure(worker: Worker) -> list[Any]:
        ceilings = {CEILING.key: CEILING}
        facts = facts_of("1", read_machine(), Commit(sha=None, dirty=None), {}, ceilings)
        return measure_layers(CASE, worker, options, facts, depth=2, say=said.append)

    worker = Worker("ok", "ok")
    worker.more = [{"event": "state", "other_cpu_share": 0.3}]
    found = measure(worker)
    assert [(row.sessions, row.other_cpu_share) for row in found] == [(2, 0.3)] * 2
    assert found[0].of_peak is not None
    assert [(one["seed"], one["depth"]) for one in worker.asked] == [(3, 2), (4, 2)]
    assert measure(Worker("ok", "error")) == []
    assert said[-1] == "lenet5-infer-cpu-b32-float32: no layers: lenet5: has no layers"
    worker = Worker("ok", "ok")
    told = {"inherited": {}, "model": {}, "environ": {}, "precision": "bfloat16", "cores": 2}
    more = {"threads": "default", "call_path": "tf.function"}
    worker.more = [{"event": "read_back", **told, **more}]
    found = measure(worker)
    assert [row.of_peak for row in found] == [None] * 2  # float32's peak is not theirs
    assert "the layers compute in bfloat16, set by the model's own code" in said[-1]
    other = [session(1.0, 0.5), {**session(1.0, 0.5), "units": [unit("drawn")]}]
    worker = Worker("ok", "ok")
    worker.layers = other
    assert measure(worker) == []
    assert said[-1].startswith(f"{CASE.name}: no layers: the sessions have different layers; do")


def test_the_rows_are_kept_as_they_are_whatever_a_layer_is_called(tmp_path: Path) -> None:
    path = layers_path(tmp_path)
    one = session(1.0, *[0.1] * 5)
    names = ["=1+2", "tab\tred\x1b[31m", "\u202e", REST, "x" * 9000]
    one["units"] = [unit(name) for name in names]
    rows = rows_of(one, one)
    LAYERS_TABLE.append(path, rows)
    (found,) = read_layers(path)
    assert found == rows
    assert [row.layer for row in rows][:-2] == ["=1+2", "tab red", "(no name)", f"{REST}#1"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"runtime": "savedmodel"},
            "--runtime: layers are measured in keras only, got savedmodel",
        ),
        ({"backend": "torch", "jit": "on"}, "--jit on: is not possible for layers of PyTorch"),
        ({"replicas": 2}, "--replicas: layers are measured with one replica, got 2"),
    ],
)
def test_what_layers_cannot_be_measured_of_is_known_from_the_case(
    fields: dict[str, Any], words: str
) -> None:
    assert why_no_layers(replace(CASE, **fields)).startswith(words)
    assert why_no_layers(CASE) == ""


@pytest.mark.parametrize(
    ("fields", "channels", "note"),
    [
        ({"device": "gpu:0", "precision": "mixed_float16"}, 12, "a multiple of 8"),
        ({"device": "gpu:0", "precision": "tf32"}, 12, ""),
        ({"device": "gpu:0"}, 12, ""),
        ({"precision": "mixed_float16"}, 12, ""),
    ],
)
def test_channels_that_tensor_cores_do_not_take_are_noted(
    fields: dict[str, Any], channels: int, note: str
) -> None:
    one = session(1.0, 0.5)
    one["units"][0]["settings"] = {"kernel": [3, 3], "channels": channels}
    rows = combined(replace(CASE, **fields), [one], **KNOWN, ceiling=CEILING)
    assert (rows[0].note or "").endswith(note)
    assert bool(rows[0].note) == bool(note)


def test_nearly_equal_probabilities_in_another_order_are_not_the_same() -> None:
    wanted = 1e-3 * (1 + 1e-3 * np.linspace(-1, 1, 1000, dtype=np.float32))
    assert agree(wanted * np.float32(1 + 1e-6), wanted, ROUNDED)
    assert not agree(wanted[::-1], wanted, ROUNDED)
    assert agree(wanted[::-1], wanted, ROUNDED_LOW)  # which float16 cannot tell apart
    one = np.array([[0.5]], np.float32)
    assert agree(one * np.float32(1.001), one, ROUNDED)
    assert not agree(one * np.float32(1.1), one, ROUNDED)
    assert not agree(one, wanted, ROUNDED)
