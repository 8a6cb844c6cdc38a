"""Reading a log that its process goes on writing: the last lines, truncation, and a file put aside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.runner.log import ASIDE, log_path
from rkllama.runner.log_reader import LogFile, LogReader, log_files


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "m.log"


@pytest.fixture
def reading() -> Iterator[tuple[int, int]]:
    """A pipe whose other end stands for who reads along."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def reader(log: Path) -> Iterator[LogReader]:
    with contextlib.closing(LogReader(str(log))) as reader:
        yield reader


@pytest.mark.parametrize(
    ("count", "lines"), [(2, "three\nfour"), (9, "one\ntwo\nthree\nfour"), (0, "")]
)
def test_the_last_lines(count: int, lines: str, log: Path, reader: LogReader) -> None:
    log.write_text("one\ntwo\nthree\nfour")
    assert reader.last(count) == lines


@pytest.mark.parametrize(("count", "lines"), [(3, "b\nc\nd\n"), (1, "d\n"), (9, "a\nb\nc\nd\n")])
def test_lines_that_were_put_aside_count_too(
    count: int, lines: str, log: Path, reader: LogReader
) -> None:
    Path(f"{log}{ASIDE}").write_text("a\nb\nc\n")
    log.write_text("d\n")
    assert reader.last(count) == lines


def test_what_is_added_follows_at_once_also_half_a_character(
    log: Path, reader: LogReader, reading: tuple[int, int]
) -> None:
    log.write_bytes(b"old\n")
    reader.last(100)
    texts = reader.follow(reading[1])
    with log.open("ab", buffering=0) as stream:
        stream.write("new 名".encode()[:-1])
        assert next(texts) == "new "
        stream.write("名".encode()[-1:] + b"\xff\n")
        assert next(texts) == "名\ufffd\n"


def test_a_truncated_log_is_read_from_its_beginning(
    log: Path, reader: LogReader, reading: tuple[int, int]
) -> None:
    log.write_text("a long line of the old days\n")
    reader.last(100)
    texts = reader.follow(reading[1])
    os.truncate(log, 0)
    with log.open("a") as stream:
        stream.write("new\n")
    assert next(texts) == "new\n"


def test_a_log_that_was_put_aside_is_read_to_its_end_first(
    log: Path, reader: LogReader, reading: tuple[int, int]
) -> None:
    log.write_text("old\n")
    reader.last(100)
    texts = reader.follow(reading[1])
    with log.open("a") as stream:
        stream.write("last words\n")
    os.replace(log, f"{log}{ASIDE}")
    log.write_text("begin\n")
    assert next(texts) == "last words\n"
    assert next(texts) == "begin\n"


def test_a_log_that_is_not_there_yet_is_waited_for(
    log: Path, reader: LogReader, reading: tuple[int, int]
) -> None:
    texts = reader.follow(reading[1])
    log.write_text("first\n")
    assert next(texts) == "first\n"


def test_nothing_is_followed_for_a_reader_that_is_gone(
    log: Path, reader: LogReader, reading: tuple[int, int]
) -> None:
    log.write_text("old\n")
    reader.last(100)
    texts = reader.follow(reading[1])
    os.close(reading[0])
    assert list(texts) == []


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    with pytest.raises(OSError, match="it is not a file"):
        LogReader(str(tmp_path / "pipe.log")).last(3)


def test_the_logs_of_a_directory(tmp_path: Path) -> None:
    assert log_files(str(tmp_path / "nothing")) == []
    for number, name in enumerate(("b.log", "a.b.log", "a.log.1", "x.txt")):
        (tmp_path / name).write_text("x" * number)
        os.utime(tmp_path / name, (1000 + number, 1000 + number))
    (tmp_path / "folder.log").mkdir()
    assert log_files(str(tmp_path)) == [LogFile("a.b", 1, 1001.0), LogFile("b", 0, 1000.0)]


def test_a_models_name_is_one_name_in_the_directory() -> None:
    assert log_path("/logs", "folder/m") == "/logs/folder_m.log"
    long = log_path("/logs", "名" * 100)
    assert long != log_path("/logs", "名" * 101)
    assert len(os.fsencode(os.path.basename(long) + ASIDE)) <= 255
