"""`rkllama run`, the chat and `list` with pictures, over both virtual libraries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.backends.vision.pictures import encoded, halves
from tests.running import Server
from tests.seeing import OTHER, PHOTO, put_model, told, use_libraries
from tests.seeing_gguf import colour, write_seeing
from tests.terminal import Terminal
from tests.test_cli import failure, output, rkllama
from tests.virtual_npu import read_prompts, read_trace

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def trace(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the virtual libraries saw; the current directory has two pictures."""
    use_libraries(monkeypatch)
    put_model(models, "vl", tmp_path / "trace", encoder={})
    put_model(models, "text", tmp_path / "trace", encoder=None)
    folder = tmp_path / "my pictures"
    folder.mkdir()
    (folder / "photo.png").write_bytes(PHOTO)
    (folder / "other one.jpg").write_bytes(OTHER)
    (folder / "notes.png").write_text("no picture")
    monkeypatch.chdir(folder)
    return tmp_path / "trace"


def events(trace: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_trace(trace) if event["event"] == name]


# --- One answer --------------------------------------------------------------------------------


def test_a_picture_is_named_as_a_word_or_an_option_or_comes_on_stdin(trace: Path) -> None:
    assert output("run", "vl", "What is it?", "./photo.png") == f"{told(PHOTO)}\n"
    assert "What is it?" in read_prompts(trace)[0]
    assert "photo" not in read_prompts(trace)[0]
    assert output("run", "vl", "photo.png") == f"{told(PHOTO)}\n"
    done = rkllama("run", "vl", "What is it?", "--image", "-", stdin=OTHER)
    assert done.stdout == f"{told(OTHER)}\n"
    arguments = ("--image", "photo.png", "--image", "other one.jpg", "--json")
    asked = rkllama("run", "vl", "Which?", *arguments, stdin="Compare.")
    assert json.loads(asked.stdout)["content"] == told(PHOTO, OTHER)
    assert "Compare.\n\nWhich?" in read_prompts(trace)[3]


def test_a_server_gets_the_bytes_and_no_path(trace: Path) -> None:
    with Server() as server:
        env = {"RKLLAMA_HOST": server.url}
        text = "What is in './other one.jpg'?"
        assert output("run", "vl", text, "photo.png", env=env) == f"{told(PHOTO, OTHER)}\n"
        assert "What is in picture 2?" in read_prompts(trace)[0]
        assert server.children()
        listed = output("list", env=env).splitlines()
        assert re.split(" {2,}", listed[0])[-2:] == ["VISION", "STATE"]
        assert [line.split()[-1] for line in listed[1:]] == ["-", "loaded"]
        assert listed[2].split()[-2] == "yes"
        # The path of a picture that a client writes is text: the server reads no file for it.
        message = {"role": "user", "content": f"What is in {Path.cwd()}/photo.png?"}
        body = {"model": "vl", "messages": [message], "stream": False}
        assert server.post("/api/chat", body).json["message"]["content"] == "no picture"
        tags = server.get("/api/tags").json["models"]
        assert [(tag["name"], tag.get("vision")) for tag in tags] == [
            ("text:latest", None),
            ("vl:latest", True),
        ]


def test_what_cannot_be_shown_is_told_before_a_model_is_loaded(trace: Path) -> None:
    blind = failure("run", "text", "What is it?", "photo.png")
    assert "Error: photo.png is a picture, and text sees none\n" in blind
    assert "`rkllama list` marks the models that see." in blind
    gone = failure("run", "vl", "What is it?", "./gone.png")
    assert "the picture ./gone.png cannot be read: No such file or directory" in gone
    assert "notes.png is not a picture" in failure("run", "vl", "?", "--image", "notes.png")
    empty = failure("run", "vl", "--image", "photo.png", status=2)
    assert "it is empty, and so is stdin" in empty
    assert "which can be asked for once" in failure(
        "run", "vl", "?", "--image", "-", "--image", "-", status=2
    )
    done = rkllama("run", "vl", "What is it?", stdin=PHOTO)
    assert (done.returncode, done.stdout) == (1, "")
    assert "It is a picture: have it seen with --image -" in done.stderr
    assert not trace.exists()


def test_a_model_on_the_cpu_sees_and_so_does_one_that_is_a_file(
    models: Path, tmp_path: Path
) -> None:
    Path("halves.png").write_bytes(encoded(halves((90, 90), colour("red"), colour("blue"))))
    write_seeing(models / "seer" / "seer-Q8_0.gguf", models / "seer" / "mmproj-seer-F16.gguf")
    assert output("run", "seer", "What is it?", "halves.png") == "red blue\n"
    (models / "seer").rename(tmp_path / "elsewhere")
    file = tmp_path / "elsewhere" / "seer-Q8_0.gguf"
    assert output("run", str(file), "What is it?", "--image", "halves.png") == "red blue\n"
    (file.parent / "mmproj-seer-F16.gguf").unlink()
    assert "halves.png is a picture, and seer-Q8_0 sees none" in failure(
        "run", str(file), "What is it?", "halves.png"
    )


def test_list_marks_models_that_see(models: Path, trace: Path) -> None:
    listed = output("list").splitlines()
    assert listed[0].split()[-1] == "VISION"
    assert [line.split()[-1] for line in listed[1:]] == ["-", "yes"]
    assert [row["vision"] for row in json.loads(output("list", "--json"))] == [False, True]
    (models / "other").mkdir()
    (models / "other" / "Modelfile").write_text("FROM text\nVISION_ENCODER ../vl/vision.rknn\n")
    assert [line.split()[-1] for line in output("list").splitlines()[1:]] == ["yes", "-", "yes"]
    env = {"RKLLAMA_RKNN_LIB": "/nowhere.so"}
    assert "VISION" not in output("list", env=env)


# --- The chat ----------------------------------------------------------------------------------


def test_a_chat_about_pictures(trace: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho 'Changed?' > \"$1\"\n")
    editor.chmod(0o755)
    photo, other = Path("photo.png").absolute(), Path("other one.jpg").absolute()
    env = {"EDITOR": str(editor), "TERM": "foot"}
    with Terminal(
        "run", "vl", "--image", "photo.png", "--nowordwrap", columns=2000, env=env
    ) as chat:
        chat.expect("photo.png (")
        chat.expect(" goes along with your next message.\n>>> ")
        assert chat.ask("What is it?") == told(PHOTO)
        first = events(trace, "run")[-1]
        assert chat.ask("And how many?") == told(PHOTO)
        run = events(trace, "run")[-1]
        assert len(events(trace, "encode")) == 1
        assert run["matched"] >= first["prompt_tokens"]
        # As a file manager drops it: a path alone waits for the question.
        assert "goes along with your next message." in chat.ask(f"'{other}'")
        assert chat.ask("And that?") == told(PHOTO, OTHER)
        assert chat.ask("/retry") == told(PHOTO, OTHER)
        chat.type("/edit\n")
        chat.expect(">>> Changed?\n")
        assert chat.expect(">>> ").startswith(told(PHOTO, OTHER))
        assert chat.ask("/undo") == 'Took back "Changed?" and its picture.'
        assert chat.ask(f"Is this {str(other).replace(' ', chr(92) + ' ')} ?") == told(PHOTO, OTHER)
        assert "Is this picture 1 ?" in read_prompts(trace)[-1]
        assert "the picture x.png cannot be read: No such file" in chat.ask("/image x.png")
        assert chat.ask("/set images") == "Set images."
        assert "goes along" in chat.ask(f"/image {photo}")
        assert "\x1bPq" in chat.raw
        assert len(events(trace, "encode")) == 2
        assert "Saved." in chat.ask("/chat save talk")
        chat.type("/bye\n")
        assert chat.end() == 0


def test_a_saved_chat_keeps_its_pictures(home: Path, trace: Path) -> None:
    with Terminal("run", "vl", columns=2000) as chat:
        chat.expect(">>> ")
        chat.ask("/image photo.png")
        chat.ask("What is it?")
        chat.ask("/chat save talk")
    Path("photo.png").unlink()
    assert "[photo.png]\n... What is it?" in output("chats", "show", "talk")
    assert output("run", "vl", "--resume", "talk", "And now?") == f"{told(PHOTO)}\n"
    assert json.loads(output("chats", "show", "talk", "--json"))["messages"][0]["images"]
    # A model that does not see goes on with words.
    output("run", "text", "--resume", "talk", "And now?")
    assert "[picture photo.png]" in read_prompts(trace)[-1]
    rkllama("chats", "rm", "talk", "--yes")
    assert [*(home / "RKLLAMA" / "chats").iterdir()] == []


def test_a_chat_with_a_blind_model_does_not_begin_with_a_picture(trace: Path) -> None:
    with Terminal("run", "text", "--image", "photo.png") as chat:
        chat.expect("photo.png is a picture, and text sees none")
        assert chat.end() == 1
    assert not trace.exists()
