"""Payloads: kept once, found by their hash, and never returned damaged."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_pipeline.warehouse import PayloadStore


@pytest.fixture(scope="module")
def payloads(tmp_path_factory):
    return PayloadStore(tmp_path_factory.mktemp("payloads"))


@given(content=st.binary(max_size=2000))
def test_bytes_come_back_as_they_were(payloads, content):
    assert payloads.get(payloads.put(content)) == content


def test_the_same_bytes_are_one_file_that_is_the_same_every_time(tmp_path):
    one, other = PayloadStore(tmp_path / "one"), PayloadStore(tmp_path / "other")
    sha256 = one.put(b"bars")
    assert (one.put(b"bars"), other.put(b"bars")) == (sha256, sha256)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files == [one.path(sha256)]
    assert one.path(sha256).read_bytes() == other.path(sha256).read_bytes()


def test_a_missing_payload_is_named(payloads):
    with pytest.raises(FileNotFoundError, match="no payload " + "ab" * 32):
        payloads.get("ab" * 32)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\x1f\x8b half", gzip.compress(b"other bytes")],
    ids=["empty", "cut short", "other bytes"],  # gzip writes the time: it must not name a test
)
def test_a_damaged_payload_is_an_error_and_never_an_answer(tmp_path, damaged):
    payloads = PayloadStore(tmp_path)
    sha256 = payloads.put(b"bars")
    payloads.path(sha256).write_bytes(damaged)
    with pytest.raises(ValueError, match="is damaged"):
        payloads.get(sha256)


def test_a_failed_write_leaves_no_file_behind(tmp_path, monkeypatch):
    payloads = PayloadStore(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        payloads.put(b"bars")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
