"""A runtime with slots: which one a prompt goes to, what is written before it is lost, and what is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.states.conversation import Conversations, Extra
from rkllama.states.facts import RunFigures
from rkllama.states.folder import Folder
from rkllama.states.key import owner_of
from rkllama.states.slots import choose
from rkllama.states.store import StateStore

from .making import BYTES, DIGEST, IDENTITY, begun, opened, tokens_of, write

ANSWER = "and so on " * 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = opened(tmp_path / "states")
    yield store
    store.close()


class Model:
    """A model with slots, as the engine uses it: what is evaluated, loaded and written."""

    def __init__(self, store: StateStore, slots: int, owner: str = "") -> None:
        first = Conversations(store, IDENTITY, "m", slots=True)
        self.memories = [first, *(first.sibling() for _ in range(slots - 1))]
        self.held = dict.fromkeys(self.memories, "")
        self.owner = owner
        self.evaluated = self.loads = self.writes = 0
        self._files: dict[str, str] = {}

    def __call__(self, text: str, *, alone: bool = False, busy: bool = False) -> Conversations:
        """Run a prompt; return the memory that it had."""
        own = choose(self.memories, text, digest=DIGEST, owner=self.owner)
        own.begin_use(text)
        if (extra := own.farewell(text)) is not None:
            self.write(own, extra)
        visit = begun(own, text, alone=alone, owner=self.owner)
        if visit.path() is not None and visit.load is not None:
            visit.loaded(True, 0.0)
            self.loads += 1
            self.held[own] = self._files[visit.load.state]
        reused = common_words(text, self.held[own])
        visit.end(RunFigures(tokens_of(text), tokens_of(text) - reused, reused, 1.0, saved=False))
        self.evaluated += tokens_of(text) - reused
        self.held[own] = text + ANSWER
        if not busy and (extra := visit.keep()) is not None:
            self.write(own, extra)
        return own

    def write(self, own: Conversations, extra: Extra) -> None:
        assert extra.writes_slot
        assert extra.in_memory is not None
        held = self.held[own]
        assert held.startswith(extra.text)
        write(extra.path, tokens_of(held))
        answer = tokens_of(held) - extra.in_memory
        entry = extra.end(RunFigures(extra.in_memory, None, None, None, saved=True, answer=answer))
        if entry is not None:
            extra.note_saved(entry)
            self._files[entry.state] = held
            self.writes += 1


def common_words(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one.split(), other.split(), strict=False):
        if a != b:
            break
        count += 1
    return count


def first(name: str, words: int = 400) -> str:
    return f"{name} " * words + "answer: "


def turn(text: str, number: int) -> str:
    return text + ANSWER + f"t{number} " * 40 + "answer: "


@pytest.mark.parametrize(("slots", "conversations"), [(1, 2), (2, 3), (4, 4), (3, 8)])
def test_conversations_take_turns(store: StateStore, slots: int, conversations: int) -> None:
    model = Model(store, slots)
    texts = [first(f"c{number}") for number in range(conversations)]
    for text in texts:
        model(text)
    for number in range(6):
        for index, text in enumerate(texts):
            before, texts[index] = model.evaluated, turn(text, number)
            model(texts[index])
            assert model.evaluated - before == 41  # the answer is in the state
    assert store.figures().refused == 0
    assert (model.loads > 0) is (conversations > slots)


def test_what_takes_no_others_place_is_written_when_it_is_twice_as_long(store: StateStore) -> None:
    model, text = Model(store, 2), first("aa")
    for number in range(9):
        model(text)
        text = turn(text, number)
    assert model.writes == 2
    store.settle()
    assert store.figures().states == 1  # a longer one takes the place of what it goes on from


def test_nothing_is_written_after_a_run_while_others_run(store: StateStore) -> None:
    model = Model(store, 2)
    model(first("aa"), busy=True)
    assert model.writes == 0
    model(first("bb"), busy=True)
    model(first("cc"), busy=True)  # but before its slot is lost
    assert model.writes == 1


def test_a_runtime_that_writes_no_slot_is_asked_twice(store: StateStore) -> None:
    own = Conversations(store, IDENTITY, "m", slots=True)
    for number in range(2):
        assert not own.off
        visit = begun(own, first(f"c{number}"))
        visit.end(RunFigures(401, 401, 0, 1.0, saved=False))
        extra = visit.keep()
        assert extra is not None
        assert extra.end(RunFigures(401, None, None, None, saved=False)) is None
        extra.distrust_writing()
    assert own.off
    assert own.sibling().off


def test_a_disk_that_became_full_is_not_the_runtime_s_fault(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Conversations(store, IDENTITY, "m", slots=True)
    for number in range(3):
        visit = begun(own, first(f"c{number}"))
        visit.end(RunFigures(401, 401, 0, 1.0, saved=False))
        extra = visit.keep()
        assert extra is not None
        with monkeypatch.context() as full:
            full.setattr("rkllama.states.store.free_space", lambda _: 0)
            extra.end(RunFigures(401, None, None, None, saved=False))
            extra.distrust_writing()
    assert not own.off


def test_a_slot_is_written_for_the_unload_if_there_is_something_new(store: StateStore) -> None:
    model, text = Model(store, 1), first("aa")
    own = model(text)
    assert own.farewell() is None
    model(turn(text, 0))
    extra = own.farewell()
    assert extra is not None
    model.write(own, extra)
    assert own.farewell() is None


def test_more_than_may_be_written_in_company_is_not(store: StateStore) -> None:
    model = Model(store, 1)
    own = model(first("aa"), busy=True)
    tokens = tokens_of(first("aa"))
    assert own.farewell(first("bb"), tokens * (112 << 10) - 1) is None
    assert own.farewell(first("bb"), tokens * (112 << 10)) is not None


def test_the_header_tells_the_answer_apart(store: StateStore, tmp_path: Path) -> None:
    model, text = Model(store, 1), first("aa")
    model(text)
    store.settle()
    [(_, header, _)] = Folder(str(tmp_path / "states")).headers()
    assert header.prompt_tokens == tokens_of(text)
    assert header.answer == tokens_of(ANSWER)
    assert header.size == header.tokens * BYTES


def test_a_state_serves_a_turn_that_leaves_the_answer_out(store: StateStore) -> None:
    """As templates do that drop what a model thought."""
    model, text = Model(store, 1), first("aa")
    model(text)
    model(first("bb"))
    before = model.evaluated
    model(text + "no thoughts " + "t " * 40)
    assert model.evaluated - before == 42
    assert model.loads == 1
    assert store.figures().refused == 0


def test_tokens_are_compared_so_that_no_border_is_needed(store: StateStore) -> None:
    model = Model(store, 1)
    model("word " * 400 + "wor")
    model(first("bb"))
    own = model.memories[0]
    assert begun(own, "word " * 400 + "world").load is not None
    assert begun(Conversations(store, IDENTITY, "m"), "word " * 400 + "world").load is None


def test_a_state_that_is_not_used_as_a_whole_is_dropped(store: StateStore) -> None:
    model, text = Model(store, 1), first("aa")
    for _ in range(2):
        model(text)
        model(first("bb"))
        assert not model.memories[0].off
        visit = begun(model.memories[0], turn(text, 0))
        model.held[model.memories[0]] = turn(text, 0)
        assert visit.load is not None
        visit.loaded(True, 0.0)
        visit.end(RunFigures(500, 500, 0, 1.0, saved=False))
    assert store.figures().refused == 2
    assert model.memories[0].off  # the second time it is no chance


def test_an_answer_that_was_given_up_leaves_its_prompt(store: StateStore) -> None:
    model, text = Model(store, 1), first("aa")
    own = model.memories[0]
    for prompt_tokens in (None, 401):  # it may have been given up before its prompt was evaluated
        begun(own, text).give_up()
        assert own.tokens_of(own.common_with(text)) == 0  # it may still go on
        own.note_left(RunFigures(prompt_tokens, 401, 0, 1.0, saved=False))
        assert own.tokens_of(own.common_with(text)) == (prompt_tokens or 0)
    assert own.farewell() is not None


def test_documents_that_are_summed_up_are_no_conversations(store: StateStore) -> None:
    model = Model(store, 1)
    for number in range(40):
        model(first(f"c{number}"))
    assert model.writes == 16
    alone = Model(opened_beside(store), 1)
    for number in range(3):
        alone(first(f"c{number}"), alone=True)
    assert alone.writes == 0


def opened_beside(store: StateStore) -> StateStore:
    return opened(Path(store.directory).parent / "others")


def test_each_key_has_its_own(store: StateStore) -> None:
    mine, yours = Model(store, 1, owner_of("mine")), Model(store, 1, owner_of("yours"))
    mine(first("aa"))
    yours(turn(first("aa"), 0))
    assert yours.loads == 0
    again = Model(store, 1, owner_of("mine"))
    again._files = mine._files
    again(turn(first("aa"), 0))
    assert again.loads == 1


# --- Which slot --------------------------------------------------------------------------------


def chosen(store: StateStore, prompts: list[str], text: str) -> int:
    """The number of the slot that is chosen of those which have had these prompts, in that order."""
    memory = Conversations(store, IDENTITY, "m", slots=True)
    memories = [memory, *(memory.sibling() for _ in prompts[1:])]
    for memory, prompt in zip(memories, prompts, strict=True):
        if prompt:
            memory.begin_use(prompt)
    return memories.index(choose(memories, text, digest=DIGEST))


SYSTEM = "be kind " * 200


@pytest.mark.parametrize(
    ("prompts", "text", "slot"),
    [
        (["", ""], "a b c", 0),
        (["a b c", ""], "a b c d", 0),
        (["a b c", ""], "x y z", 1),
        (["a b c", "x y z"], "1 2 3", 0),
        (["a", "a b"], "a b c", 1),
        ([SYSTEM + "one", ""], SYSTEM + "two", 0),
        ([SYSTEM + "one", SYSTEM + "one, and two"], SYSTEM + "one, and three", 1),
    ],
)
def test_the_slot_that_holds_most_of_it(
    store: StateStore, prompts: list[str], text: str, slot: int
) -> None:
    assert chosen(store, prompts, text) == slot


def test_a_conversation_makes_no_place_for_what_the_disk_has(store: StateStore) -> None:
    model = Model(store, 1)
    model(SYSTEM)
    assert model.writes == 1
    assert chosen(store, [SYSTEM + "one", ""], SYSTEM + "two") == 1
