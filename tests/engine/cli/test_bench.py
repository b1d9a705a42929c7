from itertools import islice

from engine.cli.bench import joined_texts


def test_rows_are_joined_to_the_length_and_differ() -> None:
    texts, lengths = [f"row {number}" for number in range(7)], [3, 4, 5, 3, 4, 5, 3]
    found = list(islice(joined_texts(texts, lengths, 10), 6))
    sizes = dict(zip(texts, lengths, strict=True))
    assert all(10 <= sum(sizes[row] for row in text.split("\n")) < 15 for text in found)
    assert len({*found}) == len(found)


def test_empty_rows_come_to_an_end() -> None:
    assert next(joined_texts(["", ""], [0, 0], 3)) == "\n\n"
