"""Replicas over several processes or machines: the value of --cluster and its rules.

Every machine of a cluster runs the same command. The first one's rows are kept, for all of them
see the same steps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.text import counted

LOCAL, VARIABLE = "local", "TF_CONFIG"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The machines that share the replicas of a case; without addresses this one alone."""

    addresses: tuple[str, ...] = ()
    """HOST:PORT of each, the same on all of them."""
    index: int | None = None
    """Which of them is this one."""

    @property
    def name(self) -> str:
        """The value of the axis `cluster`."""
        return f"hosts{len(self.addresses)}" if self.addresses else LOCAL

    @property
    def keeps_rows(self) -> bool:
        """Whether this machine keeps the rows of cases over the cluster: the first does."""
        return not self.index

    def request(self, case: Case) -> dict[str, Any]:
        """Return what a worker is told of the cluster."""
        if self.addresses:
            return {"addresses": list(self.addresses), "index": self.index}
        return {"processes": case.replicas}


def parse_cluster(flag: str, text: str, environ: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster that an option's text names.

    Raises:
        OptionError: it is neither `local` nor `TF_CONFIG` nor two addresses or more.
    """
    if text == LOCAL:
        return Cluster()
    if text == VARIABLE:
        return _of_variable(flag, environ.get(VARIABLE))
    addresses = tuple(word.strip() for word in text.split(","))
    for address in addresses:
        _check_address(flag, address)
    if len(addresses) < 2 or len(set(addresses)) < len(addresses):
        raise OptionError(
            f"{flag}: must be local, {VARIABLE} or two different HOST:PORT or more, got {text!r}"
        )
    return Cluster(addresses=addresses)


def _check_address(flag: str, address: object) -> None:
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if found is None or not 0 < int(found.group(2)) < 1 << 16:
        raise OptionError(
            f"{flag}: an address must be HOST:PORT, such as 10.0.0.1:5000, got {address!r}"
        )


def _of_variable(flag: str, text: str | None) -> Cluster:
    """Return the cluster of TF_CONFIG, whose chief comes before its workers.

    Source: tf.distribute.cluster_resolver.TFConfigClusterResolver.
    """
    import json  # few command lines need it, and it takes its time to load

    try:
        config = json.loads(text or "")
        machines = {kind: list(config["cluster"].get(kind, ())) for kind in ("chief", "worker")}
        addresses = tuple(machines["chief"] + machines["worker"])
        kind, number = config["task"]["type"], int(config["task"]["index"])
        machines[kind][number]  # the task must be one of them
    except (ValueError, TypeError, LookupError, AttributeError):
        raise OptionError(
            f"{flag}: {VARIABLE} must be JSON with a cluster of workers and this machine's task, "
            f"got {'nothing' if not text else repr(text[:80])}"
        ) from None
    for address in addresses:
        _check_address(flag, address)
    if len(addresses) < 2:
        raise OptionError(f"{flag}: {VARIABLE} must name two workers or more, got {text!r}")
    return Cluster(
        addresses=addresses, index=number + (len(machines["chief"]) if kind == "worker" else 0)
    )


def with_index(cluster: Cluster | None, index: int | None) -> Cluster | None:
    """Return the cluster with this machine's place in it.

    Raises:
        OptionError: the place is missing, or given where there is none.
    """
    if cluster is None or not cluster.addresses:
        if index is not None:
            raise OptionError(f"--index: needs --cluster HOST:PORT,HOST:PORT, got {index}")
        return cluster
    if cluster.index is not None and index is None:
        return cluster
    places = ", ".join(f"{place} for {name}" for place, name in enumerate(cluster.addresses))
    if index is None or index >= len(cluster.addresses):
        raise OptionError(
            f"--index: must be the position of this machine in the cluster ({places}), "
            f"got {'nothing' if index is None else index}"
        )
    return replace(cluster, index=index)


def check_devices(cases: Iterable[Case], found: Mapping[str, Sequence[str]]) -> None:
    """Refuse replicas that this machine has no GPUs for; a CPU is split into logical ones."""
    for case in cases:
        if case.replicas == 1 or case.device == "cpu":
            continue
        needed = case.devices_here
        there = [device for device in found[case.backend] if device != "cpu"]
        if not set(needed) <= set(there):
            raise OptionError(
                f"--replicas: {case.replicas} need {counted(len(needed), 'GPU')} here from "
                f"{case.device} on, there {'is' if len(there) == 1 else 'are'} "
                f"{', '.join(there) or 'none'}"
            )
