"""Why a method did as it did, from a run's tables: what became of the rows asked for, what the accepted ones are worth, and whether what
was asked for followed the student's weak labels, and helped them.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from engine.config import restore_config
from engine.gates.gates import comparable
from engine.records import Example
from engine.reports import Audit, WeaknessReport
from engine.rundir import RunDir, read_json
from engine.runs.manifest import Manifest
from engine.store import read_samples, run_query
from engine.task.task import load_task
from examples.quickstart.judge import Judge
from student.audit import find_copies

NEAR = 0.5
"""From which share of common four-character pieces on a row counts as near to another. At the gate it is 0.7."""
WEAK_SHARE = 1 / 4
"""Of the labels: those with the lowest F1 are called weak."""

REASONS = "select reason, count(*) as rows from rejections where reason <> 'surplus' group by reason order by rows desc, reason"
LABELS = "select round, label, count(*) as rows from samples group by all"
TYPES = "select round, span.type as label, count(*) as rows from (select round, unnest(spans) as span from samples) group by all"
# A weakness is called `class:LABEL`, `pair:LABEL>OTHER`, `easy:LABEL` or the like; what names no label is called `none` or `report`.
ASKED = r"""
select round, regexp_extract(weakness, '^[a-z]+:([^>]+)', 1) as label, sum(rows_requested)::bigint as rows
from calls where rows_requested > 0 and contains(weakness, ':') group by all
"""
AS_ASKED = r"""
select count(*) filter (where label = regexp_extract(weakness, '^[a-z]+:([^>]+)', 1)) / nullif(count(*), 0) as share
from (select weakness, label from samples union all select weakness, label from rejections where reason = 'disagreement')
where contains(weakness, ':')
"""
"""Of the rows that a label was found for, also those that were refused since it was another."""


def find(run: RunDir, judge: Judge | None = None) -> dict[str, Any]:
    """`labels_agreed` and `spans_agreed` are null without a judge, and other figures where there is nothing to look at."""
    config = restore_config(read_json(run.run_json, Manifest).config)
    is_ner = config.task.kind == "ner"
    samples = read_samples(run)
    rows = [Example(sample.text, sample.label, sample.annotation.spans if sample.annotation else ()) for sample in samples]
    rows = [Example(row.text, "", row.spans) if is_ner else Example(row.text, row.label) for row in rows]
    names = [label.name for label in config.task.labels]
    labels = _by_round(run, TYPES if is_ner else LABELS)
    agreed = judge.agrees(rows) if judge is not None and rows else None
    seed_rows = load_task(config.task, config.seed).seed
    copies = find_copies(seed_rows, rows, NEAR, config.seed)
    audit = read_json(run.audit, Audit) if run.audit.exists() else None
    drift = audit.drift if audit is not None else None
    as_asked = None if is_ner else run_query(run, AS_ASKED).column("share")[0].as_py()
    return {
        "reasons": {row["reason"]: row["rows"] for row in run_query(run, REASONS).to_pylist()},
        "labels_agreed": None if agreed is None or is_ner else agreed.accuracy,
        "spans_agreed": agreed.micro_f1 if agreed is not None and is_ner else None,
        "label_as_asked": as_asked,
        "distinct": len({comparable(row.text) for row in rows}) / len(rows) if rows else None,
        "near_seed": copies and copies.of_seed / copies.num_rows,
        "near_each_other": copies and copies.of_teacher / copies.num_rows,
        "balance": balance(sum(labels.values(), Counter[str]()), names),
        "separability": drift and drift.separability,
        "missing_words": drift and drift.missing_words,
        "aim": aim(_reports(run), _by_round(run, ASKED), labels),
    }


def balance(counts: Mapping[str, int], names: Sequence[str]) -> float | None:
    """Entropy of the labels as a share of the greatest there could be: 1 where all come alike, 0 where only one does."""
    total = sum(counts.values())
    if not total:
        return None
    shares = [counts[name] / total for name in names if counts.get(name)]
    return -sum(share * math.log(share) for share in shares) / math.log(len(names))


def aim(
    reports: Sequence[WeaknessReport], asked: Mapping[int, Mapping[str, int]], written: Mapping[int, Mapping[str, int]]
) -> dict[str, float | None]:
    """Of the rounds behind the first, for which there was a report on earlier rows of the run: means over those rounds.

    `asked`, `written`: share of the rows that were asked for, and that were accepted, about the labels that the report before the round
    calls weak. `weak_gain`, `other_gain`: by how much F1 of those, and of the others, rose in the report behind it. Labels with a low F1
    rise more by chance alone, so the figure to hold a method's against is that of the control.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for before, after in pairwise(reports[1:]):
        f1 = {score.label: score.f1 for score in before.classes}
        gain = {score.label: score.f1 - f1[score.label] for score in after.classes}
        weak = sorted(f1, key=lambda label: f1[label])[: max(1, round(len(f1) * WEAK_SHARE))]
        for name, counts in (("asked", asked.get(after.round, {})), ("written", written.get(after.round, {}))):
            if total := sum(counts.values()):
                found[name].append(sum(counts.get(label, 0) for label in weak) / total)
        found["weak_gain"].append(statistics.mean(gain[label] for label in weak))
        found["other_gain"].append(statistics.mean(gain[label] for label in gain if label not in weak))
    names = ("asked", "written", "weak_gain", "other_gain")
    return {name: statistics.mean(found[name]) if found[name] else None for name in names}


def _by_round(run: RunDir, sql: str) -> dict[int, Counter[str]]:
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in run_query(run, sql).to_pylist():
        counts[row["round"]][row["label"]] += row["rows"]
    return dict(counts)


def _reports(run: RunDir) -> list[WeaknessReport]:
    return [read_json(path, WeaknessReport) for path in sorted(run.reports.glob("[0-9]*.json"))]
