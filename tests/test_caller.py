"""For whom something is done: what a caller is told while it waits, and when it is heard to hang up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from rkllama.errors import Cancelled
from rkllama.service import LOCAL, Caller, Signs


@pytest.fixture
def news() -> Iterator[int]:
    """What is waited for: readable once something was written to it."""
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_caller_gets_a_sign_after_each_interval_of_silence(news: int) -> None:
    given: list[int] = []
    caller = Caller(signs=Signs(given.append, 0.01))
    assert not caller.waiter(news, lambda: 3)(0.055)
    assert given == [3] * 5


def test_the_wait_ends_with_what_it_is_for(news: int) -> None:
    given: list[int] = []

    def give(before: int) -> None:
        given.append(before)
        if len(given) == 2:
            os.eventfd_write(news, 1)

    assert Caller(signs=Signs(give, 0.001)).wait(news)
    assert given == [0, 0]


def test_no_sign_is_given_where_something_comes_in_time(news: int) -> None:
    given: list[int] = []
    os.eventfd_write(news, 1)
    wait = Caller(signs=Signs(given.append, 60)).waiter(news)
    assert all(wait(1.0) for _ in range(100))
    assert given == []


def test_silence_begins_anew_with_what_comes(news: int) -> None:
    given: list[int] = []
    signs = Signs(given.append, 60)
    signs._due = 0.0  # long overdue
    wait = Caller(signs=signs).waiter(news)
    os.eventfd_write(news, 1)
    assert wait(1.0)
    os.eventfd_read(news)
    assert not wait(0.01)
    assert given == []


def test_what_was_done_without_waiting_counts_as_silence(news: int) -> None:
    given: list[int] = []
    signs = Signs(given.append, 60)
    signs._due = 0.0
    assert not Caller(signs=signs).wait(news, 1e-6)
    assert given == [0]


def test_a_caller_without_signs_waits_as_long_as_it_is_told(news: int) -> None:
    assert not LOCAL.wait(news, 0.001)
    assert not LOCAL.wait(news, 0)
    os.eventfd_write(news, 1)
    assert LOCAL.wait(news)


def test_a_hang_up_is_noticed_between_two_signs(
    news: int, client: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = client
    caller = Caller(theirs.fileno(), signs=Signs(lambda _: ours.close(), 0.001))
    with pytest.raises(Cancelled):
        caller.wait(news)


def test_a_sign_that_cannot_be_sent_cancels_all_but_what_is_done_to_its_end(
    news: int, client: tuple[socket.socket, socket.socket]
) -> None:
    def give(_: int) -> None:
        raise Cancelled

    caller = Caller(client[1].fileno(), "mine", Signs(give, 0.001))
    with pytest.raises(Cancelled):
        caller.wait(news)
    assert not caller.staying().wait(news, 0.005)
    client[0].close()
    assert not caller.staying().wait(news, 0.005)
    assert caller.staying().owner == "mine"


def test_only_who_watches_is_told_a_change() -> None:
    given: list[int] = []
    watching = Caller(signs=Signs(given.append, watching=True))
    for caller in (LOCAL, Caller(signs=Signs(given.append, 0.001)), watching):
        caller.tell(2)
    assert given == [2]
    assert [caller.watching for caller in (LOCAL, watching, watching.staying())] == [
        False,
        True,
        True,
    ]


def test_what_another_server_tells_is_passed_on() -> None:
    given: list[int] = []
    for watching in (False, True):
        Caller(signs=Signs(given.append, 60, watching=watching)).pass_on(2)
    LOCAL.pass_on(2)
    assert given == [2, 2]


def test_who_never_waits_reassures_when_a_sign_is_due() -> None:
    given: list[int] = []
    signs = Signs(given.append, 60)
    caller = Caller(signs=signs)
    caller.reassure()
    assert given == []
    signs._due = 0.0
    for _ in range(3):
        caller.reassure()
    assert given == [0]
    signs._due = 0.0
    caller.reassure(silent=False)
    caller.reassure()
    assert given == [0], "it had got something else"
    LOCAL.reassure()
