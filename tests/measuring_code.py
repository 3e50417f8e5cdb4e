"""The hash of the code that measures: what is left of its syntax trees when nothing is named.

    python tests/measuring_code.py        writes the hash to tests/data/measuring_code.txt

It asks one question at each change of that code: does the change alter what is measured? Whatever
cannot alter a figure is left out: comments, docstrings, the names of files and of local variables,
annotations of functions, `__all__`, imports of convmark's own modules. The trees are written out
here, for `ast.dump` and the fields of the nodes differ between versions of Python.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

RECORDED = Path(__file__).parent / "data" / "measuring_code.txt"
PACKAGE = Path(__file__).parent.parent / "convmark"

FIGURES = (
    "core/statistics.py",
    *(f"session/{name}.py" for name in ("learning", "result", "steadiness")),
)
"""Outside the worker: what makes figures of a worker's raw times. How a process is launched is
left out: it moves the time to its start alone, which no verdict uses."""

NO_FIGURE = frozenset(
    [
        *("failure.py", "inspection.py"),
        *("duet.py", "module_tables.py", "turns.py"),
    ]
)
"""In the worker: what an interpreter answers of itself, an exception's class and the duet, whose
ratios are of one session; no row is measured by any of them. Every other file counts, a new one
too."""

_SKIPPED_FIELDS = frozenset(["annotation", "ctx", "kind", "returns", "type_comment", "type_params"])
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Names = dict[str, str]
"""What a local variable is called in the hash, by its name: the place of its first use."""


def measuring_code(package: Path = PACKAGE) -> list[Path]:
    """Return the files whose change can change a figure."""
    worker = (path for path in (package / "worker").rglob("*.py") if path.name not in NO_FIGURE)
    return sorted([*worker, *(package / name for name in FIGURES)])


def code_hash(texts: list[str]) -> str:
    """Return the hash of these files, in whatever order they come."""
    digests = sorted(hashlib.sha256(shape(text).encode()).hexdigest() for text in texts)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def shape(text: str) -> str:
    """Return what is left of a file's syntax tree."""
    return " ".join(_written(ast.parse(text), {}))


def _written(node: object, names: Names) -> Iterator[str]:
    if isinstance(node, list):
        for one in node:
            if not _is_silent(one):
                yield from _written(one, names)
    elif isinstance(node, ast.JoinedStr):
        yield f"({type(node).__name__}"
        yield from _parts(node, names)
        yield ")"
    elif isinstance(node, ast.AST):
        if isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS)):
            names = _with_locals(node, names)
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if value in (None, []) or (field in _SKIPPED_FIELDS and not _is_field(node, field)):
                continue
            yield f".{field}"
            yield from _written(_renamed(node, field, value, names), names)
        yield ")"
    else:
        yield repr(node)


def _is_field(node: ast.AST, field: str) -> bool:
    """A name that has an annotation and no value is a dataclass's field, so it is not left out."""
    return field == "annotation" and isinstance(node, ast.AnnAssign) and node.value is None


def _is_silent(node: object) -> bool:
    """Whether a statement cannot alter a figure."""
    if isinstance(node, ast.Expr):  # a docstring, or the text below a constant
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.ImportFrom):
        own = (node.module or "").split(".")[0] == "convmark" or node.level > 0
        return own or node.module == "__future__"
    if isinstance(node, ast.Import):
        return all(name.name.split(".")[0] == "convmark" for name in node.names)
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == ["__all__"]
    return False


def _renamed(node: ast.AST, field: str, value: object, names: Names) -> object:
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return [names.get(name, name) for name in node.names]
    named = (ast.Name, ast.arg, ast.ExceptHandler, ast.FunctionDef, ast.AsyncFunctionDef)
    is_name = isinstance(node, named) and field in ("id", "arg", "name")
    return names.get(value, value) if is_name and isinstance(value, str) else value


def _with_locals(node: ast.AST, outer: Names) -> Names:
    """Return the names with those that the function or comprehension binds itself."""
    if isinstance(node, _COMPREHENSIONS):
        inner = [target for one in node.generators for target in ast.walk(one.target)]
    else:
        inner = list(_own(node))
    shared: set[str] = set()
    found: list[str] = []
    for one in inner:
        if isinstance(one, (ast.Global, ast.Nonlocal)):
            shared.update(one.names)
        elif isinstance(one, ast.arg):
            found.append(one.arg)
        elif isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ExceptHandler)):
            found += [one.name] if one.name else []
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            found.append(one.id)
    fresh = [name for name in dict.fromkeys(found) if name not in shared]
    depth = len(outer)
    return {**outer, **{name: f"local {depth + place}" for place, name in enumerate(fresh)}}


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function in order, but not those of functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)):
            yield from _own(child)


def _parts(node: ast.JoinedStr, names: Names) -> Iterator[str]:
    """Yield an f-string's parts; versions of Python part the plain text between them otherwise."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        yield repr(text)
        text = ""
        yield from _written(part, names)
    yield repr(text)


def today() -> str:
    """Return the hash of the measuring code as it is."""
    return code_hash([path.read_text(encoding="utf-8") for path in measuring_code()])


if __name__ == "__main__":
    RECORDED.write_text(f"{today()}\n", encoding="utf-8")
    print(f"{RECORDED}: {today()}")
