"""The commands as a shell calls them: what goes to stdout, what to stderr, and the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rkllama import cli
from rkllama.board.lock import NPULock
from rkllama.console.output import human_size
from rkllama.console.progress import show_progress
from rkllama.types import PullProgress
from tests import prepared
from tests.hub.loopback import Fault, LoopbackHub
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, Terminal
from tests.virtual_npu import directive, library, read_trace, write_model
from tests.waiting import Task, until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
THINKING = "<think>Let me see.</think>\n\nFour."
# Another spelling of 127.0.0.1 that does not look like it: "another machine" where nobody listens.
ELSEWHERE = "0x7f.0.0.1:1"


def rkllama(
    *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = prepared.run(
        [sys.executable, "-m", "rkllama", *arguments],
        input=data,
        capture_output=True,
        timeout=LIMIT,
        env={**os.environ, **(env or {})},
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "\x1b" not in out + err, "no control sequences without a terminal"
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def output(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """What a command that succeeds prints."""
    done = rkllama(*arguments, stdin=stdin, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failure(*arguments: str, env: dict[str, str] | None = None, status: int = 1) -> str:
    """What a command that fails complains of."""
    done = rkllama(*arguments, env=env)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    return done.stderr


# --- Models on disk ----------------------------------------------------------------------------


def test_list(models: Path) -> None:
    write_model(models / "qwen2.5-1.5b-w8a8-rk3588.rkllm", size=1_900_000)
    write_model(models / "名前.rkllm")
    assert output("list").splitlines() == [
        "NAME                        SIZE  PARAMS  QUANT  PLATFORM  MODIFIED",
        f"qwen2.5-1.5b-w8a8-rk3588  1.9 MB  1.5B    w8a8   rk3588    {modified(models)}",
        f"名前                        17 B  -       -      -         {modified(models, '名前.rkllm')}",
    ]
    assert output("ls") == output("list") == output("--models", str(models), "list")
    first, second = json.loads(output("list", "--json"))
    assert first["name"] == "qwen2.5-1.5b-w8a8-rk3588"
    assert first["size"] == 1_900_000
    assert first["quantization"] == "w8a8"
    assert second["platform"] is None


def modified(models: Path, file: str = "qwen2.5-1.5b-w8a8-rk3588.rkllm") -> str:
    from rkllama.console.output import human_time

    return human_time((models / file).stat().st_mtime)


def test_an_empty_home_lists_nothing_and_says_what_to_do() -> None:
    done = rkllama("list")
    assert done.returncode == 0
    assert done.stdout == "NAME  SIZE  PARAMS  QUANT  PLATFORM  MODIFIED\n"
    assert done.stderr.startswith(
        "No models yet. Find one: rkllama search qwen3; download it: rkllama pull NAME\n"
    )
    assert output("list", "--json") == "[]\n"
    assert "the models directory /nowhere does not exist" in failure(
        "list", env={"RKLLAMA_MODELS": "/nowhere"}
    )


def test_a_reader_that_has_seen_enough(models: Path, npu: str) -> None:
    write_model(models / "long.rkllm", tokens=100_000)
    for arguments in (["list"], ["run", "long", "hi"]):
        process = prepared.Popen(
            [sys.executable, "-m", "rkllama", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.read(4)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(LIMIT) == 0


def test_show_and_create_and_cp_and_rm(models: Path) -> None:
    write_model(models / "qwen2.5-1.5b-w8a8-rk3588.rkllm")
    assert "quantization  w8a8\n" in output("show", "qwen")
    recipe = "FROM qwen2.5-1.5b-w8a8-rk3588\nSYSTEM Be brief.\nPARAMETER top_k 3\nMESSAGE user Hi\n"
    done = rkllama("create", "brief", "-f", "-", stdin=recipe)
    assert done.stderr == "Created brief. Try it: rkllama run brief\n"
    assert output("show", "brief", "--modelfile") == recipe
    shown = json.loads(output("show", "brief", "--json"))
    assert shown["system"] == "Be brief."
    (turn,) = shown["messages"]
    assert (turn["role"], turn["content"]) == ("user", "Hi")
    output("cp", "brief", "short")
    assert "System\n  Be brief.\n" in output("show", "short")
    done = rkllama("rm", "short", "nothing", "brief", "-y")
    assert done.returncode == 1, "one of the three was not there"
    assert done.stderr.splitlines()[:2] == ["Deleted short", "Error: model 'nothing' not found"]
    assert "Deleted brief" in done.stderr
    assert "not found" in failure("rm", "qwen2.5"), "the beginning of a name deletes nothing"
    assert "model '' not found" in failure("rm", ""), "an unset variable is no name"
    output("rm", "qwen2.5-1.5b-w8a8-rk3588")
    assert list(models.iterdir()) == []


def test_a_model_made_of_a_file(models: Path, tmp_path: Path) -> None:
    """The file of a FROM lies beside the Modelfile, as at Ollama, and is copied."""
    write_model(tmp_path / "own-w8a8-rk3588.rkllm")
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text("FROM ./own-w8a8-rk3588.rkllm\nSYSTEM Be brief.\n")
    made = rkllama("create", "mine", "-f", str(modelfile))
    size = human_size((tmp_path / "own-w8a8-rk3588.rkllm").stat().st_size)
    assert made.stderr.splitlines() == [
        f"Copying own-w8a8-rk3588.rkllm ({size})",
        "100%",
        "Created mine. Try it: rkllama run mine",
    ]
    assert made.stdout == ""
    assert output("show", "mine", "--modelfile") == (
        "FROM own-w8a8-rk3588.rkllm\nSYSTEM Be brief.\n"
    )
    write_model(tmp_path / "other-w8a8.rkllm", size=100)
    again = tmp_path / "Again"
    again.write_text("FROM ./other-w8a8.rkllm\n")
    for recipe, file in ((again, "other-w8a8.rkllm"), (modelfile, "own-w8a8-rk3588.rkllm")):
        assert "Created mine." in rkllama("create", "mine", "-f", str(recipe)).stderr
        kept = {".created", "Modelfile", file}
        assert {path.name for path in (models / "mine").iterdir()} == kept
    (models / "pulled").mkdir()
    write_model(models / "pulled" / "own-w8a8-rk3588.rkllm")
    assert "'pulled' already exists" in failure("create", "pulled", "-f", str(modelfile))
    output("rm", "pulled")
    # What is in the models directory, or has no folder before it, is a model's name as ever.
    inside = models / "mine" / "own-w8a8-rk3588.rkllm"
    modelfile.write_text(f"FROM {inside}\n")
    assert "Copying" not in rkllama("create", "alias", "-f", str(modelfile)).stderr
    modelfile.write_text("FROM own-w8a8-rk3588\n")
    assert "Copying" not in rkllama("create", "other", "-f", str(modelfile)).stderr
    assert output("list").count("\n") == 4


@pytest.mark.parametrize("through_server", [False, True])
def test_an_adapter_is_copied_along(
    models: Path, npu: str, tmp_path: Path, through_server: bool
) -> None:
    """As in Ollama an ADAPTER lies beside the Modelfile."""
    write_model(models / "m.rkllm", reply="plain")
    write_model(tmp_path / "pirate_lora.rkllm", reply="Arr")
    write_model(tmp_path / "own.rkllm", reply="plain")
    modelfile = tmp_path / "Modelfile"
    with Server() if through_server else contextlib.nullcontext() as server:
        env = {"RKLLAMA_HOST": server.url} if server else {}
        for name, source in (("tuned", "m"), ("made", "./own.rkllm")):
            modelfile.write_text(f"FROM {source}\nADAPTER ./pirate_lora.rkllm\n")
            for _ in range(2 if source == "m" else 1):
                made = rkllama("create", name, "-f", str(modelfile), env=env)
                assert f"Created {name}" in made.stderr
            assert output("run", name, "hi", env=env) == "Arr\n"
        assert output("run", "m", "hi", env=env) == "plain\n"
        names = [line.split()[0] for line in output("list", env=env).splitlines()[1:]]
        assert names == ["m", "made", "tuned"]
        output("cp", "tuned", "twin", env=env)
        output("rm", "tuned", "made", "-y", env=env)
        assert output("run", "twin", "hi", env=env) == "Arr\n"
    modelfile.write_text("FROM m\nADAPTER ./gone.rkllm\n")
    assert "the ADAPTER './gone.rkllm' is not in" in failure("create", "none", "-f", str(modelfile))


def test_a_model_made_of_a_file_by_a_server(server: Server, models: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "own.rkllm")
    (tmp_path / "Modelfile").write_text("FROM ./own.rkllm\n")
    env = {"RKLLAMA_HOST": server.url, "RKLLAMA_MODELS": str(tmp_path / "elsewhere")}
    for name in ("one", "two"):
        made = rkllama("create", name, "-f", str(tmp_path / "Modelfile"), env=env)
        assert made.returncode == 0, made.stderr
        assert "Verifying sha256\nCopying own.rkllm" in made.stderr
        assert (models / name / "own.rkllm").read_bytes() == (tmp_path / "own.rkllm").read_bytes()
    assert output("run", "two", "hi", env=env) == "hi\n"


def test_what_is_passed_over_is_told(models: Path, npu: str) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", reply="Yes.")
    (models / "m" / "Modelfile").write_text("FROM m.rkllm\nADAPTER missing.bin\n")
    assert "Ignored\n  the ADAPTER missing.bin of m/Modelfile" in output("show", "m")
    done = rkllama("run", "m", "Really?")
    assert done.stdout == "Yes.\n"
    assert "the ADAPTER missing.bin" in done.stderr
    with Server() as server:
        server.post("/api/generate", {"model": "m"})
        until(lambda: any("ADAPTER missing.bin" in line for line in server.log))
        assert "Ignored\n  the ADAPTER missing.bin of m/Modelfile" in output(
            "show", "m", env={"RKLLAMA_HOST": server.url}
        )


def test_a_template_that_is_not_used_is_told_of_once(models: Path, npu: str) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", reply="Yes.")
    (models / "m" / "Modelfile").write_text("FROM m.rkllm\nTEMPLATE {% for m in messages %}\n")
    complaint = "m: The chat template of Modelfile is broken (line 1: "
    done = rkllama("run", "m", "Really?")
    assert done.stdout == "Yes.\n"
    assert done.stderr.startswith(complaint)
    with Server() as server:
        for _ in range(2):
            server.post("/api/generate", {"model": "m", "prompt": "Really?"})
        until(lambda: sum("/api/generate" in line for line in server.log) == 2)
        assert sum(complaint in line for line in server.log) == 1


def test_a_template_that_is_guessed_is_told(models: Path, npu: str) -> None:
    write_model(models / "qwen2.5.rkllm", reply="Yes.")
    write_model(models / "unknown.rkllm", reply="Yes.")
    told = "its chat template is guessed"
    assert f"{told} (the usual one of qwen2.5 models)" in output("show", "qwen2.5")
    assert f"{told} (the runtime's or ChatML)" in output("show", "unknown")
    with Server() as server:
        for _ in range(2):
            server.post("/api/generate", {"model": "qwen2.5", "prompt": "Really?"})
        until(lambda: sum("/api/generate" in line for line in server.log) == 2)
        assert sum(f"qwen2.5: {told}" in line for line in server.log) == 1
        assert told in output("show", "qwen2.5", env={"RKLLAMA_HOST": server.url})
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", reply="Yes.")
    (models / "m" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert told not in output("show", "m")


def test_a_model_that_only_embeds_is_not_run(models: Path, npu: str) -> None:
    write_model(models / "bge-m3.rkllm")
    assert "bge-m3 makes embeddings and writes no text" in failure("run", "bge-m3", "hi")
    assert "embedding" in output("show", "bge-m3")


def test_names_that_fit_none_or_several(models: Path) -> None:
    write_model(models / "qwen-a.rkllm")
    write_model(models / "qwen-b.rkllm")
    assert failure("show", "qwen") == (
        "Error: 'qwen' matches several models: qwen-a, qwen-b\nUse the full name of one of them.\n"
    )
    assert "Did you mean qwen-a" in failure("run", "qwen_a", "hi")
    assert failure("show", "zzz") == (
        "Error: model 'zzz' not found\n"
        "`rkllama list` shows the models, `rkllama pull` downloads one.\n"
    )


@pytest.mark.parametrize(
    "arguments", [["list"], ["ls", "--json"], ["show", "echo"], ["ps"], ["run", "echo", "hi"]]
)
def test_a_disk_that_is_full(arguments: list[str], models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    with open("/dev/full", "w") as full:
        done = prepared.run(
            [sys.executable, "-m", "rkllama", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"Error: [Errno 28] No space left on device"
    assert b"Traceback" not in done.stderr


CLOSED = [
    ("list >&-", 0),
    ("list --json 2>&-", 0),
    ("rm --yes nothing <&-", 1),
    ("rm --yes echo 2>&-", 0),
    ("run echo hi <&-", 0),
    ("run echo hi >&- 2>&-", 0),
    ("run echo <&-", 2),
    ("create made -f - <&-", 1),
]


@pytest.mark.parametrize(("command", "status"), CLOSED, ids=[command for command, _ in CLOSED])
def test_streams_that_are_closed(command: str, status: int, models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m rkllama {command}', sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\nhi\n" in b"\n" + done.stdout or "hi <&-" not in command


def test_a_configuration_that_is_no_text(home: Path) -> None:
    (home / "RKLLAMA").mkdir()
    (home / "RKLLAMA" / "config.toml").write_bytes(b'log_level = "caf\xe9"\n')
    assert "config.toml cannot be read: 'utf-8' codec can't decode byte 0xe9" in failure("list")


def test_settings_that_cannot_be_used() -> None:
    complaint = failure("list", env={"RKLLAMA_THREADS": "all"})
    assert complaint == "Error: RKLLAMA_THREADS cannot be 'all': it must be a whole number\n"
    for name in ("TOKEN_TIMEOUT", "LOAD_TIMEOUT", "PREFILL_TIMEOUT", "SEND_TIMEOUT"):
        for value in ("25h", "1e308", "0"):
            complaint = failure("list", env={f"RKLLAMA_{name}": value})
            assert f"RKLLAMA_{name} cannot be {value!r}" in complaint
            assert "more than 0 and at most 24h" in complaint
    complaint = failure("serve", "--host", "no-such-host.invalid", "--port", "0")
    assert complaint.startswith("Error: cannot listen on no-such-host.invalid:0: ")
    assert "Unknown error" not in complaint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "nofile cannot be read: No such file" in failure("create", "x", "-f", "nofile")
    assert failure("create", "x").endswith("Name the Modelfile with -f; - means stdin.\n")
    (tmp_path / "latin").write_bytes(b"FROM caf\xe9")
    assert "it is not UTF-8 text" in failure("create", "x", "-f", str(tmp_path / "latin"))


def test_pull_without_a_terminal_prints_plain_lines(models: Path) -> None:
    with LoopbackHub() as hub:
        hub.add("user/repo", {"m-w8a8-rk3588.rkllm": b"x" * 2_500_000})
        env = {"HF_ENDPOINT": hub.endpoint}
        done = rkllama("pull", "hf/user/repo/m-w8a8-rk3588.rkllm", env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        first, *percent, verifying, last = done.stderr.splitlines()
        assert first == "Downloading m-w8a8-rk3588.rkllm (2.5 MB)"
        assert percent[-1] == "100%"
        assert verifying == "Verifying sha256"
        assert last == "Done. Try it: rkllama run m-w8a8-rk3588"
        assert "Error: " in failure("pull", "user/repo/other.rkllm", env=env)


def test_each_step_of_a_pull_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A large file is verified for minutes, and reports it ten times a second."""
    steps: list[tuple[Any, int]] = [
        ("resolving", 0),
        *(("verifying", read) for read in range(0, 50, 10)),
        *(("downloading", size) for size in range(50, 100, 10)),
        *(("verifying", read) for read in range(0, 101, 10)),
        ("done", 100),
    ]
    pulled = (
        PullProgress(status=status, file="m", total=100, completed=completed, name="m")
        for status, completed in steps
    )
    assert show_progress(pulled, "u/r/m") == "m"
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Verifying sha256",
        "Downloading m (100 B)",
        *("50%", "60%", "70%", "80%", "90%", "100%"),
        "Verifying sha256",
    ]


def test_a_pull_that_is_interrupted_says_how_to_go_on(models: Path) -> None:
    file = "m-w8a8-rk3588.rkllm"
    with LoopbackHub() as hub:
        hub.add("user/repo", {file: bytes(2_500_000)})
        held = Fault(hold_after=1_000_000)
        hub.fail(file, held)
        env = {"HF_ENDPOINT": hub.endpoint, "TERM": "xterm"}
        with Terminal("pull", f"user/repo/{file}", env=env) as command:
            command.expect("/2.5 MB")
            command.type(CTRL_C)
            command.expect(f"To resume: rkllama pull user/repo/{file}\n")
            held.released.set()
            assert command.end() == 130
        with Terminal("pull", f"user/repo/{file}", env=env) as command:
            command.expect("2.5/2.5 MB")
            command.expect("Done. Try it: rkllama run m-w8a8-rk3588\n")
            assert command.end() == 0


# --- Answers -----------------------------------------------------------------------------------


@pytest.fixture
def echo(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")


@pytest.mark.usefixtures("echo")
def test_an_answer_goes_to_stdout_and_nothing_else() -> None:
    done = rkllama("run", "echo", "hello", "there")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello there\n", "")
    assert output("run", "echo", "what is this?", stdin="a file\n") == "a file\n\nwhat is this?\n"
    assert output("run", "echo", stdin="from stdin\n") == "from stdin\n"


@pytest.mark.usefixtures("echo")
def test_figures_are_on_stderr() -> None:
    done = rkllama("run", "echo", "a few words", "--verbose")
    assert done.stdout == "a few words\n"
    for name in ("total time", "load time", "prompt", "answer", "answer rate"):
        assert f"\n{name}:" in done.stderr


def test_thinking_is_on_stderr_or_hidden(models: Path, npu: str) -> None:
    write_model(models / "DeepSeek-R1-1.5B.rkllm", reply=THINKING)
    done = rkllama("run", "DeepSeek-R1-1.5B", "2+2?")
    assert done.stdout == "Four.\n"
    assert done.stderr == "Thinking…\nLet me see.\n…done thinking.\n\n"
    done = rkllama("run", "DeepSeek-R1-1.5B", "2+2?", "--hide-thinking")
    assert (done.stdout, done.stderr) == ("Four.\n", "")
    answer = json.loads(output("run", "DeepSeek-R1-1.5B", "2+2?", "--json"))
    assert answer["content"] == "Four."
    assert answer["reasoning"] == "Let me see."
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0
    assert answer["timings"]["total"] > 0


def test_options_reach_the_model(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    write_model(models / "m.rkllm", mode="params")
    given = {"temperature": 0.5, "top_k": 5, "top_p": 0.75, "repeat_penalty": 1.5}
    given |= {"frequency_penalty": 0.25, "presence_penalty": -0.5}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    told = json.loads(output("run", "m", "hi", *flags, "--num-predict", "200", "--ctx", "512"))
    assert {name: told[name] for name in given} == given
    assert told["max_new_tokens"] == 200
    assert told["max_context_len"] == 512


def test_system_and_think_reach_the_model(models: Path, npu: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    write_model(models / "Qwen3-1.7B.rkllm", trace=str(trace), trace_prompt=1, reply="yes")
    output("run", "Qwen3-1.7B", "hi", "--system", "Be brief.", "--no-think")
    prompt = next(event["prompt"] for event in read_trace(trace) if event["event"] == "run")
    assert "Be brief." in prompt
    assert "<think>\n\n</think>" in prompt


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["run", "m", "hi", "--temperature", "9"],
        ["run", "m", "hi", "--temperature", "nan"],
        ["run", "m", "hi", "--top-k", "9999999999"],
        ["run", "m", "hi", "--seed", "99999999999999999999"],
        ["run", "m", "hi", "--format", "xml"],
        ["run", "m", "hi", "--keep-alive", "soon"],
        ["run", "m"],
        ["nonsense"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = rkllama(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["chats", "config", "runtime", "service"])
def test_the_commands_of_a_group_are_told_in_whole_sentences(command: str) -> None:
    told = CliRunner().invoke(cli.app, [command, "--help"]).stdout
    assert "Commands:" in told
    assert "..." not in told.partition("Commands:")[2]


def test_numbers_have_the_bounds_of_a_request() -> None:
    complaint = failure("run", "m", "hi", "--ctx", "9999999999", status=2)
    assert "'num_ctx' must be between 1 and 16777216\n" in complaint


# --- Things that go wrong ----------------------------------------------------------------------


@pytest.mark.usefixtures("echo")
def test_a_crash_in_the_middle_of_an_answer() -> None:
    done = rkllama("run", "echo", "one two three four " + directive(segv_at=2))
    assert done.returncode == 1
    assert done.stdout.startswith("one")
    assert done.stderr.startswith("Error: the model's process was killed by SIGSEGV\n")


@pytest.mark.usefixtures("echo")
def test_stdin_that_is_no_text() -> None:
    done = rkllama("run", "echo", "what is it?", stdin=b"\x89PNG\xff")
    assert done.returncode == 1
    assert done.stderr == "Error: the text on stdin is not UTF-8\n"


def test_without_the_runtime_each_place_is_named(models: Path) -> None:
    write_model(models / "m.rkllm")
    complaint = failure("run", "m", "hi", env={"RKLLAMA_RKLLM_LIB": "/nowhere/librkllmrt.so"})
    assert complaint.startswith("Error: librkllmrt.so cannot be used\n")
    assert "(/nowhere/librkllmrt.so): not found\n" in complaint


@pytest.mark.usefixtures("echo")
def test_the_npu_in_other_hands(tmp_path: Path) -> None:
    lock = NPULock(str(tmp_path / "npu.lock"), "something else")
    lock.acquire()
    try:
        complaint = failure("run", "echo", "hi")
        assert f"the NPU is in use by `something else` (process {os.getpid()})" in complaint
        assert "in use by `something else`" in rkllama("ps").stderr
    finally:
        lock.release()


def test_a_server_elsewhere_that_is_silent(models: Path) -> None:
    env = {"RKLLAMA_HOST": ELSEWHERE}
    for arguments in (["list"], ["ps"]):
        complaint = failure(*arguments, env=env)
        assert f"no server answers at http://{ELSEWHERE}" in complaint
    assert output("--models", str(models), "list", env=env), "a directory needs no server"
    assert "RKLLAMA_HOST cannot be 'a:b'" in failure("list", env={"RKLLAMA_HOST": "a:b"})


def test_the_answer_itself_is_json(models: Path, npu: str, tmp_path: Path) -> None:
    write_model(models / "m.rkllm", reply='{"colour": "red"}')
    schema = tmp_path / "schema.json"
    schema.write_text('{"type":"object","properties":{"colour":{"type":"string"}}}')
    for wanted in ("json", str(schema)):
        assert json.loads(output("run", "m", "hi", "--format", wanted)) == {"colour": "red"}
    complaint = failure("run", "m", "hi", "--format", "nowhere.json", status=2)
    assert "neither json nor a file" in " ".join(complaint.split())


def test_an_answer_without_the_format_is_a_failure(models: Path, npu: str, tmp_path: Path) -> None:
    write_model(models / "m-qwen2.5.rkllm", reply='{"age": "old"}')
    schema = tmp_path / "schema.json"
    integer = {"age": {"type": "integer"}}
    schema.write_text(json.dumps({"type": "object", "properties": integer, "required": ["age"]}))
    run = rkllama("run", "m-qwen2.5", "hi", "--format", str(schema))
    assert (run.returncode, run.stdout.strip()) == (1, '{"age":')
    assert "Error: the model gave no value that fits at $.age" in run.stderr


def test_what_users_of_ollama_and_of_the_older_rkllama_type(models: Path, npu: str) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / "m.rkllm", reply="Yes.")
    (models / "m" / "Modelfile").write_text(
        'FROM m.rkllm\nSYSTEM Be brief.\nLICENSE MIT\nPARAMETER temperature 0.5\nTEMPLATE "<|user|>"\n'
    )
    for habit in (["--hidethinking"], ["--keepalive", "5m"], ["--keepalive=5m"], ["--think=high"]):
        assert output("run", "m", "hi", *habit) == "Yes.\n", habit
    assert output("run", "m", "--", "--think=high") == "Yes.\n", "it is the prompt"
    assert output("-v") == output("--version")
    assert output("help") == output("--help")
    assert output("help", "run") == output("run", "--help")
    assert output("show", "m", "--system") == "Be brief.\n"
    assert output("show", "m", "--license") == "MIT\n"
    assert output("show", "m", "--template") == "<|user|>\n"
    assert output("show", "m", "--parameters").split() == ["temperature", "0.5"]
    assert output("info", "m") == output("show", "m")
    assert failure("unload") == failure("stop")
    assert "rkllama serve --model m" in failure("load", "m")
    assert "pip install --upgrade rkllama" in failure("update")
    with Server("--processor", "rk3588", "--debug") as server:
        there = {"RKLLAMA_HOST": server.url}
        assert rkllama("load", "m", env=there).stderr == "Loaded m\n"
        assert rkllama("unload", "m", env=there).stderr == "Unloaded m\n"
        assert "the SoC is detected" in server.log[0]


def test_stdin_that_is_silent_asked_for_or_refused(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    process = prepared.Popen(
        [sys.executable, "-m", "rkllama", "run", "echo", "why"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "Reading stdin …\n".encode()
    assert process.communicate(b"because", LIMIT)[0] == b"because\n\nwhy\n"
    with Terminal("run", "echo", "-", "why") as screen:
        screen.expect("Reading stdin …")
        screen.type("because\n\x04")
        screen.expect("because\n\nwhy\n")
        assert screen.end() == 0
    assert output("run", "echo", "why", "--no-stdin", stdin="because") == "why\n"
    loop = f"while read line; do {sys.executable} -m rkllama run echo --no-stdin $line; done"
    done = subprocess.run(
        ["sh", "-c", loop], input=b"one\ntwo\n", capture_output=True, timeout=LIMIT, check=True
    )
    assert done.stdout == b"one\ntwo\n"
    assert "asks for stdin" in failure("run", "echo", "-", "--no-stdin", status=2)


_PULLING = """
from rkllama.console.progress import show_progress
from rkllama.types import PullProgress
file = "Qwen2.5-1.5B-Instruct-w8a8-opt-1-hybrid-ratio-0.5.rkllm"
steps = (
    PullProgress(status="downloading", file=file, total=1_900_000_000, completed=done)
    for done in (100_000_000, 900_000_000)
)
show_progress(steps, "x")
"""


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_the_name_shrinks_and_nothing_else(columns: int, models: Path) -> None:
    program = (sys.executable, "-c", _PULLING)
    with Terminal(program=program, columns=columns) as screen:
        assert screen.end() == 0
    line = screen.screen.splitlines()[-1]
    assert "Qwen2" in line
    assert ".rkllm" in line
    assert " 47% " in line
    assert "0.9/1.9 GB" in line
    assert ":" in line.split("GB")[-1], "the time left"
    long = "a-very-long-name-of-a-model-that-somebody-made-w8a8-opt-1-rk3588"
    write_model(models / f"{long}.rkllm")
    with Terminal("list", columns=columns) as screen:
        assert screen.end() == 0
    head, row = screen.screen.splitlines()
    assert row.startswith("a-v")
    assert (long in row) == (columns > 110)
    assert columns < 80 or max(len(head), len(row)) <= columns


def test_what_is_not_there_is_told_before_anything_is_asked(models: Path) -> None:
    write_model(models / "echo-w8a8.rkllm")
    assert rkllama("rm", "-y", "ech").stderr == (
        "Error: model 'ech' not found\nDeleting takes the full name: echo-w8a8.\n"
    )
    with Terminal("rm", "ech", "nothing") as screen:
        screen.expect("Error: model 'nothing' not found")
        screen.expect("Delete echo-w8a8 (echo-w8a8.rkllm, 17 B)? [y/N] ")
        screen.type("y\n")
        assert screen.end() == 1
    assert not (models / "echo-w8a8.rkllm").exists()


def test_serve_tells_at_its_start_what_it_works_with(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    complaint = failure("serve", "--models", "/nope", "--port", "0")
    assert "the models directory /nope does not exist" in complaint
    with Server() as server:
        said = "".join(server.log)
    assert f"models: {models} (1)" in said
    assert f"runtime: {npu} (release 1.2.3)" in said
    assert "SoC: none of Rockchip's" in said
    with Server(env={"RKLLAMA_RKLLM_LIB": ""}) as server:
        said = "".join(server.log)
    assert "runtime: no librkllmrt.so in " in said
    assert "run `rkllama runtime install`" in said
    assert "copy the vendor's to " in said
    folder = models.parent / "lib" / "1.2.3"
    folder.mkdir(parents=True)
    (folder / "librkllmrt.so").symlink_to(npu)
    with Server(env={"RKLLAMA_RKLLM_LIB": ""}) as server:
        said = "".join(server.log)
    assert f"runtime: {folder}/librkllmrt.so (release 1.2.3)" in said
    assert "no librkllmrt.so" not in said
    with Server(env={"RKLLAMA_RKLLM_LIB": "/nowhere.so"}) as server:
        assert "runtime: no librkllmrt.so at /nowhere.so" in "".join(server.log)


def test_a_log_that_cannot_be_written_is_no_reason_not_to_run(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    (models.parent / "logs").write_text("not a directory")
    done = rkllama("run", "echo", "hi")
    assert done.stdout == "hi\n"
    assert "logs/echo.log cannot be written" in done.stderr


def test_a_server_here_that_was_named_and_is_silent(models: Path, npu: str) -> None:
    """What is asked of a server is not done by another one, nor here."""
    write_model(models / "echo.rkllm")
    for arguments in (["list"], ["run", "echo", "hi"]):
        complaint = failure(*arguments, env={"RKLLAMA_HOST": "127.0.0.1:1"})
        assert "no server answers at http://127.0.0.1:1" in complaint
        assert "unset RKLLAMA_HOST" in complaint


def test_it_is_told_whose_models_are_listed(
    models: Path, npu: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models.parent / "config.toml").write_text(f'host = "{server.url}"\n')
    monkeypatch.delenv("RKLLAMA_HOST")
    own = tmp_path / "own"
    own.mkdir()
    write_model(own / "mine.rkllm")
    done = rkllama("list", env={"RKLLAMA_MODELS": str(own)})
    note = (
        f"Through the server at {server.url}; RKLLAMA_MODELS set here: its models are in {models};"
    )
    assert done.stderr.startswith(note)
    assert f"The server at {server.url} has no models in {models} yet." in done.stderr
    assert f"There is 1 model in {own}, which it does not serve" in done.stderr
    (own / "mine.rkllm").unlink()
    named = {"RKLLAMA_MODELS": str(own), "RKLLAMA_HOST": server.url}
    for command in ("list", "ps"):
        assert rkllama(command, env=named).stderr.startswith(note), "both were set"
    assert f"Your own directory {own} has none either." in rkllama("list", env=named).stderr
    (tmp_path / "link").symlink_to(models)
    for same in (models, tmp_path / "link"):
        done = rkllama("list", env={"RKLLAMA_MODELS": str(same)})
        assert done.stderr.startswith(f"The server at {server.url} has no models in {models} yet.")
        assert "own directory" not in done.stderr
    for command in ("list", "ps"):
        assert rkllama(command).stderr.count("Through the server") == 0
        with Terminal(command) as screen:
            screen.end()
        assert f"Through the server at {server.url}." in screen.screen


def test_ctrl_c_ends_with_130_and_leaves_nothing(models: Path, npu: str) -> None:
    write_model(models / "slow.rkllm", tokens=5000, token_us=20_000)
    process = prepared.Popen(
        [sys.executable, "-m", "rkllama", "run", "slow", "hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(5) == b"amber"
    process.send_signal(signal.SIGINT)
    # The worker holds these pipes' ends, too, if it is still there: the read would not end.
    assert process.stderr.read() == b""
    assert process.stdout.read().endswith(b"\n")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(LIMIT) == 130


def test_nothing_in_memory() -> None:
    done = rkllama("ps")
    assert done.stdout.split() == ["NAME", "SIZE", "CONTEXT", "RUNTIME", "STATE", "UNTIL"]
    assert done.stderr == "No model is loaded.\n"
    assert output("ps", "--json") == "[]\n"
    assert failure("stop") == "Error: no model is loaded\n"


# --- Through a server --------------------------------------------------------------------------


def test_a_server_makes_no_difference(models: Path, npu: str, server: Server) -> None:
    write_model(models / "echo-w8a8-rk3588.rkllm")
    there = {"RKLLAMA_HOST": server.url}
    for arguments in (
        ["list"],
        ["list", "--json"],
        ["show", "echo"],
        ["run", "echo", "hello", "there"],
    ):
        assert output(*arguments, env=there) == output(*arguments), arguments
    for arguments in (["show", "zzz"], ["run", "echo", "a b " + directive(segv_at=1), "-n", "9"]):
        here, remote = rkllama(*arguments), rkllama(*arguments, env=there)
        assert (remote.returncode, remote.stdout) == (here.returncode, here.stdout)
        assert remote.stderr.splitlines()[0] == here.stderr.splitlines()[0]


def test_ps_stop_and_rm_through_the_server_that_owns_the_npu(
    models: Path, npu: str, server: Server
) -> None:
    # RKLLAMA_HOST names no running server: the owner of the NPU is found by its lock.
    write_model(models / "echo.rkllm")
    assert server.post("/load_model", {"model_name": "echo"}).status == 200
    (model,) = json.loads(output("ps", "--json"))
    assert (model["info"]["name"], model["state"], model["expires"]) == ("echo", "ready", None)
    assert output("ps").splitlines()[1].split()[-2:] == ["ready", "forever"]
    assert output("run", "echo", "hi") == "hi\n"
    assert rkllama("stop", "echo").stderr == "Unloaded echo\n"
    assert failure("stop", env={"RKLLAMA_HOST": server.url}) == "Error: no model is loaded\n"
    assert rkllama("ps").stderr == "No model is loaded.\n", "it is the server that owns it"
    assert server.post("/load_model", {"model_name": "echo"}).status == 200
    assert rkllama("rm", "echo").stderr == "Deleted echo\n"
    assert not server.children(), "it was unloaded first"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_answer_that_others_break_off_is_no_success(
    form: tuple[str, ...], models: Path, npu: str, server: Server
) -> None:
    write_model(models / "slow.rkllm", tokens=5000, token_us=20_000)
    there = {"RKLLAMA_HOST": server.url}
    answering = Task(lambda: rkllama("run", "slow", "hi", *form, env=there))
    until(lambda: [model["state"] for model in server.get("/api/ps").json["models"]] == ["busy"])
    assert server.post("/unload_model").status == 200
    done = answering.result()
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the answer was interrupted")


def test_a_server_that_asks_for_a_key(models: Path, npu: str) -> None:
    write_model(models / "echo.rkllm")
    with Server("--api-key", "sesame") as server:
        there = {"RKLLAMA_HOST": server.url}
        for arguments in (["list"], ["run", "echo", "hi"]):
            complaint = failure(*arguments, env=there)
            assert "requires an API key\nSet RKLLAMA_API_KEY to one of its keys.\n" in complaint
        there["RKLLAMA_API_KEY"] = "seasme"
        assert "does not accept this API key" in failure("list", env=there)
        there["RKLLAMA_API_KEY"] = "sesame"
        assert output("list", env=there).count("\n") == 2
        assert output("run", "echo", "hi", env=there) == "hi\n"


# --- Help --------------------------------------------------------------------------------------


def test_version() -> None:
    from rkllama import __version__

    assert output("--version") == f"rkllama {__version__}\n"


def test_shells_complete_the_names_of_models(models: Path) -> None:
    write_model(models / "qwen.rkllm")
    write_model(models / "other.rkllm")
    env = {
        "_RKLLAMA_COMPLETE": "complete_bash",
        "COMP_WORDS": "rkllama run qw",
        "COMP_CWORD": "2",
    }
    script = "from rkllama.cli import app; app(prog_name='rkllama')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **env},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout.split() == [b"qwen"]


@pytest.mark.skipif(not typer.__version__.startswith("0.28."), reason="each Typer has its layout")
def test_the_documented_help_is_what_the_commands_print() -> None:
    documented = (ROOT / "docs" / "cli.md").read_text()
    generated = subprocess.run(
        [sys.executable, "tools/cli_help.py"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=LIMIT,
    ).stdout.decode()
    assert documented == generated, "run: python tools/cli_help.py > docs/cli.md"
