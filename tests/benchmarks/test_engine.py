"""What `benchmarks.engine` runs as processes of their own, here beside the scripted server."""

import json
from pathlib import Path

import pytest

from benchmarks import ceilings
from benchmarks.engine import write_prompts
from benchmarks.engine_client import make_config, measure
from engine.teacher import batcher
from engine.testing.server import ScriptedServer


@pytest.mark.parametrize("client", ceilings.NAMES)
async def test_a_bare_loop_sends_each_request_once(client: str) -> None:
    async with ScriptedServer() as server:
        measured = await ceilings.measure(client, server.base_url, 40, in_flight=8)
        asked = server.last_body
    assert measured["completions"] == server.num_requests == 40
    assert server.statistics().statuses == {200: 40}
    assert server.peak_in_flight <= 8
    # As the engine asks: with its schema, and two rows.
    assert asked["response_format"]["json_schema"]["schema"]["maxItems"] == 2


@pytest.mark.parametrize(("draws", "posts"), [(1, 64), (8, 8)])
async def test_draws_travel_together_only_where_they_are_asked_to(
    draws: int, posts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "MAX_DRAWS", batcher.MAX_DRAWS)  # put back afterwards
    async with ScriptedServer() as server:
        config = make_config(server.base_url, 128, 64)
        # Without a weakness of its own, all requests have one prompt.
        config = config.model_copy(update={"strategy": config.strategy.model_copy(update={"focus": False})})
        measured = await measure(config, tmp_path / "run", draws)
    assert measured["completions"] == 64
    assert measured["posts"] == server.num_requests == posts


def test_every_prompt_of_the_peers_is_another(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 600)
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert len({json.loads(line)["prompt"] for line in lines}) == 600
