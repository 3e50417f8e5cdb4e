"""The nodes of a cluster: their properties, which of them measure, and `convmark fleet doctor`."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from convmark.core.errors import OptionError
from convmark.core.statistics import grouped
from convmark.core.table import Table, grid, headings, table_of
from convmark.core.text import listed, plain_text
from convmark.machine.cautions import Caution
from convmark.machine.doctor import UNRELIABLE
from convmark.machine.hardware import GIB, Machine

PER = ("node", "machine-kind", "gpu-kind")

MOST_NAMED = 3


ADVICE = (
    "Anyone who can reach a Ray cluster can run code on it: keep it on a network that you trust, "
    "and set RAY_AUTH_MODE=token."
)


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
    asks_for_token: bool = False
    """Whether Ray was started there so that who connects must have its token."""


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
    return listed(names, MOST_NAMED)


def node_names(abouts: Mapping[str, NodeFacts]) -> dict[str, str]:
    """Return what each node is called: its host's name, with the node's own where two share it."""
    hosts = Counter(about.host for about in abouts.values())
    return {
        name: about.host if hosts[about.host] == 1 else f"{about.host}/{name[:8]}"
        for name, about in abouts.items()
    }


REFUSED = "Nodes that would refuse to measure"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNode:
    """A node as it was found."""

    name: str
    """What it is called."""
    node: Node
    about: NodeFacts | None
    found: Mapping[str, Mapping[str, Any]]
    """What each backend's interpreter has."""
    refusals: Sequence[str] = ()
    """Why it would not measure; none where it would."""


def who_may_connect(nodes: Sequence[CheckedNode]) -> str:
    """Say which nodes run the code of whoever reaches them; empty where none does."""
    found = [
        one.name
        for one in nodes
        if one.about and not one.about.asks_for_token and not _is_this_host(one.node.address)
    ]
    if not found:
        return ""
    return (
        f"{plain_text(some(found))}: anyone who reaches Ray's ports there can run code: start the "
        "nodes with RAY_AUTH_MODE=token, or with --node-ip-address of a network that you trust"
    )


def _is_this_host(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def refusal(about: NodeFacts, *, version: str, code: str) -> str | None:
    """Say why the node would not measure what the caller asks for; None where it would.

    Args:
        version, code: the caller's.
    """
    if about.convmark != version:
        return f"convmark {about.convmark} there, {version} here: install the same on both"
    if about.code != code:
        return f"its measuring code or zoo differs ({about.code} there, {code} here)"
    return None


def fleet_findings(nodes: Sequence[CheckedNode]) -> str:
    """Return all sections, one blank line between them."""
    refused = [(one, why) for one in nodes for why in one.refusals]
    cautions = [(one, caution) for one in nodes if one.about for caution in _cautions(one.about)]
    table = grid(_table(nodes), "simple", plain_text)
    lines = ["Nodes", "", table, "", REFUSED]
    lines += [f"  {plain_text(one.name)}: {plain_text(why)}" for one, why in refused] or ["  none"]
    lines += ["", UNRELIABLE]
    for one, caution in cautions:
        lines.append(f"  {plain_text(one.name)}: {caution.subject}: {caution.finding}")
        lines.append(f"    -> {caution.remedy}")
    if not cautions:
        lines.append("  nothing found")
    return "\n".join([*lines, "", ADVICE])


def fleet_tables(nodes: Sequence[CheckedNode]) -> list[Table]:
    """Return the nodes, what they would refuse, and what will make their figures unreliable."""
    refused = [{"node": one.name, "reason": why} for one in nodes for why in one.refusals]
    cautions = [
        {"node": one.name, **asdict(caution)}
        for one in nodes
        if one.about
        for caution in _cautions(one.about)
    ]
    return [
        _table(nodes),
        _texts("refusals", REFUSED, ("node", "reason"), refused),
        _texts("cautions", UNRELIABLE, ("node", "subject", "finding", "remedy"), cautions),
    ]


def _texts(
    key: str, title: str, names: Sequence[str], records: Sequence[Mapping[str, str]]
) -> Table:
    return table_of(key, title, "", headings(" ".join(names)), records, keep=names)


def caution_lines(abouts: Mapping[str, NodeFacts]) -> list[str]:
    """Return a line for each thing that will make figures unreliable, with its nodes."""
    nodes = grouped((one, name) for name, about in abouts.items() for one in _cautions(about))
    return [f"{plain_text(some(names))}: {caution}" for caution, names in nodes.items()]


def _cautions(about: NodeFacts) -> list[Caution]:
    if not about.niceness:
        return list(about.cautions)
    nice = Caution(
        subject="niceness",
        finding=f"measures at niceness {about.niceness}: all other programs have priority",
        remedy="start Ray there with RAY_worker_niceness=0",
    )
    return [*about.cautions, nice]


def _table(nodes: Sequence[CheckedNode]) -> Table:
    names = ("node", "address", "labels", "kind", "CPU", "RAM", "GPUs", "convmark", "frameworks",
             "devices")  # fmt: skip
    records = [
        {
            "node": one.name,
            "address": one.node.address,
            "labels": labels_text(one.node.labels),
            **(_machine(one.about) if one.about else {"kind": "unknown"}),
            "frameworks": ", ".join(_framework(name, has) for name, has in one.found.items()),
            "devices": " ".join(dict.fromkeys(_devices(one.found))),
        }
        for one in nodes
    ]
    return _texts("nodes", "Nodes", names, records)


def _machine(about: NodeFacts) -> dict[str, str]:
    machine = about.machine
    return {
        "kind": machine.name,
        "CPU": f"{machine.cores} x {machine.cpu}",
        "RAM": f"{machine.ram_bytes / GIB:.0f} GiB",
        "GPUs": ", ".join(gpu.name for gpu in machine.gpus) or "none",
        "convmark": about.convmark,
    }


def _framework(backend: str, has: Mapping[str, Any]) -> str:
    keras = f" Keras {has['keras']}" if has.get("keras") else ""
    return f"{backend} {has.get(backend) or 'unknown'}{keras} Python {has.get('python')}"


def _devices(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [str(device) for has in found.values() for device in has.get("devices") or ()]
