"""What the chat does with messages: files for them, another try, taking back, the editor, the clipboard."""

from __future__ import annotations

import base64
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from rkllama.console.inputs import completed_path
from rkllama.errors import RKLLamaError
from rkllama.repl import attachments
from rkllama.repl.attachments import LIMIT, TextFile, read_text_file
from rkllama.repl.clipboard import copy_text
from rkllama.repl.conversation import beginning
from tests.running import Server
from tests.terminal import CTRL_C, RKLLAMA, Terminal
from tests.virtual_npu import directive, read_prompts, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def trace(models: Path, npu: str, tmp_path: Path) -> Path:
    """What the model `echo` was given; it answers with what it is asked."""
    path = tmp_path / "trace"
    write_model(models / "echo.rkllm", trace=str(path), trace_prompt=1)
    return path


def editor(tmp_path: Path, script: str) -> str:
    """A program that stands for an editor; the file is its first argument."""
    path = tmp_path / "an editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"'{path}' --wait"


# --- Files -------------------------------------------------------------------------------------


def test_a_file_goes_along_with_the_next_message_only(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "my notes.txt"
    file.write_text("the milk is sour\n")
    # Wide: where a typed path ends at the edge, readline writes a space more.
    with Terminal("run", "echo", columns=2000) as chat:
        chat.expect(">>> ")
        for typed in (str(file), f"'{file}'", str(file).replace(" ", "\\ ")):
            said = chat.ask(f"/read {typed}")
            assert (
                said.replace("\n", " ") == "my notes.txt (17 B) goes along with your next message."
            )
        chat.ask("what is sour?")
        chat.ask("and now?")
    first, second = read_prompts(trace)
    assert first.count("my notes.txt:\n```\nthe milk is sour\n```\n\n") == 3
    assert first.index("the milk") < first.index("what is sour?")
    before, _, last = second.rpartition("and now?")
    assert "the milk" in before
    assert "the milk" not in last


def test_a_file_cannot_end_its_own_fence() -> None:
    quoted = TextFile("a.md", "```\ncode\n````\nmore").quoted()
    assert quoted == "a.md:\n`````\n```\ncode\n````\nmore\n`````\n\n"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    def reason(content: bytes | None) -> str:
        path = tmp_path / "file"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RKLLamaError) as failed:
            read_text_file(str(path))
        return failed.value.text.replace(str(path), "FILE")

    assert reason(None) == "FILE cannot be read: No such file or directory"
    assert reason(b" \n") == "FILE is empty"
    assert reason(b"\x89PNG\r\n\x1a\n").startswith("FILE is not UTF-8 text. Only text can be read")
    assert reason(b"MZ\0\0").startswith("FILE is not UTF-8 text")
    assert reason(b"x" * (LIMIT + 1)).startswith("FILE is too large: at most 1 MB are read")
    (tmp_path / "whole").write_bytes(b"x" * LIMIT)
    assert len(read_text_file(str(tmp_path / "whole")).text) == LIMIT
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(RKLLamaError, match="it is not a file"):
            read_text_file(str(path))


def test_the_marks_of_other_systems_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read_text_file(str(tmp_path / "dos.txt")) == ("dos.txt", "one\ntwo\n")


def test_tab_completes_paths(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "nothing").mkdir()
    (tmp_path / ".hidden").write_text("x")
    assert completed_path(f"{tmp_path}/no") == [f"{tmp_path}/notes.txt", f"{tmp_path}/nothing/"]
    assert completed_path(f"{tmp_path}/.h") == [f"{tmp_path}/.hidden"]
    assert completed_path(f"{tmp_path}/gone/x") == []
    with Terminal("run", "echo", columns=200) as chat:
        chat.expect(">>> ")
        chat.type(f"/read {tmp_path}/note\t")
        chat.expect(f"{tmp_path}/notes.txt")


# --- Another try -------------------------------------------------------------------------------


def test_the_last_message_is_answered_anew(trace: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        assert chat.ask("/retry") == "There is no message yet that could be answered anew."
        chat.ask("one")
        chat.ask("two")
        assert chat.ask("/retry") == "two"
        assert chat.ask("three") == "three"
    _, second, again, third = read_prompts(trace)
    assert again == second
    assert third.count("two") == 2, "the message and one answer"


def test_a_failed_answer_is_tried_again_and_the_conversation_is_as_it_was(trace: Path) -> None:
    crash = "crash " + directive(segv_at=1)
    with Terminal("run", "echo", columns=2000) as chat:
        chat.expect(">>> ")
        chat.ask("one")
        assert "killed by SIGSEGV" in chat.ask(crash)
        assert "killed by SIGSEGV" in chat.ask("/retry")
        assert chat.ask("/undo").startswith('Took back "crash ')
        assert chat.ask("/undo") == 'Took back "one".'
        assert chat.ask("/undo") == "There is no message to take back."
        assert chat.ask("two") == "two"
    *_, last = read_prompts(trace)
    assert "one" not in last
    assert "crash" not in last


def test_a_try_that_is_stopped_before_its_first_word_loses_no_answer(
    models: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "slow-trace"
    write_model(models / "slow.rkllm", trace=str(trace), trace_prompt=1, prefill_us=5000)
    command = editor(tmp_path, 'yes word | head -n 1000 > "$2"')
    with Terminal("run", "slow", env={"EDITOR": command}) as chat:
        chat.expect(">>> ")
        assert chat.ask("first") == "first"
        chat.type("/edit\n")
        # Before that, the editor would be what is stopped.
        until(lambda: len(read_prompts(trace)) == 2)
        chat.expect_spinner("Reading the prompt…")
        chat.type(CTRL_C)
        chat.expect("(stopped)\n\n>>> ")
        chat.ask("next")
    *_, last = read_prompts(trace)
    assert last.count("first") == 2, "the message and its answer"
    assert "word" not in last


def test_taking_back_drops_the_last_turn(trace: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.ask("alpha")
        chat.ask("beta")
        assert chat.ask("/undo") == 'Took back "beta".'
        assert chat.ask("/retry") == "alpha", "what is last now"
        chat.ask("gamma")
    *_, last = read_prompts(trace)
    assert last.count("alpha") == 2
    assert "beta" not in last


# --- The editor --------------------------------------------------------------------------------


def test_the_last_message_is_changed_in_the_editor(trace: Path, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    script = (
        f'test "$1" = --wait; stat -c %a "$(dirname "$2")" >> "{noted}"\nsed -i s/two/second/ "$2"'
    )
    with Terminal("run", "echo", env={"EDITOR": editor(tmp_path, script)}) as chat:
        chat.expect(">>> ")
        chat.ask("one")
        chat.ask("two")
        chat.type("/edit\n")
        chat.expect(">>> second\nsecond\n\n>>> ")
    assert noted.read_text() == "700\n", "others cannot read what is written"
    _, second, edited = read_prompts(trace)
    assert edited == second.replace("two", "second")


def test_an_editor_that_fails_changes_nothing(tmp_path: Path) -> None:
    for script, said in (
        ('echo new > "$2"; exit 3', "ended with 3; nothing was changed"),
        ('echo new > "$2"; kill -9 $$', "ended by SIGKILL; nothing was changed"),
        (': > "$2"', "The text is empty; nothing was changed."),
        ("true", "The text is as it was; nothing was changed."),
        ('rm "$2"', "cannot be read: No such file or directory"),
        ("printf '\\377' > \"$2\"", "cannot be read: it is not UTF-8 text"),
    ):
        with Terminal("run", "echo", env={"VISUAL": editor(tmp_path, script)}) as chat:
            chat.expect(">>> ")
            chat.ask("kept")
            assert said in chat.ask("/edit").replace("\n", " ").replace("  ", " ")
            assert chat.ask("/retry") == "kept"


def test_editors_that_are_not_there(tmp_path: Path) -> None:
    for env, said in (
        ({"EDITOR": "/no/such -x"}, "the editor /no/such cannot be started"),
        ({"EDITOR": "'vi"}, "editor cannot be"),
        ({"EDITOR": "", "VISUAL": "", "PATH": "/nowhere"}, "no editor was found"),
    ):
        with Terminal("run", "echo", env=env) as chat:
            chat.expect(">>> ")
            assert said in chat.ask("/edit")


def test_a_new_message_is_written_in_the_editor(trace: Path, tmp_path: Path) -> None:
    command = editor(tmp_path, 'test ! -s "$2" && printf "first\\nsecond\\n" > "$2"')
    with Terminal("run", "echo", env={"EDITOR": command}) as chat:
        chat.expect(">>> ")
        chat.ask("before")
        chat.type("/edit new\n")
        chat.expect(">>> first\n... second\nfirst\nsecond\n\n>>> ")
        assert chat.ask("/edit other").startswith("/edit changes your last message")
    *_, last = read_prompts(trace)
    assert "before" in last


def test_ctrl_c_in_the_editor_is_the_editors(tmp_path: Path) -> None:
    script = 'trap "echo caught > \\"$2\\"; exit 0" INT; echo waiting; while :; do sleep 0.1; done'
    with Terminal("run", "echo", env={"EDITOR": editor(tmp_path, script)}) as chat:
        chat.expect(">>> ")
        chat.type("/edit\n")
        chat.expect("waiting\n")
        chat.type(CTRL_C)
        chat.expect(">>> caught\ncaught\n\n>>> ")


# --- The clipboard -----------------------------------------------------------------------------


def test_the_last_answer_is_sent_to_the_terminals_clipboard() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        assert chat.ask("/copy") == "There is no answer yet."
        chat.ask("größer")
        assert chat.ask("/copy").endswith("Sent the last answer to the terminal's clipboard.")
        sent = re.findall("\x1b]52;c;([^\x07]*)\x07", chat.raw)
    assert [base64.b64decode(data).decode() for data in sent] == ["größer"]


def test_without_a_terminal_nothing_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RKLLamaError, match="only a terminal has a clipboard"):
        copy_text("secret")
    assert capsys.readouterr().out == ""
    script = '"$@" run echo 2>/dev/null | cat'
    with Terminal("-c", script, "sh", *RKLLAMA, program=["sh"]) as chat:
        chat.type("hi\n/copy\n/bye\n")
        assert chat.end() == 0
        assert "\x1b]52" not in chat.raw


def test_the_beginning_of_a_text_is_one_line() -> None:
    assert beginning("\n  first \nsecond") == "first"
    assert beginning("x" * 100, 10) == "x" * 9 + "…"
    assert beginning("") == ""


def test_it_works_through_a_server(server: Server, trace: Path) -> None:
    with Terminal("run", "echo", env={"RKLLAMA_HOST": server.url}) as chat:
        chat.expect(">>> ")
        chat.ask("one")
        assert chat.ask("/retry") == "one"
        assert chat.ask("/chat save mine").startswith("Saved.")
        chat.type("/bye\n")
        assert chat.end() == 0
    first, again = read_prompts(trace)
    assert first == again
    assert stat.S_IMODE(os.stat(Path.home() / "RKLLAMA/chats/mine.json").st_mode) == 0o600


def test_a_file_of_the_kernels_that_has_nothing_now_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "trace_pipe")  # as /proc/kmsg is, though that calls itself a file
    end = os.open(tmp_path / "trace_pipe", os.O_RDWR | os.O_NONBLOCK)

    def opened(path: str) -> BinaryIO:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")

    monkeypatch.setattr(attachments, "open_regular", opened)
    with pytest.raises(RKLLamaError, match="is empty"):
        read_text_file(str(tmp_path / "trace_pipe"))
    os.close(end)
