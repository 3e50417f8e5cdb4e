"""The nodes of a cluster: their properties, and which of them measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from convmark.core.errors import OptionError
from convmark.machine.cautions import Caution
from convmark.machine.environment import Machine

__all__ = [
    "PER",
    "Node",
    "NodeFacts",
    "choose",
    "gpu_names",
    "labelled",
    "labels_text",
    "read_labels",
    "some",
]

PER = ("node", "machine-kind", "gpu-kind")

MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the cluster, as its scheduler lists it."""

    id: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node says of itself."""

    host: str
    """The host's name, in its rows."""
    boot: str
    """The same for two nodes on one host, which take turns."""
    machine: Machine
    convmark: str
    code: str
    """Hash of the code that measures, and of the zoo."""
    python: str
    niceness: int
    """What its measuring processes would have; 0 where it can be taken back."""
    cautions: tuple[Caution, ...] = ()


def read_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return the labels asked for, from texts such as `rack=3`.

    Raises:
        OptionError: a text is no label and value, or a label has two values.
    """
    found: dict[str, str] = {}
    for text in texts:
        label, equals, value = text.partition("=")
        if not (label.strip() and equals and value.strip()):
            raise OptionError(f"--nodes: must be LABEL=VALUE such as rack=3, got {text!r}")
        if found.setdefault(label.strip(), value.strip()) != value.strip():
            raise OptionError(f"--nodes: must give {label.strip()} one value, got {text!r} as well")
    return found


def labelled(nodes: Sequence[Node], wanted: Mapping[str, str]) -> list[Node]:
    """Return the nodes that have all the labels.

    Raises:
        OptionError: none has; the labels that there are are named.
    """
    found = [
        node
        for node in nodes
        if all(node.labels.get(label) == value for label, value in wanted.items())
    ]
    if not found:
        asked = ", ".join(f"{label}={value}" for label, value in wanted.items())
        there = sorted({f"{key}={node.labels[key]}" for node in nodes for key in node.labels})
        known = ", ".join([label for label in there if not label.startswith("ray.io/")][:12])
        raise OptionError(
            f"--nodes: no node of {len(nodes)} has {asked or 'joined'}; "
            f"known labels: {known or 'none'} (ray start --labels)"
        )
    return found


def gpu_names(machine: Machine) -> set[str]:
    """Return the distinct names of the machine's GPUs."""
    return {gpu.name for gpu in machine.gpus}


def choose(abouts: Mapping[str, NodeFacts], per: str) -> dict[str, list[str]]:
    """Return the nodes of each kind that is to be measured, by the kind's name.

    A plan is measured on every node of a kind, or on the first of them, as `per` says; the others
    stand by for one that dies.

    Args:
        abouts: by the node's name.
        per: one of `PER`.
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(abouts, key=lambda name: (abouts[name].host, name)):
        machine = abouts[name].machine
        kind = " and ".join(sorted(gpu_names(machine))) if per == "gpu-kind" else machine.name
        if kind:  # a node without a GPU is of no kind of GPU
            kinds.setdefault(kind, []).append(name)
    return kinds


def labels_text(labels: Mapping[str, str]) -> str:
    """Return the labels that a user has given a node."""
    return " ".join(f"{key}={labels[key]}" for key in labels if not key.startswith("ray.io/"))


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def node_names(abouts: Mapping[str, NodeFacts]) -> dict[str, str]:
    """Return what each node is called: its host's name, with the node's own where two share it."""
    hosts = Counter(about.host for about in abouts.values())
    return {
        name: about.host if hosts[about.host] == 1 else f"{about.host}/{name[:8]}"
        for name, about in abouts.items()
    }
