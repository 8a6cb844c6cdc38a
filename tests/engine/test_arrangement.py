"""A request arranged for its prompt, and the prompt that is made of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rkllama.api.common import Generation
from rkllama.api.ollama import decode_chat
from rkllama.chat.families import FAMILIES
from rkllama.chat.template import render_here
from rkllama.config import load_settings
from rkllama.engine import prompt as prompts
from rkllama.engine.arrangement import Arranged, Arranger
from rkllama.engine.metrics import Metrics
from rkllama.engine.prompt import build_prompt
from rkllama.models.metadata import StoredModel
from rkllama.models.modelfile import Modelfile
from rkllama.service import Caller
from rkllama.settings.prompt_rules import built_in
from rkllama.types import ChatRequest, Message, ModelInfo, TemplateSource
from tests.chat_templates import ALL
from tests.home_assistant import recorded_prompt

RULE = "home-assistant"
INFO = ModelInfo(name="m", file="m.rkllm", path="/m.rkllm", format="rkllm", size=1, modified=0.0)
MODEL = StoredModel(info=INFO, modelfile=Modelfile())
AREA = "You are in area X and all generic commands are for it."
SYSTEM = f"Be kind.\n{AREA}\nBe brief."


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def arranger(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Arranger:
    monkeypatch.setenv("RKLLAMA_PROMPT_RULES", RULE)
    return Arranger(load_settings(), metrics)


def arranged(arranger: Arranger, model: StoredModel = MODEL, **fields: object) -> Arranged:
    return arranger.arrange(ChatRequest(model="m", **fields), model, Caller())  # type: ignore[arg-type]


MODELS = [
    *(replace(MODEL, info=replace(INFO, family=family.prefixes[0])) for family in FAMILIES),
    *(replace(MODEL, template=TemplateSource(source=ALL[name], origin=name)) for name in ALL),
]


@pytest.mark.parametrize(
    "model", MODELS, ids=lambda model: model.info.family or model.template.origin
)
def test_satellites_share_their_prompt_with_every_template(
    model: StoredModel, arranger: Arranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.engine.template_process.render", render_here)
    texts = []
    for label in ("assist kitchen", "assist bedroom"):
        decoded = decode_chat(recorded_prompt(label, "m")[1])
        assert isinstance(decoded, Generation)
        request, moved = arranger.arrange(decoded.request, model, Caller())
        texts.append(build_prompt(request, model, moved=moved).text)
    pairs = enumerate(zip(*texts, strict=False))
    common = next(at for at, (one, other) in pairs if one != other)
    assert common >= 0.98 * len(texts[1])


def test_a_system_text_of_its_own_is_arranged_too(arranger: Arranger) -> None:
    request, moved = arranged(arranger, system=SYSTEM, prompt="Hello")
    assert request.system == "Be kind.\nBe brief."
    assert AREA in build_prompt(request, MODEL, moved=moved).text.partition("Hello")[0]


def test_a_prompt_that_goes_as_it_is_is_left(arranger: Arranger) -> None:
    assert arranged(arranger, system=SYSTEM, prompt="Hello", raw=True).moved == ()


def test_without_a_user_nothing_is_moved(arranger: Arranger, metrics: Metrics) -> None:
    messages = (Message.of("system", SYSTEM), Message.of("assistant", "Hello"))
    assert arranged(arranger, messages=messages).request.messages == messages
    assert all(sample.endswith(" 0") for sample in metrics.rule_requests.samples())


def test_only_the_system_messages_at_the_beginning_are_arranged(arranger: Arranger) -> None:
    messages = (
        Message.of("system", AREA),
        Message.of("system", "Be kind."),
        Message.of("user", AREA),
        Message.of("system", AREA),
    )
    request, moved = arranged(arranger, messages=messages)
    assert request.messages == messages[1:]
    assert [line.text for line in moved] == [AREA]


def test_a_modelfile_s_own_system_text_stays(arranger: Arranger) -> None:
    model = replace(MODEL, system=SYSTEM)
    request, moved = arranged(arranger, model, messages=(Message.of("user", "Hello"),))
    assert moved == ()
    assert SYSTEM in build_prompt(request, model, runtime_wraps=False).text


def test_lines_come_after_the_turns_of_a_modelfile(arranger: Arranger) -> None:
    model = replace(MODEL, messages=(Message.of("user", "Q"), Message.of("assistant", "A")))
    messages = (Message.of("system", SYSTEM), Message.of("user", "Hello"))
    request, moved = arranged(arranger, model, messages=messages)
    users = [m.text for m in prompts.conversation(request, model, moved=moved) if m.role == "user"]
    assert users == ["Q", f"{AREA}\n\nHello"]


def test_requests_and_lines_are_counted(arranger: Arranger, metrics: Metrics) -> None:
    text = f"{SYSTEM}\nThis device is not able to start timers."
    messages = (Message.of("system", text), Message.of("user", "Hello"))
    arranged(arranger, messages=messages)
    arranger.arrange(ChatRequest(messages=messages), MODEL, Caller(), count=False)
    (requests,), (lines,) = metrics.rule_requests.samples(), metrics.rule_lines.samples()
    assert requests == 'rkllama_prompt_rule_requests_total{rule="home-assistant"} 1'
    assert lines == 'rkllama_prompt_rule_lines_total{rule="home-assistant"} 2'


@pytest.mark.usefixtures("arranger")
def test_a_rule_that_has_moved_nothing_is_counted_too(metrics: Metrics) -> None:
    (requests,), (lines,) = metrics.rule_requests.samples(), metrics.rule_lines.samples()
    assert requests == 'rkllama_prompt_rule_requests_total{rule="home-assistant"} 0'
    assert lines == 'rkllama_prompt_rule_lines_total{rule="home-assistant"} 0'


def test_a_demanded_format_has_its_order(arranger: Arranger) -> None:
    schema = {"required": ["b"], "properties": {"b": {}, "a": {}}, "type": "object"}
    texts = set()
    for seed in range(5):
        names = random.Random(seed).sample(sorted(schema), len(schema))
        request, _ = arranged(
            arranger,
            format={name: schema[name] for name in names},
            messages=(Message.of("user", "Hello"),),
        )
        texts.add(str(request.format))
    assert len(texts) == 1


def test_a_key_that_no_client_can_have_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rule = built_in(RULE)
    assert rule is not None
    settings = load_settings({"api_keys": "a"})
    object.__setattr__(settings, "prompt_rules", (replace(rule, keys=("a", "SECRET")),))
    Arranger(settings, Metrics())
    assert "1 API key" in caplog.text
    assert "SECRET" not in caplog.text
