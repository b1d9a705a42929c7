from pathlib import Path

import pytest

from engine.config import METHODS, PgkdConfig, RunConfig, dump_config, load_config, restore_config
from engine.errors import UserError

MINIMAL = """
name = "demo"
[task]
domain = "messages"
labels = [{name = "a"}, {name = "b", description = "the second"}]
[task.data]
seed = "seed.csv"
validation = "validation.csv"
test = "/data/test.csv"
[teacher]
model = "teacher"
"""


def write_config(folder: Path, content: str = MINIMAL) -> Path:
    path = folder / "run.toml"
    path.write_text(content)
    return path


def test_defaults_are_those_of_the_paper(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    assert (config.strategy.rounds, config.strategy.patience, config.strategy.rows_per_round) == (10, 5, 32)
    assert isinstance(config.strategy, PgkdConfig)
    assert (config.strategy.examples, config.strategy.right, config.strategy.wrong, config.strategy.hard) == (16, 16, 16, 16)
    assert (config.student.batch_size, config.student.epochs, config.student.learning_rate, config.student.patience) == (64, 30, 2e-5, 5)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_one_method_serves_the_others_too(method: str, tmp_path: Path) -> None:
    """What only its own method knows is left out; what both know is kept."""
    path = write_config(tmp_path, f'{MINIMAL}[strategy]\ntype = "hybrid"\nrows_per_round = 64\nmistakes = 2\nlabelling = "separate"\n')
    config = load_config(path, {"strategy.type": method, "task.data.pool": "pool.csv"})
    assert config.strategy.type == method
    assert config.strategy.rows_per_round == (0 if method == "seed_only" else 64)
    path.write_text(path.read_text().replace("mistakes", "mistaeks"))
    with pytest.raises(UserError, match=r"unknown key 'strategy\.mistaeks'"):
        load_config(path, {"strategy.type": method, "task.data.pool": "pool.csv"})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    config = load_config(write_config(tmp_path))
    assert config.task.data.seed == tmp_path / "seed.csv"
    assert config.task.data.test == Path("/data/test.csv")
    assert config.teacher.model == str(tmp_path / "teacher")


def test_a_model_that_is_no_folder_is_a_hub_id(tmp_path: Path) -> None:
    assert load_config(write_config(tmp_path), {"teacher.model": "Qwen/Qwen3-0.6B"}).teacher.model == "Qwen/Qwen3-0.6B"


def test_overrides_win(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), {"seed": 7, "strategy.rounds": 2, "teacher.endpoint": "http://x/v1"})
    assert (config.seed, config.strategy.rounds, config.teacher.endpoint) == (7, 2, "http://x/v1")


def test_what_a_student_is_least_sure_of_is_asked_of_the_newest_report_only(tmp_path: Path) -> None:
    stale = {"strategy.type": "pool", "task.data.pool": "pool.csv", "loop.max_staleness": 1}
    with pytest.raises(UserError, match=r"set loop\.max_staleness = 0, or strategy\.pick = \"random\""):
        load_config(write_config(tmp_path), stale)
    assert load_config(write_config(tmp_path), stale | {"strategy.pick": "random"}).loop.max_staleness == 1


@pytest.mark.parametrize("method", METHODS)
def test_json_and_back(tmp_path: Path, method: str) -> None:
    config = load_config(write_config(tmp_path), {"strategy.type": method, "task.data.pool": "pool.csv", "prompts": "mine"})
    assert config.strategy.type == method
    assert config.prompts == tmp_path / "mine"
    restored = restore_config(dump_config(config))
    assert isinstance(restored, RunConfig)
    assert restored == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("domain =", "domian =", "unknown key 'task.domian'; did you mean 'domain'?"),
        ("description =", "descripton =", "unknown key 'task.labels.1.descripton'; did you mean 'description'?"),
        ('model = "teacher"', 'modle = "teacher"', "unknown key 'teacher.modle'; did you mean 'model'?"),
        ('model = "teacher"', 'model = "teacher"\nzzz = 1', "unknown key 'teacher.zzz'; valid keys: api_key_env"),
        ('name = "demo"', "", "missing key 'name'"),
        ('name = "demo"', 'name = "../evil"', "name: "),
        ('{name = "b", description = "the second"}', '{name = "a"}', "given more than once: a"),
        ("[teacher]", "[teacher]\nport = 99999", "teacher.port: "),
        ('name = "demo"', 'name = "demo', "not valid TOML"),
        ("[teacher]", '[strategy]\ntype = "evokdd"\n[teacher]', "strategy.type: no method 'evokdd'; did you mean 'evokd'?"),
        ("[teacher]", '[strategy]\ntype = "x"\n[teacher]', "strategy.type: no method 'x'; there are pgkd, evokd, hybrid"),
        ("[teacher]", '[strategy]\ntype = "evokd"\nshwn = 2\n[teacher]', "unknown key 'strategy.shwn'; did you mean 'shown'?"),
        ("[teacher]", '[strategy]\ntype = "zerogen"\nexamples = 2\n[teacher]', "unknown key 'strategy.examples'; valid keys: patience"),
        ("[teacher]", "[strategy]\nrounds = 0\n[teacher]", "strategy.rounds: "),
        ("[teacher]", '[strategy]\ntype = "pool"\n[teacher]', "strategy.type = pool labels rows of task.data.pool"),
        ('name = "demo"', 'name = "demo"\nstrategy = 3', "strategy"),
        (
            'domain = "messages"',
            'domain = "messages"\nkind = "nre"',
            "task.kind: Input should be 'classification', 'multi_label', 'ner' or 'pair'",
        ),
        ('{name = "a"}, ', "", "task.labels has one label, and a text could have no other; give at least two"),
        ("[teacher]", "[labelling]\nsoft = true\n[teacher]", "strategy.type = pgkd writes texts with their labels"),
        ("[teacher]", "[labelling]\nsfot = true\n[teacher]", "unknown key 'labelling.sfot'; did you mean 'soft'?"),
        ("[teacher]", "[labelling]\ntop_logprobs = 1\n[teacher]", "labelling.top_logprobs: "),
        ("[teacher]", '[[teachers]]\nmodel = "teacher"\n[teacher]', "given more than once: teacher. Several servers of one"),
        ("[teacher]", '[[teachers]]\nmodle = "x"\n[teacher]', "'teachers.0.modle'; did you mean 'model'?"),
        ("[teacher]", '[[teachers]]\nmodel = "x"\nshare = 0\n[teacher]\nshare = 0', "no teacher has a share of the rows"),
        ("[teacher]", '[[teachers]]\nmodel = "x"\nport = 8000\n[teacher]\nport = 8000', "would start their servers on one port"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    with pytest.raises(UserError) as caught:
        load_config(write_config(tmp_path, MINIMAL.replace(old, new)))
    assert message in str(caught.value)
    assert str(tmp_path / "run.toml") in str(caught.value)


def test_further_teachers_stand_in_a_list_of_tables(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    content = MINIMAL + '[[teachers]]\nmodel = "second"\nshare = 0.5\n[[teachers]]\nmodel = "org/third"\nendpoint = "http://x/v1"\n'
    config = load_config(write_config(tmp_path, content))
    assert [teacher.model for teacher in config.teachers] == [str(tmp_path / "second"), "org/third"]
    assert [teacher.share for teacher in (config.teacher, *config.teachers)] == [1.0, 0.5, 1.0]
    assert restore_config(dump_config(config)) == config


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.toml: no such file"):
        load_config(tmp_path / "nothing.toml")


def test_an_override_through_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name\.x cannot be set"):
        load_config(write_config(tmp_path), {"name.x": 1})


def test_entities_may_be_of_one_type_and_are_marked_by_every_method_but_one(tmp_path: Path) -> None:
    ner = MINIMAL.replace("[task]", '[task]\nkind = "ner"').replace('{name = "a"}, ', "")
    for method in METHODS:
        content = ner.replace("[task.data]", '[task.data]\npool = "pool.csv"') + f'[strategy]\ntype = "{method}"\n'
        if method == "eda":
            with pytest.raises(UserError, match=r"eda moves and drops words, .* for task.kind = ner there are pgkd, evokd, hybrid"):
                load_config(write_config(tmp_path, content))
        else:
            assert load_config(write_config(tmp_path, content)).task.marking == "inline"
