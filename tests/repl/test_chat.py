"""The chat on a terminal: keys, commands, wrapping, and what is kept for the next time."""

from __future__ import annotations

import io
import json
import readline
import subprocess
from pathlib import Path

import pytest

from rkllama.api.common import Fields
from rkllama.api.options import read_options
from rkllama.board.lock import NPULock, holder
from rkllama.config import INTEGER_BOUNDS, NUMBER_BOUNDS
from rkllama.console.options import ChatOptions
from rkllama.console.terminal import WrappedText
from rkllama.errors import InvalidRequest, NPUBusy
from rkllama.repl.line_reader import LineReader
from tests.cases import cases
from tests.running import Server
from tests.terminal import CTRL_C, CTRL_D, CTRL_Z, RKLLAMA, UP, Terminal
from tests.virtual_npu import directive, library, read_prompts, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

THINKING = "<think>Let me see.</think>\n\nFour."


@pytest.fixture(autouse=True)
def _model(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")


def test_a_picture_is_not_answered_as_if_it_were_text(tmp_path: Path) -> None:
    (tmp_path / "my cat.PNG").write_bytes(b"\x89PNG\r\n\x1a\n")
    hidden = f"what is {tmp_path}/my\\ cat.PNG?"
    with Terminal("run", "echo", columns=200) as chat:
        chat.expect(">>> ")
        assert "cannot" not in chat.ask("hello")
        assert "my cat.PNG is a picture, and echo sees none" in chat.ask(hidden)
        assert chat.ask("and now?") == "and now?"


# --- A conversation ----------------------------------------------------------------------------


def test_a_model_that_only_embeds_starts_no_chat(models: Path) -> None:
    write_model(models / "bge-m3.rkllm")
    with Terminal("run", "bge-m3") as chat:
        chat.expect("bge-m3 makes embeddings and writes no text")
        assert chat.end() == 1


def test_a_conversation_and_its_end() -> None:
    with Terminal("run", "ech") as chat:
        chat.expect("Chat with echo. /? for help, /bye to leave.\n")
        chat.expect(">>> ")
        assert chat.ask("hello there") == "hello there"
        assert chat.ask("and again") == "and again"
        chat.type("/bye\n")
        assert chat.end() == 0


def test_ctrl_d_leaves() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type(CTRL_D)
        assert chat.end() == 0


def test_earlier_turns_are_part_of_the_prompt_until_they_are_cleared(
    models: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(models / "noted.rkllm", trace=str(trace), trace_prompt=1)
    with Terminal("run", "noted", "--system", "Be brief.") as chat:
        chat.expect(">>> ")
        chat.ask("first question")
        chat.ask("second")
        assert chat.ask("/clear") == "Cleared the conversation."
        chat.ask("third")
    first, second, third = read_prompts(trace)
    assert all("Be brief." in prompt for prompt in (first, second, third))
    assert second.count("first question") == 2, "the question and its echo"
    assert second.startswith(first)
    assert "first question" not in third


def test_the_chat_through_a_server_is_the_same(server: Server) -> None:
    with Terminal("run", "ech", env={"RKLLAMA_HOST": server.url}) as chat:
        chat.expect("Chat with echo. /? for help, /bye to leave.\n")
        chat.expect(">>> ")
        assert chat.ask("hello there") == "hello there"
        assert server.children(), "it is the server's model"
        chat.type("/bye\n")
        assert chat.end() == 0


# --- Keys --------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_answer_and_not_the_program(models: Path) -> None:
    write_model(models / "slow.rkllm", tokens=2000, token_us=20_000)
    with Terminal("run", "slow") as chat:
        chat.expect(">>> ")
        chat.type("tell me\n")
        chat.expect("amber heron ocean")
        chat.type(CTRL_C)
        chat.expect("(stopped)\n\n>>> ")
        assert chat.ask("next " + directive(reply="here")) == "here"


def test_ctrl_c_twice_in_prefill_leaves_a_chat_that_goes_on(models: Path) -> None:
    write_model(models / "slow.rkllm", prefill_us=50_000)
    with Terminal("run", "slow") as chat:
        chat.expect(">>> ")
        chat.type("a b c d e f g h i j\n")
        chat.expect_spinner("Reading the prompt…")
        chat.type(CTRL_C)
        chat.expect("(stopped)\n\n>>> ")
        chat.interrupt("Press Ctrl-D or type /bye to leave.\n>>> ")
        assert chat.ask("go on") == "go on"


def test_ctrl_c_while_loading_ends_the_program(models: Path) -> None:
    write_model(models / "big.rkllm", load_ms=20_000)
    with Terminal("run", "big") as chat:
        chat.expect_spinner("Loading big…")
        chat.type(CTRL_C)
        assert chat.end() == 130
        assert "Traceback" not in chat.screen


def test_ctrl_c_at_the_prompt_gives_the_line_up() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type("half a li")
        chat.expect("half a li")
        assert "Ctrl-D" not in chat.interrupt(">>> ")
        chat.type('"""one\n')
        chat.expect("... ")
        assert "Ctrl-D" not in chat.interrupt(">>> ")
        assert chat.ask("whole") == "whole"


def test_what_is_typed_during_an_answer_is_not_shown_in_it(models: Path) -> None:
    write_model(models / "slow.rkllm", tokens=30, token_us=30_000)
    with Terminal("run", "slow") as chat:
        chat.expect(">>> ")
        chat.type("tell me\n")
        chat.expect("amber")
        chat.type("/bye\n")
        assert chat.end() == 0
        answer, _, rest = chat.screen.partition("tell me")[2].partition("mint")
        assert "/bye" not in answer
        assert "/bye" in rest


def shell(script: str) -> Terminal:
    """A shell with job control; "$@" in the script is `rkllama`."""
    return Terminal("-mc", script, "sh", *RKLLAMA, program=["sh"])


def test_an_answer_in_the_background_is_not_stopped() -> None:
    with shell('"$@" run echo "hello there" & wait $!; echo "It ended with $?."') as terminal:
        terminal.expect("hello there\n")
        terminal.expect("It ended with 0.\n")


def test_an_answer_that_is_sent_to_the_background_goes_on_there(models: Path) -> None:
    write_model(models / "slow.rkllm", tokens=100, token_us=20_000)
    script = '"$@" run slow hi; echo Stopped.; bg; wait %1; echo "It ended with $?."'
    with shell(script) as terminal:
        terminal.expect("amber")
        terminal.type(CTRL_Z)
        terminal.expect("Stopped.\n")
        terminal.expect("It ended with 0.\n")


def test_texts_of_several_lines() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type('"""one\n')
        chat.expect("... ")
        chat.type('two"""\n')
        assert chat.expect("one\ntwo\n")
        chat.expect(">>> ")
        chat.type("\x1b[200~pasted\n\nat once\x1b[201~\n")
        chat.expect("pasted\n\nat once\n")  # as readline shows it
        chat.expect("pasted\n\nat once\n")
        chat.expect(">>> ")
        assert chat.ask('"""in one"""') == "in one"


def test_bytes_that_are_no_utf8_do_not_end_the_chat() -> None:
    with shell('"$@" run echo | cat') as chat:  # readline drops some of them by itself
        chat.expect(">>> ")
        chat.type(b"caf\xe9 au lait\n")
        chat.expect("caf\ufffd au lait\n")  # as the terminal shows it
        chat.expect("caf\ufffd au lait\n")
        chat.type(CTRL_D)
        assert chat.end() == 0


def test_a_text_of_several_lines_is_one_in_the_history(home: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type('"""one\n')
        chat.expect("... ")
        chat.type('two"""\n')
        chat.expect("one\ntwo\n")
        chat.expect(">>> ")
        chat.ask("last")
        chat.type("/bye\n")
        assert chat.end() == 0
    kept = (home / "RKLLAMA" / "history").read_text()
    assert kept.split("\n") == ['"""one\u2028two"""', "last", "/bye", ""]
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type(UP * 3 + "\n")
        chat.expect('two"""')
        chat.expect("one\ntwo\n")


def test_a_long_history_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history"
    file.write_text("".join(f"line {number}\n" for number in range(2001)))
    readline.clear_history()
    monkeypatch.setattr("builtins.input", lambda prompt: "hello")
    assert LineReader(str(file)).read() == "hello"
    lines = file.read_text().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (1001, "line 1001", "hello")
    assert readline.get_history_item(1) == "line 1001"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("/sh\t", "/show"),
        ("/show mod\t", "/show modelfile"),
        ("/set parameter top_\t\t", "top_k  top_p"),
        ("/load fa\t", "/load far-away"),
    ],
)
def test_tab_completes_commands_and_names(typed: str, completed: str, models: Path) -> None:
    write_model(models / "far-away.rkllm")
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type(typed)
        chat.expect(completed)


def test_the_help_has_its_columns_on_a_narrow_terminal() -> None:
    with Terminal("run", "echo", columns=50) as chat:
        chat.expect(">>> ")
        lines = chat.ask("/?").splitlines()
    assert max(map(len, lines)) <= 50
    assert "/set system TEXT            set the system" in lines
    assert '                            message; "" removes it' in lines


def test_where_no_room_is_left_the_help_stands_below() -> None:
    with Terminal("run", "echo", columns=40) as chat:
        chat.expect(">>> ")
        lines = chat.ask("/?").splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[:3] == [
        "/set system TEXT",
        '    set the system message; "" removes',
        "    it",
    ]


def test_lines_are_remembered_for_the_next_chat(home: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.ask("keep this")
        assert chat.ask("/set nohistory") == "Set nohistory."
        chat.ask("not this")
        chat.type(CTRL_D)
        assert chat.end() == 0
    file = home / "RKLLAMA" / "history"
    assert file.read_text() == "keep this\n/set nohistory\n"
    assert file.stat().st_mode & 0o777 == 0o600
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type(UP + UP)
        chat.expect("keep this")
        chat.type("\n")
        chat.expect("keep this\n")


# --- Commands ----------------------------------------------------------------------------------


def test_settings_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))  # older ones fix them at the load
    with Terminal("run", "echo", "--temperature", "0.5", columns=2000) as chat:
        chat.expect(">>> ")
        assert chat.ask("/set parameter top_k 7") == "Set top_k to 7."
        assert chat.ask("/set top_p 0.5") == "Set top_p to 0.5."
        assert chat.ask("/set parameter num_predict 300") == "Set num_predict to 300."
        params = json.loads(chat.ask("go " + directive(mode="params")))
        assert params["temperature"] == 0.5
        assert params["top_k"] == 7
        assert chat.ask("/set parameter stop END") == "Set stop to END."
        assert chat.ask("go " + directive(reply="this END not that")) == "this"
        shown = chat.ask("/show parameters")
        for line in ("temperature 0.5", "top_k 7", "num_predict 300", "stop END"):
            assert line in " ".join(shown.split())


WRONG = [
    ("/set parameter temperature 99", "Error: 'temperature' must be between 0 and 5"),
    ("/set parameter top_k many", "Error: top_k cannot be 'many'"),
    ("/set parameter colour 1", "Error: unknown parameter 'colour'"),
    ("/set parameter", "/set system TEXT"),
    ("/set", "/set system TEXT"),
    ("/frobnicate", "Unknown command /frobnicate. /? lists the commands."),
    ("/show everything", "/show takes info, system, parameters, modelfile, license or template."),
    ("/load", "Which model? /load MODEL"),
    ("/load nothing", "Error: model 'nothing' not found"),
    ("/save", "Under which name? /save NAME"),
    ("/save ../up", "Error: '../up' is not a valid model name"),
    ("/?", "/set system TEXT            set the system message"),
    ("/etc/hosts holds what", "/etc/hosts holds what"),
]


def test_commands_say_what_is_wrong() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        for typed, answer in WRONG:
            assert chat.ask(typed).startswith(answer), typed


def test_what_is_saved_names_no_program(models: Path) -> None:
    (models / "own").mkdir()
    lines = "FROM echo\nPARAMETER llama_server /bin/false\nPARAMETER top_k 3\n"
    (models / "own" / "Modelfile").write_text(lines)
    with Terminal("run", "own") as chat:
        chat.expect(">>> ")
        assert chat.ask("/save talk") == "Saved. To continue later: rkllama run talk"
        chat.type("/bye\n")
        assert chat.end() == 0
    saved = (models / "talk" / "Modelfile").read_text()
    assert "top_k" in saved
    assert "llama_server" not in saved


def test_save_and_load_go_on_with_the_conversation(models: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    write_model(models / "noted.rkllm", trace=str(trace), trace_prompt=1)
    with Terminal("run", "noted") as chat:
        chat.expect(">>> ")
        chat.ask('/set system "Be kind."')
        chat.ask("my name is Ada")
        assert chat.ask("/save talk") == "Saved. To continue later: rkllama run talk"
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        assert chat.ask("/load talk") == "Chat with talk."
        chat.ask("who am I?")
        prompt = read_prompts(trace)[-1]
        assert "Be kind." in prompt
        assert prompt.count("my name is Ada") == 2
        # Saved once more under its own name, nothing of the first part is lost.
        chat.ask("/save talk")
        modelfile = chat.ask("/show modelfile")
        assert "my name is Ada" in modelfile
        assert "who am I?" in modelfile
        assert chat.ask("/show system") == "Be kind."


def test_a_system_message_of_several_lines() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.type('/set system """Be\n')
        chat.expect("... ")
        chat.type('brief."""\n')
        chat.expect("Set the system message.\n>>> ")
        assert chat.ask("/show system") == "Be\nbrief."


def test_figures_after_each_answer() -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        chat.ask("/set verbose")
        assert "answer rate:" in chat.ask("some words for you")
        chat.ask("/set quiet")
        assert chat.ask("some words for you") == "some words for you"


# --- What is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize("no_colour", [False, True])
def test_thinking_is_dim_where_colours_are_wanted(models: Path, no_colour: bool) -> None:
    write_model(models / "DeepSeek-R1-1.5B.rkllm", reply=THINKING)
    env = {"NO_COLOR": "1"} if no_colour else {}
    with Terminal("run", "DeepSeek-R1-1.5B", "2+2?", env=env) as command:
        assert command.end() == 0
        assert command.screen.endswith("Thinking…\nLet me see.\n…done thinking.\n\nFour.\n")
        assert ("\x1b[2m" in command.raw) != no_colour


def test_a_spinner_turns_while_the_model_loads_and_goes_without_a_trace(models: Path) -> None:
    write_model(models / "big.rkllm", load_ms=400, reply="Here.")
    with Terminal("run", "big", "hello") as command:
        assert command.end() == 0
        assert "Loading big…\x1b[K" in command.raw
        assert command.raw.endswith("\r\x1b[KHere.\r\n")
    with Terminal("run", "big", "hello", env={"TERM": "dumb"}) as command:
        assert command.end() == 0
        assert command.raw == "Here.\r\n"


def test_a_warning_has_a_line_of_its_own_beside_the_spinner(models: Path) -> None:
    write_model(models / "big.rkllm", load_ms=400, max_context=512, reply="Here.")
    with Terminal("run", "big", "hello", "--ctx", "1024") as command:
        assert command.end() == 0
        assert "…\x1b[K\r\x1b[K\x1b[33mbig: The context is 512 tokens" in command.raw
        assert command.screen.endswith("limit.\nHere.\n")


def test_the_spinner_turns_while_hidden_thinking_goes_on(models: Path) -> None:
    write_model(models / "DeepSeek-R1-1.5B.rkllm", reply=THINKING, token_us=100_000)
    with Terminal("run", "DeepSeek-R1-1.5B", "--hide-thinking", "2+2?") as command:
        command.expect_spinner("Thinking…")
        assert command.end() == 0
        assert "Let me see" not in command.screen
        assert command.raw.endswith("\r\x1b[KFour.\r\n")


def test_a_crash_in_an_answer_is_told_and_the_chat_goes_on(models: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        answer = chat.ask("one two three four " + directive(segv_at=2))
        assert "Error: the model's process was killed by SIGSEGV" in answer
        assert chat.ask("still there") == "still there"


def test_a_conversation_that_fills_the_context_goes_on_without_its_oldest_turns(
    models: Path,
) -> None:
    with Terminal("run", "echo", "--ctx", "64") as chat:
        chat.expect(">>> ")
        too_long = chat.ask("word " * 100)
        assert "Shorten it, or use a longer context: /set num_ctx N." in too_long
        assert chat.ask("one two three " * 5).startswith("one two three")
        answer = chat.ask("four five six " * 5)
        assert answer.startswith("four five six")
        assert "2 oldest messages of the conversation did not fit and were left out" in answer
        assert "A longer context than 64 tokens makes room: /set num_ctx N." in answer
        chat.ask("/set num_ctx 512")
        assert "left out" not in chat.ask("there is room")


def test_an_idle_chat_gives_the_npu_back_and_takes_it_again(models: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "npu.lock")
    other = NPULock(path, "rkllama serve")

    def is_free() -> bool:
        try:
            other.acquire()
        except NPUBusy:
            return False
        return True

    with Terminal("run", "echo", "--keep-alive", "0.3s") as chat:
        chat.expect(">>> ")
        assert chat.ask("first") == "first"
        until(is_free)
        assert "NPU is in use by `rkllama serve`" in chat.ask("and now?")
        other.release()
        assert chat.ask("second") == "second"
        until(is_free)
        chat.type("/bye\n")
        assert chat.end() == 0
        assert holder(path) is not None
    other.release()


def test_an_answer_that_repeats_one_token_is_ended_and_told(models: Path) -> None:
    with Terminal("run", "echo") as chat:
        chat.expect(">>> ")
        answer = chat.ask("go " + directive(reply="&" * 40))
        assert answer.startswith("&" * 31 + "\n")
        assert "Note: the answer was stopped: the model wrote one token again and again" in answer


def test_at_the_models_limit_no_longer_context_is_offered(models: Path) -> None:
    write_model(models / "small.rkllm", max_context=64)
    no_more = "Shorten it: this model holds no more."
    with Terminal("run", "small") as chat:
        chat.expect(">>> ")
        assert no_more in chat.ask("word " * 100)
    done = subprocess.run(
        [*RKLLAMA, "run", "small", "word " * 100], capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith(f"\n{no_more}\n")
    done = subprocess.run(
        [*RKLLAMA, "run", "echo", "--ctx", "64", "--json", "word " * 100],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.endswith("\nShorten it, or use a longer context: --ctx N.\n")


def test_an_answer_that_fills_the_context_says_how_to_get_more(models: Path) -> None:
    write_model(models / "talker.rkllm", tokens=100_000)
    with Terminal("run", "talker", "--ctx", "64") as chat:
        chat.expect(">>> ")
        answer = chat.ask("hello")
        assert "the answer was cut off" in answer
        assert answer.endswith("A longer context than 64 tokens makes room: /set num_ctx N.")
        chat.ask("/set num_predict 5")
        chat.ask("/clear")
        assert "makes room" not in chat.ask("hello")


def test_rm_asks_on_a_terminal(models: Path) -> None:
    write_model(models / "other.rkllm")
    with Terminal("rm", "echo", "other") as command:
        command.expect("Delete echo (echo.rkllm, ")
        command.type("n\n")
        command.expect("Delete other (other.rkllm, ")
        command.type("y\n")
        command.expect("Deleted other\n")
        assert command.end() == 0
    for key, status in ((CTRL_C, 130), (CTRL_D, 0)):
        with Terminal("rm", "echo") as command:
            command.expect("? [y/N] ")
            command.type(key)
            assert command.end() == status
            assert command.screen.endswith("\n")
    assert [file.name for file in models.iterdir()] == ["echo.rkllm"]


# --- Units -------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


def wrapped(text: str, monkeypatch: pytest.MonkeyPatch, columns: int = 10) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    whole, pieces = Screen(), Screen()
    out = WrappedText(whole, wrap=True)
    out.write(text)
    out.finish()
    out = WrappedText(pieces, wrap=True)
    for char in text:
        out.write(char)
    out.finish()
    assert pieces.getvalue() == whole.getvalue(), "it depends on where the pieces end"
    return whole.getvalue()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("ten column exactly!!", ["ten column", "exactly!!"]),
        ("  indented text", ["  indented", "text"]),
        ("a  b\n\nc", ["a  b", "", "c"]),
        ("a_word_longer_than_a_line longer", ["a_word_longer_than_a_line", "longer"]),
        ("中文字符也要换行", ["中文字符也", "要换行"]),
        ("一二三四五。六", ["一二三四", "五。六"]),
        ("abcdefg 中文字", ["abcdefg 中", "文字"]),
        ("ein e\u0301te\u0301 e\u0301e\u0301 ab", ["ein e\u0301te\u0301 e\u0301e\u0301", "ab"]),
        (
            "```\nlong code line is kept\n```\nbut not text",
            ["```", "long code line is kept", "```", "but not", "text"],
        ),
        ("red \x1b[31malert\x07\x9b2J", ["red", "[31malert2J"]),
    ],
)
def test_wrapping(text: str, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrapped(text, monkeypatch).split("\n") == lines


def test_what_is_no_terminal_gets_the_text_as_it_is() -> None:
    out = io.StringIO()
    text = WrappedText(out, wrap=True)
    text.write("a long line that nobody breaks \x1b[31m, not even " + "x" * 100)
    text.finish()
    assert out.getvalue().endswith("\x1b[31m, not even " + "x" * 100)


_NEVER = {"true", "[1]", "NaN", "1e30", '"1"'}
_NOT_WHOLE = _NEVER | {"0.5"}
_REFUSED = {
    "temperature": _NEVER | {"-1", "2147483651"},
    "top_p": _NEVER | {"-1", "2.0", "2147483651"},
    "min_p": _NEVER | {"-1", "2.0", "2147483651"},
    "repeat_penalty": _NEVER | {"-1", "2147483651"},
    "frequency_penalty": _NEVER | {"2147483651"},
    "presence_penalty": _NEVER | {"2147483651"},
    "mirostat_tau": _NEVER | {"-1", "2147483651"},
    "mirostat_eta": _NEVER | {"-1", "2.0", "2147483651"},
    "top_k": _NOT_WHOLE | {"2147483651"},
    "mirostat": _NOT_WHOLE | {"-1", "2147483651"},
    "seed": _NOT_WHOLE,
    "num_predict": _NOT_WHOLE | {"2147483651"},
    "num_ctx": _NOT_WHOLE | {"-1", "0", "2147483651"},
}


@cases("name", [*NUMBER_BOUNDS, *INTEGER_BOUNDS])
@cases("text", ["null", "0", "1", "2.0", "-1", "2147483651", *sorted(_NOT_WHOLE)])
def test_numbers_are_read_as_the_server_reads_them(name: str, text: str) -> None:
    body = Fields({"options": {name: json.loads(text)}})
    if text in _REFUSED[name]:
        with pytest.raises(InvalidRequest):
            read_options(body)
        with pytest.raises(InvalidRequest):
            ChatOptions().with_parameter(name, text)
        return
    options = read_options(body)
    ours = ChatOptions().with_parameter(name, text)
    assert ours.sampling == options.sampling
    assert (ours.max_tokens, ours.context_length) == (options.max_tokens, options.context_length)


def test_parameters_add_up() -> None:
    options = ChatOptions()
    for name, text in [("temperature", "0.5"), ("num_ctx", "512"), ("stop", "A"), ("stop", "B")]:
        options = options.with_parameter(name, text)
    assert options.sampling.temperature == 0.5
    assert options.context_length == 512
    assert options.stop == ("A", "B")
    for name, text in [("temperature", "[1]"), ("num_ctx", "0"), ("top_k", "1.5"), ("x", "1")]:
        with pytest.raises(InvalidRequest):
            options.with_parameter(name, text)
