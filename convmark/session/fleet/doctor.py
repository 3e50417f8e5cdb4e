"""The text of `convmark fleet doctor`: the properties and problems of each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.core.table import Table, grid, heading, table_of
from convmark.machine.doctor import UNRELIABLE
from convmark.machine.environment import GIB, plain_text
from convmark.session.fleet.nodes import Node, NodeFacts, labels_text, some

__all__ = ["CheckedNode", "caution_lines", "fleet_findings", "fleet_tables", "refusal"]

ADVICE = (
    "Anyone who can reach a Ray cluster can run code on it: keep it on a network that you trust, "
    "and set RAY_AUTH_MODE=token."
)


REFUSED = "Would refuse to measure"


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


def refusal(about: NodeFacts, *, version: str, code: str) -> str | None:
    """Say why the node would not measure what the caller asks for; None where it would.

    Args:
        version, code: the caller's.
    """
    if about.convmark != version:
        return f"convmark {about.convmark} there, {version} here: install the same on both"
    if about.code != code:
        return f"its measuring code or zoo is another ({about.code} there, {code} here)"
    return None


def fleet_findings(nodes: Sequence[CheckedNode]) -> str:
    """Return all sections, one blank line between them."""
    refused = [(one, why) for one in nodes for why in one.refusals]
    cautions = [(one, caution) for one in nodes if one.about for caution in _cautions(one.about)]
    table = grid(_table(nodes), "simple", plain_text)
    lines = ["Nodes", "", table, "", REFUSED]
    lines += [f"  {plain_text(one.name)}: {plain_text(why)}" for one, why in refused] or ["  none"]
    lines += ["", UNRELIABLE]
    for one, (subject, finding, remedy) in cautions:
        lines += [f"  {plain_text(one.name)}: {subject}: {finding}", f"    -> {remedy}"]
    if not cautions:
        lines.append("  nothing found")
    return "\n".join([*lines, "", ADVICE])


def fleet_tables(nodes: Sequence[CheckedNode]) -> list[Table]:
    """Return the nodes, what they would refuse, and what will make their figures unreliable."""
    refused = [{"node": one.name, "reason": why} for one in nodes for why in one.refusals]
    names = ("subject", "finding", "remedy")
    cautions = [
        {"node": one.name, **dict(zip(names, caution, strict=True))}
        for one in nodes
        if one.about
        for caution in _cautions(one.about)
    ]
    return [
        _table(nodes),
        _texts("refusals", REFUSED, ("node", "reason"), refused),
        _texts("cautions", UNRELIABLE, ("node", *names), cautions),
    ]


def _texts(
    key: str, title: str, names: Sequence[str], records: Sequence[Mapping[str, str]]
) -> Table:
    return table_of(key, title, "", [heading(name, name) for name in names], records, keep=names)


def caution_lines(abouts: Mapping[str, NodeFacts]) -> list[str]:
    """Return a line for each thing that will make figures unreliable, the nodes that it is true of.

    Args:
        abouts: by what a node is called.
    """
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for name, about in abouts.items():
        for caution in _cautions(about):
            nodes.setdefault(caution, []).append(name)
    return [
        f"{plain_text(some(names))}: {subject}: {finding}; {remedy}"
        for (subject, finding, remedy), names in nodes.items()
    ]


def _cautions(about: NodeFacts) -> list[tuple[str, str, str]]:
    found = [(one.subject, one.finding, one.remedy) for one in about.cautions]
    if about.niceness:
        found.append(
            (
                "niceness",
                f"measures at niceness {about.niceness}: all other programs have priority",
                "start Ray there with RAY_worker_niceness=0",
            )
        )
    return found


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
