"""The setting `prompt_rules`: how it is written, and what it matches."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.config import load_settings
from rkllama.errors import ConfigError
from rkllama.models.modelfile import ModelfileError, parse_modelfile, read_parameters
from rkllama.settings.prompt_rules import BUILT_IN, PromptRule, find_rules, matches
from tests.home_assistant import recorded_prompt
from tests.test_cli import failure, output, rkllama


def rules(text: str, home: Path) -> tuple[PromptRule, ...]:
    """What a configuration file sets."""
    directory = home / "RKLLAMA"
    directory.mkdir(exist_ok=True)
    (directory / "config.toml").write_text(text)
    return load_settings().prompt_rules


@pytest.mark.parametrize(
    "text", ['prompt_rules = "home-assistant"', 'prompt_rules = ["home-assistant"]']
)
def test_a_name_is_enough_for_what_is_built_in(text: str, home: Path) -> None:
    (rule,) = rules(text, home)
    assert rule.lines == BUILT_IN["home-assistant"]
    assert rule.applies_to("any", "")
    assert rule.applies_to("any", "key")


def test_the_variable_names_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_PROMPT_RULES", "home-assistant")
    assert [rule.name for rule in load_settings().prompt_rules] == ["home-assistant"]


def test_a_table_says_what_and_for_whom(home: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("second\n")
    (rule,) = rules(
        f"""
[[prompt_rules]]
name = "clock"
lines = ["  Time: *  "]
before = "last"
models = ["qwen*", "Assist"]
keys = ["first", "@{tmp_path / "keys"}"]
""",
        home,
    )
    assert (rule.lines, rule.before) == (("Time: *",), "last")
    assert rule.applies_to("Qwen3:4b", "first")
    assert rule.applies_to("assist", "second")
    assert not rule.applies_to("llama", "first")
    assert not rule.applies_to("qwen3", "")
    assert not rule.applies_to("qwen3", "third")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '"unknown"',
            "there is no built-in rule unknown, only home-assistant; one of your own needs lines",
        ),
        ("3", "must be names of rules, or tables"),
        ('[{name = "a b"}]', "a rule's name has letters"),
        ('[{lines = ["x"]}]', "a rule's name has letters"),
        ('[{name = "a", lines = ["*"]}]', "must have more than \\*"),
        ('[{name = "a", lines = []}]', "between 1 and 64 lines"),
        ('[{name = "a", lines = ["b\\nc"]}]', "must be one line"),
        ('[{name = "a", lines = ["b"], before = "user"}]', "must be first or last"),
        (
            '[{name = "a", lines = ["b"], model = ["c"]}]',
            "a rule has no field model: its fields are name",
        ),
        ('[{name = "a", lines = ["b"], models = [1]}]', "must be a list of texts"),
        ('["home-assistant", {name = "home-assistant"}]', "is there twice"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        rules(f"prompt_rules = {text}", home)


@pytest.mark.integration
def test_api_keys_in_a_rule_are_not_shown(home: Path) -> None:
    good = '[[prompt_rules]]\nname = "home-assistant"\nkeys = ["SECRET"]\n'
    rules(good, home)
    assert "home-assistant" in output("config")
    shown = output("config") + output("config", "--json") + output("config", "get", "prompt_rules")
    assert '"keys": 1' in shown
    (home / "RKLLAMA" / "config.toml").write_text(f'{good}before = "x"\n')
    with pytest.raises(ConfigError) as raised:
        load_settings()
    for words in (("config",), ("config", "--json"), ("config", "get", "prompt_rules")):
        done = rkllama(*words)
        assert done.returncode == 1
        shown += done.stdout + done.stderr
    assert "before of the rule home-assistant" in shown
    assert "SECRET" not in shown + str(raised.value)


@pytest.mark.integration
def test_a_rule_is_set_by_a_command(home: Path) -> None:
    output("config", "set", "prompt_rules", "home-assistant")
    assert [rule.name for rule in load_settings().prompt_rules] == ["home-assistant"]
    assert "prompt_rules" in failure("config", "set", "prompt_rules", "unknown")


def test_a_modelfile_names_rules() -> None:
    parsed = parse_modelfile("FROM x\nPARAMETER prompt_rules home-assistant clock # mine\n")
    assert read_parameters(parsed.parameters).prompt_rules == ("home-assistant", "clock")
    with pytest.raises(ModelfileError, match="must be names of rules"):
        parse_modelfile("FROM x\nPARAMETER prompt_rules [clock]\n")


def test_which_rules_count() -> None:
    own = PromptRule(name="home-assistant", lines=("mine",), models=())
    every = PromptRule(name="clock", lines=("Time: *",))
    assert find_rules((own, every), (), "m", "") == ((every,), ())
    chosen, unknown = find_rules((own, every), ("home-assistant", "gone"), "m", "")
    assert set(chosen) == {own, every}
    assert unknown == ("gone",)
    ((built_in,), _) = find_rules((), ("home-assistant",), "m", "")
    assert built_in.lines == BUILT_IN["home-assistant"]


# --- Patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "matched"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "acb", False),
        ("ab*bc", "abc", False),
        ("*b*", "abc", True),
        ("*", "", True),
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("a*b*a*b", "a-ab-b", False),
        (".*", "abc", False),
        ("[a]*", "a", False),
    ],
)
def test_a_star_is_any_text(pattern: str, text: str, matched: bool) -> None:
    assert matches(pattern, text) is matched


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_patterns_match_what_the_regular_expression_does(pattern: str, text: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, text) is bool(re.fullmatch(expression, text))


def test_no_pattern_and_no_line_takes_long() -> None:
    started = time.process_time()
    assert not matches("*".join("a" * 250), "a" * 1_000_000 + "b")
    assert time.process_time() - started < 1.0


def test_the_lines_of_home_assistant_are_found() -> None:
    found = {}
    for label in ("assist kitchen", "assist bedroom", "plain kitchen", "assist phone"):
        text = recorded_prompt(label, "m")[1]["messages"][0]["content"]
        lines = [
            line
            for line in text.splitlines()
            if any(matches(pattern, line) for pattern in BUILT_IN["home-assistant"])
        ]
        found[label] = [" ".join(line.split()[:4]) for line in lines]
    assert found == {
        "assist kitchen": ["You are in area"],
        "assist bedroom": ["You are in area"],
        "plain kitchen": ["Current time is " + found["plain kitchen"][0].split()[-1]],
        "assist phone": ["When a user asks", "This device is not"],
    }
