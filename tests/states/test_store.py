"""The directory of states: what is a state, what is not, and what it may cost."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkllama.states.folder import Folder
from rkllama.states.header import Header, decode, encode
from rkllama.states.index import Entry
from rkllama.states.store import StateStore

from .making import BYTES, kept, opened, write

KEY = "a" * 64
TEXT = "some words " * 50 + "\n"
PROMPT = (TEXT + "more").encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = opened(tmp_path / "states")
    yield store
    store.close()


def found(store: StateStore, key: str = KEY, prompt: bytes = PROMPT) -> Entry | None:
    return store.find(key, prompt, lambda _: True)


def again(store: StateStore, **values: int) -> StateStore:
    """The same directory in another process."""
    store.close()
    return opened(Path(store._folder.path), **values)


def only(store: StateStore, ending: str) -> Path:
    [path] = Path(store._folder.path).glob(f"*.{ending}")
    return path


def test_a_state_can_be_used_at_once_and_in_the_next_process(store: StateStore) -> None:
    entry = kept(store, KEY, TEXT)
    assert entry is not None
    assert found(store) is entry
    assert store.path(entry) == str(only(store, "kv"))
    store = again(store)
    entry = found(store)
    assert entry is not None
    assert entry.header.tokens == 100
    assert store.path(entry) is not None
    assert found(store, key="b" * 64) is None
    assert found(store, prompt=TEXT[:-2].encode()) is None
    store.close()


def test_ctrl_c_before_a_state_is_on_its_way_to_the_disk_is_no_fault(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", start)
        kept(store, KEY, TEXT)
    store = again(store)
    assert found(store) is None
    assert list(Path(store._folder.path).glob("*.kv")) == []
    store.close()


def test_files_are_for_their_owner_alone(store: StateStore) -> None:
    os.umask(0o022)
    kept(store, KEY, TEXT)
    store.settle()
    folder = Path(store._folder.path)
    assert folder.stat().st_mode & 0o777 == 0o700
    for ending in ("kv", "json"):
        assert only(store, ending).stat().st_mode & 0o777 == 0o600


def other_content(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    about = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def readable_by_all(path: Path) -> None:
    path.chmod(0o644)


def a_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def two_names(path: Path) -> None:
    os.link(path, path.with_suffix(".real"))


DAMAGE = [other_content, cut_off, readable_by_all, a_link, two_names, os.unlink]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", ["kv", "json"])
def test_what_is_not_whole_or_not_ours_is_never_loaded(
    store: StateStore, damage: Callable[[Path], None], ending: str
) -> None:
    kept(store, KEY, TEXT)
    store.settle()
    store.close()
    damage(only(store, ending))
    store = again(store)
    entry = found(store)
    assert entry is None or store.path(entry) is None
    assert found(store) is None
    store.close()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_changes_meanwhile_is_not_loaded(
    store: StateStore, damage: Callable[[Path], None]
) -> None:
    entry = kept(store, KEY, TEXT)
    assert entry is not None
    store.settle()
    damage(only(store, "kv"))
    assert store.path(entry) is None
    assert found(store) is None
    assert store.figures().refused == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_another_users_file_is_not_loaded(store: StateStore) -> None:
    entry = kept(store, KEY, TEXT)
    assert entry is not None
    store.settle()
    os.chown(only(store, "kv"), 65534, -1)
    assert store.path(entry) is None


def test_another_version_of_the_header_is_not_read(store: StateStore) -> None:
    kept(store, KEY, TEXT)
    store.settle()
    path = only(store, "json")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "version": 2}))
    store = again(store)
    assert found(store) is None
    assert not list(Path(store._folder.path).glob("*.kv"))
    store.close()


def test_headers_hold_or_are_none() -> None:
    header = Header(
        key=KEY,
        prefix="b" * 64,
        prefix_crc=1,
        length=2,
        tokens=3,
        size=4,
        crc=5,
        prefill=0.004,
        model="m\n",
        created=7.0,
    )
    content = encode(header)
    assert decode(content) == header
    values = json.loads(content)
    for name in values:
        assert decode(json.dumps({k: v for k, v in values.items() if k != name}).encode()) is None
        assert decode(json.dumps({**values, name: [1]}).encode()) is None
    for broken in (b"", content[:-1], b"[]", b"[" * 5000, b"null", content.replace(b": 3", b": 9")):
        assert decode(broken) is None


# --- Writing -----------------------------------------------------------------------------------


def test_a_draft_is_no_state(store: StateStore) -> None:
    draft = store.draft(1000)
    assert draft is not None
    assert os.path.isabs(draft.path)
    write(draft.path, 10)
    assert found(store) is None
    other = Folder(store._folder.path)
    assert not list(other.headers())
    store.discard(draft)
    assert not os.path.exists(draft.path)
    store.discard(draft)  # twice is once


def test_a_run_that_wrote_nothing_leaves_nothing(store: StateStore) -> None:
    draft = store.draft(1000)
    assert draft is not None
    entry = store.keep(draft, b"x", Header(key=KEY, tokens=1, prefill=1.0, model="m"))
    assert entry is None
    assert not os.path.exists(draft.path)
    assert len(os.listdir(store._folder.path)) == 2  # the lock and the disk's figures


def test_what_a_killed_process_left_is_swept(store: StateStore) -> None:
    kept(store, KEY, TEXT)
    store.settle()
    folder = Path(store._folder.path)
    for name in (
        "0123456789abcdef.part",
        "0123456789abcdef.kv",
        ".new-00",
        "fedcba9876543210.json",
    ):
        (folder / name).write_bytes(b"x" * 100)
    store = again(store)
    assert found(store) is not None
    assert sorted(path.suffix for path in folder.iterdir()) == ["", "", ".json", ".kv"]
    store.close()


def test_one_process_at_a_time(store: StateStore) -> None:
    second = StateStore(store._folder.path, 1 << 30)
    assert not second.open()
    store.close()
    assert second.open()
    second.close()


def test_a_directory_that_cannot_be_had_switches_it_off(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file")
    assert not StateStore(str(tmp_path / "states"), 1 << 30).open()
    assert not StateStore(str(tmp_path / "none"), 0).open()
    assert not (tmp_path / "none").exists()


def test_a_directory_that_vanishes_costs_the_states_alone(store: StateStore) -> None:
    entry = kept(store, KEY, TEXT)
    assert entry is not None
    store.settle()
    shutil.rmtree(store._folder.path)
    assert store.path(entry) is None
    assert store.draft(1000) is None
    assert store.figures().states == 0


# --- What it may cost --------------------------------------------------------------------------


def sized(tmp_path: Path, states: float) -> StateStore:
    """A store with room for so many states of 100 tokens."""
    return opened(tmp_path / "states", budget=int(states * (100 * BYTES + 4096)))


def texts(count: int) -> list[str]:
    return [f"{number} " * 100 + "\n" for number in range(count)]


def on_disk(store: StateStore) -> int:
    return sum(path.stat().st_size for path in Path(store._folder.path).glob("*.*"))


def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    store, all_texts = sized(tmp_path, 4.5), texts(6)
    entries = [kept(store, KEY, text) for text in all_texts[:4]]
    assert entries[0] is not None
    store.note_hit(entries[0], 0.1, 1.0)
    for text in all_texts[4:]:
        kept(store, KEY, text)
    have = [found(store, prompt=(text + "x").encode()) is not None for text in all_texts]
    assert have == [True, False, False, True, True, True]
    assert on_disk(store) <= store.figures().budget
    store = again(store, budget=int(2.5 * (100 * BYTES + 4096)))
    have = [found(store, prompt=(text + "x").encode()) is not None for text in all_texts]
    assert have == [False, False, False, False, True, True]
    store.close()


def test_the_order_of_use_is_exact_and_outlives_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that stands still, and then one that was set back, as of a board without a battery."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000 * 10**9)
    store, all_texts = sized(tmp_path, 4.5), texts(4)
    entries = [kept(store, KEY, text) for text in all_texts]
    for number in (2, 0):
        entry = entries[number]
        assert entry is not None
        store.note_hit(entry, 0.1, 1.0)
    store = again(store, budget=1 << 30)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000 * 10**9)
    entry = found(store, prompt=(all_texts[1] + "x").encode())
    assert entry is not None
    store.note_hit(entry, 0.1, 1.0)
    for states, left in ((3.5, {0, 1, 2}), (2.5, {0, 1}), (1.5, {1})):
        store = again(store, budget=int(states * (100 * BYTES + 4096)))
        have = {
            at for at, text in enumerate(all_texts) if found(store, prompt=(text + "x").encode())
        }
        assert have == left
    store.close()


def test_pinned_ones_go_last(tmp_path: Path) -> None:
    store, all_texts = sized(tmp_path, 3.5), texts(6)
    kept(store, KEY, all_texts[0], pinned=True)
    for text in all_texts[1:]:
        kept(store, KEY, text)
    have = [found(store, prompt=(text + "x").encode()) is not None for text in all_texts]
    assert have == [True, False, False, False, True, True]
    store.close()


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    store = sized(tmp_path, 2)
    kept(store, KEY, TEXT)
    assert store.draft(300 * BYTES + 2 * 4096) is None
    assert found(store) is not None  # and nothing goes for it
    store.close()


def test_drafts_take_room(tmp_path: Path) -> None:
    store = sized(tmp_path, 2.5)
    kept(store, KEY, TEXT)
    drafts = [store.draft(100 * BYTES), store.draft(100 * BYTES)]
    assert None not in drafts
    assert found(store) is None
    store.close()


def test_a_superseded_state_goes_when_the_new_one_is_on_the_disk(store: StateStore) -> None:
    old = kept(store, KEY, TEXT)
    draft = store.draft(1000, old)
    assert draft is not None
    assert found(store) is old
    write(draft.path, 101)
    longer = TEXT + "more\n"
    header = Header(key=KEY, tokens=101, prefill=1.0, model="m")
    store.keep(draft, longer.encode(), header, old)
    store.settle()
    assert found(store) is None
    assert found(store, prompt=longer.encode() + b"x") is not None


def test_where_room_lacks_it_goes_before_another_one(tmp_path: Path) -> None:
    store = sized(tmp_path, 2.5)
    other, old = kept(store, KEY, texts(1)[0]), kept(store, KEY, TEXT)
    assert store.draft(100 * BYTES, old) is not None
    assert found(store) is None
    assert found(store, prompt=(texts(1)[0] + "x").encode()) is other
    store.close()


def test_bytes_of_an_hour_are_bounded(tmp_path: Path) -> None:
    hourly = 3 * (100 * BYTES + 4096)
    store = opened(tmp_path / "states", hourly=hourly)
    entries = [kept(store, KEY, text) for text in texts(6)]
    store.settle()
    entries += [kept(store, KEY, text) for text in texts(9)[6:]]
    written = store.figures().written
    assert 2 * 100 * BYTES <= written <= hourly
    store.settle()
    store = again(store, hourly=hourly)  # it holds over processes
    assert store.figures().written_in_hour >= written * 0.9
    assert store.draft(hourly // 3) is None
    store.close()


def test_none_at_all_may_be_written(tmp_path: Path) -> None:
    store = opened(tmp_path / "states", hourly=0)
    assert store.draft(1000) is None
    store.close()


def test_the_default_budget(tmp_path: Path) -> None:
    about = os.statvfs(tmp_path)
    store = opened(tmp_path / "states", budget=None)
    budget = store.figures().budget
    free = about.f_bavail * about.f_frsize
    assert budget == pytest.approx(min(4 << 30, free // 10), rel=0.05)
    store.close()
