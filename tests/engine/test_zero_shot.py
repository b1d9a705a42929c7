from pathlib import Path

import pytest

from engine.errors import UserError
from engine.progress import Silent
from engine.testing.server import ScriptedServer
from engine.zero_shot import open_zero_shot
from tests.engine.soft_runs import Seen, make_run, make_task
from tests.engine.strategies.tagging import make_ner_config, make_ner_task


@pytest.mark.parametrize("soft", [False, True])
async def test_each_text_is_asked_by_itself_every_time(tmp_path: Path, soft: bool) -> None:
    task, seen = make_task(tmp_path, 3), Seen()
    async with ScriptedServer(ledger=seen) as server:
        config = make_run("pool", server, labelling={"soft": soft, "calibrate": "none"})
        async with open_zero_shot(config, task, Silent()) as teacher:
            said = [await teacher.label(["one text", "another", "one text"]) for _ in range(2)]
    assert len(seen.asked_bodies) == 6
    for one in said:
        assert len(one.labels) == 3
        assert {*one.labels} <= {*task.label_names}
        assert one.seconds > 0
        assert one.tokens > 0


async def test_another_kind_of_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this one is of kind 'ner'"):
        async with open_zero_shot(make_ner_config("pgkd"), make_ner_task(tmp_path), Silent()):
            pass
