from __future__ import annotations

import asyncio
import errno
import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.records import Completion, Failure, FailureReason, FinishReason, Outcome, Timings, Usage
from engine.store import journal as module
from engine.store.journal import Journal, decode_records, encode_record
from tests.engine.store.builders import make_completion, make_failure
from tests.engine.store.gate import Gate
from tests.engine.store.strategies import any_text, counts, logprobs, seconds

timings = st.builds(Timings, seconds, seconds, counts)
outcomes = st.one_of(
    st.builds(
        Completion, st.uuids().map(str), any_text, st.sampled_from(FinishReason), st.builds(Usage, counts, counts), timings, logprobs
    ),
    st.builds(Failure, st.uuids().map(str), st.sampled_from(FailureReason), any_text, timings),
)


def open_journal(folder: Path, *committed: str) -> Journal:
    return Journal(folder, committed.__contains__)


async def append_all(folder: Path, *outcomes: Outcome) -> None:
    journal = open_journal(folder)
    for outcome in outcomes:
        await journal.append(outcome)
    await journal.close()


async def reopen(folder: Path) -> list[Outcome]:
    journal = open_journal(folder)
    await journal.close()
    return list(journal.answers.values())


@given(st.lists(outcomes, max_size=4))
def test_records_come_back_as_they_were(records: list[Outcome]) -> None:
    assert decode_records(b"".join(map(encode_record, records))) == records


def test_a_record_from_before_log_probabilities_is_read() -> None:
    payload = msgspec.msgpack.encode(["completed", "q1", "reply", "stop", 100, 20, 1_700_000_000.25, 0.5, 1])
    checksum = zlib.crc32(payload, len(payload) ^ 0xFFFFFFFF)
    assert decode_records(struct.pack("<II", len(payload), checksum) + payload) == [make_completion("q1")]


def test_a_torn_record_is_cut_wherever_it_was_torn() -> None:
    whole, last = encode_record(make_completion("q1")), encode_record(make_failure("q2"))
    for length in range(len(last)):
        assert decode_records(whole + last[:length]) == [make_completion("q1")]


@given(st.lists(outcomes, max_size=2), outcomes)
def test_of_a_file_cut_at_any_byte_of_its_last_record_all_others_stay(before: list[Outcome], last: Outcome) -> None:
    whole, torn = b"".join(map(encode_record, before)), encode_record(last)
    for length in range(len(torn)):
        assert decode_records(whole + torn[:length]) == before


async def test_a_journal_goes_on_behind_a_file_cut_at_any_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    whole, last = encode_record(make_completion("q1")), encode_record(make_failure("q2"))
    for length in range(len(last)):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "000001.log").write_bytes(whole + last[:length])
        await append_all(folder, make_completion("q2", "asked again"))
        assert await reopen(folder) == [make_completion("q1"), make_completion("q2", "asked again")]


def test_a_damaged_record_is_cut_whichever_byte_is_wrong() -> None:
    whole, last = encode_record(make_completion("q1")), encode_record(make_failure("q2"))
    for position in range(len(last)):
        damaged = bytearray(last)
        damaged[position] ^= 0x10
        assert decode_records(whole + damaged) == [make_completion("q1")]


def test_a_tail_of_zeros_is_no_record() -> None:
    assert decode_records(encode_record(make_completion("q1")) + bytes(4096)) == [make_completion("q1")]


async def test_answers_of_all_earlier_processes_are_read_and_the_first_of_a_request_counts(tmp_path: Path) -> None:
    await append_all(tmp_path, make_completion("q1"))
    await append_all(tmp_path, make_failure("q2"), make_completion("q1", "second answer"))
    assert await reopen(tmp_path) == [make_completion("q1"), make_failure("q2")]


async def test_nothing_is_appended_to_a_file_that_a_kill_tore(tmp_path: Path) -> None:
    await append_all(tmp_path, make_completion("q1"))
    torn = tmp_path / "000001.log"
    torn.write_bytes(torn.read_bytes() + encode_record(make_completion("q2"))[:-1])
    before = torn.read_bytes()
    await append_all(tmp_path, make_completion("q3"))
    assert torn.read_bytes() == before
    assert await reopen(tmp_path) == [make_completion("q1"), make_completion("q3")]


async def test_one_sync_serves_all_that_came_meanwhile_and_none_returns_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    gate = Gate(monkeypatch)
    first = asyncio.create_task(journal.append(make_completion("q0")))
    await gate.is_reached()
    others = [asyncio.create_task(journal.append(make_completion(f"q{number}"))) for number in range(1, 51)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, *others))
    gate.release.set()
    await asyncio.gather(first, *others)
    assert gate.syncs == 2
    await journal.close()
    assert len(await reopen(tmp_path)) == 51


async def test_whoever_is_cancelled_does_not_take_the_group_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    gate = Gate(monkeypatch)
    first, second = (asyncio.create_task(journal.append(make_completion(name))) for name in ("q1", "q2"))
    await gate.is_reached()
    first.cancel()
    await asyncio.wait([first])
    gate.release.set()
    await second
    await journal.close()
    assert make_completion("q2") in await reopen(tmp_path)


async def test_a_full_disk_is_told_to_everyone_in_the_group_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    gate = Gate(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    gate.release.set()
    results = await asyncio.gather(*(journal.append(make_completion(f"q{number}")) for number in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == [f"cannot write the journal {tmp_path}: No space left on device"] * 3
    monkeypatch.undo()
    with pytest.raises(StoreError, match="No space left"):
        await journal.append(make_completion("q9"))
    await journal.close()
    assert make_completion("q9") not in await reopen(tmp_path)


def files(folder: Path) -> dict[str, bool]:
    """The files there, and whether something is in them."""
    return {path.name: path.stat().st_size > 0 for path in folder.iterdir()}


async def test_rotation_drops_files_whose_answers_are_committed_and_keeps_the_rest_whole(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.append(make_completion("q1"))
    journal.release(["q1"])
    await journal.rotate()
    await journal.append(make_completion("q2"))
    await journal.append(make_completion("q3"))
    journal.release(["q3"])
    await journal.rotate()
    await journal.append(make_completion("q4"))
    assert files(tmp_path) == {"000002.log": True, "000003.log": True}
    await journal.close()
    assert await reopen(tmp_path) == [make_completion("q2"), make_completion("q3"), make_completion("q4")]
    journal = open_journal(tmp_path, "q2", "q3", "q4")
    await journal.close()
    assert journal.answers == {}
    assert files(tmp_path) == {"000005.log": False}


async def test_a_full_file_is_followed_by_the_next_and_goes_when_its_answers_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1)
    journal = open_journal(tmp_path)
    for name in ("q1", "q2", "q1"):
        await journal.append(make_completion(name))
    assert files(tmp_path) == {"000001.log": True, "000002.log": True, "000004.log": False}
    journal.release(["q1", "unheard of"])
    await journal.close()
    assert files(tmp_path) == {"000002.log": True, "000004.log": False}


async def test_a_record_of_another_version_is_an_error_not_a_torn_tail(tmp_path: Path) -> None:
    record = encode_record(make_completion("q1"))
    payload = record[8:].replace(b"completed", b"COMPLETED")
    (tmp_path / "000001.log").write_bytes(encode_payload(payload))
    with pytest.raises(StoreError, match="another version of Reflux"):
        open_journal(tmp_path)


def encode_payload(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), zlib.crc32(payload, len(payload) ^ 0xFFFFFFFF)) + payload


def test_a_journal_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read the journal .*missing: No such file"):
        open_journal(tmp_path / "missing")
