"""The two sides of an A/B comparison: how a user names them, and their cases in pairs.

All cases run on both sides, with an A/A control, by the driver of the live comparison. Sides of the
same software run as duets in one process; others, in lock-step, in one each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.compare.live.anchor import MakeInterpreter, Origin, origin_of, refuse_ref
from convmark.compare.live.session import LiveSide, Pairing
from convmark.compare.live.todays import other_packages
from convmark.compare.live.tree import Tree, tree_as_it_is, tree_at_commit
from convmark.compare.live.worktree import resolve_here
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import PRECISIONS, SIDE_SETTINGS, Case
from convmark.core.errors import CaseError, ConvmarkError, OptionError, WorkerError
from convmark.core.model_name import ModelName
from convmark.core.runtimes import RUNTIME_PRECISIONS
from convmark.core.text import Say
from convmark.interpreter import Interpreter, check_zoo
from convmark.interpreter.environments import Cache, interpreter_path
from convmark.interpreter.inspection import inspect
from convmark.interpreter.installer import looks_like_requirement, wanted
from convmark.machine.gpu.cards import card_of
from convmark.machine.gpu.devices import Gpu

HERE = "."
GIT = "git:"
OF_THE_INTERPRETER = ("backend", "cpus")
"""Settings that a process has from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideSpec:
    """One side: an interpreter, the models' code, and settings."""

    text: str
    """As the user wrote it."""
    python: str = sys.executable
    ref: str = ""
    """The commit of the models; empty for the files as they are."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the case: those of `SIDE_SETTINGS`."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside this process's own."""

    @property
    def label(self) -> str:
        pairs = {**self.settings, **self.environ}
        return " ".join([self.text, *(f"{name}={value}" for name, value in pairs.items())])

    def case(self, case: Case) -> Case:
        """Return the case as this side runs it.

        Raises:
            OptionError: a setting makes it one that cannot exist.
        """
        precision = self.settings.get("precision", PRECISIONS[0])
        known = (*PRECISIONS, *RUNTIME_PRECISIONS)
        if precision not in known:
            raise OptionError(
                f"{self.label}: precision must be one of {', '.join(known)}, got {precision!r}"
            )
        try:
            return dataclasses.replace(case, **self.settings)  # type: ignore[arg-type] # checked
        except CaseError as error:
            raise OptionError(f"{self.label}: {error}") from None

    @property
    def whole_environ(self) -> dict[str, str]:
        """All environment variables of the side."""
        return {**os.environ, **self.environ}

    @contextlib.contextmanager
    def tree(self, origin: Origin | None) -> Iterator[Tree | None]:
        """Yield the models' code that the side may run; a commit's is removed after the block.

        Args:
            origin: where the models' code lies; needed with a commit. None where all sides run the
                same files.

        Raises:
            OptionError: a commit was asked for, and no repository holds the models.
            ConvmarkError: the commit is not there, or has no such folder.
        """
        if origin is None:
            if self.ref:
                raise OptionError(f"{self.text}: needs the models in a git repository")
            yield None
            return
        opened: contextlib.AbstractContextManager[Tree]
        opened = contextlib.nullcontext(tree_as_it_is(origin.repository, self.text))
        if self.ref:
            opened = tree_at_commit(origin.repository, self.ref, self.text)
        with opened as tree:
            origin.look_for(tree)
            yield tree

    def interpreter(self, make: MakeInterpreter, tree: Tree | None) -> Interpreter:
        """Return an interpreter of this side that runs the tree's code.

        Raises:
            ForeignCode: the models would come from another working tree.
        """
        environ = self.whole_environ
        where = tree.settings(environ) if tree is not None else {"environ": environ}
        own = {name: self.settings[name] for name in OF_THE_INTERPRETER if name in self.settings}
        return make(self.python, **where, **own)

    def commit(self, origin: Origin | None) -> str:
        """Return the full commit of the models; empty for the files as they are."""
        if not self.ref or origin is None:
            return ""
        return resolve_here(origin.repository, self.ref)


AsItIs = SideSpec(text=HERE)
"""This interpreter, and the models' files as they are."""


SideText = tuple[str, str, Sequence[str]]
"""How a user names a side: the argument's name, its text, and the settings of the side alone."""


def sides(
    a: SideText, b: SideText, models: Sequence[str], *, say: Say = lambda line: None
) -> tuple[SideSpec, SideSpec]:
    """Return the sides that a user means; environments are made once both sides were checked.

    Args:
        a: its text is `.`, `git:REF`, an interpreter's path or name or its environment's folder,
            or requirements; its settings are those of --set-a, each NAME=VALUE. `b` likewise.
        models: those that will be compared.

    Raises:
        ConvmarkError: as `side_spec`; or a commit is not there.
    """
    checked_sides(a, b, models)
    return side_spec(*a, say=say), side_spec(*b, say=say)


def checked_sides(a: SideText, b: SideText, models: Sequence[str]) -> list[SideSpec]:
    """Return sides of which no environment is made: its interpreter is the requirement."""
    checked = [side_spec(*side, make=False) for side in (a, b)]
    zoo = [Case(model=model, task="infer") for model in models if ModelName.of(model).is_zoo]
    for spec in checked:
        _check_commits(spec, [origin_of(case, {}) for case in zoo])
        if spec.ref:
            with _naming(spec):
                refuse_ref(spec.ref, models)
    return checked


def _check_commits(spec: SideSpec, origins: Iterable[Origin | None]) -> None:
    """Refuse a side whose commit one of the repositories does not have."""
    for origin in dict.fromkeys(origins) if spec.ref else ():
        if origin is None:
            raise OptionError(f"{spec.text}: needs the models in a git repository")
        with _naming(spec):
            spec.commit(origin)


@contextlib.contextmanager
def _naming(spec: SideSpec) -> Iterator[None]:
    """Begin what is wrong with a side's commit as the user wrote it."""
    try:
        yield
    except ConvmarkError as error:
        raise OptionError(f"{spec.text}: {error}") from None


def side_spec(
    flag: str,
    text: str,
    settings: Sequence[str] = (),
    *,
    make: bool = True,
    say: Say = lambda line: None,
) -> SideSpec:
    """Return the side that a user means.

    Args:
        make: whether its environment is made where it is not there yet, and not checked alone.

    Raises:
        OptionError: the text means nothing, or a setting breaks its rule.
        InstallError: its environment cannot be made.
    """
    of_case, of_environ = _settings(flag, settings)
    if of_case.get("backend", DEFAULT_BACKEND) not in BACKENDS:
        raise OptionError(
            f"--set-{flag.lower()}: backend must be one of {', '.join(BACKENDS)}, "
            f"got {of_case['backend']!r}"
        )
    python, ref = sys.executable, ""
    if text.startswith(GIT):
        ref = text.removeprefix(GIT)
        if not ref:
            raise OptionError(f"{flag}: git: must be followed by a branch, a tag or a commit")
    elif text != HERE:
        python = _python(flag, text, say, make=make)
    return SideSpec(text=text, python=python, ref=ref, settings=of_case, environ=of_environ)


def _python(flag: str, text: str, say: Say, *, make: bool) -> str:
    there = bool(text) and Path(text).expanduser().exists()
    if there or os.sep in text or shutil.which(text) is not None:
        return interpreter_path(flag, text)
    if looks_like_requirement(text):
        asked = wanted(flag, text)
        return Cache().get(asked, say).python if make else text
    raise OptionError(
        f"{flag}: must be . (this interpreter), git:REF, the path of an interpreter, or "
        f'requirements such as "tensorflow==2.20.*", got {text!r}'
    )


def _settings(flag: str, texts: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Part NAME=VALUE texts into settings of the case and environment variables."""
    of_case: dict[str, str] = {}
    of_environ: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        option = f"--set-{flag.lower()}"
        if not sign or not name or "\0" in text:
            raise OptionError(f"{option}: must be NAME=VALUE, such as jit=on, got {text!r}")
        if name in of_case or name in of_environ:
            raise OptionError(f"{option}: must set {name} once, got it twice")
        if name in SIDE_SETTINGS:
            of_case[name] = value
        elif name.isupper() and name.replace("_", "a").isalnum():
            of_environ[name] = value
        else:
            raise OptionError(
                f"{option}: unknown setting {name!r}; it is {', '.join(SIDE_SETTINGS)}, or an "
                "environment variable in capitals"
            )
    return of_case, of_environ


@dataclass(frozen=True, slots=True)
class End:
    """One side as it was found: what its interpreter has."""

    spec: SideSpec
    found: Mapping[str, Any]

    @property
    def sources(self) -> Mapping[str, Any]:
        """Where the users' own models come from."""
        return self.found.get("sources") or {}

    def version(self, name: str) -> str | None:
        """Return a version such as TensorFlow's; None where it is not there."""
        value = self.found.get(name)
        return str(value) if value else None

    def frameworks(self, but: str = "") -> list[str]:
        """Return name and version of each framework that it has, without one of them."""
        names = (name for name in BACKENDS if name != but and self.version(name))
        return [f"{BACKENDS[name].label} {self.version(name)}" for name in names]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides."""

    a: End
    b: End

    @property
    def share_software(self) -> bool:
        """Whether one process can be of both sides, by its interpreter and its environment."""
        a, b = self.a.spec, self.b.spec
        same = os.path.abspath(a.python) == os.path.abspath(b.python)
        backends = {one.settings.get("backend", DEFAULT_BACKEND) for one in (a, b)}
        alike = len(backends) == 1 and a.settings.get("cpus") == b.settings.get("cpus")
        return same and a.whole_environ == b.whole_environ and alike


def inspected(spec: SideSpec, models: Sequence[str], make: MakeInterpreter) -> End:
    """Return what a side has; its models are looked for as they are on the disk.

    Raises:
        OptionError: a model is unknown to it.
        WorkerError: it cannot be started, or has no framework.
    """
    with dataclasses.replace(spec, ref="").interpreter(make, None) as interpreter:
        return End(spec, inspect(interpreter, models))


def run_the_same(pair: Pair, cases: Sequence[Case]) -> bool:
    """Return whether both sides mean the same interpreter, commit and settings in every case."""
    a, b = pair.a.spec, pair.b.spec
    if not pair.share_software or bool(a.ref) != bool(b.ref):
        return False
    origins = {case.model: _origin(case, pair) for case in cases}
    return all(
        a.case(case) == b.case(case)
        and a.commit(origins[case.model]) == b.commit(origins[case.model])
        for case in cases
    )


def unlike_packages(pair: Pair, cases: Sequence[Case]) -> list[str]:
    """Say where the commits of two sides of one interpreter would have installed other packages."""
    ends = (pair.a.spec, pair.b.spec)
    if ends[0].python != ends[1].python:
        return []
    told = []
    for origin in dict.fromkeys(_origin(case, pair) for case in cases):
        if commits := list(filter(None, (end.commit(origin) for end in ends))):
            assert origin is not None
            told.append(other_packages(origin.repository, *commits))
    return list(filter(None, told))


@contextlib.contextmanager
def paired(
    cases: Sequence[Case],
    pair: Pair,
    make: MakeInterpreter,
    *,
    gpus: Sequence[Gpu],
    asked: Sequence[str],
) -> Iterator[list[Pairing]]:
    """Yield each case with its two codes and the control; all is closed after the block.

    Args:
        gpus: those of this machine, whose state tells which sessions count.
        asked: axes that the user has named for both sides.
    """
    check_zoo(case.model for case in cases)
    itself = run_the_same(pair, cases)
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(pair.a.spec.interpreter(make, None))
        opened: dict[Origin | None, list[tuple[SideSpec, Tree | None, Interpreter]]] = {}
        pairings = []
        for case in cases:
            origin = _origin(case, pair)
            if origin not in opened:
                opened[origin] = _opened(pair, origin, make, stack)
            old, new, control = (
                LiveSide(
                    case=spec.case(case),
                    interpreter=interpreter,
                    code=tree,
                    card=card_of(case.device, gpus, spec.whole_environ),
                    asked=tuple(dict.fromkeys([*asked, *spec.settings])),
                )
                for spec, tree, interpreter in opened[origin]
            )
            pairings.append(
                Pairing(
                    case=old.case,
                    old=old,
                    new=new,
                    control=control,
                    shared=shared if pair.share_software else None,
                    may_be_same=itself or old.case != new.case,
                )
            )
        yield pairings


def start_all(pairings: Iterable[Pairing]) -> None:
    """Start the interpreters of sessions; one that cannot be started is named by its session."""
    for one in pairings:
        sides = one.sides.values()
        for interpreter in [one.shared] if one.shared else [side.interpreter for side in sides]:
            with contextlib.suppress(WorkerError):
                interpreter.start()


def _opened(
    pair: Pair, origin: Origin | None, make: MakeInterpreter, stack: contextlib.ExitStack
) -> list[tuple[SideSpec, Tree | None, Interpreter]]:
    """Return A, B and A once more, each with its code and an interpreter, not started yet."""
    a, b = pair.a.spec, pair.b.spec
    of_a, of_b = stack.enter_context(a.tree(origin)), stack.enter_context(b.tree(origin))
    sides = ((a, of_a), (b, of_b), (a, of_a))
    return [(spec, tree, stack.enter_context(spec.interpreter(make, tree))) for spec, tree in sides]


def check_models(pair: Pair, cases: Sequence[Case]) -> None:
    """Refuse a side whose commit is not in the repository of each case's model."""
    for end in (pair.a, pair.b):
        if end.spec.ref:
            _check_commits(end.spec, [_origin(case, pair) for case in cases])


def commits_of(case: Case, pair: Pair) -> tuple[str, str]:
    """Return the full commits of the model on both sides; empty for the files as they are."""
    origin = _origin(case, pair)
    return pair.a.spec.commit(origin), pair.b.spec.commit(origin)


def _origin(case: Case, pair: Pair) -> Origin | None:
    """Return where the case's model lies; None where no side asks for another commit of it."""
    if not (pair.a.spec.ref or pair.b.spec.ref):
        return None
    sources = {**pair.b.sources, **pair.a.sources}
    origin = origin_of(case, sources)
    if origin is None:
        _, file = sources.get(case.model) or (None, "")
        comes = f" ({file}); install it from its repository: pip install -e" if file else ""
        raise OptionError(
            f"{case.model}: git:REF needs the model in a git repository, it is in none{comes}"
        )
    return origin
