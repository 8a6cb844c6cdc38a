"""One model's conversations: what is loaded and kept, and what the runtime's figures say to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rkllama.states.conversation import Conversations
from rkllama.states.folder import Folder
from rkllama.states.key import owner_of, state_key
from rkllama.states.policy import FIRST_TOKENS
from rkllama.states.store import StateStore
from rkllama.states.visit import begin

from .making import BYTES, DIGEST, IDENTITY, Run, begun, figures, kept, opened, tokens_of, write

KEY = state_key(IDENTITY, DIGEST, "")
CONTROL = ("<start>", "<end>")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = opened(tmp_path / "states")
    yield store
    store.close()


@pytest.fixture
def conversations(store: StateStore) -> Conversations:
    return Conversations(store, IDENTITY, "m")


def first(name: str, words: int = 400) -> str:
    return f"{name} " * words + "answer:\n"


def turn(text: str, number: int, words: int = 40) -> str:
    return text + f"t{number % 10} " * words + "answer:\n"


def take_turns(run: Run, count: int, turns: int) -> tuple[int, int]:
    """So many conversations one after the other; the tokens that were evaluated, and those that were new."""
    texts = [first(f"c{number}") for number in range(count)]
    before, new = run.evaluated, sum(map(tokens_of, texts))
    for number in range(turns):
        for index, text in enumerate(texts):
            run(text)
            texts[index] = turn(text, number)
            new += tokens_of(texts[index]) - tokens_of(text) if number + 1 < turns else 0
    return run.evaluated - before, new


def test_two_conversations_take_turns(conversations: Conversations) -> None:
    evaluated, new = take_turns(Run(conversations), 2, 10)
    assert evaluated == new


def test_more_conversations_than_there_is_room_for(tmp_path: Path) -> None:
    largest = int((402 + 12 * 41) * BYTES * 1.1) + 4096
    store = opened(tmp_path / "states", budget=int(4 * largest))
    run = Run(Conversations(store, IDENTITY, "m"))
    texts = [first(f"c{number}") for number in range(8)]
    for text in texts:
        run(text)
    for number in range(9):
        for index in range(4, 8):
            before = run.evaluated
            longer = turn(texts[index], number)
            run(longer)
            assert run.evaluated - before == tokens_of(longer) - tokens_of(texts[index])
            texts[index] = longer
            assert store.figures().size <= store.figures().budget
    store.close()


def test_what_is_in_memory_is_not_loaded(conversations: Conversations) -> None:
    run = Run(conversations)
    text = first("aa")
    for number in range(5):
        run(text)
        text = turn(text, number)
    assert run.loads == 0
    run(first("bb"))
    run(text)
    assert run.loads == 1


def test_a_single_conversation_is_written_when_it_has_doubled(store: StateStore) -> None:
    run = Run(Conversations(store, IDENTITY, "m"))
    text, writes = first("aa", 300), []
    for number in range(30):
        if run(text):
            writes.append(tokens_of(text))
        text = turn(text, number)
    assert writes[0] == 301
    assert all(later >= 2 * earlier for earlier, later in pairwise(writes)), writes
    assert store.figures().written <= 2 * writes[-1] * BYTES


def test_without_a_farewell_it_is_written_more_often(store: StateStore) -> None:
    conversations = Conversations(store, IDENTITY, "m", has_farewell=False)
    run, text, writes = Run(conversations), first("aa", 300), [0]
    for number in range(30):
        if run(text):
            writes.append(tokens_of(text))
        assert tokens_of(text) <= writes[-1] * 1.5
        text = turn(text, number)
    assert store.figures().written <= 4 * writes[-1] * BYTES
    assert conversations.farewell() is None


def test_a_short_conversation_is_not_written(conversations: Conversations) -> None:
    run = Run(conversations)
    assert not run(first("aa", FIRST_TOKENS // 2))


def test_texts_that_are_no_conversations_are_not_written_for_ever(store: StateStore) -> None:
    run = Run(Conversations(store, IDENTITY, "m"))
    assert sum(run(first(f"d{number}")) for number in range(40)) == 16
    run(turn(first("d39"), 0))
    assert run(first("e0"))  # a conversation has gone on


def test_a_text_alone_is_written_when_it_is_continued(store: StateStore) -> None:
    run = Run(Conversations(store, IDENTITY, "m"))
    assert not run(first("aa"), alone=True)
    assert run(turn(first("aa"), 0), alone=True)


def test_a_run_with_tools_is_likely_to_go_on(store: StateStore) -> None:
    run = Run(Conversations(store, IDENTITY, "m"))
    text = first("aa", 400)
    assert not run(text, goes_on=True)
    assert run(turn(text, 0))


def test_what_an_aborted_run_has_written_is_not_kept(store: StateStore) -> None:
    run = Run(Conversations(store, IDENTITY, "m"))
    assert not run(first("aa"), saves=False)
    assert store.figures().states == 0
    assert not list(Path(store._folder.path).glob("*.part"))


def test_a_run_that_does_not_end_leaves_nothing(
    store: StateStore, conversations: Conversations
) -> None:
    visit = begun(conversations, first("aa"))
    path = visit.draft()
    assert path is not None
    write(path, 400)
    visit.give_up()
    visit.give_up()
    write(path, 400)  # the run that nobody reads ends
    conversations.sweep()
    assert not Path(path).exists()
    assert store.figures().states == 0
    assert conversations.tokens_of(conversations.common_with(first("aa"))) == 0


def test_keys_of_clients_are_apart(conversations: Conversations) -> None:
    mine = begun(conversations, first("aa"), owner=owner_of("mine"))
    path = mine.draft()
    assert path is not None
    write(path, 401)
    mine.end(figures(first("aa"), saved=True))
    conversations.forget()
    longer = turn(first("aa"), 0)
    assert begun(conversations, longer, owner=owner_of("yours")).load is None
    conversations.forget()
    assert begun(conversations, longer).load is None
    conversations.forget()
    assert begun(conversations, longer, owner=owner_of("mine")).load is not None


def test_another_context_or_release_or_adapter_does_not_use_it(store: StateStore) -> None:
    assert kept(store, KEY, first("aa"))
    longer = turn(first("aa"), 0)
    for other in (
        replace(IDENTITY, context_length=8192),
        replace(IDENTITY, runtime="librkllmrt 1.2.3"),
        replace(IDENTITY, lora="x"),
    ):
        assert begun(Conversations(store, other, "m"), longer).load is None
    assert begun(Conversations(store, IDENTITY, "m"), longer).load is not None


# --- What the runtime says ---------------------------------------------------------------------


def test_a_state_that_the_runtime_does_not_take_is_dropped(
    store: StateStore, conversations: Conversations
) -> None:
    kept(store, KEY, first("aa"))
    visit = begun(conversations, turn(first("aa"), 0))
    assert visit.path()
    visit.loaded(False, 0.1)
    visit.end(figures(turn(first("aa"), 0)))
    assert store.figures()[:2] == (0, 0)
    assert store.figures().refused == 1
    assert conversations.off
    assert Conversations(store, IDENTITY, "m").off  # in later processes too
    assert not Conversations(store, replace(IDENTITY, runtime="librkllmrt 1.2.3"), "m").off
    Folder(store._folder.path).forget_failed()
    assert not Conversations(store, IDENTITY, "m").off


@pytest.mark.parametrize(("reused", "hits"), [(401, 1), (399, 1), (0, 0), (390, 0), (440, 0)])
def test_what_is_reused_is_held_against_the_figures(
    store: StateStore, conversations: Conversations, reused: int, hits: int
) -> None:
    kept(store, KEY, first("aa"))
    text = turn(first("aa"), 0)
    visit = begun(conversations, text)
    visit.loaded(True, 0.1)
    visit.end(figures(text, reused=reused))
    assert store.figures().hits == hits
    assert store.figures().refused == 1 - hits
    assert (store.figures().states == 1) is bool(hits)
    assert conversations.off is not bool(hits)
    if hits:
        assert store.figures().seconds_saved == pytest.approx(401 - 0.1)


def test_what_the_runtime_does_not_tell_is_no_failure(
    store: StateStore, conversations: Conversations
) -> None:
    kept(store, KEY, first("aa"))
    text = turn(first("aa"), 0)
    visit = begun(conversations, text)
    visit.loaded(True, 0.1)
    visit.end(figures(text)._replace(reused=None))
    assert (store.figures().hits, store.figures().refused) == (0, 0)
    assert not conversations.off


def test_a_process_that_dies_in_a_run_with_a_state(
    store: StateStore, conversations: Conversations
) -> None:
    visit = begun(conversations, "short\n")
    assert visit.draft() is None
    visit.failed()
    assert not conversations.off  # that was not because of a state
    for _ in range(2):  # once may be chance
        assert not conversations.off
        visit = begun(conversations, first("aa"))
        assert visit.draft()
        visit.failed()
        visit.failed()
    assert conversations.off
    assert begin(conversations, first("aa"), digest=DIGEST) is None


def test_a_slow_disk_is_told_once(
    conversations: Conversations, store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rkllama")
    run = Run(conversations, per_token=1e-9)
    for name in ("aa", "bb", "cc"):
        run(first(name))
        if conversations.off:
            break
    assert conversations.off
    assert begin(conversations, first("d"), digest=DIGEST) is None
    lines = [record.getMessage() for record in caplog.records if "too slow" in record.getMessage()]
    assert len(lines) == 1
    assert store.figures().states == 0


def test_white_space_becomes_a_border_when_the_runtime_shows_it(
    store: StateStore, conversations: Conversations
) -> None:
    text, longer = first("aa") + "\n", first("aa") + "\n" + "more " * 20
    kept(store, KEY, text)
    assert begun(conversations, longer).load is None
    for prompt, reused in ((text, 0), (longer, 401)):
        visit = begun(conversations, prompt)
        visit.end(figures(prompt, reused=reused)._replace(exact=True))
    conversations.forget()
    assert begun(conversations, longer).load is not None


def test_white_space_is_no_border_where_the_runtime_denies_it(
    store: StateStore, conversations: Conversations
) -> None:
    text, longer = first("aa") + "\n", first("aa") + "\n" + "more " * 20
    kept(store, KEY, text)
    for prompt, reused in ((text, 0), (longer, 400)):
        visit = begun(conversations, prompt)
        visit.end(figures(prompt, reused=reused)._replace(exact=True))
    conversations.forget()
    assert begun(conversations, longer).load is None


# --- Beginnings and the end --------------------------------------------------------------------

SYSTEM = "<start> system " + "be kind " * 200 + " <end> \n"


def with_question(question: str) -> str:
    return f"{SYSTEM}<start> user {question} <end> \n<start> assistant\n"


def test_what_conversations_begin_with_is_pinned(
    store: StateStore, conversations: Conversations
) -> None:
    for number, question in enumerate(("what is it ?", "what was it ?", "who ?")):
        visit = begun(conversations, with_question(question), control_tokens=CONTROL)
        extra = visit.pin()
        assert (extra is not None) == (number == 1)
        if extra is not None:
            assert extra.text == SYSTEM
            write(extra.path, tokens_of(SYSTEM))
            visit.pinned(extra.end(figures(extra.text, saved=True)))
        visit.end(figures(with_question(question), reused=0 if number == 0 else 404))
    assert store.figures().states == 1
    conversations.forget()
    other = with_question("something else ?")
    visit = begun(conversations, other, control_tokens=CONTROL)
    assert visit.load is not None
    assert visit.load.header.pinned
    assert visit.pin() is None


def test_nothing_is_pinned_on_top_of_what_was_loaded(
    store: StateStore, conversations: Conversations
) -> None:
    for question in ("what is it ?", "what was it ?"):
        begun(conversations, with_question(question), control_tokens=CONTROL).end(
            figures(with_question(question))
        )
    kept(store, KEY, SYSTEM[: len(SYSTEM) // 8].rpartition(" ")[0])
    visit = begun(conversations, with_question("who ?"), control_tokens=("be", *CONTROL))
    conversations.forget()
    assert visit.pin() is not None
    visit = begun(conversations, with_question("who ?"), control_tokens=("be", *CONTROL))
    assert visit.load is not None
    visit.loaded(True, 0.1)
    assert visit.pin() is None


def test_the_next_turn_is_no_other_conversation(conversations: Conversations) -> None:
    text = with_question("what is it ?")
    for _ in range(4):
        visit = begun(conversations, text, control_tokens=CONTROL)
        assert visit.pin() is None
        visit.end(figures(text))
        text += "it is . <end> \n<start> user and ? <end> \n<start> assistant\n"


def test_the_last_conversation_is_kept_before_it_is_lost(
    store: StateStore, conversations: Conversations
) -> None:
    run, text = Run(conversations), first("aa")
    assert run(text)
    assert conversations.farewell() is None  # nothing is new
    longer = turn(text, 0)
    assert not run(longer)  # not yet twice as long
    extra = conversations.farewell()
    assert extra is not None
    assert extra.text == longer
    write(extra.path, tokens_of(longer))
    assert extra.end(figures(longer, reused=tokens_of(longer) - 1, saved=True))
    store.settle()
    assert [entry.header.tokens for entry in store._index] == [tokens_of(longer)]


def test_a_full_context_holds_no_conversation(conversations: Conversations) -> None:
    visit = begun(conversations, first("aa"))
    visit.end(figures(first("aa"))._replace(full=True))
    assert conversations.tokens_of(conversations.common_with(first("aa"))) == 0
    assert conversations.farewell() is None


def test_nothing_is_kept_of_what_is_not_known(conversations: Conversations) -> None:
    assert conversations.farewell() is None
    Run(conversations)(first("aa"))
    conversations.forget()
    assert conversations.farewell() is None
