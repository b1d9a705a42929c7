"""Log-probabilities as the real vLLM gives them: what soft labels rely on, whatever the teacher believes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config import TeacherConfig
from engine.labels.label_codes import label_codes, matching
from engine.labels.soft_labels import read_tables
from engine.records import Message, Request, SamplingParams
from engine.server.server import VllmServer
from engine.teacher.teacher import HttpTeacher

TEACHER = Path(__file__).parents[2] / "examples" / "quickstart" / "teacher"
CODES = label_codes(150, 20)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def make_request(regex: str, num_tokens: int) -> Request:
    messages = (
        Message("system", "You label texts. Labels: A0. refund, B7. delivery"),
        Message("user", 'Which code fits? "where is my parcel"'),
    )
    return Request("teacher", messages, SamplingParams(0.0, 0.95, num_tokens, 0, regex=regex, top_logprobs=20))


async def test_a_code_is_one_token_a_character_and_its_probabilities_are_of_what_is_allowed(tmp_path: Path) -> None:
    config = TeacherConfig(model=str(TEACHER), max_num_seqs=4)
    async with (
        VllmServer(config, run=tmp_path, log=tmp_path / "server.log") as server,
        HttpTeacher(server.endpoint, timeout_s=60, stall_s=60) as teacher,
    ):
        (free,) = await teacher.complete([make_request(matching(CODES), 2)])
        (behind,) = await teacher.complete([make_request("C[0-9]", 2)])
        (few,) = await teacher.complete([make_request("[A-B]", 1)])
    for completion, pattern in ((free, "[A-O][0-9]"), (behind, "C[0-9]"), (few, "[A-B]")):
        assert re.fullmatch(pattern, completion.text)
        assert "".join(place[0].token for place in completion.logprobs) == completion.text
        assert all(len(place) == 20 for place in completion.logprobs)
    tables = read_tables(CODES, [free, behind])
    assert set(tables) == {"", free.text[0], "C"}
    # Of no more characters at a place than the server tells of: all that is allowed is among them.
    assert all(sum(table.values()) == pytest.approx(1.0, abs=1e-3) for table in tables.values())
    assert sum(read_tables(label_codes(2, 20), [few])[""].values()) == pytest.approx(1.0, abs=1e-3)
