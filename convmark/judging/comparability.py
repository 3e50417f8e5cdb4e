"""What two rows must share to be judged against each other, and what to do where they do not."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from convmark.case import Case
from convmark.record import Record, to_cell

__all__ = ["AXES", "Comparability", "alike", "axes_of", "comparability", "difference", "of_the_run"]


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
    threads: str
    dataset: str | None
    fraction: float | None
    epochs: int | None
    machine: str | None
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
    """What of the process differs from the default."""
    packages: str | None
    """None where it is not known, of rows without a hash of their code; empty where none is."""
    isolation: str | None
    reference: str | None
    reference_version: int | None
    measurement_version: str | None

    @property
    def axes(self) -> tuple[bytes, ...]:
        """The cells of `AXES` as a row of a file holds them."""
        return axes_of(self)

    @property
    def marks(self) -> frozenset[str]:
        """Texts that a file with comparable rows holds somewhere."""
        return frozenset(filter(None, (self.driver, self.cuda, self.cudnn)))


AXES = (
    *("model", "task", "device", "batch_size", "precision", "jit", "replicas", "cluster"),
    "threads",
)


def axes_of(one: Comparability | Case) -> tuple[bytes, ...]:
    """Return the cells of `AXES` as a row of a file holds them."""
    return tuple(to_cell(getattr(one, name)).encode() for name in AXES)


_OF_A_RUN = (
    "threads",
    "machine",
    "tensorflow",
    "jax",
    "torch",
    "keras",
    "numpy",
    "python",
    "os",
    "flags",
    "isolation",
    "measurement_version",
)
"""Facts that all rows of a run share, as far as they are known."""

_AB = "`convmark ab` compares them live"
_REPORT = "`convmark report` sets them side by side"
_ANEW = "`convmark accept` of a run measured so starts a new history"
_COMMANDS = {
    "dataset": _ANEW,
    "fraction": _ANEW,
    "epochs": _ANEW,
    "machine": _REPORT,
    "gpu": _REPORT,
    "mig": _REPORT,
    "ecc": _REPORT,
    "driver": _REPORT,
    "os": _REPORT,
    "isolation": _ANEW,
    "reference": _ANEW,
    "reference_version": _ANEW,
    "measurement_version": _ANEW,
}


def comparability(record: Record) -> Comparability:
    """Return the facts of a row."""
    values = {field.name: getattr(record, field.name) for field in fields(Comparability)}
    if record.python:
        values["python"] = ".".join(record.python.split(".")[:2])
    if record.code is not None:
        values["packages"] = record.packages or ""
    return Comparability(**values)


def of_the_run(facts: Comparability) -> tuple[object, ...]:
    """Return the facts that any row of a run tells of all its rows; None where it cannot tell."""
    known = replace(facts, flags=facts.flags or "")  # every row tells its flags
    return tuple(getattr(known, name) for name in _OF_A_RUN)


def alike(now: Comparability, then: Comparability) -> bool:
    """Whether two rows are comparable."""
    return replace(now, packages=None) == replace(then, packages=None) and (
        now.packages == then.packages or None in (now.packages, then.packages)
    )


def difference(now: Comparability, then: Comparability) -> str:
    """Say in which fact two rows differ first, both values, and what can compare them.

    Returns:
        an empty text where they are comparable.
    """
    if alike(now, then):
        return ""
    for field in fields(Comparability):
        ours, theirs = getattr(now, field.name), getattr(then, field.name)
        if field.name in _PAIRS:
            theirs, ours = _differing(theirs, ours)
        if ours != theirs:
            command = _COMMANDS.get(field.name, _AB)
            words = field.name.replace("_", " ")
            return f"{words} was {_quoted(theirs)}, is {_quoted(ours)}: {command}"
    return ""


_PAIRS = frozenset({"flags", "state", "packages"})
"""Facts of several parts, of which only those that differ are shown."""


def _differing(then: str | None, now: str | None) -> tuple[str, str]:
    """Return the parts that one of two texts alone has."""
    before, after = (_parts(text) for text in (then, now))
    lost = [part for part in before if part not in after]
    new = [part for part in after if part not in before]
    return " ".join(lost) or "default", " ".join(new) or "default"


def _parts(text: str | None) -> list[str]:
    """Return the parts of a text as a shell would, quotes kept."""
    return _PART.findall(text or "")


_PART = re.compile(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+")


def _quoted(value: object) -> str:
    return "not known" if value is None else str(value)
