"""Accuracy and time to accuracy of the lecture's networks, with published values.

Source:
    the published figures are those of the Paris-Saclay deep learning course
    (m2dsupsdlclass/lectures-labs), its lab on convolutional networks: test accuracy and loss of one
    training of each network, five epochs of batches of 256, SGD at 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmark.core.statistics import middle_of
from convmark.core.table import FACETS, Heading, Table, headings, table_of
from convmark.core.text import natural_order
from convmark.report.rows import setting
from convmark.results.record import large_load, shown_in

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED: Mapping[str, tuple[float, float]] = {
    "lenet5": (0.9819, 0.0587),
    "mini_inception": (0.9791, 0.0619),
    "mini_resnet": (0.9845, 0.0469),
    "mini_resnet_norm": (0.9691, 0.0995),
}
"""Test accuracy and test loss by model."""

BATCH_SIZE = 256

_SAME = ("hardware", "case", "fraction", "epochs", "framework", "keras", "target_accuracy")
"""What rows must share to be seeds of the same training, beside code and digits."""
_MORE = shown_in("accuracy")
"""Columns that need nothing of their own here."""


def accuracy(frame: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Return one row per case and framework, its figures over the newest process of each seed."""
    records = [_record(rows, labels) for rows in _groups(frame)]
    records.sort(key=lambda row: (str(row["hardware"]), -row["fraction"],
                                  natural_order(str(row["case"]))))  # fmt: skip
    alike = _alike(records)
    return table_of(
        "accuracy",
        "Accuracy on MNIST",
        "Trained for five epochs by SGD at 0.1 on 50,000 digits and tested on 10,000. Accuracy "
        "and loss are means over the seeds, from the newest process of each, all with the newest "
        "code; sd is the standard deviation over the seeds. The time to the target is the "
        "training time up to the end of the first epoch whose validation accuracy reached it: the "
        "median of the seeds that did. Published is the lecture's figure from one training, shown "
        "only for models that were trained in the same way. Seeds that failed are left out. A "
        "runtime tests the model that Keras trained, with the same weights for each seed; as "
        f"Keras decides is the share of digits to which both give the same class.{alike}",
        [
            *headings(
                "model hardware setting framework part accuracy accuracy_sd accuracy_published "
                "accuracy_difference top1_agreement loss loss_sd loss_published epoch_time_s "
                "load target time_to_target_s samples_to_target reached seeds failed why",
                part=("part of the data", "share"),
                accuracy_published=("published", "score"),
                accuracy_difference=("difference", "difference"),
                top1_agreement=("as Keras decides", "share"),
                loss_published=("published", "score"),
                target=("target", "number"),
                time_to_target_s=("time to it", "seconds"),
                samples_to_target=("samples to it", "count"),
                reached="reached it",
                seeds=("seeds", "count"),
                failed=("failed", "count"),
            ),
            *map(Heading.of, _MORE),
            *headings("runs", runs="runs"),
        ],
        records,
        empty=f"Nothing was trained on data. Fill it by: {filling_command()}",
    )


def _groups(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the newest process of each seed of the same training, none of other code or digits."""
    ordered = frame[frame["task"] == "accuracy"].sort_values("source", kind="stable").copy()
    measured = ordered["measured"]
    ran = ordered["code"].where(ordered["code"].notna(), ordered["commit"].where(measured))
    for _, rows in ordered.assign(ran=ran).groupby(
        list(_SAME), observed=True, sort=False, dropna=False
    ):
        for name in ("ran", "dataset"):
            known = rows[rows[name].notna()]  # a process that failed early has none
            if len(known):
                newest = known.iloc[-1]
                later = rows["source"] >= newest["source"]
                near = rows["measured"] | later | (rows["commit"] == newest["commit"])
                rows = rows[(rows[name] == newest[name]) | (rows[name].isna() & near)]
        yield rows.drop_duplicates("seed", keep="last")


def trainings(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the facts of each training, and its measured rows, one of each seed."""
    for rows in _groups(frame):
        yield {str(name): rows[name].iloc[-1] for name in rows}, rows[rows["measured"]]


def _alike(records: Sequence[dict[str, Any]]) -> str:
    """Take out of the rows what they all share, and return the sentence that says it."""
    shared = []
    for name in ("hardware", "framework"):
        values = {row[name] for row in records}
        if len(values) == 1 and None not in values:
            shared.append(str(values.pop()))
            for row in records:
                del row[name]
    return f" All on {', '.join(shared)}." if shared else ""


def _record(every: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    first = {name: every[name].iloc[-1] for name in every}
    rows, failed = every[every["measured"]], every[~every["measured"]]
    seeds = len(rows)
    size = first["batch_size"]
    batch = "" if size == BATCH_SIZE else f"batch {int(size)}"
    reached = rows["time_to_target_s"].notna().sum()
    found = {
        **{name: first[name] for name in FACETS},
        "case": first["case"],
        "hardware": first["hardware"],
        "setting": ", ".join(filter(None, [batch, setting(first)])),
        "fraction": first["fraction"],
        "part": first["fraction"] if first["fraction"] != 1 else None,
        "epoch_time_s": rows["epoch_time_s"].median(),
        "load": load_of(rows),
        "target": first["target_accuracy"],
        "time_to_target_s": rows["time_to_target_s"].median(),
        "samples_to_target": rows["samples_to_target"].median(),
        "top1_agreement": middle_of(rows["top1_agreement"].dropna()),
        "reached": f"{reached} of {seeds}" if seeds else None,
        "seeds": seeds,
        "failed": len(failed) or None,
        **{column.name: middle_of(rows[column.name].dropna()) for column in _MORE},
        "why": f"{failed['status'].iloc[0]}: {failed['error'].iloc[0]}" if len(failed) else None,
        "runs": ", ".join(dict.fromkeys(labels[int(source)] for source in every["source"])),
    }
    for name in ("accuracy", "loss"):
        found[name] = rows[name].mean()
        found[f"{name}_sd"] = rows[name].std(ddof=1)
    published = PUBLISHED.get(first["model"])
    if published and seeds and first["fraction"] == 1 and first["batch_size"] == BATCH_SIZE:
        found["accuracy_published"], found["loss_published"] = published
        found["accuracy_difference"] = found["accuracy"] - published[0]
    return found


def load_of(rows: pd.DataFrame) -> float | None:
    """Return the other programs' share of the CPUs' time, where it is large."""
    return large_load(rows["other_cpu_share"])


def filling_command() -> str:
    """Return the command whose run fills the table."""
    return "convmark run --tasks accuracy --seeds 0,1,2"
