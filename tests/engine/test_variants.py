"""Wordings of a template that share a round: who gets which, what they brought, and what a bandit makes of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError
from typer.testing import CliRunner

from engine.cli import app
from engine.config import RunConfig, VariantsConfig, dump_config, load_config, restore_config
from engine.errors import UserError
from engine.progress import Silent
from engine.prompting import Prompter, open_library
from engine.records import Assignment, Request, TaskSpec
from engine.rehearsal import check_prompts
from engine.reports import Scores
from engine.rundir import RunDir
from engine.runs.manifest import begin
from engine.store import Evaluation, append_evaluation, connect, read_samples, read_yields, run_query
from engine.store.views import named_views
from engine.testing.teacher import ScriptedTeacher, write_rows
from engine.variants import MAX_BLOCK, Allotment, Yield, variant_of
from engine.views.variants import compared, read_variants
from tests.engine.strategies.schooling import generating, make_config, make_task, report_on, teach

NAMES = ("pgkd/generate@11111111", "pgkd/generate:short@22222222", "pgkd/generate:stern@33333333")
WRITE = """
{% block user %}In short: {{ num_rows }} rows.{% endblock %}
{% block ask %}{{ focus | json }}{% endblock %}
"""


def allot(allotment: Allotment, rounds: int, requests: int, wordings: tuple[str, ...] = NAMES) -> list[list[int]]:
    return [[allotment.choose(wordings, round, number) for number in range(requests)] for round in range(1, rounds + 1)]


# Who gets which.


@settings(max_examples=40, deadline=None)
@given(requests=st.integers(1, 70), variants=st.integers(2, 3), seed=st.integers(0, 99))
def test_evenly_all_wordings_get_as_many_blocks_over_the_rounds(requests: int, variants: int, seed: int) -> None:
    rounds = 6 * variants
    chosen = allot(Allotment("even", seed, requests), rounds, requests, NAMES[:variants])
    blocks = Counter(wording for round in chosen for wording, _ in groupby(round))
    assert max(Counter(wording for round in chosen for wording in round).values()) <= rounds * requests / variants + rounds * MAX_BLOCK
    assert set(blocks) == set(range(variants))
    if requests >= 2 * variants:
        assert all(set(round) == set(range(variants)) for round in chosen), "every round has all of them"


def test_neighbours_are_asked_alike() -> None:
    for requests, size in ((64, MAX_BLOCK), (16, 2), (4, 1)):
        (chosen,) = allot(Allotment("even", 1, requests), 1, requests)
        assert all(len(set(chosen[start : start + size])) == 1 for start in range(0, requests - requests % size, size))


def test_the_same_seed_and_past_decide_the_same() -> None:
    past = [Yield(name, 1000, accepted) for name, accepted in zip(NAMES, (10, 12, 9), strict=True)]
    for policy in ("even", "bandit"):
        one, other, another = (Allotment(policy, seed, 40) for seed in (7, 7, 8))
        for allotment in (one, other, another):
            allotment.learn(past)
        assert allot(one, 4, 40) == allot(other, 4, 40) != allot(another, 4, 40)
        # In any order, as a resumed round is carried out.
        places = [(round, number) for round in range(1, 5) for number in range(40)]
        random.Random(1).shuffle(places)
        assert {place: other.choose(NAMES, *place) for place in places} == {place: one.choose(NAMES, *place) for place in places}


def test_the_bandit_tries_all_before_it_prefers_any() -> None:
    bandit, even = Allotment("bandit", 3, 48), Allotment("even", 3, 48)
    assert allot(bandit, 2, 48) == allot(even, 2, 48)
    bandit.learn([Yield(NAMES[0], 100_000, 900), Yield(NAMES[1], 100_000, 100)])
    assert allot(bandit, 2, 48) == allot(even, 2, 48), "one has brought nothing that is known"


@pytest.mark.parametrize(
    ("accepted", "least", "most"),
    [((900, 100, 100), 1.0, 1.0), ((60, 40, 40), 0.75, 1.0), ((10, 9, 9), 0.2, 0.6), ((0, 0, 0), 0.2, 0.5)],
)
def test_the_bandit_gives_more_to_the_better_as_far_as_that_is_known(accepted: tuple[int, ...], least: float, most: float) -> None:
    bandit = Allotment("bandit", 5, 48)
    bandit.learn(Yield(name, 10_000, count) for name, count in zip(NAMES, accepted, strict=True))
    chosen = Counter(wording for round in allot(bandit, 40, 48) for wording in round)
    assert least <= chosen[0] / chosen.total() <= most


def test_the_bandit_goes_by_rows_for_tokens_and_not_by_rows() -> None:
    bandit = Allotment("bandit", 5, 48)
    bandit.learn([Yield(NAMES[0], 100_000, 1000), Yield(NAMES[1], 10_000, 300)])
    assert {wording for round in allot(bandit, 5, 48, NAMES[:2]) for wording in round} == {1}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_bandit_moves_the_budget_to_what_pays(seed: int) -> None:
    """Three wordings whose rows are accepted in 8, 5 and 4 of 10 cases: what it costs not to know which."""
    generator, rates, done = random.Random(seed), (0.8, 0.5, 0.4), {name: [0, 0] for name in NAMES}
    bandit = Allotment("bandit", seed, 24)
    shares: list[float] = []
    for round in range(1, 16):
        bandit.learn([Yield(name, tokens, accepted) for name, (tokens, accepted) in done.items() if tokens])
        chosen = [bandit.choose(NAMES, round, number) for number in range(24)]
        for wording in chosen:
            done[NAMES[wording]][0] += 300
            done[NAMES[wording]][1] += sum(generator.random() < rates[wording] for _ in range(8))
        shares.append(chosen.count(0) / 24)
    assert sum(shares[5:]) / 10 > 0.7


def test_one_variant_can_be_asked_for() -> None:
    only = Allotment("bandit", 1, 8, only="stern")
    assert set(allot(only, 1, 8)[0]) == {2}
    assert set(allot(only, 1, 8, NAMES[:2])[0]) == {0}, "what has no variant of this name is said as ever"
    assert [variant_of(name) for name in NAMES] == ["default", "short", "stern"]


# The words themselves.


def write_variants(folder: Path, **sources: str) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.jinja").write_text(source, encoding="utf-8")
    return {name: folder / f"{name}.jinja" for name in sources}


def with_variants(config: RunConfig, policy: str = "even", **templates: Mapping[str, Path]) -> RunConfig:
    """`pgkd__generate` stands for pgkd/generate."""
    content = {"policy": policy, "templates": {name.replace("__", "/"): files for name, files in templates.items()}}
    return config.model_copy(update={"variants": VariantsConfig.model_validate(content)})


def make_assignment(number: int = 0) -> Assignment:
    return Assignment("r0001-a0000", number, 1, 0, "report", (), 2)


def test_a_prompt_is_worded_without_its_strategy_knowing(tmp_path: Path) -> None:
    files = write_variants(tmp_path, short="{% block user %}Short {{ text }}{% endblock %}")
    library = open_library(None, {"labelling/label": files})
    base = {"kind": "classification", "domain": "messages", "labels": [], "num_texts": 1, "text": "x"}
    config = make_config("pgkd")
    prompter = Prompter(library, "teacher", config.sampling, 1, Allotment("even", 1, 8))
    prompt = replace(prompter.render("labelling/label", base, "{}"), temperature=0.0)
    assert prompt.messages == Prompter(library, "teacher", config.sampling, 1).render("labelling/label", base, "{}").messages
    worded = [prompter.word(prompt, make_assignment(number)) for number in range(8)]
    assert {variant_of(one.template) for one in worded} == {"default", "short"}
    assert all(one.variants == () and one.temperature == 0.0 for one in worded)
    (short,) = {one.messages[0].content for one in worded if variant_of(one.template) == "short"}
    assert short == "Short x"
    assert len({one.hash for one in worded}) == 2


def test_a_turn_that_follows_has_what_was_said_before_it_in_every_wording(tmp_path: Path) -> None:
    files = write_variants(tmp_path, short="{% block user %}On, in short.{% endblock %}")
    library = open_library(None, {"evokd/write": files})
    prompter = Prompter(library, "teacher", make_config("pgkd").sampling, 1, Allotment("even", 1, 8, only="short"))
    values = {"kind": "classification", "domain": "messages", "labels": [], "num_texts": 1, "text": "x"}
    before = prompter.word(prompter.render("labelling/label", values, "{}"), make_assignment())
    after = prompter.follow(before, "said", "evokd/write", {"kind": "classification", "num_rows": 2, "num_hard": 1, "num_easy": 1}, "{}")
    short = prompter.word(after, make_assignment())
    assert [message.content for message in short.messages[len(before.messages) :]] == ["said", "On, in short."]
    assert short.hash == prompter.request(short, "", 0).prompt_hash != after.hash


@pytest.mark.parametrize(
    ("template", "source", "message"),
    [
        ("pgdk/generate", WRITE, r"variants of pgdk/generate: there is no such template; did you mean pgkd/generate\?"),
        ("pgkd/generate", None, r"variant mine of pgkd/generate: .*mine\.jinja: No such file"),
        ("pgkd/generate", b"\xff", r"variant mine of pgkd/generate: .*mine\.jinja: not UTF-8"),
        ("pgkd/generate", "\n{% block user %}", r"pgkd/generate:mine\.jinja, line 2: Unexpected end of template"),
        ("pgkd/generate", "{% block user %}{{ lables }}{% endblock %}", r"prompt pgkd/generate:mine: 'lables' is undefined"),
        ("evokd/write", "{% block user %}{% endblock %}", r"never says evokd/write, so they cannot be compared; it says pgkd/generate"),
    ],
)
def test_a_wrong_variant_is_found_before_anything_starts(tmp_path: Path, template: str, source: str | bytes | None, message: str) -> None:
    path = tmp_path / "mine.jinja"
    if source is not None:
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    config = with_variants(make_config("pgkd"), "even", **{template: {"mine": path}})
    with pytest.raises(UserError, match=message):
        check_prompts(config, make_task(tmp_path / "task"))


def test_turns_of_later_rounds_may_have_variants(tmp_path: Path) -> None:
    files = write_variants(tmp_path, mine="{% block user %}Go on, {{ num_hard }}.{% endblock %}")
    config = with_variants(make_config("evokd", init_rounds=2, first_batch="unguided"), evokd__write=files)
    check_prompts(config, make_task(tmp_path / "task"))


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"templates": {"pgkd/generate": {"default": "a.jinja"}}}, "so no variant has that name"),
        ({"templates": {"pgkd/generate": {"a:b": "a.jinja"}}}, "should match pattern"),
        ({"templates": {"pgkd/generate": {}}}, "at least 1 item"),
        ({"policy": "best"}, "Input should be 'even' or 'bandit'"),
    ],
)
def test_what_is_no_comparison_is_refused_by_the_configuration(variants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VariantsConfig.model_validate(variants)


def test_paths_are_relative_to_the_file_and_go_into_the_resolved_configuration(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    config = load_config(path)
    assert config.variants.templates == {"pgkd/generate": {"short": tmp_path / "short.jinja"}}
    assert restore_config(json.loads(json.dumps(dump_config(config)))) == config


# In a run.


def write_run(folder: Path) -> Path:
    write_variants(folder, short=WRITE)
    rows = [{"text": f"row {number}", "label": label} for number in range(3) for label in ("a", "b")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "run.toml"
    path.write_text(
        """
        name = "demo"
        [task]
        domain = "messages"
        labels = [{name = "a"}, {name = "b"}]
        data = {seed = "rows.jsonl", validation = "rows.jsonl", test = "rows.jsonl"}
        [teacher]
        model = "org/teacher"
        [strategy]
        rows_per_call = 4
        [variants.templates."pgkd/generate"]
        short = "short.jinja"
        """,
        encoding="utf-8",
    )
    return path


def show(path: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["prompts", "show", "pgkd", "--task", str(path), *options], catch_exceptions=False)
    return result.stdout


def test_a_named_variant_is_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert "turn 1 of 1: pgkd/generate:short@" in show(path, "--variant", "short")
    assert "\n<user>\nIn short: 4 rows.\n" in show(path, "--variant", "short")
    assert "turn 1 of 1: pgkd/generate@" in show(path, "--variant", "default")
    shown = {show(path, "--assignment", str(number)).partition("turn 1 of 1: ")[2].partition("@")[0] for number in range(4)}
    assert shown == {"pgkd/generate", "pgkd/generate:short"}
    with pytest.raises(UserError, match="no variant 'shrot'; there are default, short"):
        show(path, "--variant", "shrot")


def say_less_when_short(request: Request) -> str:
    """What is asked for in short is done by half."""
    rows = json.loads(write_rows(request))
    return json.dumps(rows[: len(rows) // 2]) if "In short" in request.messages[-1].content else json.dumps(rows)


async def teach_variants(
    root: Path, task: TaskSpec, policy: str, rounds: int = 2, script: Callable[[Request], str] = say_less_when_short
) -> ScriptedTeacher:
    teacher = ScriptedTeacher(script)
    files = write_variants(root.parent / "variants", short=WRITE)
    config = with_variants(make_config("pgkd", rows_per_round=64), policy, pgkd__generate=files)
    await teach(root, config, task, teacher, rounds=rounds)
    return teacher


async def test_wordings_share_a_round_and_their_yield_is_a_table(tmp_path: Path) -> None:
    run, task = RunDir(tmp_path / "run"), make_task(tmp_path / "task")
    teacher = await teach_variants(run.root, task, "even")
    assert Counter("In short" in request.messages[-1].content for request in teacher.requests) == {True: 16, False: 16}
    for round, f1 in enumerate((0.4, 0.5, 0.7)):
        append_evaluation(run, Evaluation(round, "validation", Scores(f1, f1, f1, 9), (), 1.0, 9, 0.1, 1))
    ordinary, short = compared(read_variants(run))
    assert (ordinary.template, ordinary.variant, short.variant) == ("pgkd/generate", "default", "short")
    for figures, accepted, failed in ((ordinary, 64, 0), (short, 32, 32)):
        assert (figures.rounds, figures.assignments, figures.requested) == (2, 16, 64)
        assert (figures.accepted, figures.failed, figures.rejected, figures.reasons) == (accepted, failed, 0, {})
        tokens = figures.prompt_tokens + figures.completion_tokens
        assert figures.rows_per_1000_tokens == pytest.approx(1000 * accepted / tokens)
        assert figures.gain == pytest.approx(0.3 * accepted / 96)
        assert figures.gain_per_1000_tokens == pytest.approx(1000 * 0.3 * accepted / 96 / tokens)
    assert Counter(variant_of(sample.origin.template) for sample in read_samples(run)) == {"default": 64, "short": 32}
    table = run_query(run, "select round, variant, share, gain from variant_rounds order by 1, 2").to_pylist()
    assert [(row["round"], row["variant"]) for row in table] == [(1, "default"), (1, "short"), (2, "default"), (2, "short")]
    assert [sum(row["gain"] for row in table if row["round"] == round) for round in (1, 2)] == pytest.approx([0.1, 0.2])
    assert {known.wording: known.accepted for known in read_yields(run, 2)} == {ordinary.wording: 32, short.wording: 16}


async def test_the_report_has_the_table(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")

    def spoil(request: Request) -> str:
        return say_less_when_short(request).replace("about", "about " + "x" * 3000, 1)

    await teach_variants(run.root, make_task(tmp_path / "task"), "even", 1, spoil)
    begin(run, make_config("pgkd"))
    text = CliRunner().invoke(app, ["report", str(run.root)], catch_exceptions=False).stdout
    assert "By wording" in text
    assert "too_long 8" in text
    (ordinary, short) = json.loads(CliRunner().invoke(app, ["report", str(run.root), "--json"]).stdout)["variants"]
    assert (ordinary["variant"], ordinary["reasons"], short["variant"]) == ("default", {"too_long": 8}, "short")
    assert ordinary["gain"] is None


async def test_a_run_without_variants_compares_nothing(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    await teach(run.root, make_config("evokd"), make_task(tmp_path / "task"), ScriptedTeacher(write_rows), rounds=1)
    figures = read_variants(run)
    assert compared(figures) == []
    # Rows and tokens of a conversation are those of every turn's template.
    assert {one.template for one in figures} == {"evokd/analyse", "evokd/write", "labelling/batch"}
    assert {(one.accepted, one.prompt_tokens + one.completion_tokens) for one in figures} == {
        (8, sum(one[0] for one in tokens_of_calls(run)))
    }


def tokens_of_calls(run: RunDir) -> list[tuple[int]]:
    with connect(run) as connection:
        return connection.execute("select prompt_tokens + completion_tokens from calls").fetchall()


async def test_a_bandit_run_that_was_stopped_goes_on_with_the_same_wordings(tmp_path: Path) -> None:
    task, files = make_task(tmp_path / "task"), write_variants(tmp_path, short=WRITE)
    config = with_variants(make_config("pgkd", rows_per_round=64), "bandit", pgkd__generate=files)
    (tmp_path / "no rows").mkdir()
    reports = [report_on(tmp_path / "no rows", task, round) for round in range(3)]

    async def go_on(root: Path, script: Callable[[Request], str]) -> ScriptedTeacher:
        teacher = ScriptedTeacher(script)
        async with generating(root, config, task, teacher) as generation:
            for round in range(generation.last_round + 1, 4):
                await generation.ask_round(round, reports[round - 1], Silent(), reports[: round - 1])
        return teacher

    class StoppedError(Exception):
        pass

    seen: list[Request] = []

    def stop(request: Request) -> str:
        seen.append(request)
        if len(seen) > 24:  # in the midst of the second round
            raise StoppedError
        return say_less_when_short(request)

    whole = await go_on(tmp_path / "whole", say_less_when_short)
    with pytest.raises(ExceptionGroup):
        await go_on(tmp_path / "stopped", stop)
    rest = await go_on(tmp_path / "stopped", say_less_when_short)
    assert len(rest.requests) < len(whole.requests) - 16
    assert {request.id for request in (*seen, *rest.requests)} == {request.id for request in whole.requests}
    # That there was something to decide.
    shares = run_query(RunDir(tmp_path / "whole"), "select assignments from variant_rounds where round > 1").to_pylist()
    assert {row["assignments"] for row in shares} != {8}


def test_views_are_made_where_they_are_named(tmp_path: Path) -> None:
    assert named_views("select * from samples") == []
    assert named_views("select 1 from ROUNDS, variant_rounds") == ["rounds", "wordings", "variant_rounds"]
    assert named_views("select * from variants")[-3:] == ["wordings", "variant_rounds", "variants"]
    run = RunDir(tmp_path)
    run.create()
    tables = {row["name"] for row in run_query(run, "show tables").to_pylist()}
    assert tables >= {"samples", "calls", "rounds", "wordings", "variant_rounds", "variants"}
