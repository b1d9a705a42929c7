"""Chats that begin alike, laid out so that their beginning is computed once: a trunk, and a branch for what each goes on with.

A branch sees the trunk and itself, at the positions it would have alone, so each chat is what it is by itself: the loss and its gradients
are those of the chats one by one. A taxonomy of labels before a short question is read once for forty of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lessons import Lesson

IGNORED = -100
"""Target of a token whose successor is read, not learned."""
TRUNK = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat: its tokens, and of each whether it is learned."""

    ids: Sequence[int]
    is_learned: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Pack:
    """Chats as one sequence; four lists of the same length."""

    ids: list[int]
    positions: list[int]
    branches: list[int]
    """TRUNK, or the number of the branch."""
    targets: list[int]
    """The token that follows in the same chat, or IGNORED."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    ids: torch.Tensor
    """Shape (packs, time), as are positions and targets."""
    positions: torch.Tensor
    targets: torch.Tensor
    sees: torch.Tensor
    """Bool, shape (packs, 1, time, time)."""


def pack(chats: Sequence[Encoded], most: int) -> Pack | None:
    """The first of them that fit into `most` tokens; None if not even one does."""
    shared = _shared(chats)
    first = chats[0]
    if len(first.ids) > most:
        return None
    laid = Pack(list(first.ids[:shared]), list(range(shared)), [TRUNK] * shared, _targets(first, 0, shared))
    for number, chat in enumerate(chats, start=1):
        size = len(chat.ids) - shared
        if len(laid) + size > most:
            break
        laid.ids.extend(chat.ids[shared:])
        laid.positions.extend(range(shared, len(chat.ids)))
        laid.branches.extend([number] * size)
        laid.targets.extend(_targets(chat, shared, len(chat.ids)))
    return laid


def _shared(chats: Sequence[Encoded]) -> int:
    """How many tokens all begin with, less one: a branch has to begin with a token whose forerunner is the trunk's for all of them."""
    first = chats[0].ids
    length = min(len(chat.ids) for chat in chats)
    return max(0, next((place for place in range(length) if any(chat.ids[place] != first[place] for chat in chats)), length) - 1)


def _targets(chat: Encoded, start: int, end: int) -> list[int]:
    return [chat.ids[place + 1] if place + 1 < len(chat.ids) and chat.is_learned[place + 1] else IGNORED for place in range(start, end)]


def batches(lessons: Iterator[Lesson], encode: Callable[[Sequence[tuple[str, str]]], Encoded], tokens: int, most: int) -> Iterator[Batch]:
    """Without end: packs of at most `most` tokens, those of like length together, about `tokens` a batch with padding."""
    while True:
        drawn = (pack([encode(chat) for chat in lesson.chats], most) for lesson in itertools.islice(lessons, 96))
        packs = sorted((each for each in drawn if each is not None), key=len)
        groups: list[list[Pack]] = [[]]
        for each in packs:
            if groups[-1] and len(each) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(each)
        for number in torch.randperm(len(groups)).tolist():
            yield collate(groups[number])


def collate(packs: Sequence[Pack]) -> Batch:
    longest = max(map(len, packs))

    def tensor(rows: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
        return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])

    branches = tensor([each.branches for each in packs], -1)
    among = (branches[:, None, :] == TRUNK) | (branches[:, None, :] == branches[:, :, None])
    return Batch(
        ids=tensor([each.ids for each in packs], 0),
        positions=tensor([each.positions for each in packs], 0),
        targets=tensor([each.targets for each in packs], IGNORED),
        sees=(among & torch.ones(longest, longest, dtype=torch.bool).tril())[:, None],
    )
