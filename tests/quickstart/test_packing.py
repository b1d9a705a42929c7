"""Chats laid out together are what they are one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packing import IGNORED, TRUNK, Encoded, collate, pack
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 11
MOST = 200


@st.composite
def groups(draw: st.DrawFn) -> list[Encoded]:
    """Some that begin alike, some that do not, some that are the same."""
    tokens = st.integers(1, VOCABULARY - 1)
    shared = draw(st.lists(tokens, max_size=8))
    ends = draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=4))
    known = draw(st.lists(st.booleans(), min_size=len(shared), max_size=len(shared)))
    learned = [draw(st.lists(st.booleans(), min_size=len(end), max_size=len(end))) for end in ends]
    return [Encoded([*shared, *end], [*known, *own]) for end, own in zip(ends, learned, strict=True)]


@given(groups())
def test_every_chat_can_be_read_off(chats: list[Encoded]) -> None:
    laid = pack(chats, MOST)
    assert laid is not None
    trunk = [place for place, branch in enumerate(laid.branches) if branch == TRUNK]
    for number, chat in enumerate(chats, start=1):
        places = trunk + [place for place, branch in enumerate(laid.branches) if branch == number]
        assert [laid.ids[place] for place in places] == list(chat.ids)
        assert [laid.positions[place] for place in places] == list(range(len(chat.ids)))
        own = [place for place in places if laid.branches[place] == number]
        wanted = [token if learned else IGNORED for token, learned in zip(chat.ids[1:], chat.is_learned[1:], strict=True)]
        assert [laid.targets[place] for place in own] == [*wanted, IGNORED][len(chat.ids) - len(own) :]


@given(groups(), st.integers(1, 14))
def test_what_does_not_fit_is_left_out_whole(chats: list[Encoded], most: int) -> None:
    laid = pack(chats, most)
    if laid is None:
        assert len(chats[0].ids) > most
        return
    assert len(laid) <= most
    for number in set(laid.branches) - {TRUNK}:
        own = laid.branches.count(TRUNK) + laid.branches.count(number)
        assert own == len(chats[number - 1].ids)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=1, head_dim=8, tie_word_embeddings=True)
    ).eval()  # fmt: skip


def summed(model: Qwen3ForCausalLM, groups: Sequence[Sequence[Encoded]]) -> torch.Tensor:
    """Over all that is learned in them, each group laid out as one."""
    packs = [laid for laid in (pack(group, MOST) for group in groups) if laid is not None]
    batch = collate(packs)
    logits = model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.sees).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")


def test_the_loss_is_that_of_the_chats_one_by_one(model: Qwen3ForCausalLM) -> None:
    beginning, ends = [1, 2, 3, 4, 5], ([6, 7], [8, 9, 10, 1], [6, 2])
    chats = [Encoded([*beginning, *end], [False] * 5 + [True] * len(end)) for end in ends]
    other = [Encoded([3, 1], [False, True])]
    with torch.no_grad():
        together = summed(model, [chats, other])
        alone = sum((summed(model, [[chat]]) for chat in [*chats, *other]), torch.zeros(()))
    torch.testing.assert_close(together, alone)
