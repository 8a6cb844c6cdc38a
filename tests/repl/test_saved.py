"""Saved chats: what a file holds and what is believed of one, and names that stay in their directory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.console.options import ChatOptions
from rkllama.console.output import human_time
from rkllama.errors import AmbiguousName, InvalidRequest, RKLLamaError
from rkllama.repl.saved import SavedChat, SavedChats
from rkllama.repl.saved_pictures import SavedPictures
from rkllama.types import Message, SamplingParams, SentImage, TextPart
from tests.waiting import Task

OPTIONS = ChatOptions(
    system="Be kind.",
    sampling=SamplingParams(temperature=0.5, top_k=7, seed=3),
    max_tokens=-1,
    context_length=512,
    stop=("A", "B"),
    think=False,
    format={"type": "object"},
)
CHAT = SavedChat(
    name="talk",
    model="qwen3:1.7b",
    messages=(
        Message.of("user", "Grüße\n\x1b[31m"),
        Message.of("assistant", "Hello.", reasoning="They greet."),
    ),
    options=OPTIONS,
    title="Grüße",
    saved=1700000000.5,
)


@pytest.fixture
def chats(tmp_path: Path) -> SavedChats:
    """Those of a directory that is not there yet."""
    return SavedChats(str(tmp_path / "home" / "chats"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "chats"


def test_what_is_saved_comes_back(chats: SavedChats) -> None:
    assert chats.names() == []
    chats.save(CHAT)
    assert chats.get("talk") == CHAT


def test_how_answers_look_is_not_saved(chats: SavedChats) -> None:
    looks = ChatOptions(verbose=True, wordwrap=False, hide_thinking=True, keep_alive=3.0)
    chats.save(replace(CHAT, options=looks))
    assert chats.get("talk").options == ChatOptions()


def test_the_file_has_a_version_and_is_its_owners_alone(chats: SavedChats, folder: Path) -> None:
    before = os.umask(0)
    try:
        chats.save(CHAT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "talk.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["talk.json"]
    values = json.loads((folder / "talk.json").read_text())
    assert values["version"] == 1
    assert values["parameters"] == {
        "temperature": 0.5,
        "top_k": 7,
        "seed": 3,
        "num_predict": -1,
        "num_ctx": 512,
        "stop": ["A", "B"],
    }
    assert values["messages"][1] == {
        "role": "assistant",
        "content": "Hello.",
        "reasoning": "They greet.",
    }


def test_a_chat_that_cannot_be_written_leaves_the_old_one(
    chats: SavedChats, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.save(CHAT)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RKLLamaError, match="cannot be written: No space left"):
        chats.save(replace(CHAT, model="other"))
    assert chats.get("talk") == CHAT
    assert [path.name for path in folder.iterdir()] == ["talk.json"]


def test_the_one_saved_last_is_first(chats: SavedChats) -> None:
    for number, name in enumerate(("b", "c", "a")):
        chats.save(replace(CHAT, name=name, saved=1700000000.0 + number))
    found, passed_over = chats.all()
    assert [chat.name for chat in found] == ["a", "c", "b"]
    assert passed_over == []


BAD = [
    (b"", "Expecting value"),
    (b'{"version": 1, "model": "m", "mess', "Unterminated string"),
    (b"[]", "the file is not an object"),
    (b"{}", "version None, and this RKLLama reads version 1"),
    (b'{"version": 2}', "version 2, and this RKLLama reads version 1"),
    (b'{"version": 1, "title": "", "messages": []}', "model is not a text"),
    (b'{"version": 1, "title": "", "model": "m", "messages": {}}', "messages is not a list"),
    (b'{"version": 1, "title": "", "model": "m", "messages": [1]}', "a message is not an object"),
    (
        b'{"version": 1, "title": "", "model": "m", "messages": [{"role": "tool", "content": ""}]}',
        "a message has an unknown role",
    ),
    (
        b'{"version": 1, "title": "", "model": "m", "messages": [], "parameters": {"top_k": "x"}}',
        "'top_k' must be a number",
    ),
    (b'{"version": 1, "title": "", "model": "m", "messages": [], "think": "no"}', "think is not"),
    (b'{"version": 1, "title": "", "model": "m", "messages": [], "format": 1}', "format is not"),
    (b"\xff\xfe", "codec can't decode"),
    (b"[" * 100_000, "recursion"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_a_torn_or_foreign_file_is_told_and_passed_over(
    content: bytes, reason: str, chats: SavedChats, folder: Path
) -> None:
    chats.save(CHAT)
    (folder / "bad.json").write_bytes(content)
    found, (told,) = chats.all()
    assert found == [CHAT]
    assert "bad.json cannot be read: it is not a chat that was saved here" in told
    assert reason in told
    with pytest.raises(RKLLamaError):
        chats.get("bad")
    chats.remove("bad")
    assert chats.names() == ["talk"]


def test_what_no_chat_is_called_is_not_looked_at(chats: SavedChats, folder: Path) -> None:
    chats.save(CHAT)
    for name in (".hidden.json", "notes.txt", "-x.json", ".new-123"):
        (folder / name).write_text("{}")
    (folder / "folder.json").mkdir()
    assert chats.names() == ["talk"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc/passwd", ".x", "-rf", "a b", "a\n", "x" * 201]
)
def test_names_do_not_leave_the_directory(name: str, chats: SavedChats, tmp_path: Path) -> None:
    chats.save(CHAT)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest):
        chats.save(replace(CHAT, name=name))
    for act in (chats.get, chats.remove):
        with pytest.raises(RKLLamaError):
            act(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_is_found_by_its_beginning(chats: SavedChats) -> None:
    for name in ("Holiday", "holiday-2", "work"):
        chats.save(replace(CHAT, name=name))
    assert chats.get("w").name == "work"
    assert chats.get("holiday").name == "Holiday"
    assert chats.get("HOLIDAY-2").name == "holiday-2"
    with pytest.raises(AmbiguousName, match="'hol' matches several chats: Holiday, holiday-2"):
        chats.get("hol")
    with pytest.raises(RKLLamaError, match="no saved chat is called 'wrok'") as failed:
        chats.get("wrok")
    assert failed.value.hint == "Did you mean work?"
    with pytest.raises(RKLLamaError, match="no saved chat"):
        chats.remove("w")


def test_a_name_is_made_of_the_title(chats: SavedChats) -> None:
    assert chats.free_name("Why is the sky blue?") == "why-is-the-sky-blue"
    assert chats.free_name("…") == "chat"
    assert chats.free_name("../../etc/passwd") == "etc-passwd"
    assert len(chats.free_name("word " * 50)) <= 40
    assert len(chats.free_name("w" * 500)) == 40
    for expected in ("hi", "hi-2", "hi-3"):
        assert chats.free_name("Hi!") == expected
        chats.save(replace(CHAT, name=expected))


def test_options_of_the_command_line_come_before_those_that_were_saved() -> None:
    own = ChatOptions(sampling=SamplingParams(temperature=1.0), think=True, verbose=True)
    both = own.over(OPTIONS)
    assert both.sampling == SamplingParams(temperature=1.0, top_k=7, seed=3)
    assert (both.think, both.verbose, both.system, both.stop) == (
        True,
        True,
        "Be kind.",
        ("A", "B"),
    )
    assert replace(OPTIONS, verbose=True).looks() == ChatOptions(verbose=True)


@pytest.mark.parametrize("saved", ["1e400", "1" * 400, "NaN", "-1", "1e300", "true", '"x"', "[]"])
def test_a_time_that_never_was_is_none(saved: str, chats: SavedChats, folder: Path) -> None:
    chats.save(CHAT)
    text = (folder / "talk.json").read_text()
    (folder / "odd.json").write_text(re.sub(r'"saved": [^,]+', f'"saved": {saved}', text))
    found, _ = chats.all()
    assert {chat.name for chat in found} == {"talk", "odd"}
    for chat in found:
        assert human_time(chat.saved)


def test_a_chat_is_not_read_without_end(chats: SavedChats, folder: Path) -> None:
    chats.save(CHAT)
    (folder / "huge.json").touch()
    os.truncate(folder / "huge.json", 1 << 40)
    found, (told,) = Task(chats.all).result()
    assert found == [CHAT]
    assert "too large" in told


def test_a_directory_that_is_none_is_an_error(chats: SavedChats, folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(RKLLamaError, match="cannot be read: Not a directory"):
        chats.all()


# --- Pictures ----------------------------------------------------------------------------------


def seen(data: bytes, name: str = "cat.png") -> Message:
    picture = SentImage(
        data=base64.b64encode(data).decode(), instead=f"[picture {name}]", where=name
    )
    return Message.of("user", [picture, TextPart("What is it?")])


def test_pictures_lie_beside_the_chat_once_each(chats: SavedChats, folder: Path) -> None:
    chat = replace(CHAT, messages=(seen(b"one"), seen(b"two"), seen(b"one")))
    chats.save(chat)
    assert chats.get("talk") == chat
    files = sorted((folder / "talk.pictures").iterdir())
    assert sorted(path.read_bytes() for path in files) == [b"one", b"two"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((folder / "talk.pictures").stat().st_mode) == 0o700
    values = json.loads((folder / "talk.json").read_text())
    digest = hashlib.sha256(b"one").hexdigest()
    assert values["messages"][0]["images"] == [{"name": "cat.png", "sha256": digest, "size": 3}]
    assert chats.names() == ["talk"]


def test_pictures_go_with_their_chat(chats: SavedChats, folder: Path) -> None:
    chats.save(replace(CHAT, messages=(seen(b"one"), seen(b"two"))))
    (folder / "talk.pictures" / "not ours").write_text("stays")
    chats.save(replace(CHAT, messages=(seen(b"two"),)))
    names = {path.name for path in (folder / "talk.pictures").iterdir()}
    assert names == {hashlib.sha256(b"two").hexdigest(), "not ours"}
    (folder / "talk.pictures" / "not ours").unlink()
    chats.remove("talk")
    assert [*folder.iterdir()] == []


def test_a_list_of_chats_reads_no_pictures(
    chats: SavedChats, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.save(replace(CHAT, messages=(seen(b"one"),)))
    monkeypatch.setattr(SavedPictures, "read", lambda *_: pytest.fail("it is read"))
    ((chat,), passed_over) = chats.all()
    assert (chat.messages[0].text, passed_over) == ("What is it?", [])


@pytest.mark.parametrize("content", [None, b"another one"])
def test_a_picture_that_is_gone_is_told(
    chats: SavedChats, folder: Path, content: bytes | None
) -> None:
    chats.save(replace(CHAT, messages=(seen(b"one"),)))
    (path,) = (folder / "talk.pictures").iterdir()
    path.unlink() if content is None else path.write_bytes(content)
    (message,) = chats.get("talk").messages
    assert message.text == "[the picture cat.png is missing]\nWhat is it?"


@pytest.mark.parametrize(
    "images", ["x", ["x"], [{}], [{"name": "x", "sha256": "../../secret"}], [{"sha256": "0" * 64}]]
)
def test_pictures_of_other_forms_are_not_believed(
    chats: SavedChats, folder: Path, images: object
) -> None:
    chats.save(CHAT)
    values = json.loads((folder / "talk.json").read_text())
    values["messages"][0]["images"] = images
    (folder / "talk.json").write_text(json.dumps(values))
    with pytest.raises(RKLLamaError, match="it is not a chat that was saved here"):
        chats.get("talk")
