"""`rkllama chats`, and `/chat` in the chat: saved, listed, gone on with, deleted; also through a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.terminal import CTRL_D, Terminal
from tests.test_cli import failure, output, rkllama
from tests.virtual_npu import read_prompts, write_model

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def trace(models: Path, npu: str, tmp_path: Path) -> Path:
    path = tmp_path / "trace"
    write_model(models / "echo.rkllm", trace=str(path), trace_prompt=1)
    return path


@pytest.fixture
def chats(home: Path) -> Path:
    return home / "RKLLAMA" / "chats"


def save(*arguments: str, said: str = "my name is Ada", name: str = "talk") -> None:
    """Have a chat, and save it."""
    with Terminal("run", "echo", *arguments) as chat:
        chat.expect(">>> ")
        chat.ask(said)
        saved = f"Saved. To continue later: rkllama chats resume {name or 'my-name-is-ada'}"
        assert chat.ask(f"/chat save {name}".strip()) == saved
        chat.type("/bye\n")
        assert chat.end() == 0


def test_nothing_is_saved_without_being_asked_for(chats: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        assert chat.ask("/chat save") == "Nothing was said yet."
        chat.ask("hello")
        chat.type("/bye\n")
        assert chat.end() == 0
        assert "?" not in chat.screen.rpartition("/bye")[2], "nor is anything asked"
    assert not chats.exists()
    done = rkllama("chats")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No saved chats yet. In a chat, /chat save keeps it.\n"
    assert output("chats", "--json") == "[]\n"


def test_a_chat_is_saved_and_gone_on_with(where: dict[str, str], trace: Path, chats: Path) -> None:
    options = ("--system", "Be kind.", "--temperature", "0.5")
    with Terminal("run", "echo", *options, env=where) as chat:
        chat.expect(">>> ")
        chat.ask("my name is Ada")
        assert (
            chat.ask("/chat save")
            == "Saved. To continue later: rkllama chats resume my-name-is-ada"
        )
        chat.type("/bye\n")
        assert chat.end() == 0
    (row,) = json.loads(output("chats", "--json"))
    assert (row["name"], row["model"], row["messages"]) == ("my-name-is-ada", "echo", 2)
    assert row["title"] == "my name is Ada"
    head, line = output("chats").splitlines()
    assert head.split() == ["NAME", "MODEL", "MESSAGES", "SAVED", "TITLE"]
    assert line.split() == ["my-name-is-ada", "echo", "2", "just", "now", "my", "name", "is", "Ada"]
    with Terminal("chats", "resume", "my", env=where) as chat:
        chat.expect(">>> my name is Ada\nmy name is Ada\n\n")
        chat.expect("Chat with echo. /? for help, /bye to leave.\n>>> ")
        chat.ask("who am I?")
        assert chat.ask("/show system") == "Be kind."
        assert chat.ask("/show parameters").split() == ["temperature", "0.5"]
        assert chat.ask("/chat save").startswith("Saved.")
        chat.type(CTRL_D)
        assert chat.end() == 0
    *_, prompt = read_prompts(trace)
    assert "Be kind." in prompt
    assert prompt.count("my name is Ada") == 2
    assert [path.name for path in chats.iterdir()] == ["my-name-is-ada.json"]
    with Terminal("run", "--resume", "my-name-is-ada", "--system", "Be brief.", env=where) as chat:
        chat.expect("who am I?\nwho am I?\n\n")
        chat.expect("\n>>> ")
        assert chat.ask("/show system") == "Be brief."


def test_what_was_added_is_offered_to_be_saved(chats: Path) -> None:
    save()
    before = (chats / "talk.json").read_text()
    for key, kept in (("n\n", before), (CTRL_D, before)):
        with Terminal("chats", "resume", "talk") as chat:
            chat.expect(">>> my name is Ada")
            chat.expect("\n>>> ")
            chat.ask("more")
            chat.type("/bye\n")
            chat.expect("Save the chat talk as it is now? [Y/n] ")
            chat.type(key)
            assert chat.end() == 0
        assert (chats / "talk.json").read_text() == kept
    with Terminal("chats", "resume", "talk") as chat:
        chat.expect(">>> my name is Ada")
        chat.expect("\n>>> ")
        chat.ask("more")
        chat.type("/bye\n")
        chat.expect("[Y/n] ")
        chat.type("\n")
        assert chat.end() == 0
    assert len(json.loads((chats / "talk.json").read_text())["messages"]) == 4


def test_one_question_goes_on_with_a_chat_and_leaves_it_as_it_is(trace: Path, chats: Path) -> None:
    save()
    before = (chats / "talk.json").read_text()
    assert output("run", "echo", "--resume", "talk", "and now?") == "and now?\n"
    *_, prompt = read_prompts(trace)
    assert prompt.count("my name is Ada") == 2
    assert (chats / "talk.json").read_text() == before


def test_a_chat_of_another_model_and_of_one_that_is_gone(models: Path) -> None:
    save()
    write_model(models / "other.rkllm")
    with Terminal("chats", "resume", "talk", "--model", "other") as chat:
        chat.expect(">>> my name is Ada")
        chat.expect("Chat with other.")
    (models / "echo.rkllm").unlink()
    assert "model 'echo' not found" in failure("chats", "resume", "talk")
    with Terminal("run", "other", "--resume", "talk") as chat:
        chat.expect("Chat with other.")


def test_a_chat_with_a_file_names_the_file(tmp_path: Path, models: Path) -> None:
    shutil.move(str(models / "echo.rkllm"), tmp_path / "mine.rkllm")
    with Terminal("run", f"{tmp_path}/mine.rkllm") as chat:
        chat.expect(">>> ")
        chat.ask("hello")
        chat.ask("/chat save talk")
        chat.type("/bye\n")
        assert chat.end() == 0
    (row,) = json.loads(output("chats", "--json"))
    assert row["model"] == f"{tmp_path}/mine.rkllm"
    with Terminal("chats", "resume", "talk") as chat:
        chat.expect(">>> hello\nhello\n\n")
        chat.expect("Chat with mine.")


def test_chats_in_the_chat(chats: Path) -> None:
    save(said="first things", name="one")
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.ask("other things")
        assert "there is a saved chat 'one' already" in chat.ask("/chat save one")
        assert "'../x' is not a valid name for a chat" in chat.ask("/chat save ../x")
        assert chat.ask("/chat save two").startswith("Saved.")
        shown = chat.ask("/chat list").splitlines()
        assert [line.split()[0] for line in shown] == ["NAME", "two", "one"]
        chat.type("/chat resume one\n")
        chat.expect("Chat with echo.\n>>> first things\nfirst things\n\n>>> ")
        assert chat.ask("/retry") == "first things"
        assert chat.ask("/chat rm two") == "Deleted the chat two."
        assert "no saved chat is called 'on'" in chat.ask("/chat rm on")
        for wrong in ("/chat", "/chat resume", "/chat rm", "/chat frob", "/chat list all"):
            assert chat.ask(wrong) == "/chat save [NAME] | list | resume NAME | rm NAME"
        chat.type("/chat resume o\t")
        chat.expect("/chat resume one")
    assert [path.name for path in chats.iterdir()] == ["one.json"]


def test_a_model_that_was_saved_is_a_model_still(models: Path, chats: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.ask("hello")
        assert chat.ask("/save talk") == "Saved. To continue later: rkllama run talk"
    assert not chats.exists()
    assert "talk" in output("list")
    assert output("chats", "--json") == "[]\n"


def test_a_chat_is_shown_and_deleted(chats: Path) -> None:
    save(said="one", name="first")
    save(said="two", name="second")
    assert output("chats", "show", "fi") == ">>> one\none\n\n"
    assert json.loads(output("chats", "show", "first", "--json"))["messages"][0] == {
        "role": "user",
        "content": "one",
    }
    with Terminal("chats", "rm", "first") as terminal:
        terminal.expect("Delete the chat first? [y/N] ")
        terminal.type("n\n")
        assert terminal.end() == 0
    done = rkllama("chats", "rm", "../../models/echo", "fir", "first")
    assert done.returncode == 1
    assert done.stderr.count("no saved chat is called") == 2
    assert done.stderr.endswith("Deleted the chat first\n")
    assert [path.name for path in chats.iterdir()] == ["second.json"]


def test_a_file_that_is_torn_is_told_of(chats: Path) -> None:
    save()
    whole = (chats / "talk.json").read_text()
    (chats / "torn.json").write_text(whole[: len(whole) // 2])
    done = rkllama("chats")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith(f"Note: passed over: {chats}/torn.json cannot be read: ")
    assert "torn.json cannot be read" in failure("chats", "resume", "torn")
    (chats / "talk.json").unlink()
    assert rkllama("chats").stderr.startswith("Note: passed over")


def test_old_texts_reach_a_terminal_without_control_characters(chats: Path) -> None:
    save()
    file = chats / "talk.json"
    values = json.loads(file.read_text())
    values["messages"][1]["content"] = "red\x1b[31m"
    values["messages"][0]["content"] = values["title"] = "retitle\x1b]0;x\x07"
    file.write_text(json.dumps(values))
    for command in (["chats", "resume", "talk"], ["chats", "show", "talk"], ["chats"]):
        with Terminal(*command, env={"NO_COLOR": "1"}) as terminal:
            terminal.expect("retitle]0;x")
            assert "\x1b]0" not in terminal.raw
            assert "\x1b[31m" not in terminal.raw


@pytest.mark.parametrize("columns", [40, 80])
def test_the_list_fits_a_narrow_terminal(columns: int) -> None:
    save(said="a long first sentence that is the title of it", name="a-name-that-is-rather-long")
    with Terminal("chats", columns=columns) as terminal:
        assert terminal.end() == 0
        assert max(map(len, terminal.screen.splitlines())) <= columns
