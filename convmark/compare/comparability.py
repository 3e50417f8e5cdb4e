"""Which columns two rows must share to be compared, and advice if they differ."""

from __future__ import annotations

import functools
import operator
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.case import NUMA, PRECISIONS
from convmark.core.runtimes import DEFAULT_RUNTIME, RUNTIME_PRECISIONS, RUNTIMES
from convmark.core.statistics import median_of
from convmark.results.record import Record, asked_axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """The facts that decide whether two rows are comparable, the plainest difference first."""

    model: str
    task: str
    device: str
    batch_size: int
    precision: str
    jit: str
    replicas: int
    cluster: str | None
    backend: str
    recipe: str | None
    runtime: str | None
    training: str | None
    """`model`, or None where the harness has trained it, as it always had before schema 3."""
    threads: str
    cpus: str | None
    dataset: str | None
    fraction: float | None
    epochs: int | None
    asked_shape: str | None
    machine: str | None
    node: str | None
    """`named`, or None where a row does not name its host: it may be of any machine of the kind."""
    tensorflow: str | None
    jax: str | None
    torch: str | None
    keras: str | None
    numpy: str | None
    python: str | None
    """Major and minor version."""
    gpu: str | None
    """Its name: CUDA_VISIBLE_DEVICES may make another card `gpu:0`."""
    mig: str | None
    ecc: str | None
    driver: str | None
    cuda: str | None
    cudnn: str | None
    os: str | None
    """With the kernel's release."""
    flags: str | None
    state: str | None
    """NAME=value pairs of the process; what the model's own code has set begins with `model:`."""
    packages: str | None
    """Those that both rows import must have the same versions; which they are is the code's."""
    isolation: str | None
    reference: str | None
    reference_version: int | None
    measurement_version: str | None

    @property
    def point(self) -> tuple[str, str, str, int]:
        """What rows share that differ in settings alone."""
        return self.model, self.task, self.device, self.batch_size

    @property
    def options(self) -> dict[str, str]:
        """The options that choose the case, each with its value, so that none is pyproject's.

        A precision that no option can ask for is the model's own.
        """
        recipe = dict(pair.split("=", 1) for pair in (self.recipe or "").split())
        node = (self.cpus or "").removeprefix(NUMA)
        of_a_node = node != (self.cpus or "")
        cpus = "default" if of_a_node or not self.cpus else self.cpus
        return {
            "models": self.model,
            "tasks": self.task,
            "devices": self.device,
            "batch-sizes": str(self.batch_size),
            **(
                {"precisions": self.precision}
                if self.precision in (*PRECISIONS, *RUNTIME_PRECISIONS)
                else {}
            ),
            "jit": self.jit,
            "threads": self.threads,
            "cpus": cpus,
            "numa": node if of_a_node else "default",
            "backend": self.backend,
            "runtime": self.runtime or DEFAULT_RUNTIME,
            "input-shape": self.asked_shape or "default",
            "optimizer": recipe.get("optimizer", "default"),
            "learning-rate": recipe.get("learning_rate", "default"),
            "loss": recipe.get("loss", "default"),
        }


_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)+[0-9a-z.]*")
_SETTINGS = ("jit", "threads", "cpus")
"""Facts that `convmark ab` sets for one side, besides the precision."""
_DEFAULTS = {
    **{"models": "", "tasks": "", "batch-sizes": "", "devices": "cpu", "precisions": "float32"},
    **{"jit": "off", "backend": DEFAULT_BACKEND, "runtime": DEFAULT_RUNTIME},
}
"""Of options that choose a case, where it is not `default`; each command has its own models."""
_AB = "`convmark ab` compares them live"
_REPORT = "`convmark report` shows them side by side"
_ANEW = "the two cannot be compared; later runs are compared with this one"
_NOT_USED = "the anchor's figures are not used, its code is compared live"
_OF_THE_MEASUREMENT = ("reference", "reference_version", "measurement_version")
"""How the figures were taken: rows that differ in it have no figure to compare, yet their codes can
be compared live."""
_SIDE_BY_SIDE = ("replicas", "cluster", "backend", "recipe", "asked_shape", "machine", "gpu", "mig")
_COMMANDS = {
    **dict.fromkeys((*_SIDE_BY_SIDE, "ecc", "driver", "os"), _REPORT),
    **dict.fromkeys(("dataset", "fraction", "epochs", "isolation", *_OF_THE_MEASUREMENT), _ANEW),
}
"""By the fact what compares rows that differ in it, where `convmark ab` does not."""
MODEL = "model:"
"""Begins the name of a pair of `state` that the model's own code has set."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The facts of a row, and what of them must be alike for less than a comparison of figures."""

    facts: Comparability
    live: Comparability
    """What must be alike to compare the two codes live: not what a model's own code sets, nor how
    the figures were taken. Their histories cannot be compared: what is set for the whole process
    slows the reference along."""

    @classmethod
    def of(cls, record: Record) -> Conditions:
        return conditions_of(_values_of(record))


CONDITIONS = (*(field.name for field in fields(Comparability)), "asked")
"""The columns that tell the conditions of a row."""

_values_of = operator.attrgetter(*CONDITIONS)


@functools.lru_cache(maxsize=4096)
def conditions_of(values: Sequence[Any]) -> Conditions:
    """Return the conditions of a row by the values of `CONDITIONS`."""
    row = dict(zip(CONDITIONS, values, strict=True))
    facts = facts_of(row)
    before: dict[str, Any] = {
        **asked_axes(row["asked"]),
        **dict.fromkeys(_OF_THE_MEASUREMENT),
        "state": _state(facts.state, own=False),
        "training": None,  # compile() is the model's own code too
        "node": None,
    }
    return Conditions(facts, replace(facts, **before))


def facts_of(row: Mapping[str, Any]) -> Comparability:
    """Return the facts of a row by the values of its columns."""
    python, trained = row["python"], row["training"]
    facts = {field.name: row[field.name] for field in fields(Comparability)}
    known = {
        "node": "named" if row["node"] else None,
        "python": ".".join(python.split(".")[:2]) if python else python,
        "training": "model" if trained == "model" else None,
        "runtime": row["runtime"] or DEFAULT_RUNTIME,
        "state": _state(row["state"], own=True),
    }
    return Comparability(**{**facts, **known})


@functools.lru_cache(maxsize=256)
def _state(state: str | None, *, own: bool) -> str | None:
    """Return the pairs of a state in one spelling, with or without what the model has set."""
    pairs = _pairs(state).items()
    kept = (f"{name}={value}" for name, value in pairs if own or not name.startswith(MODEL))
    return shlex.join(sorted(kept)) or None


def _pairs(text: str | None) -> Mapping[str, str]:
    """Return NAME=value pairs, parted by spaces and quoted as a shell reads them."""
    try:
        words = shlex.split(text or "")
    except ValueError:  # a quote without its end
        words = (text or "").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


_TOLD_LATER = re.compile(
    rf"{MODEL}(?:asks|fit|jit_compile|train_on_batch|training|untracked_parameters)"
    rf"|(?:{'|'.join(RUNTIMES)})\..+"
)
"""Pairs of `state` that rows of earlier versions lack, whatever their process was: what is said of
a model beside its process, and how a runtime runs, as it reports itself. The code and the packages
decide them, and the reference network runs as without them."""


def told_always(state: str | None) -> str | None:
    """Return the pairs of a state that rows of earlier versions have too."""
    kept = (f"{name}={value}" for name, value in _pairs(state).items() if not _is_later(name))
    return shlex.join(kept) or None


def _is_later(name: str) -> bool:
    return _TOLD_LATER.fullmatch(name) is not None


def comparable(now: Comparability, then: Comparability) -> bool:
    return now == then or not differing(now, then)


def differing(now: Comparability, then: Comparability) -> list[str]:
    """Return the facts in which two rows differ, the plainest first.

    Packages and pairs of `state` that earlier rows do not tell count where both rows have them.
    """
    parts = {"packages": _other_versions, "state": _other_pairs}
    return [
        name
        for name in (field.name for field in fields(Comparability))
        for ours, theirs in [(getattr(now, name), getattr(then, name))]
        if ours != theirs and (name not in parts or parts[name](ours, theirs))
    ]


def _other_pairs(now: str | None, then: str | None) -> list[str]:
    """Return the names of pairs that differ, the inherited before those of the model's code."""
    ours, theirs = _pairs(now), _pairs(then)
    unlike = (name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    found = (name for name in unlike if name in ours.keys() & theirs or not _is_later(name))
    return sorted(found, key=lambda name: (name.startswith(MODEL), name))


def _other_versions(now: str | None, then: str | None) -> list[str]:
    """Return the packages that both texts name in different versions.

    Of a package from an address earlier rows have no hash of its files: there the version counts.
    """
    ours, theirs = _versions(now), _versions(then)
    shared = ((one, ours[one], theirs[one]) for one in ours.keys() & theirs.keys())
    return sorted(
        name
        for name, one, other in shared
        if one != other and (one.count("@") == other.count("@") or _release(one) != _release(other))
    )


def _release(version: str) -> str:
    return version.partition("@")[0]


def _versions(packages: str | None) -> dict[str, str]:
    return dict(part.split("==", 1) for part in (packages or "").split() if "==" in part)


def difference(now: Comparability, then: Comparability, *, live: bool = False) -> str:
    """Say in which fact two rows differ first, both values, and what can compare them.

    Of `state` it is the first pair that differs.

    Args:
        live: whether their codes are compared live all the same.

    Returns:
        an empty text where they are comparable.
    """
    name = next(iter(differing(now, then)), None)
    if name is None:
        return ""
    ours, theirs = getattr(now, name), getattr(then, name)
    if name == "training":
        then_by, now_by = theirs or "harness", ours or "harness"
        return f"training was {then_by}, is {now_by}, as the model's own code has it"
    if name == "node":
        told = _NOT_USED if live else _ANEW
        return f"the earlier rows {'' if theirs else 'do not '}name their host: {told}"
    if name == "state":
        return _state_difference(ours, theirs, _case(now))
    if name == "packages":
        names = _other_versions(ours, theirs)
        theirs, ours = (
            " ".join(f"{one} {_versions(text)[one]}" for one in names) for text in (theirs, ours)
        )
    if name == "flags":
        before, after = _PART.findall(theirs or ""), _PART.findall(ours or "")
        theirs = " ".join(one for one in before if one not in after) or "default"
        ours = " ".join(one for one in after if one not in before) or "default"
    absent = "all" if name == "cpus" else "not known"
    was, is_now = (absent if value is None else value for value in (theirs, ours))
    command = _COMMANDS.get(name) or _live_words(name, was, is_now, now)
    if live and name in _OF_THE_MEASUREMENT:
        command = _NOT_USED
    return f"{name.replace('_', ' ')} was {was}, is {is_now}: {command}"


def _may_be_set(name: str, value: str) -> bool:
    """Whether `convmark ab` can set the fact to the value for one side."""
    if name == "precision":
        return value in PRECISIONS
    return name in _SETTINGS and " " not in value and not value.startswith(NUMA)


def _live_words(name: str, was: str, is_now: str, now: Comparability) -> str:
    """Say what compares two values of a fact live; the whole command where it follows from them."""
    if name == "tensorflow" and _RELEASE.fullmatch(was) and _RELEASE.fullmatch(is_now):
        sides = [f"tensorflow=={was}", f"tensorflow=={is_now}"]
    elif all(_may_be_set(name, one) for one in (was, is_now)):
        values = [f"{name}={'default' if one == 'all' else one}" for one in (was, is_now)]
        sides = ["--set-a", values[0], "--set-b", values[1]]
    else:
        return _AB
    return f"`{shlex.join(['convmark', 'ab', *sides, *_case(now, name)])}` compares them live"


def _case(now: Comparability, but: str = "") -> list[str]:
    """Return the options that choose the case, as far as their defaults do not.

    Args:
        but: a fact that the two sides set.
    """
    of_sides = "precisions" if but == "precision" else but
    return [
        word
        for name, value in now.options.items()
        if name != of_sides and value != _DEFAULTS.get(name, "default")
        for word in (f"--{name}", value)
    ]


def _state_difference(now: str | None, then: str | None, case: Sequence[str]) -> str:
    """Say which pair differs first."""
    name = _other_pairs(now, then)[0]
    ours, theirs = _pairs(now).get(name), _pairs(then).get(name)
    was, is_now = ("the default" if value is None else value or "empty" for value in (theirs, ours))
    words = f"{name} was {was}, is {is_now}"
    if name.startswith(MODEL):
        return f"{words}, as the model's own code sets it"
    if not (name.isupper() and name.replace("_", "a").isalnum()):
        return f"{words}: {_REPORT}"
    sides = [("--set-a", theirs), ("--set-b", ours)]
    settings = [word for flag, value in sides if value for word in (flag, f"{name}={value}")]
    unset = f" where {name} is not set" if None in (ours, theirs) else ""
    command = shlex.join(["convmark", "ab", *settings, *case])
    return f"{words}: `{command}`{unset} compares them live"


_PART = re.compile(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+")
"""A part of a text as a shell has it, quotes kept."""


ALIKE_LOAD = 0.1
"""Loads are alike where they differ by no more than this share of the CPUs' time.

From a quiet machine to one with three busy programs per CPU, which take three quarters of its time,
the ratio of case to reference of identical code moved by up to 21 %.
"""


def load_of(rows: Sequence[Record]) -> float | None:
    """Return the share of the CPUs' time that others took, median; None unless every row tells."""
    loads = [row.other_cpu_share for row in rows]
    return None if None in loads else median_of(loads)


def loads_alike(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Return whether the loads of two groups differ too little to matter; unknown ones never do."""
    ours, theirs = load_of(one), load_of(other)
    return ours is not None and theirs is not None and abs(ours - theirs) <= ALIKE_LOAD
