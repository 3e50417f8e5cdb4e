"""Write the pages under docs/ that come from the code: `python scripts/reference_pages.py`.

Options come from the option table, commands from the parsers, Python from the docstrings, and the
list of decisions from their files. Imports no framework.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from convmark.cli.parsers import parsers
from convmark.core.option import Option
from convmark.core.options import OPTIONS
from convmark.report.tables import TABLES_SCHEMA

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WRITTEN = (
    "Written from the code by `python scripts/reference_pages.py`; do not edit this page by hand.\n"
)
PUBLIC = (
    (
        "convmark/cli/python.py",
        "convmark",
        ("measure", "Measurement", "compare", "Comparison", "read_results", "report", "Shown"),
    ),
    ("convmark/core/errors.py", "convmark", ("ConvmarkError",)),
    ("convmark/core/suites.py", "convmark.core.suites", ("Suite",)),
    ("convmark/plugin/replay.py", "convmark.plugin.replay", ("Measured.replay",)),
    ("models/lenet.py", "convmark_zoo.lenet", ("lenet5",)),
    ("models/inception.py", "convmark_zoo.inception", ("mini_inception",)),
    ("models/resnet.py", "convmark_zoo.resnet", ("mini_resnet", "mini_resnet_norm")),
    ("models/layers.py", "convmark_zoo.layers", ("conv_layer", "separable_layer")),
)
"""Files, their import names, and the objects that the Python page shows."""
Definition = ast.ClassDef | ast.FunctionDef
STATUSES = ("accepted", "superseded")


def pages() -> dict[str, str]:
    """Return each page by its path under docs/."""
    return {
        "reference/options.md": options_page(),
        "reference/commands.md": commands_page(),
        "reference/python.md": python_page(),
        "reference/formats.md": formats_page(),
        "reference/tables.schema.json": json.dumps(tables_schema(), indent=1) + "\n",
        "decisions/index.md": decisions_page(),
    }


def options_page() -> str:
    rows = [
        (f"`{option.flag}`", _value(option), _of(option), _in_a_cell(option.help))
        for option in OPTIONS
    ]
    return f"""\
# Options

{WRITTEN}
`pytest bench` and `convmark run` take the same options. Lists are separated by commas. The column
*of* says `run` or `pytest` where only one of the two has the option.

Each option is also a key of `[tool.convmark]` in pyproject.toml, with `_` for `-`
(`batch_sizes = [1, 32]`). The command line wins over the file.

Under pytest the full name of an option begins with `--convmark-` (`--convmark-models`), so that it
cannot meet an option of another plugin. A project can switch the short names on:
[A suite of your own](../howto/own-models.md#a-suite-of-your-own). pytest has
three more: `--accuracy` also trains on MNIST, `--dry-run` shows what would be measured, and
`--resume [RUN]` continues an interrupted run; the last two are as those of `convmark run`.

{_table(("option", "value", "of", "meaning"), rows)}
"""


def _of(option: Option) -> str:
    found = [name for name in ("pytest", "run") if name in option.commands]
    return found[0] if len(found) == 1 else "both"


def _value(option: Option) -> str:
    return option.metavar and f"`{option.metavar}`"


def commands_page() -> str:
    _, commands = parsers()
    parts = [_command(f"convmark {name}", parser) for name, parser in commands.items()]
    return "\n".join(
        [
            "# Commands\n",
            WRITTEN,
            "`convmark COMMAND --help` prints the same. A shell completes commands, options and "
            'values after `pip install "convmark[completion]"` and '
            '`eval "$(register-python-argcomplete convmark)"`. Verdicts and unsteady cases are '
            "coloured in the text that `run`, `list`, `show`, `history`, `compare` without "
            "`--across`, `ab` and `report` print on a terminal, not in their other formats; "
            "NO_COLOR switches that off, FORCE_COLOR switches it on elsewhere.\n",
            *parts,
        ]
    )


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    actions = [one for one in parser._actions if not isinstance(one, argparse._HelpAction)]
    inner = [one for one in actions if isinstance(one, argparse._SubParsersAction)]
    known = {option.flag: _in_a_cell(option.help) for option in OPTIONS}
    shared = [one for one in actions if known.keys() & {*one.option_strings}]
    own = [_argument(one) for one in actions if one not in (*inner, *shared)]
    text = f"## {name}\n\n{_sentence(parser.description or '')}\n"
    if own:
        text += f"\n{_table(('argument', 'meaning'), own)}\n"
    if shared:
        names = ", ".join(f"`{one.option_strings[0]}`" for one in shared)
        text += f"\n[Options](options.md): {names}.\n"
        cells = [(one.option_strings[0], _in_a_cell(one.help or "")) for one in shared]
        if differ := [(f"`{flag}`", words) for flag, words in cells if words != known[flag]]:
            text += f"\n{_table(('option', 'meaning here'), differ)}\n"
    for group in inner:
        for action, found in group.choices.items():
            text += "\n" + _command(f"{name} {action}", found).replace("## ", "### ", 1)
    return text


def _argument(action: argparse.Action) -> tuple[str, str]:
    value = action.metavar if action.nargs != 0 else None
    return f"`{' '.join([*action.option_strings, *([str(value)] * bool(value))])}`", _in_a_cell(
        action.help or ""
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def python_page() -> str:
    parts = []
    for place, module, names in PUBLIC:
        tree = ast.parse((ROOT / place).read_text(encoding="utf-8"))
        parts += [_described(f"{module}.{name}", _found(tree, name.split("."))) for name in names]
    return "\n".join(
        [
            "# Python\n",
            WRITTEN,
            "The commands as functions, what a suite of your own uses, and the six networks of the "
            "zoo. Everything else is internal and may change.\n",
            *parts,
        ]
    )


def _found(tree: ast.Module | ast.ClassDef, names: Sequence[str]) -> Definition:
    first, *rest = names
    (node,) = (one for one in tree.body if isinstance(one, Definition) and one.name == first)
    return _found(node, rest) if rest and isinstance(node, ast.ClassDef) else node


def _described(name: str, node: Definition) -> str:
    text = f"## {name}\n\n```python\n{_signature(node)}\n```\n\n{_prose(node)}\n"
    return text + "".join(f"\n- {line}\n" for line in _fields(node))


def _signature(node: Definition) -> str:
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({ast.unparse(node.args)}){returns}"
    fields = [
        ast.unparse(one).removesuffix(" = field(default=())")
        for one in node.body
        if isinstance(one, ast.AnnAssign)
    ]
    return f"{node.name}({', '.join(fields)})"


def _prose(node: Definition) -> str:
    """Return the docstring with its sections as bold words."""
    text = ast.get_docstring(node) or ""
    return re.sub(r"(?m)^(Args|Raises|Returns|Source):\n((?:    .*\n?)+)", _section, text)


def _section(match: re.Match[str]) -> str:
    lines = [line.strip() for line in match.group(2).splitlines()]
    return f"**{match.group(1)}.** {' '.join(lines)}\n"


def _fields(node: Definition) -> Iterator[str]:
    """Yield each field of a class that has a docstring, with it."""
    body = node.body if isinstance(node, ast.ClassDef) else []
    for field, after in pairwise(body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                yield f"`{name}`: {' '.join(str(text).split())}"


def decisions_page() -> str:
    """Return the list of decisions, by area, in the order of their files' names."""
    by_area: dict[str, list[str]] = {}
    for path in sorted((DOCS / "decisions").glob("*.md")):
        if path.name == "index.md":
            continue
        title, status, area = decision_head(path)
        line = f"- [{title}]({path.name})" + ("" if status == "accepted" else f" ({status})")
        by_area.setdefault(area, []).append(line)
    parts = [f"## {area}\n\n" + "\n".join(by_area[area]) + "\n" for area in sorted(by_area)]
    head = (
        "# Decisions\n\n" + WRITTEN + "\nOne file for each choice between real alternatives: the "
        "context, what was chosen, what was refused, and why. Figures are from one machine with "
        "two cores unless they say more. To add one, copy a file and run the command above.\n\n"
    )
    listed = "```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"  # the site's menu
    return head + "\n".join(parts) + "\n" + listed


def decision_head(path: Path) -> tuple[str, str, str]:
    """Return the title, the status and the area of a decision, from its first lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = re.fullmatch(r"Status: (\w+)\. Area: (.+)\.", lines[2])
    if not lines[0].startswith("# ") or found is None or found.group(1) not in STATUSES:
        raise SystemExit(f"{path.name}: must begin with a title and 'Status: accepted. Area: ...'")
    return lines[0][2:], found.group(1), found.group(2)


def formats_page() -> str:
    """Return the page on `--format`: which command has which, and what each format is."""
    _, commands = parsers()
    rows = [
        (f"`{name}`", action.help)
        for top, parser in commands.items()
        for name, one in _with_actions(top, parser)
        for action in one._actions
        if "--format" in action.option_strings and action.help
    ]
    return f"""\
# Formats of tables

{WRITTEN}
`convmark list` prints the runs of a results folder, and `convmark show latest` the tables of the
newest one. Every command that prints tables has `--format`:

{_table(("command", "`--format`"), rows)}

The others print no table: `comment` prints Markdown, `export` the format of another tool, and
`accept`, `merge`, `env make` and `env remove` a line on what was done. Values are unrounded and in
the stored unit in `json`, `csv` and `parquet`; only the table goes to standard output, and
everything else to standard error.

- `json` is one object with `schema_version`, `command`, `machines` and `tables`, described by
  [a JSON schema](tables.schema.json). Each column has its unit. The version grows where a key is
  renamed, removed or gets another meaning. A column without any value may be missing.
- `csv` and `parquet` of a command with one table have one line for each row. Those of `run`,
  `show`, `report`, `bisect` and `fleet doctor`, which may have several tables, have one line for
  each cell: table, row, column, unit and value.
- `parquet` needs pyarrow, and is written to a file: `convmark list --format parquet >runs.parquet`.
- `github`, of `compare`, is the annotations of a workflow on GitHub; `html`, of `report`, a page.

`-o -` of `report` and `export` is standard output. All columns of all rows, and not tables of them,
are in the run files: [files](files.md), [columns](../columns.md).
"""


def _with_actions(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield a command, and those below it."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, one in action.choices.items():
                yield f"{name} {inner}", one


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": dict(properties),
    }


def _list(items: Mapping[str, Any], **more: str) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **more}


_TEXT = {"type": "string"}


def tables_schema() -> dict[str, Any]:
    """Return the JSON schema of what `--format json` prints."""
    column = {
        "key": {**_TEXT, "description": "key of the values in the rows"},
        "label": {**_TEXT, "description": "heading of the printed table"},
        "type": {"enum": ["text", "number", "boolean", "list"]},
        "unit": {**_TEXT, "description": "unit of the values; empty for none"},
    }
    kinds = ["string", "number", "boolean", "array", "null"]
    cell = {"type": kinds, "items": {"type": "string"}}
    table = {
        "key": {**_TEXT, "description": "name of the table, the same in each version"},
        "title": _TEXT,
        "caption": {**_TEXT, "description": "what the figures mean; may be empty"},
        "columns": _list(_object(column)),
        "rows": _list({"type": "object", "additionalProperties": cell}),
    }
    machines = "fingerprints or names of the machines that the tables are of; empty for none"
    answer = {
        "schema_version": {"const": TABLES_SCHEMA},
        "command": {**_TEXT, "description": "the command's words, such as fleet doctor"},
        "machines": _list(_TEXT, description=machines),
        "tables": _list(_object(table)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tables of convmark, as --format json prints them",
        **_object(answer),
    }


def _in_a_cell(text: str) -> str:
    return " ".join(text.replace("%%", "%").replace("|", r"\|").split())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
