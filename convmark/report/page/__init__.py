"""The report as one self-contained page: no network, no framework, every text escaped.

Tables stand in it as HTML, figures as specifications beside the library that draws them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convmark import __version__
from convmark.core.files import cache_folder, write_whole
from convmark.core.git import Git, GitError
from convmark.core.table import Table, cell_text
from convmark.core.text import code_marked
from convmark.report.figures.figure import (
    CONFIG,
    PALETTE,
    SHAPES,
    UNKNOWN,
    Figure,
    drawing_package,
    slots_of,
)
from convmark.report.page.layout import MOST_NAME, MOST_WIDTH, Facets, kinds, layout, tiles
from convmark.report.ratios import LEAST_PROCESSES
from convmark.report.tables.overview import CAUSES

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from convmark.report.build import Report

ANSWERS, NOTES = "answers", "troubles"
"""Tables that the page shows as tiles, and as folded notes at its end."""

DRAWN_LATER = ("history",)
"""Tables too long to stand in the page: the rows of one choice are shown at a time."""

MARKED = ("verdict", "what")
"""Columns whose words are coloured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    table: Table
    figure: Figure | None
    open: bool
    """Whether the numbers under a figure are unfolded at first."""


def render_page(
    report: Report, figures: Sequence[Figure], *, links: CommitLinks | None, made: str
) -> str:
    """Return the page as HTML.

    Args:
        links: of the commits that have a page of their own.
        made: when the page is made, in words.
    """
    drawn = {figure.key: figure for figure in figures}
    drawn_later = [key for key in DRAWN_LATER if key in drawn]
    facets = Facets([*report.tables, *(model.table for model in report.models)])
    sections = [
        _Section(table=table, figure=drawn.get(table.key), open=len(table.rows) <= 40)
        for table in report.tables
        if table.key not in (ANSWERS, NOTES)
    ]
    answers, notes = (
        next((table for table in report.tables if table.key == key), None)
        for key in (ANSWERS, NOTES)
    )
    template = environment().get_template("report.html")
    return template.render(
        report=report,
        made=made,
        answers=answers,
        tiles=tiles(answers) if answers else (),
        facets=facets,
        sections=sections,
        notes=notes,
        kinds=kinds(notes, CAUSES) if notes else (),
        keys={table.key for table in report.tables},
        layout_of=lambda table: layout(table, whole=table.key in drawn_later),
        version=__version__,
        marked=MARKED,
        drawn_later=drawn_later,
        widths=range(MOST_WIDTH + 1, MOST_NAME + 1),
        style=own("report.css"),
        script=own("tables.js") + own("report.js"),
        links=_json(asdict(links)) if links else None,
        sides=_json(report.sides.as_data()) if report.sides else None,
        fewest=LEAST_PROCESSES,
        sides_script=own("pairs.js") + own("sides.js"),
        library=_in_script(drawing_library()) if drawn else _in_script(""),
        drawings=_json(
            {
                "config": dict(CONFIG),
                "slots": slots_of(figures),
                "ranges": {"color": PALETTE, "shape": SHAPES},
                "unknown": UNKNOWN,
                "facets": facets.as_data(),
                "models": [one.model for one in report.layers]
                + [one.model for one in report.models],
                "figures": _drawings(drawn, drawn_later, facets),
            }
        ),
    )


_QUOTED = re.compile(r'`((?:[^`"\\]|\\.)+)`')
"""A command in back quotes, within one text of JSON: a script shows texts as they are."""
_QUOTED_ALONE = re.compile("`([^`]+)`")
"""The same in a text that a script finds among those of JSON."""


@functools.cache
def environment() -> Environment:
    """Return what fills this package's templates: every text from outside is escaped."""
    from jinja2 import Environment, PackageLoader

    made = Environment(
        loader=PackageLoader("convmark.report.page"), autoescape=True, trim_blocks=True
    )
    made.filters["prose"] = _prose
    made.filters["unquoted"] = functools.partial(_QUOTED_ALONE.sub, r"\1")
    return made


_TOGETHER = re.compile(r"[+-]?[\d.,]+ (?:%|[mu]?s)(?!\w)[,.;:)\]]*|[^\s<>]*-\w[^\s<>]*")
"""A number with its unit and what ends its clause, or a word with a hyphen; never of a tag. The
page's script has the same, for what it writes itself."""


def _prose(text: str) -> Markup:
    """Return a text whose commands are code, and in which no name or option is broken at a hyphen.

    Nor does a number stand apart from its unit.
    """
    from markupsafe import Markup, escape

    safe = str(escape(text))
    marked = code_marked(safe) if "`" in safe else safe
    return Markup(_TOGETHER.sub(r'<span class="whole">\g<0></span>', marked))


def own(name: str) -> Markup:
    """Return one of this package's own files, which holds nothing from outside."""
    return _in_script((files("convmark.report.page") / "templates" / name).read_text("utf-8"))


def _in_script(text: str) -> Markup:
    """Return a script's or style's text so that nothing in it ends its element."""
    from markupsafe import Markup

    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _json(value: Any) -> Markup:
    """Return JSON that stands in a script element: no `<` is left in it, nor quotes of commands."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text = _QUOTED.sub(r"\1", text)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _drawings(
    figures: Mapping[str, Figure], drawn_later: Sequence[str], facets: Facets
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, figure in figures.items():
        found[key] = {
            "specs": figure.specs,
            "choose_by": figure.choose_by,
            "panels": figure.panels,
        }
        if key in drawn_later:
            places = [facets.place(row) for row in figure.table.facets]
            found[key]["data"] = {"columns": _columns(figure.table), "facets": places}
    return found


def _columns(table: Table) -> dict[str, Any]:
    """Return a long table column by column, each distinct value once."""
    found: dict[str, Any] = {}
    for heading in table.headings:
        values = table.column(heading.key)
        if not heading.numeric:
            values = [value or "" for value in values]
        distinct = {value: place for place, value in enumerate(dict.fromkeys(values))}
        own = list(distinct)
        column: dict[str, Any] = {"raw" if heading.numeric else "values": own}
        if heading.numeric and heading.kind != "seconds":  # those the script prints itself
            column["text"] = [cell_text(heading, value) for value in own]
        column["at"] = stretches([distinct[value] for value in values])
        found[heading.key] = column
    return found


def stretches(numbers: Sequence[int]) -> Sequence[int] | dict[str, list[int]]:
    """Return numbers as number and count of each stretch of equal ones, where that is shorter."""
    found = [part for number, same in groupby(numbers) for part in (number, sum(1 for _ in same))]
    return {"runs": found} if len(found) < len(numbers) else numbers


_EXPOSED = "window.vegaEmbed = vegaEmbed;"


def drawing_library() -> str:
    """Return the script that vl-convert bundles, from the user's cache after the first time.

    The cached file's name holds the version that made it.

    Raises:
        DrawingError: the package cannot be imported.
    """
    package = drawing_package()
    path = cache_folder() / f"vega-embed-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    text = str(package.javascript_bundle(_EXPOSED))
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    return text


# -- the links of commits, where the repository's remote says one ----------------------------------


_HOST = r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?)"
_PATH = r"(?P<path>[A-Za-z0-9][\w.~-]*(?:/[A-Za-z0-9][\w.~-]*)+)/?"
_REMOTES = (
    re.compile(rf"(?P<scheme>https?)://(?:[^@/]*@)?{_HOST}/{_PATH}", re.ASCII),
    re.compile(rf"(?:ssh|git)(?P<scheme>)://(?:[^@/]*@)?{_HOST}/{_PATH}", re.ASCII),
    re.compile(rf"(?P<scheme>)(?:[^@/:]*@)?{_HOST}:{_PATH}", re.ASCII),
)
"""A URL, and the form that git takes for SSH: user@host:path."""

_FORMS = MappingProxyType({"github": "commit", "gitlab": "-/commit"})
"""By the first word of the host's name what comes before a commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLinks:
    """The links of a repository."""

    url: str
    """What a commit's name is added to."""
    commits: tuple[str, ...]
    """Those that the repository has."""


def commits_url(remote: str) -> str:
    """Return what the address of a commit's page begins with; empty where it is not known.

    Only GitHub and GitLab are known, by their host's name. No credentials are taken along.
    """
    for form in _REMOTES:
        if found := form.fullmatch(remote.strip()):
            host, path = found["host"], found["path"].removesuffix(".git")
            if not found["scheme"]:
                host = host.partition(":")[0]  # the port is of SSH
            kind = _FORMS.get(host.lower().removeprefix("www.").partition(".")[0])
            return f"{found['scheme'] or 'https'}://{host}/{path}/{kind}/" if kind else ""
    return ""


def commit_links(folder: Path, commits: Iterable[str]) -> CommitLinks | None:
    """Return the links of the commits that the folder's repository has; None without any.

    Args:
        commits: by their first digits.
    """
    git = Git.at(folder)
    url = commits_url(git.answer("remote", "get-url", "origin") or "")
    asked = sorted({one for one in commits if re.fullmatch(r"[0-9a-f]{7,64}", one)})
    if not url or not asked:
        return None
    try:
        told = git.output("cat-file", "--batch-check", given="\n".join([*asked, ""]).encode())
    except GitError:
        return None
    kinds: Mapping[str, str] = dict(zip(asked, told.splitlines(), strict=False))
    known = tuple(name for name, kind in kinds.items() if " commit " in kind)
    return CommitLinks(url=url, commits=known) if known else None
