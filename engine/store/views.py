"""Views over a run's tables that answer what is asked often.

`wordings` says in which words each assignment was asked; `variant_rounds` and `variants` what each wording of a template brought, by round
and in all. Rows and tokens (of prompts and replies) are counted by assignment: all turns of a conversation count for every wording that had
a part in it, so that variants of a turn that writes no rows are compared as well.

`teachers` says what each model of a run has written and brought. A row counts for who wrote its text, whoever labelled it; tokens are
those of all its calls, labelling among them. Rows of the pool count for the first of those who label.

The student's gain in a round, the change of its macro F1 on validation, is shared out by accepted rows. That is an attribution and no
measurement: wordings of one round differ in it by their yield alone, whatever their rows taught. It says more only over rounds of
different mixtures, and over more of them than the score's noise has ups and downs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

VIEWS: Mapping[str, str] = {
    "rounds": """
SELECT r.*, e.accuracy, e.macro_f1, e.weighted_f1, e.loss
FROM round_records AS r LEFT JOIN evaluations AS e ON e.round = r.round AND e.split = 'validation'
""",
    "wordings": """
SELECT DISTINCT round, assignment, template AS wording, split_part(split_part(wording, '@', 1), ':', 1) AS template,
    coalesce(nullif(split_part(split_part(wording, '@', 1), ':', 2), ''), 'default') AS variant
FROM calls
""",
    "variant_rounds": """
WITH work AS (
    SELECT round, assignment, sum(rows_requested) AS requested, sum(rows_accepted) AS accepted, sum(rows_rejected) AS rejected,
        sum(rows_failed) AS failed, sum(rows_surplus) AS surplus, sum(coalesce(prompt_tokens, 0)) AS prompt_tokens,
        sum(coalesce(completion_tokens, 0)) AS completion_tokens
    FROM calls GROUP BY round, assignment
), yields AS (
    SELECT round, template, variant, wording, count(*) AS assignments, sum(requested)::BIGINT AS requested,
        sum(accepted)::BIGINT AS accepted, sum(rejected)::BIGINT AS rejected, sum(failed)::BIGINT AS failed,
        sum(surplus)::BIGINT AS surplus, sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens
    FROM wordings JOIN work USING (round, assignment) GROUP BY round, template, variant, wording
)
SELECT y.*, 1000 * accepted / nullif(prompt_tokens + completion_tokens, 0) AS rows_per_1000_tokens,
    accepted / nullif(sum(accepted) OVER (PARTITION BY y.round, template), 0) AS share,
    share * (after.macro_f1 - before.macro_f1) AS gain, 1000 * gain / nullif(prompt_tokens + completion_tokens, 0) AS gain_per_1000_tokens
FROM yields AS y
LEFT JOIN evaluations AS before ON before.round = y.round - 1 AND before.split = 'validation'
LEFT JOIN evaluations AS after ON after.round = y.round AND after.split = 'validation'
""",
    "variants": """
WITH reasons AS (
    SELECT wording, histogram(ending) AS reasons
    FROM wordings JOIN (SELECT round, assignment, unnest(endings) AS ending FROM calls) USING (round, assignment)
    WHERE ending NOT IN ('accepted', 'surplus') GROUP BY wording
), whole AS (
    SELECT template, variant, wording, count(*) AS rounds, sum(assignments)::BIGINT AS assignments, sum(requested)::BIGINT AS requested,
        sum(accepted)::BIGINT AS accepted, sum(rejected)::BIGINT AS rejected, sum(failed)::BIGINT AS failed,
        sum(surplus)::BIGINT AS surplus, sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
        sum(gain) AS gain, sum(prompt_tokens + completion_tokens) FILTER (gain IS NOT NULL) AS tokens_of_gain
    FROM variant_rounds GROUP BY template, variant, wording
)
SELECT w.* EXCLUDE (gain, tokens_of_gain), coalesce(reasons, MAP {}) AS reasons,
    1000 * accepted / nullif(prompt_tokens + completion_tokens, 0) AS rows_per_1000_tokens,
    gain, 1000 * gain / nullif(tokens_of_gain, 0) AS gain_per_1000_tokens
FROM whole AS w LEFT JOIN reasons USING (wording)
ORDER BY template, variant <> 'default', variant, wording
""",
    "teachers": """
WITH reasons AS (
    SELECT model, histogram(ending) AS reasons FROM (SELECT model, unnest(endings) AS ending FROM calls)
    WHERE ending NOT IN ('accepted', 'surplus') GROUP BY model
)
SELECT model AS teacher, count(*) AS calls, count(*) FILTER (rows_requested > 0) AS writing_calls,
    count(*) FILTER (template LIKE '%labelling/%') AS labelling_calls, count(*) FILTER (outcome = 'failed') AS failed_calls,
    sum(rows_requested)::BIGINT AS requested, sum(rows_accepted)::BIGINT AS accepted, sum(rows_rejected)::BIGINT AS rejected,
    sum(rows_failed)::BIGINT AS failed, sum(rows_surplus)::BIGINT AS surplus, coalesce(any_value(reasons), MAP {}) AS reasons,
    sum(coalesce(prompt_tokens, 0))::BIGINT AS prompt_tokens, sum(coalesce(completion_tokens, 0))::BIGINT AS completion_tokens,
    1000 * accepted / nullif(sum(coalesce(calls.prompt_tokens, 0) + coalesce(calls.completion_tokens, 0)), 0) AS rows_per_1000_tokens
FROM calls LEFT JOIN reasons USING (model) WHERE model <> 'local' GROUP BY model ORDER BY model
""",
}
"""SQL by name, each after those it reads. `rounds` adds the student's scores and loss on validation, null where it has not reported yet."""

_LISTS_TABLES = re.compile(r"\b(show|describe|information_schema|duckdb_\w+|pragma)\b", re.IGNORECASE)


def named_views(sql: str) -> list[str]:
    """The views that the SQL names, and those that these read, in the order of `VIEWS`; all where it may ask what there is."""
    if _LISTS_TABLES.search(sql):
        return [*VIEWS]
    named: list[str] = []
    for name in reversed([*VIEWS]):
        if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
            named.insert(0, name)
            sql += VIEWS[name]
    return named
