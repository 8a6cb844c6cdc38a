"""What the disk has to do with a request's runs: a saved conversation is loaded, and this one is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..backends.base import reuses_cache
from ..config import Settings
from ..models.metadata import StoredModel
from ..runner.keeping import run_extra
from ..service import Caller
from ..states.visit import Visit, begin
from ..types import ChatRequest
from .memory.resident import Turn
from .prompt import Prompt, tools_for
from .slots import keep_slot, take_slot


@dataclass(frozen=True, slots=True)
class Keeping:
    """Conversations on disk, as one request meets them."""

    turn: Turn
    model: StoredModel
    request: ChatRequest
    settings: Settings
    caller: Caller

    def begin(self, prompt: Prompt) -> Visit | None:
        """Return what the disk has to do with a run; a saved conversation is loaded where that pays."""
        resident, conversations = self.turn.resident, self.turn.conversations
        if conversations is None:
            return None
        reuses = True
        if resident.ready.slots:
            digest = self.model.info.digest
            text = prompt.text_with_digests
            conversations = take_slot(self.turn, text, digest, self.settings, self.caller)
            reuses = reuses_cache(self.request.sampling.over(self.model.sampling))
        if not (prompt.raw and reuses) or prompt.images:
            conversations.forget()
            return None
        visit = begin(
            conversations,
            prompt.text,
            digest=self.model.info.digest,
            owner=self.caller.owner,
            control_tokens=prompt.template.control_tokens if prompt.template else (),
            tokens_per_character=resident.tokens_per_character,
            alone=self.request.prompt is not None,
        )
        if visit is not None and (path := visit.path()) is not None:
            self._restore(visit, path)
        return visit

    def _restore(self, visit: Visit, path: str) -> None:
        """Have the runtime load a saved conversation."""
        resident, load = self.turn.resident, visit.load
        assert load is not None, "it has a path"
        started = time.monotonic()
        timeout = self.settings.prompt_timeout(load.header.length)
        try:
            resident.raw = True
            taken = self.turn.lane.restore(
                path, load.header.tokens, timeout=timeout, caller=self.caller
            )
        except BaseException:
            self.leave(visit)
            raise
        visit.loaded(taken, time.monotonic() - started)
        if resident.tokens_per_character is None:
            resident.tokens_per_character = visit.tokens_per_character

    def leave(self, visit: Visit) -> None:
        """End a visit whose run may have ended, or not, or with the model's process."""
        worker = self.turn.resident.worker
        if worker.dead and not worker.retired:
            visit.failed()
        else:
            visit.give_up()

    def keep_slot(self, visit: Visit) -> None:
        """Have a slot of the CPU's written to the disk after its run, where it is to be kept."""
        if self.turn.resident.ready.slots and visit.has_ended:
            keep_slot(self.turn, visit, self.settings)

    def state_file(self, visit: Visit | None) -> str | None:
        """Return where the run is to write the conversation's state, if it is to be kept."""
        if visit is None:
            return None
        self._pin(visit)
        if self.turn.resident.ready.slots:  # it is written after the run
            return None
        messages = self.request.messages
        goes_on = bool(tools_for(self.request)) and bool(messages) and messages[-1].role == "user"
        return visit.draft(goes_on=goes_on)

    def _pin(self, visit: Visit) -> None:
        """Keep what the conversation begins with, where others began like that: see Visit.pin."""
        resident = self.turn.resident
        if resident.ready.slots and resident.has_company:  # it would stop the others' answers
            return
        if (extra := visit.pin()) is not None:
            timeout = self.settings.prompt_timeout(len(extra.text))
            visit.pinned(run_extra(self.turn.lane, extra, timeout, self.caller))
