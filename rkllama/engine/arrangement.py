"""A request arranged so that its prompt begins as the one before did: tools in order, changing lines last."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..chat.moving import MovedLine, take_lines
from ..chat.ordering import Orders
from ..config import Settings
from ..models.metadata import StoredModel
from ..service import Caller
from ..settings.prompt_rules import PromptRule, find_rules
from ..types import ChatRequest, Message
from .metrics import Metrics

log = logging.getLogger("rkllama")


class Arranged(NamedTuple):
    """A request without the lines that move, and these."""

    request: ChatRequest
    moved: tuple[MovedLine, ...] = ()


class Arranger:
    """Arranges the requests of an engine. It can be used by several threads."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._rules: tuple[PromptRule, ...] = settings.prompt_rules
        self._metrics = metrics
        self._orders = Orders()
        self._told: set[str] = set()
        for rule in self._rules:
            metrics.rule_requests.add(0, rule.name)  # one that matches nothing is seen, too
            metrics.rule_lines.add(0, rule.name)
            if unknown := len({*(rule.keys or ())} - {*settings.api_keys}):
                log.warning(
                    "the prompt rule %s has %d API key%s that api_keys does not have",
                    rule.name,
                    unknown,
                    "" if unknown == 1 else "s",
                )

    def arrange(
        self, request: ChatRequest, model: StoredModel, caller: Caller, *, count: bool = True
    ) -> Arranged:
        """Return a request for a model, arranged; `count`: the lines that move are counted in /metrics."""
        if request.tools:
            request = replace(request, tools=self._orders.tools(request.tools, caller.key))
        if isinstance(request.format, Mapping):
            request = replace(request, format=self._orders.schema(request.format, caller.key))
        rules = self._find_rules(model, caller)
        if not rules or not _has_place(request):
            return Arranged(request)
        arranged = _without_lines(request, rules)
        if count:
            for name, lines in Counter(line.rule for line in arranged.moved).items():
                self._metrics.rule_requests.add(1, name)
                self._metrics.rule_lines.add(lines, name)
        return arranged

    def _find_rules(self, model: StoredModel, caller: Caller) -> tuple[PromptRule, ...]:
        if not self._rules and not model.prompt_rules:
            return ()
        rules, unknown = find_rules(self._rules, model.prompt_rules, model.info.name, caller.key)
        for name in unknown:
            notice = f"{model.info.name}: its Modelfile names the prompt rule {name}, which is not set here"
            if notice not in self._told:
                self._told.add(notice)
                log.warning("%s", notice)
        return rules


def _has_place(request: ChatRequest) -> bool:
    """Return whether there is a message of the user's to move lines into."""
    if request.prompt is not None:
        return request.raw is not True
    return any(message.role == "user" for message in request.messages)


def _without_lines(request: ChatRequest, rules: tuple[PromptRule, ...]) -> Arranged:
    messages = request.messages
    start = next((n for n, m in enumerate(messages) if m.role != "system"), len(messages))
    before = [message.text for message in messages[:start]]
    texts, moved = take_lines([request.system or "", *before], rules)
    if not moved:
        return Arranged(request)
    head = tuple(Message.of("system", text) for text in texts[1:] if text.strip())
    system = None if request.system is None else texts[0]
    return Arranged(replace(request, system=system, messages=(*head, *messages[start:])), moved)
