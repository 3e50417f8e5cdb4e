"""`convmark run --ray` and `convmark fleet doctor`: run a plan on a cluster, check its nodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import convmark
from convmark.cli.command import exit_status, sayer
from convmark.compare.outliers import deviations
from convmark.core.errors import OptionError
from convmark.core.fitting import tell, unbroken
from convmark.core.option_values import AUTO, choice_of
from convmark.core.options import Options
from convmark.core.suites import refuse_latency_limit, refuse_replicas, refuse_untimed
from convmark.core.text import counted
from convmark.report.summary import summary_text
from convmark.report.tables import Answer, check_form, print_tables
from convmark.results.commit import read_commit
from convmark.results.store import Store
from convmark.session.ceilings import all_ceilings, ceilings_path, keep_ceilings
from convmark.session.fleet.host import (
    NodeSettings,
    PreparedNode,
    about_this_node,
    code_version,
    installed,
)
from convmark.session.fleet.nodes import (
    PER,
    CheckedNode,
    Node,
    NodeFacts,
    caution_lines,
    choose,
    fleet_findings,
    fleet_tables,
    labelled,
    node_names,
    read_labels,
    refusal,
    who_may_connect,
)
from convmark.session.fleet.run import FleetRun
from convmark.session.fleet.scheduler import Unmeasured

if TYPE_CHECKING:
    from convmark.session.fleet.ray import RayCluster

_say = sayer("convmark run")

ANSWER_LIMIT_S = 60.0
INSTALLED_LIMIT_S = 600.0
MOST_SUMMARIES = 3


def _address(text: str) -> str:
    if not text.strip():
        raise OptionError("--ray: must be an address such as 10.0.0.1:6379, got ''")
    return text.strip()


def doctor(given: argparse.Namespace, options: Options) -> int:
    """Print what each node is, has and would refuse; fail where one would not measure."""
    labels, form = read_labels(given.nodes), check_form(given.format)
    with _connected(_address(given.ray)) as cluster:
        checked = _check(cluster, labelled(cluster.nodes(), labels))
        if line := who_may_connect(checked):
            sayer("convmark fleet doctor")(line)
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
            refusals.append("its slot is used by other work of the cluster")
        software = answer if isinstance(answer, dict) else {}
        found.append(replace(one, found=software, refusals=refusals))
    if form == "text":
        print(fleet_findings(found))
    else:
        kinds = sorted({one.about.machine.name for one in found if one.about})
        tables = fleet_tables(found)
        answer = Answer(command="fleet doctor", machines=kinds, tables=tables, several=True)
        print_tables(answer, form)
    return exit_status(not any(one.refusals for one in found))


def run_on_cluster(given: argparse.Namespace, options: Options) -> int:
    """Measure the plan on the nodes, print where the rows are and which nodes differ."""
    _refuse_options(given, options)
    per = choice_of(PER)("--per", PER[0] if given.per is None else given.per)
    labels, address = read_labels(given.nodes), _address(given.ray)
    store = Store(options.results)
    store.check_writable()
    with _connected(address) as cluster:
        checked = _check(cluster, labelled(cluster.nodes(), labels))
        if line := who_may_connect(checked):
            _say(line)
        for one in checked:
            for why in one.refusals:
                _say(f"{one.name} does not measure: {why}")
        abouts = {one.node.id: one.about for one in checked if one.about and not one.refusals}
        kinds = choose(abouts, per)
        if not kinds:
            raise OptionError(
                f"--ray: none of {counted(len(checked), 'node')} can measure --per {per}; "
                "`convmark fleet doctor` shows the reason"
            )
        fleet_run = FleetRun(options, store, abouts, kinds, per=per)
        try:
            whole, interrupted = _measure(cluster, fleet_run, given.resume is not None)
        finally:
            fleet_run.close()
    refused = per == PER[0] and (len(abouts) < len(checked) or fleet_run.useless)
    return exit_status(whole and not refused, interrupted=interrupted)


def _refuse_options(given: argparse.Namespace, options: Options) -> None:
    """Refuse what a plan on a cluster cannot have."""
    for flag, value in (
        ("--shard", given.shard),
        ("--shard-times", given.shard_times),
        ("--describe", given.describe),
        ("--layers", options.layers),
        ("--format", given.format != "text"),
        ("--dry-run", given.dry_run),
        ("--quiet", given.quiet),
    ):
        if value:
            raise OptionError(f"{flag}: must not be given with --ray")
    if given.resume:
        raise OptionError(
            f"--resume: must be given without a run with --ray, got {given.resume!r}; every node's "
            "newest run of the plan is resumed"
        )
    if options.batch_sizes == AUTO:
        raise OptionError("--ray: needs --batch-sizes in numbers, got auto")
    if len([*options.pythons, *options.environments]) > 1:
        raise OptionError("--ray: measures in one --python or --env, got several")
    refuse_untimed(options, "--ray measures")
    if options.cluster and options.cluster.addresses:
        raise OptionError("--ray: must not be given with machines of a --cluster")
    refuse_latency_limit(options)
    refuse_replicas(options)


def _measure(cluster: RayCluster, fleet_run: FleetRun, resume: bool) -> tuple[bool, bool]:
    options = fleet_run.options
    settings = NodeSettings(
        options=options,
        commit=read_commit(Path.cwd(), besides=[options.results.absolute()]),
        folder=str(Path.cwd()),
        ceilings={
            name: all_ceilings(ceilings_path(options.results, name))
            for name in sorted({about.machine.name for about in fleet_run.abouts.values()})
        },
    )
    interrupted = False
    unmeasured: list[Unmeasured] = []
    try:
        able = fleet_run.prepare(
            lambda names: cluster.prepare(names, settings, _say), _say, resume=resume
        )
        for line in caution_lines({fleet_run.names[key]: fleet_run.abouts[key] for key in able}):
            _say(line)
        _keep_ceilings(options.results, able.values())
        unmeasured = fleet_run.measure(cluster, sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    for one in unmeasured:
        _say(f"{fleet_run.names[one.target]}: {one.job.case.name} #{one.job.process}: {one.why}")
    _print_runs(fleet_run)
    _print_different(fleet_run)
    if interrupted:
        _say("interrupted; continue with --resume")
    rows = [record for records in fleet_run.files.records.values() for record in records]
    return not unmeasured and all(record.measured for record in rows), interrupted


def _print_runs(fleet_run: FleetRun) -> None:
    paths, records = fleet_run.files.paths(), fleet_run.files.records
    if len(paths) <= MOST_SUMMARIES:
        for key in paths:
            tell(f"{fleet_run.named(key)}\n\n{summary_text(records[key])}\n")
    for key, path in paths.items():
        rows = counted(len(records[key]), "row")
        tell(f"{fleet_run.named(key)}: {rows} in {unbroken(str(path))}")
    if not paths:
        tell("no row was measured")


def _print_different(fleet_run: FleetRun) -> None:
    """Name the nodes that differ from their kind."""
    for hardware, times in fleet_run.step_times().items():
        for one in deviations(times):
            if one.differs:
                tell(
                    f"{hardware}: node {one.node} differs from its kind by {100 * one.change:+.1f} "
                    f"% (a good one lies within {100 * one.half_width:.1f} %), "
                    f"{counted(one.cases, 'case')}, {counted(one.processes, 'process')}"
                )


def _keep_ceilings(results: Path, ready: Iterable[PreparedNode]) -> None:
    """Keep what the nodes have measured of their devices."""
    for prepared in ready:
        path = ceilings_path(results, prepared.facts.machine.name)
        known = all_ceilings(path)
        new = [one for one in prepared.facts.ceilings.values() if one not in known]
        limited = prepared.facts.quota is not None
        keep_ceilings(path, [one for one in new if not (limited and one.device == "cpu")])


def _check(cluster: RayCluster, nodes: Sequence[Node]) -> list[CheckedNode]:
    """Ask the nodes what they are, and say which would not measure."""
    answers = cluster.ask([node.id for node in nodes], about_this_node, limit_s=ANSWER_LIMIT_S)
    version, code = convmark.__version__, code_version()
    names = node_names({key: one for key, one in answers.items() if isinstance(one, NodeFacts)})
    found = []
    for node in nodes:
        answer = answers[node.id]
        about = answer if isinstance(answer, NodeFacts) else None
        why = refusal(about, version=version, code=code) if about else str(answer)
        name = names.get(node.id, node.address)
        refusals = [why] if why else []
        found.append(CheckedNode(name=name, node=node, about=about, found={}, refusals=refusals))
    return found


def _connected(address: str) -> RayCluster:
    try:
        from convmark.session.fleet.ray import RayCluster
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise OptionError(
            '--ray: needs Ray, which is not installed here: pip install "convmark[ray]"'
        ) from None
    return RayCluster(address)
