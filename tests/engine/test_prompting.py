from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.config import SamplingConfig
from engine.errors import UserError
from engine.prompting import (
    LOCAL,
    MAX_SEED,
    Prompt,
    Prompter,
    label_schema,
    labels_schema,
    open_library,
    rows_schema,
    strings_schema,
    texts_schema,
)
from engine.records import Message, Request, SamplingParams
from prompts import PromptLibrary

SCHEMA = rows_schema(("cancel", "change"), 2)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> PromptLibrary:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "a.jinja").write_text(
        "{% block system %}You write {{ domain }}.{% endblock %}{% block user %}Go.{% endblock %}{% block ask %}{{ focus }}{% endblock %}"
    )
    return PromptLibrary(folder)


def make_prompter(library: PromptLibrary | None = None, *, seed: int = 0, **sampling: object) -> Prompter:
    return Prompter(library or PromptLibrary(Path()), "org/model", SamplingConfig.model_validate(sampling), seed)


def make_prompt(text: str = "Go.") -> Prompt:
    request = Request("any", (Message("user", text),), SamplingParams(1.0, 1.0, 1, 0))
    return Prompt("a@12345678", request.messages, SCHEMA, request.prompt_hash)


def test_a_prompt_knows_its_template_its_schema_and_its_hash(library: PromptLibrary) -> None:
    prompt = make_prompter(library).render("a", {"domain": "rows", "focus": "cancel"}, SCHEMA)
    assert prompt.template == f"a@{library.version('a')}"
    assert prompt.messages == (Message("system", "You write rows."), Message("user", "Go.\n\ncancel"))
    assert prompt.schema == SCHEMA
    assert prompt.hash == Request("any", prompt.messages, SamplingParams(1.0, 1.0, 1, 0)).prompt_hash


def test_an_opening_is_rendered_once_for_many_prompts(library: PromptLibrary) -> None:
    prompter = make_prompter(library)
    opening = prompter.open("a", {"domain": "rows"})
    for focus in ("cancel", "change"):
        assert opening.finish({"focus": focus}, SCHEMA) == prompter.render("a", {"domain": "rows", "focus": focus}, SCHEMA)


def test_a_request_asks_as_configured() -> None:
    prompter = make_prompter(temperature=0.5, top_p=0.9, max_tokens=99)
    request = prompter.request(make_prompt(), "1 0", 3)
    sampling = request.sampling
    assert (request.model, request.messages, request.prompt_hash) == ("org/model", make_prompt().messages, make_prompt().hash)
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.json_schema) == (0.5, 0.9, 99, SCHEMA)
    assert make_prompter(constrained=False).request(make_prompt(), "1 0", 3).sampling.json_schema is None


@given(seed=st.integers(0, 2**40), series=st.text(), draw=st.integers(0, 10**6))
def test_draws_of_a_series_have_consecutive_seeds_that_a_server_takes(seed: int, series: str, draw: int) -> None:
    prompter = make_prompter(seed=seed)
    one, other = (prompter.request(make_prompt(), series, number).sampling.seed for number in (draw, draw + 1))
    assert 0 <= one < MAX_SEED
    assert other == (one + 1) % MAX_SEED
    assert one == make_prompter(seed=seed).request(make_prompt("another"), series, draw).sampling.seed


def test_the_same_question_is_the_same_request_in_every_process() -> None:
    """The number stands here because a resumed run must find what an earlier process asked."""
    assert make_prompter(seed=7).request(make_prompt(), "1 0", 3).sampling.seed == 1628869094


def test_seeds_and_series_of_a_run_are_told_apart() -> None:
    seeds = {
        make_prompter(seed=seed).request(make_prompt(), series, 0).id for seed in range(20) for series in ("1 0", "1 1", "10 0", "11 0")
    }
    assert len(seeds) == 80


def test_the_schema_of_rows_wants_exactly_so_many_with_known_labels() -> None:
    schema = json.loads(rows_schema(("a", 'b "1"'), 3))
    assert (schema["minItems"], schema["maxItems"]) == (3, 3)
    assert schema["items"]["properties"]["label"]["enum"] == ["a", 'b "1"']
    assert sorted(schema["items"]["required"]) == ["label", "text"]


def test_the_schema_of_a_label_has_nothing_else() -> None:
    schema = json.loads(label_schema(("a", "b")))
    assert list(schema["properties"]) == schema["required"] == ["label"]
    assert schema["properties"]["label"]["enum"] == ["a", "b"]


def test_the_other_schemas_say_what_is_wanted() -> None:
    texts, with_kinds = (json.loads(texts_schema(3, kinds))["items"] for kinds in ((), ("hard", "easy")))
    assert list(texts["properties"]) == ["text"]
    assert list(with_kinds["properties"]) == ["kind", "text"]
    assert with_kinds["properties"]["kind"]["enum"] == ["hard", "easy"]
    labels = json.loads(labels_schema(("a", "b"), 3))
    assert (labels["minItems"], labels["maxItems"], list(labels["items"]["properties"])) == (3, 3, ["number", "label"])
    assert json.loads(strings_schema(4))["maxItems"] == 4


def test_a_turn_that_follows_begins_with_all_that_was_said(tmp_path: Path) -> None:
    (tmp_path / "next.jinja").write_text("{% block user %}Go on, {{ name }}.{% endblock %}")
    before = make_prompt()
    after = make_prompter(PromptLibrary(tmp_path)).follow(before, "said \ud800", "next", {"name": "Ada"}, SCHEMA)
    assert after.messages == (*before.messages, Message("assistant", "said ?"), Message("user", "Go on, Ada."))
    assert after.hash == Request("any", after.messages, SamplingParams(1.0, 1.0, 1, 0)).prompt_hash
    assert after.template.startswith("next@")


def test_a_prompt_may_set_its_temperature_and_may_be_answered_here() -> None:
    prompter = make_prompter(temperature=0.5)
    assert prompter.request(replace(make_prompt(), temperature=0.0), "1 0", 0).sampling.temperature == 0.0
    assert prompter.request(replace(make_prompt(), reply="[]"), "1 0", 0).model == LOCAL


def test_a_wrong_template_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text("{% block user %}{{ missing }}{% endblock %}{% block ask %}{{ gone }}{% endblock %}")
    with pytest.raises(UserError, match="prompt a: 'missing' is undefined"):
        make_prompter(PromptLibrary(tmp_path)).open("a", {})
    with pytest.raises(UserError, match="prompt a: 'gone' is undefined"):
        make_prompter(PromptLibrary(tmp_path)).open("a", {"missing": 1}).finish({}, SCHEMA)
    with pytest.raises(UserError, match=r"prompts: .*a\.jinja takes no template's place"):
        open_library(tmp_path)
