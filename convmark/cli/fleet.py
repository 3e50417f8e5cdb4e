"""`convmark run --ray` and `convmark fleet doctor`: a plan on a cluster, and what its nodes are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import convmark
from convmark.compare.outliers import deviations
from convmark.core.cluster import check_options
from convmark.core.errors import OptionError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.suites import refuse_untimed
from convmark.fleet.campaign import Campaign
from convmark.fleet.doctor import Checked, caution_lines, fleet_findings, refusal
from convmark.fleet.host import Prepared, Settings, about_this_node, code_version, installed
from convmark.fleet.nodes import PER, About, Node, choose, labelled, node_names, read_labels
from convmark.fleet.scheduler import Unmeasured
from convmark.report.summary import cards_table, summary_table
from convmark.results.commit import read_commit
from convmark.results.store import Store
from convmark.session.ceilings import Ceiling, Key, ceilings_path, keep_ceilings, read_ceilings

if TYPE_CHECKING:
    from convmark.fleet.ray import RayCluster

__all__ = ["FleetOptions", "doctor", "read_fleet", "run"]

ANSWER_LIMIT_S = 60.0
INSTALLED_LIMIT_S = 600.0
MOST_SUMMARIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """Which cluster, and which of its nodes."""

    address: str
    per: str
    labels: Mapping[str, str]


def read_fleet(address: str, per: str | None, labels: Sequence[str]) -> FleetOptions:
    """Return what the texts ask for.

    Raises:
        OptionError: one of them breaks its rule.
    """
    if not address.strip():
        raise OptionError("--ray: must be an address such as 10.0.0.1:6379, got ''")
    if per is not None and per not in PER:
        raise OptionError(f"--per: must be one of {', '.join(PER)}, got {per!r}")
    return FleetOptions(address=address.strip(), per=per or PER[0], labels=read_labels(labels))


def doctor(options: Options, fleet: FleetOptions) -> bool:
    """Print what each node is, has and would refuse; return whether all would measure."""
    with _connected(fleet.address) as cluster:
        nodes = labelled(cluster.nodes(), fleet.labels)
        checked = _check(cluster, nodes)
        able = [one.node.id for one in checked if not one.refusals]
        has = cluster.ask(able, installed, options, limit_s=INSTALLED_LIMIT_S)
        slots = cluster.free_slots()
    found = []
    for one in checked:
        answer = has.get(one.node.id)
        refusals = list(one.refusals)
        if isinstance(answer, Exception):
            refusals.append(str(answer))
        if slots[one.node.address] < 1:
            refusals.append("its slot is taken by other work of the cluster")
        software = answer if isinstance(answer, dict) else {}
        found.append(replace(one, found=software, refusals=refusals))
    print(fleet_findings(found))
    return not any(one.refusals for one in found)


def run(options: Options, fleet: FleetOptions, *, resume: bool = False) -> tuple[bool, bool]:
    """Measure the plan on the nodes, print where the rows are and which nodes differ.

    Args:
        resume: whether the newest runs of the plan go on.

    Returns:
        whether every case was measured on every node, and whether the user has interrupted.

    Raises:
        ConvmarkError: something asked for is not to be had; nothing was measured then.
    """
    if options.batch_sizes == AUTO:
        raise OptionError("--ray: must have --batch-sizes in numbers, got auto")
    if len([*options.pythons, *options.environments]) > 1:
        raise OptionError("--ray: measures in one --python or --env, got several")
    refuse_untimed(options, "--ray measures")
    if options.cluster and options.cluster.addresses:
        raise OptionError("--ray: must not be given with machines of a --cluster")
    check_options(
        options.cluster,
        isolation=options.isolation,
        automatic=False,
        copies=options.replicas or (1,),
        backends=options.backends,
    )
    store = Store(options.results)
    store.check_writable()
    with _connected(fleet.address) as cluster:
        checked = _check(cluster, labelled(cluster.nodes(), fleet.labels))
        for one in checked:
            for why in one.refusals:
                _say(f"{one.name} does not measure: {why}")
        abouts = {one.node.id: one.about for one in checked if one.about and not one.refusals}
        kinds = choose(abouts, fleet.per)
        if not kinds:
            raise OptionError(
                f"--ray: none of {len(checked)} nodes can measure --per {fleet.per}; `convmark "
                "fleet doctor` says why"
            )
        campaign = Campaign(options, store, abouts, kinds, per=fleet.per)
        try:
            whole, interrupted = _measure(cluster, campaign, resume)
        finally:
            campaign.close()
    refused = fleet.per == PER[0] and (len(abouts) < len(checked) or campaign.useless)
    return whole and not refused, interrupted


def _measure(cluster: RayCluster, campaign: Campaign, resume: bool) -> tuple[bool, bool]:
    options = campaign.options
    settings = Settings(
        options=options,
        commit=read_commit(Path.cwd(), besides=[options.results.absolute()]),
        folder=str(Path.cwd()),
        ceilings=_known_ceilings(options.results, campaign.abouts.values()),
    )
    interrupted = False
    unmeasured: list[Unmeasured] = []
    try:
        able = campaign.prepare(
            lambda names: cluster.prepare(names, settings, _say), _say, resume=resume
        )
        for line in caution_lines({campaign.names[key]: campaign.abouts[key] for key in able}):
            _say(line)
        _keep_ceilings(options.results, able.values())
        unmeasured = campaign.measure(cluster, sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    for one in unmeasured:
        _say(f"{campaign.names[one.target]}: {one.job.case.name} #{one.job.process}: {one.why}")
    _print_runs(campaign)
    _print_different(campaign)
    if interrupted:
        _say("interrupted; --resume goes on")
    rows = [record for records in campaign.files.records.values() for record in records]
    return not unmeasured and all(record.measured for record in rows), interrupted


def _print_runs(campaign: Campaign) -> None:
    paths, records = campaign.files.paths(), campaign.files.records
    if len(paths) <= MOST_SUMMARIES:
        for key in paths:
            tables = filter(None, [summary_table(records[key]), cards_table(records[key])])
            print("\n\n".join([campaign.named(key), *tables]) + "\n")
    for key, path in paths.items():
        count = len(records[key])
        print(f"{campaign.named(key)}: {count} row{'s' * (count != 1)} in {path}")
    if not paths:
        print("no row was measured")


def _print_different(campaign: Campaign) -> None:
    """Name the nodes that differ from their kind."""
    for hardware, times in campaign.step_times().items():
        for one in deviations(times):
            if one.differs:
                print(
                    f"{hardware}: node {one.node} differs from its kind by "
                    f"{100 * one.change:+.1f} % (a good one lies within "
                    f"{100 * one.half_width:.1f} %), {one.cases} cases, {one.processes} processes"
                )


def _known_ceilings(results: Path, abouts: Iterable[About]) -> dict[str, Mapping[Key, Ceiling]]:
    machines = {about.machine.name for about in abouts}
    return {name: read_ceilings(ceilings_path(results, name)) for name in sorted(machines)}


def _keep_ceilings(results: Path, ready: Iterable[Prepared]) -> None:
    """Keep what the nodes have measured of their devices."""
    for prepared in ready:
        path = ceilings_path(results, prepared.facts.machine.name)
        known = read_ceilings(path)
        found = prepared.facts.ceilings
        keep_ceilings(path, [found[key] for key in found if key not in known])


def _say(line: str) -> None:
    print(f"convmark run: {line}", file=sys.stderr)


def _check(cluster: RayCluster, nodes: Sequence[Node]) -> list[Checked]:
    """Ask the nodes what they are, and say which would not measure."""
    answers = cluster.ask([node.id for node in nodes], about_this_node, limit_s=ANSWER_LIMIT_S)
    version, code = convmark.__version__, code_version()
    names = node_names({key: one for key, one in answers.items() if isinstance(one, About)})
    found = []
    for node in nodes:
        answer = answers[node.id]
        about = answer if isinstance(answer, About) else None
        why = refusal(about, version=version, code=code) if about else str(answer)
        name = names.get(node.id, node.address)
        refusals = [why] if why else []
        found.append(Checked(name=name, node=node, about=about, found={}, refusals=refusals))
    return found


def _connected(address: str) -> RayCluster:
    """Return the cluster.

    Raises:
        OptionError: Ray is not installed here, or nothing answers at the address.
    """
    try:
        from convmark.fleet.ray import RayCluster
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise OptionError(
            '--ray: needs Ray, which is not installed here: pip install "convmark[ray]"'
        ) from None
    return RayCluster(address)
