from __future__ import annotations

import json
import random
from collections.abc import Sequence

import msgspec
import pytest

from engine.gates.gates import comparable
from engine.gates.near_duplicates import sketch
from engine.records import Example
from engine.reports import MinedRow
from student.audit import audit, estimate_noise, find_copies, measure_drift
from student.diagnosis import Mined

LABELS = ("fruit", "tool", "beast")
WORDS = (
    "apple",
    "pear",
    "plum",
    "hammer",
    "saw",
    "chisel",
    "wolf",
    "bear",
    "otter",
    "please",
    "again",
    "bring",
    "show",
    "where",
    "small",
    "bright",
    "old",
    "number",
    "send",
    "find",
    "today",
    "late",
)


def make_prediction(number: int, label: str, predicted: str, confidence: float, own: float | None = None, learned: int = 100) -> Mined:
    return Mined(1, MinedRow(f"text {number}", label, predicted, confidence), confidence if own is None else own, learned)


def make_predictions(mislabelled: int) -> list[Mined]:
    """Forty rows a class, predicted well; and `mislabelled` rows that are fruit by their text and tools by their label."""
    rows = [make_prediction(number, LABELS[number % 3], LABELS[number % 3], 0.7 + 0.01 * (number % 20)) for number in range(120)]
    # Mistakes that nobody is sure of, as every student makes them.
    rows += [make_prediction(200 + number, LABELS[number % 3], LABELS[(number + 1) % 3], 0.45, 0.4) for number in range(12)]
    return rows + [make_prediction(300 + number, "tool", "fruit", 0.9, 0.05) for number in range(mislabelled)]


def test_a_mislabelled_class_is_named_first() -> None:
    found = estimate_noise(make_predictions(mislabelled=20))
    assert found is not None
    assert (found.suspected, found.num_rows) == (20, 152)
    first = found.classes[0]
    assert (first.label, first.instead, first.suspected, first.num_rows) == ("tool", "fruit", 20, 64)
    assert {(row.label, row.predicted) for row in found.suspects} == {("tool", "fruit")}


def test_mistakes_that_nobody_is_sure_of_are_no_noise() -> None:
    found = estimate_noise(make_predictions(mislabelled=0))
    assert found is not None
    assert (found.suspected, found.classes, found.suspects) == (0, (), ())


def test_rows_that_are_only_hard_are_told_by_validation() -> None:
    found = estimate_noise(
        make_predictions(20), clean=[make_prediction(1, "beast", "fruit", 0.95, 0.01), make_prediction(2, "tool", "tool", 0.9)]
    )
    assert found is not None
    assert found.clean_share == 0.5


def test_what_beginners_said_is_not_asked() -> None:
    beginners = [make_prediction(500 + number, "beast", "fruit", 0.99, 0.01, learned=20) for number in range(50)]
    assert estimate_noise([*beginners, *make_predictions(20)]) == estimate_noise(make_predictions(20))


def test_without_predictions_nothing_is_known() -> None:
    assert estimate_noise([]) is None


def test_a_label_that_is_only_predicted_suspects_nobody() -> None:
    found = estimate_noise([make_prediction(1, "fruit", "tool", 0.99, 0.01)])
    assert found is not None
    assert found.suspected == 0


def make_texts(count: int, seed: int = 0, words: Sequence[str] = WORDS) -> list[Example]:
    generator = random.Random(seed)
    return [Example(" ".join(generator.choices(words, k=9)), LABELS[number % 3]) for number in range(count)]


def test_planted_copies_are_found_and_nothing_else() -> None:
    seed_rows, teacher_rows = make_texts(30), make_texts(60, seed=1)
    of_seed = Example(seed_rows[3].text.upper() + "!", "tool")
    of_teacher = Example(teacher_rows[5].text + " x", "tool")
    found = find_copies(seed_rows, [*teacher_rows, of_seed, of_teacher], 0.7, 0)
    assert found is not None
    assert (found.num_rows, found.of_seed, found.of_teacher) == (62, 1, 1)
    assert found.examples[0].similarity == 1.0
    assert {found.examples[0].text, found.examples[0].original} == {of_seed.text, seed_rows[3].text}
    assert found.examples[1].similarity > 0.9
    assert {found.examples[1].text, found.examples[1].original} == {of_teacher.text, teacher_rows[5].text}


def test_likeness_is_that_of_the_gate() -> None:
    """The gate estimates with a standard deviation of 0.04 what is computed here."""
    first, second = "please bring the small bright hammer today", "please bring the small bright hammer late"
    found = find_copies([Example(first, "tool")], [Example(second, "tool")], 0.5, 0)
    assert found is not None
    estimate = float((sketch([comparable(first)]) == sketch([comparable(second)])).mean())
    assert estimate == pytest.approx(found.examples[0].similarity, abs=0.15)


@pytest.mark.parametrize("text", ["", " ", "?!", "ab"])
def test_texts_of_next_to_nothing(text: str) -> None:
    found = find_copies([Example(text, "tool")], [Example(text, "tool"), Example("a longer one", "tool")], 0.7, 0)
    assert found is not None
    assert (found.of_seed, found.of_teacher) == (1, 0)
    drift = measure_drift([Example(text, "tool")] * 30, [Example(text, "tool")] * 30, 0)
    assert drift is not None
    assert drift.separability == pytest.approx(0.5)


def test_rows_drawn_alike_cannot_be_told_apart() -> None:
    drift = measure_drift(make_texts(150), make_texts(150, seed=1), 0)
    assert drift is not None
    assert drift.separability is not None
    assert drift.p_value is not None
    assert drift.separability < 0.6
    assert drift.p_value > 0.01
    assert drift.mix_distance == 0
    assert drift.missing_words == drift.new_words == 0


def test_the_class_that_the_teacher_words_differently_is_named_first() -> None:
    teacher = [Example(row.text + " kindly advise", row.label) if row.label == "beast" else row for row in make_texts(150, seed=1)]
    drift = measure_drift(make_texts(150), teacher, 0)
    assert drift is not None
    assert drift.separability is not None
    assert drift.p_value is not None
    assert drift.classes[0].label == "beast"
    assert (drift.classes[0].separability or 0) > 0.95
    assert all((row.separability or 0) < 0.7 for row in drift.classes[1:])
    assert drift.p_value < 0.01
    assert drift.synthetic_words - drift.real_words in (0, 1, 2)
    assert drift.new_words > 0.05
    assert drift.missing_words == 0


def test_the_order_of_words_is_wording_too() -> None:
    """Both sides use the same words, but on one of them they come in the order of the alphabet."""
    teacher = [Example(" ".join(sorted(row.text.split())), row.label) for row in make_texts(150, seed=1)]
    drift = measure_drift(make_texts(150), teacher, 0)
    assert drift is not None
    assert drift.separability is not None
    assert drift.separability > 0.9
    assert drift.new_words == 0


def test_a_mix_of_labels_that_differs_is_not_taken_for_wording() -> None:
    """Labels have words of their own, and the teacher wrote one label only three times as often: the wording is the same."""
    own = {"fruit": WORDS[:7], "tool": WORDS[7:14], "beast": WORDS[14:]}
    generator = random.Random(3)

    def rows(**counts: int) -> list[Example]:
        return [Example(" ".join(generator.choices(own[label], k=8)), label) for label, count in counts.items() for _ in range(count)]

    drift = measure_drift(rows(fruit=60, tool=60, beast=60), rows(fruit=180, tool=60, beast=60), 0)
    assert drift is not None
    assert drift.separability is not None
    assert drift.separability < 0.6
    assert drift.mix_distance == pytest.approx(0.6 - 1 / 3)


def test_labels_without_a_teacher_row() -> None:
    drift = measure_drift(make_texts(30), [row for row in make_texts(30, seed=1) if row.label != "tool"], 0)
    assert drift is not None
    tool = next(row for row in drift.classes if row.label == "tool")
    assert (tool.real, tool.synthetic, tool.separability) == (10, 0, None)


def test_too_few_rows() -> None:
    drift = measure_drift(make_texts(6), make_texts(6, seed=1), 0)
    assert drift is not None
    assert (drift.separability, drift.p_value) == (None, None)
    assert measure_drift(make_texts(6), [], 0) is None
    assert find_copies(make_texts(6), [], 0.7, 0) is None


def test_no_text_of_a_real_row_is_in_an_audit() -> None:
    real = [Example(f"secret {number} {row.text}", row.label) for number, row in enumerate(make_texts(60))]
    clean = [make_prediction(900, "tool", "fruit", 0.99, 0.01)]
    found = audit(make_texts(9, 5), make_texts(60, 1), real, make_predictions(20), clean, 0.7, 0)
    written = msgspec.json.encode(found).decode()
    assert "secret" not in written
    assert "text 900" not in written
    assert json.loads(written)["noise"]["suspected"] == 20


def test_an_audit_of_nothing() -> None:
    found = audit([], [], make_texts(3), [], [], 0.7, 0)
    assert (found.noise, found.copies, found.drift) == (None, None, None)
