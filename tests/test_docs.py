"""README and docs/ say what the code does: commands, options, links and copied tables."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_rows import SLOW, results_of_two_machines

from convmark.cli.parsers import parsers
from convmark.core.options import OPTIONS
from convmark.machine.hardware import machine_name

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
REFERENCE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "reference_pages.py"))
OF_OTHERS = {
    *("--lf", "--collect-only", "--codspeed", "--junitxml", "--node-ip-address"),
    *("--exclusive", "--constraint", "--partition", "--array"),
    *("--sw", "--deselect", "--ignore", "--pyargs"),
}
"""Options of other programs that a sentence names."""
PYTEST_FLAGS = {option.flag for option in OPTIONS} | {"--accuracy", "--dry-run", "--resume"}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of ours in the page's shell blocks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:sh|yaml)\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        for part in (part for line in lines for part in line.split("&&")):
            part = re.sub(r"^[\s-]*(run: )?|>>.*| #.*|\$\{\{.*?\}\}", "", part)
            part = part.replace(".venv/bin/", "", 1)
            if part.startswith(("convmark ", "pytest ")):
                yield shlex.split(part)


def misfit(words: list[str]) -> str:
    """Return what of a command does not exist, empty where all does."""
    if words[0] == "pytest":
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        known = [*PYTEST_FLAGS, "--dist", "--no-loadscope-reorder"]
        return " ".join(f for f in flags if f not in known and not f.startswith("--benchmark"))
    try:
        parsers()[0].parse_args(words[1:])
    except SystemExit:
        return " ".join(words)
    return ""


def test_the_help_of_every_command_has_an_example_that_is_one_of_it() -> None:
    def of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
        inner = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        if not inner:
            yield parser.prog, (parser.epilog or "").removeprefix("example:\n  ")
        for action in inner:
            for command in action.choices.values():
                yield from of(command)

    for prog, example in of(parsers()[0]):
        assert example.startswith(prog), prog
        assert not misfit(shlex.split(example))


def test_every_command_in_the_pages_exists() -> None:
    found = [(page.name, misfit(words)) for page in PAGES for words in commands(page)]
    assert len(found) > 50
    assert [one for one in found if one[1]] == []


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a command and of its actions."""
    flags = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags = flags.union(*map(flags_of, action.choices.values()))
    return flags


def test_every_option_in_a_sentence_exists() -> None:
    known = PYTEST_FLAGS | OF_OTHERS
    for parser in parsers()[1].values():
        known |= flags_of(parser)
    for page in PAGES:
        for span in re.findall(r"(?<!`)`((?:convmark|pytest|--)[^`]*)`", text_of(page)):
            flags = [flag.partition("=")[0] for flag in re.findall(r"--[a-z][^\s,|]*", span)]
            unknown = [
                one
                for one in flags
                if one not in known and not one.startswith(("--benchmark", "--convmark-"))
            ]
            assert unknown == [], (page.name, span)


def test_every_command_has_a_page_that_uses_it() -> None:
    used = {words[1] for page in PAGES for words in commands(page) if words[0] == "convmark"}
    mentioned = {name for page in PAGES for name in re.findall("`convmark ([a-z]+)", text_of(page))}
    assert set(parsers()[1]) <= used | mentioned


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_pages_from_the_code_are_the_ones_that_the_code_writes() -> None:
    old = [name for name, text in REFERENCE["pages"]().items() if text_of(DOCS / name) != text]
    assert old == [], "run: python scripts/reference_pages.py"


def test_every_option_has_a_line_in_the_reference() -> None:
    page = REFERENCE["options_page"]()
    assert [one.flag for one in OPTIONS if f"| `{one.flag}` |" not in page] == []


def test_a_decision_has_a_status_and_says_what_was_chosen() -> None:
    for path in sorted((DOCS / "decisions").glob("*.md")):
        if path.name != "index.md":
            REFERENCE["decision_head"](path)
            assert {"**Context.**", "**Chosen.**"} <= set(
                re.findall(r"\*\*\w+\.\*\*", text_of(path))
            )


def test_a_decision_without_a_status_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.md"
    path.write_text("# One\n\nChosen: this.\n")
    with pytest.raises(SystemExit, match="must begin with a title"):
        REFERENCE["decision_head"](path)


def test_a_machine_is_named_in_the_pages_as_the_code_names_it() -> None:
    form = re.compile(r"[a-z0-9-]+-\d+cpu-\d+gib-[0-9a-f]{8}")
    assert form.fullmatch(machine_name(cpu="AMD EPYC", cores=2, ram_bytes=24 << 30, gpu_names=[]))
    given = re.compile(r'(?:--name |names=\[")([^\s="]+)=')
    named = {page.name: one for page in PAGES for one in given.findall(text_of(page))}
    assert {"compare-machines.md", "python.md"} <= set(named)
    assert {page: one for page, one in named.items() if not form.fullmatch(one)} == {
        "commands.md": "MACHINE"
    }


def test_no_page_takes_convmark_from_a_package_index_which_has_none() -> None:
    bare = re.compile(r"pip install (?:[\w.-]+ )*convmark\b(?![\[@/-])")
    assert [page.name for page in PAGES if bare.search(text_of(page))] == []


def test_the_readme_has_at_most_10_kb() -> None:
    assert README.stat().st_size <= 10_000


def test_the_readme_has_the_test_command_of_the_ci() -> None:
    (line,) = re.findall(r"(?m)^\.venv/bin/(pytest tests .*?)(?: --durations.*)?$", text_of_ci())
    assert line in text_of(README)


def text_of_ci() -> str:
    return (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_queries_of_the_pages_read_a_machine_folder_with_all_that_lies_there(
    tmp_path: Path,
) -> None:
    duckdb = pytest.importorskip("duckdb")
    machine = results_of_two_machines(tmp_path) / SLOW
    for name in ("verdicts.csv", "0001.sessions.csv"):
        (machine / name).write_text("other,columns\n1,2\n")
    page = text_of(DOCS / "howto" / "share-results.md").replace("results/<machine>", str(machine))
    (query,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert duckdb.sql(query).fetchall()
    exec(code, {})


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)", text_of(README))
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/verdicts.md"])
def test_the_short_league_is_copied_from_the_whole_one(page: str) -> None:
    whole = league(DOCS / "rule_league.md")
    short = league(ROOT / page)
    assert set(short) == {"mean > 5 %", "Mann-Whitney p < 0.05", "**convmark**"}
    for rule, (quiet, loaded) in short.items():
        training = (whole[rule][0], whole[rule][2])
        assert [f"{one.split(' / ')[0]} / {one.split(' / ')[2]}" for one in training] == [
            quiet,
            loaded,
        ]


def league(page: Path) -> dict[str, list[str]]:
    """Return the cells of each line of a table of rules, by rule."""
    rows = [line.strip("|\n ").split("|") for line in text_of(page).splitlines() if " / " in line]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) > 2]
    return {row[0]: row[1:] for row in cells if re.fullmatch(r"\d+( / \d+)+", row[1])}
