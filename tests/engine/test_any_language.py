"""Texts of any language, and labels of any characters: through prompts, gates, near duplicates, store, SQL and export they stay what they
are, and are told apart.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import DataConfig, GatesConfig, LabelConfig, RunConfig, TaskConfig, TeacherConfig
from engine.export import Options, export
from engine.gates.gates import Gatekeeper, comparable
from engine.gates.scripts import main_scripts
from engine.progress import Silent
from engine.records import Candidate, Example, Label, RejectionReason, Request, TaskSpec
from engine.rehearsal import make_up_report
from engine.rundir import RunDir
from engine.runs.manifest import begin
from engine.store import open_query, read_samples, unescape
from engine.task.task import read_examples
from engine.testing.teacher import ScriptedTeacher, write_rows
from tests.engine.strategies.schooling import generating

LABELS = (
    'quo"ted',
    "it's",
    "back\\slash\\n",
    "../../etc/passwd",
    "line\nbreak\r\n\ttab",
    "🙂‍↔️ emoji",
    "إلغاء الطلب",
    "\u202eturned around\u202c",
    "取消订单",
    "e\u0301 or \u00e9",
    "{{ 7 * 7 }}{% raw %}",
    "<script>alert(1)</script>",
    "class:a>b@c",
    "null",
    "007",
    " spaces around ",
    "\x00\x1b[31mcontrol",
    "'); drop table samples; --",
    "x" * 200,
)
TEXTS = {
    "Chinese": ("请问我上周三订购的那双运动鞋现在到底送到哪里了", "我想把收货地址改成公司的可以吗"),
    "Japanese": ("先週注文した靴がまだ届いていないのですが、今どこにありますか。", "注文をキャンセルしたいです。"),
    "Thai": ("ฉันสั่งรองเท้าไปเมื่อสัปดาห์ที่แล้วแต่ยังไม่ได้รับของเลย", "ช่วยเปลี่ยนที่อยู่จัดส่งให้หน่อยได้ไหม"),
    "Hindi": ("मैंने पिछले हफ्ते जो जूते मंगाए थे वे अभी तक नहीं पहुँचे", "कृपया मेरा पता बदल दीजिए"),
    "Arabic": ("أين الحذاء الذي طلبته الأسبوع الماضي ولماذا لم يصل حتى الآن", "أُرِيدُ إِلْغَاءَ طَلَبِي"),
    "Hebrew": ("איפה הנעליים שהזמנתי בשבוע שעבר ולמה הן עוד לא הגיעו", "נָא לְשַׁנּוֹת אֶת הַכְּתֹבֶת"),
    "Vietnamese": ("Đôi giày tôi đặt tuần trước vẫn chưa được giao đến nơi", "Tôi muốn đổi địa chỉ giao hàng"),
    "Russian": ("Где мои ботинки, которые я заказал на прошлой неделе?", "Хочу отменить заказ"),
    "German": ("Wo bleiben die Schuhe, die ich letzte Woche bestellt habe? Größe 42!", "Bitte ändern Sie meine Adresse"),
    "Korean": ("지난주에 주문한 신발이 아직도 도착하지 않았는데 어디에 있나요", "배송 주소를 바꾸고 싶어요"),
    "emoji alone": ("📦👟❓😡😡🕐", "🙏🚫📦"),
    "marks alone": ("a\u0300\u0301\u0302 b\u0323\u0324 c\u0328\u0327 d\u0331\u0332", "e\u0303\u0306 f\u0309"),
    "mathematics": ("∀x∃y: x ≤ y → y ∉ ∅", "√2 ≈ 1.414"),
}


def make_task() -> TaskSpec:
    def rows(split: str) -> tuple[Example, ...]:
        return tuple(Example(f"{split} row {number}", label) for number, label in enumerate(LABELS))

    return TaskSpec("classification", "Nachrichten 消息", tuple(Label(name, name) for name in LABELS), rows("seed"), rows("held"), ())


def make_config(method: str, **settings: Any) -> RunConfig:
    nowhere = Path("unused.jsonl")
    content = {
        "name": "test",
        "task": TaskConfig(
            domain="Nachrichten 消息",
            labels=tuple(LabelConfig(name=name) for name in LABELS),
            data=DataConfig(seed=nowhere, validation=nowhere, test=nowhere),
        ),
        "teacher": TeacherConfig(model="scripted"),
        "gates": GatesConfig(scripts=False, remembered_rows=1000),
        "strategy": {"type": method, "rows_per_round": 2 * len(LABELS), "rows_per_call": 2, **settings},
    }
    return RunConfig.model_validate(content)


@pytest.mark.parametrize(("method", "settings"), [("pgkd", {}), ("hybrid", {"disagreement": "keep", "mistakes": 8}), ("zerogen", {})])
async def test_labels_and_texts_go_through_a_round_unchanged(tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    task, config, run = make_task(), make_config(method, **settings), RunDir(tmp_path / "run")
    texts = iter([text for pair in TEXTS.values() for text in pair])
    written: dict[str, str] = {}

    def write(request: Request) -> str:
        rows = json.loads(write_rows(request))
        for row in rows:
            if "text" in row and (text := next(texts, None)) is not None:
                written[text] = row.get("label", "")
                row["text"] = text
        return json.dumps(rows, ensure_ascii=False)

    teacher = ScriptedTeacher(write)
    async with generating(run.root, config, task, teacher) as generation:
        begin(run, config)
        record = await generation.ask_round(1, make_up_report(config, task), Silent())
    assert record.rows.is_balanced
    samples = {sample.text: sample.label for sample in read_samples(run)}
    assert samples.keys() >= written.keys() == {text for pair in TEXTS.values() for text in pair}
    if method != "hybrid":  # which asks for the labels afterwards
        assert {text: samples[text] for text in written} == written
    assert set(samples.values()) <= set(LABELS)
    assert len(set(samples.values())) > len(LABELS) / 2

    # Each label stands in each prompt with a taxonomy, whole and within its quotes.
    for request in teacher.requests:
        lines = re.findall(r'^- ("(?:[^"\\]|\\.)*"): ', request.messages[0].content, re.M)
        assert [json.loads(line) for line in lines] == list(LABELS)
    if method == "pgkd":
        for request in teacher.requests:
            enum = json.loads(request.sampling.json_schema or "")["items"]["properties"]["label"]["enum"]
            assert enum == list(LABELS)

    with open_query(run, "select label, count(*)::int from samples group by 1", "text") as result:
        counted = {
            unescape(label): int(count)
            for batch in result.batches
            for label, count in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
        }
    assert counted == Counter(samples.values())
    for form in ("parquet", "jsonl"):
        folder = tmp_path / form
        export(run, folder, Options(format=form))
        exported = read_examples(folder)
        assert {row.text: row.label for row in exported} == samples


# Gates.


def make_gatekeeper(*known: str, held_out: tuple[str, ...] = (), near: bool = True) -> Gatekeeper:
    return Gatekeeper(LABELS, 200, known=known, held_out=held_out, similarity=0.7 if near else None, remembered_rows=1000)


def judge(gatekeeper: Gatekeeper, text: str, label: str = LABELS[0]) -> RejectionReason | None:
    (refusal,) = gatekeeper.judge([Candidate(text, text, label)])
    return refusal and refusal.reason


@pytest.mark.parametrize("label", LABELS, ids=range(len(LABELS)))
def test_a_label_is_the_one_of_the_taxonomy_or_none(label: str) -> None:
    assert judge(make_gatekeeper(), "a text", label) is None
    for other in (f"{label} ", f"{label}\u200b", label[:-1], json.dumps(label), f"x{label}".swapcase()):
        assert judge(make_gatekeeper(), "a text", other) == RejectionReason.UNKNOWN_LABEL


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_is_refused_as_a_copy_and_another_of_its_language_is_not(language: str) -> None:
    text, other = TEXTS[language]
    assert judge(make_gatekeeper(text), other) is None
    assert judge(make_gatekeeper(text), text) == RejectionReason.DUPLICATE
    assert judge(make_gatekeeper(text), f" {text}\u3000!") == RejectionReason.DUPLICATE
    assert judge(make_gatekeeper(held_out=(text,)), text) == RejectionReason.LEAKAGE
    assert judge(make_gatekeeper(held_out=(text,)), other) is None


@pytest.mark.parametrize("language", [name for name, (text, _) in TEXTS.items() if len(text) > 20])
def test_a_text_with_little_added_is_a_near_duplicate(language: str) -> None:
    text, other = TEXTS[language]
    longer = f"{text} {other[:2]}"
    assert judge(make_gatekeeper(text), longer) == RejectionReason.NEAR_DUPLICATE
    assert judge(make_gatekeeper(held_out=(text,)), longer) == RejectionReason.LEAKAGE
    assert judge(make_gatekeeper(text, near=False), longer) is None


@pytest.mark.parametrize(
    ("seed", "text", "admitted"),
    [
        (("Wo bleibt mein Paket?",), "Größe 42, œuvre, naïve Đôi giày", True),
        (("Wo bleibt mein Paket?",), "Mein 包裹 ist weg", True),  # some words may be of another
        (("Wo bleibt mein Paket?",), "请问我的包裹到哪里了 ok", False),
        (("Wo bleibt mein Paket?",), "Где мой заказ?", False),
        (("Wo bleibt mein Paket?",), "42 !!! 📦", True),  # no letters, no script
        (("Wo bleibt mein Paket?",), "\uff2d\uff45\uff49\uff4e", True),  # wide Latin letters
        (("我的包裹在哪里", "APP 现在打不开"), "Where is my parcel", False),
        (("我的包裹在哪里", "Where is it"), "Where is my parcel", True),
        (("靴がまだ届いていないのですが",), "配送先変更希望", True),  # Japanese without kana
        (("我的包裹在哪里",), "靴がまだ届いていないのですが", False),
        (("मेरा ऑर्डर कहाँ है",), "मेरी ऑर्डर", True),
        (("📦❓",), "anything, for nothing is known", True),
    ],
)
def test_a_text_in_another_script_than_the_seed_is_refused(seed: tuple[str, ...], text: str, admitted: bool) -> None:
    gatekeeper = Gatekeeper(LABELS, 200, known=seed, held_out=(), scripts=main_scripts(seed))
    assert judge(gatekeeper, text) == (None if admitted else RejectionReason.SCRIPT)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("मेरा", "मेरी", False),  # Vowel signs are marks, and make the word.
        ("ไม่", "ไม้", False),
        ("كَتَبَ", "كُتِبَ", False),
        ("x\u0302", "x", False),
        ("e\u0301", "\u00e9", True),
        ("\uff46\uff55\uff4c\uff4c\u3000width", "full width", True),
        ("can\u200bcel", "cancel", True),  # What cannot be seen hides no copy.
        ("\u202ecancel\u202c", "cancel", True),
        ("co\u00adoperate", "cooperate", True),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e", True),
        ("👍 thanks", "👎 thanks", False),
        ("thanks😀", "thanks 😀!", True),
        ("❤️", "❤", True),
        ("İstanbul", "i\u0307stanbul", True),
        ("取消订单", "取消订单。", True),
        ("取消订单", "取消 订单", False),
    ],
)
def test_what_makes_two_texts_one(one: str, other: str, same: bool) -> None:
    assert (comparable(one) == comparable(other)) is same


@given(st.text())
def test_what_is_comparable_stays_so(text: str) -> None:
    once = comparable(text)
    assert comparable(once) == once
    assert not text.strip() or once
