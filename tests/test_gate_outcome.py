"""How a gate ends: its surfaces agree for every two things that may become of its cases."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from test_verdicts_file import ABSENT, judgement

from convmark.cli.parsers import parsers
from convmark.compare.judgement import ONE_GRAPH, PRECISION, SIZES, Judgement
from convmark.core.case import Case
from convmark.core.fitting import wrapped
from convmark.core.options import Options
from convmark.plugin.replay import Measured
from convmark.report.advice import MOST_FAILED, gate_step, say_step
from convmark.report.comment import Gate, badge_text, comment_text
from convmark.report.verdicts import headline, verdicts_report

Fields = dict[str, Any]

FAILS: Fields = {"fails": True}
MEANT: Fields = {"accepted": "allowed by --allow-change"}
HIDDEN: Fields = {"note": "perhaps more than the +5.0 % of run 0001, which noise hides"}
QUIET: Fields = {"verdict": "unchanged", "note": ""}
DOUBT: Fields = {"verdict": "inconclusive", "note": "budget spent: about 2 min more would decide"}
BLIND: Fields = {**DOUBT, "note": "no live comparison: no git", "change": None}
ERROR: Fields = {**BLIND, **FAILS, "note": "error in process 1"}
SAME: Fields = {**QUIET, "note": "same code", "change": None}
MEMORY: Fields = {"metric": "peak_host_memory"}
OTHER_SIZES: Fields = {"metric": SIZES, "verdict": "changed", "change": None}
OTHER_PRECISION: Fields = {**OTHER_SIZES, "metric": PRECISION}
LEARNED: Fields = {"metric": "accuracy", "task": "accuracy"}

KINDS: Mapping[str, Sequence[Fields]] = MappingProxyType(
    {
        "slower": [FAILS],
        "slower as meant": [MEANT],
        "slower as meant, perhaps by more": [{**MEANT, **HIDDEN}],
        "more memory": [QUIET, {**MEMORY, **FAILS}],
        "more memory as meant": [QUIET, {**MEMORY, **MEANT}],
        "other sizes": [{**OTHER_SIZES, **FAILS}, QUIET],
        "other sizes, slower": [{**OTHER_SIZES, **FAILS}, FAILS],
        "other sizes as meant": [{**OTHER_SIZES, **MEANT}, QUIET],
        "other sizes as meant, undecided": [{**OTHER_SIZES, **MEANT}, DOUBT],
        "other precision": [{**OTHER_PRECISION, **FAILS}, BLIND],
        "other precision as meant": [{**OTHER_PRECISION, **MEANT}, BLIND],
        "an error": [ERROR],
        "an error, more memory": [ERROR, {**MEMORY, **FAILS}],
        "faster": [{"verdict": "improved"}],
        "less memory, undecided": [DOUBT, {**MEMORY, "verdict": "improved"}],
        "unchanged": [QUIET],
        "undecided": [DOUBT],
        "not compared": [BLIND],
        "same code": [SAME],
        "same graph": [{**SAME, "note": "same graph"}],
        "same commit, less memory": [
            {**SAME, "note": "same commit"},
            {**MEMORY, "verdict": "improved"},
        ],
        "new": [{"verdict": "new", "note": "", "change": None}],
        "missing": [{"verdict": "missing", "note": "", "change": None}],
        "learned as much": [{**LEARNED, **QUIET}],
        "learned less": [{**LEARNED, **FAILS}],
        "learned, undecided": [{**LEARNED, **BLIND}],
    }
)


def gates() -> Iterator[tuple[tuple[str, ...], list[Judgement]]]:
    """Yield each one and each two of the kinds, of a case each, with what is said of them."""
    for count in (1, 2):
        for names in itertools.combinations_with_replacement(KINDS, count):
            yield (
                names,
                [
                    judgement(**{"case": f"case-{place}", "model": "m", "fails": False, **fields})
                    for place, name in enumerate(names)
                    for fields in KINDS[name]
                ]
                + [ABSENT],
            )


def failing_tests(found: Sequence[Judgement]) -> set[str]:
    """Return the cases whose tests fail."""
    failed = set()
    for name in {one.case for one in found}:
        case = Case(model="m", task="train")
        own = [one for one in found if one.case == name]
        try:
            Measured(case=case, judgements=own).replay(None)
        except pytest.fail.Exception:
            failed.add(name)
    return failed


LAST = (
    ("failed", "the gate failed"),
    ("none", "the gate decided nothing, which is no pass: "),
    ("none", "the gate compared nothing, which is no pass: "),
    ("none", "nothing was compared, because "),
    ("passed", "the gate passed: "),
    ("some", "no regression found; 1 of 2 "),
    ("some", "no other regression found; 1 of 2 "),
)


def accepts(text: str) -> set[str]:
    """Return the cases in the line of a commit that a text proposes."""
    lines = re.findall(r"Benchmark-Accept: ([\w, -]+)", text)
    return {name.strip() for line in lines for name in line.split(",")}


def test_all_that_is_said_of_a_gate_agrees_whatever_becomes_of_its_cases() -> None:
    ends = {"failed": "failed", "none": "without a verdict", "passed": "passed"}
    ends["some"] = "decided in part"
    seen, commands = set(), set()
    for (names, found), by_a_test in itertools.product(gates(), (False, True)):
        failing = {one.case for one in found if one.fails}
        assert failing_tests(found) == failing, names
        failed = bool(failing) or by_a_test
        last = gate_step(found, Options(), failed=failed)
        (said,) = {word for word, begin in LAST if last.startswith(begin)}
        seen.add(said)
        commands.add(last.partition("\nnext: ")[2])
        assert (said == "failed") == failed, (names, last)
        gate = Gate(found, "0123456789ab", passed=not failed)
        comment = comment_text(gate)
        assert comment.startswith(f"**Benchmark gate {ends[said]}: "), (names, last, comment)
        assert ("no verdict fails" in comment) == (failed and not failing), names
        badge = json.loads(badge_text(gate))
        colors = {"failed": {"red"}, "none": {"yellow", "lightgrey"}, "some": {"yellow"}}
        assert badge["color"] in colors.get(said, {"brightgreen"}), (names, last, badge)
        count = len({one.case for one in found if one.model != "machine"})
        lead = headline(found)
        assert lead.startswith(f"{len(failing) or 'none'} of {count} case"), names
        is_told = ("not decided" in lead, "missing" in lead or "new" in lead)
        assert {"some": is_told[0], "none": any(is_told)}.get(said, True), (names, last, lead)
        annotations = verdicts_report(found, "github")
        assert annotations.count("::error ") == len(failing), names
        assert said != "none" or "::warning " in annotations, (names, last)
        assert accepts(last) == accepts(comment), (names, last, comment)
        short = gate_step(found, Options(), failed=failed, quiet=True)
        doubts = (" without a baseline", "did not", "perhaps by more")
        is_well = said == "passed" and not any(one in last for one in doubts)
        assert (short == "") == is_well, (names, last, short)
        if failing:
            assert short.splitlines()[0] == last.splitlines()[0]
            assert len(short.splitlines()) == 3 + (len(failing) > 1), short
    assert seen == set(ends)
    for program, *words in (shlex.split(one) for one in commands if "the command" not in one):
        assert program == "convmark"
        parsers()[0].parse_args(words)


def test_the_command_after_a_slower_case_is_one_that_the_comparison_takes() -> None:
    def command(rest: str = "", **options: Any) -> str:
        case = {"model": "m", "task": "infer", "batch_size": 32, "precision": "float32"}
        case |= {"case": f"m-infer-cpu-b32-float32{rest}", "jit": options.get("jit", "off")}
        slow = judgement(**case, fails=True, against="0123456789ab")
        return gate_step([slow], Options(**options)).partition(" ab ")[2]

    usual = "git:0123456789ab . --models m --tasks infer --batch-sizes 32"
    assert command() == f"{usual} --layers"
    assert command(isolation="none") == f"{usual} --layers"
    both = {"backends": ("tensorflow", "jax")}
    assert command(**both) == f"{usual} --backend tensorflow --layers"
    assert command("-jax", **both) == f"{usual} --backend jax --layers"
    assert command("-jit-torch", backends=("torch",), jit="on") == f"{usual} --backend torch"
    assert command("-litert", runtimes=("keras", "litert")) == f"{usual} --runtime litert"
    assert command("-r2", replicas=(2,)) == ""


def test_the_last_line_says_where_both_codes_make_one_graph() -> None:
    fields = {**DOUBT, "fails": False, "note": f"{DOUBT['note']}; {ONE_GRAPH}"}
    step = gate_step([judgement(**fields), judgement(case="b", **QUIET, fails=False)], Options())
    told = f"1 of 2 step times not decided, so they may have changed; in 1 of them {ONE_GRAPH}"
    told = f"no regression found; {told}"
    assert step.split("\n")[0] == told


def test_forty_failing_cases_fit_on_the_last_screen() -> None:
    found = [
        judgement(**{"case": f"mini_resnet_norm{n}-train-cpu-b32-float32", "fails": True, **fields})
        for n in range(40)
        for fields in ({}, MEMORY, {"metric": "peak_device_memory"}, {"metric": "model_bytes"})
    ]
    said: list[str] = []

    def say(line: str) -> None:
        said.extend(wrapped(line, before="convmark: ", width=80).split("\n"))

    say_step(gate_step(found, Options(), baseline="run 0001 (0123456789ab, 2026-11-27)"), say)
    text = " ".join(said)
    assert "40 of 40 cases" in text
    assert re.search(r"mini_resnet_norm0-\S+: step time .*; and +2 +metrics +more", text)
    assert f"and {40 - MOST_FAILED} cases more, in the table above" in text
    assert len(said) <= 22  # pytest's own last line, and the prompt
