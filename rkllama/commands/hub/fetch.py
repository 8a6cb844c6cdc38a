"""Fetching models by name: what was chosen, what has to be asked, and `run` of what is not here."""

import sys
from typing import TYPE_CHECKING

from ...console.terminal import Spinner, agreed, ask, can_ask, say
from ...errors import AmbiguousName, HubNotFound, InvalidRequest, ModelIncomplete, ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...config import Settings
    from ...hub.find import Plan
    from ...hub.offers import Offer
    from ...service import Service
    from ...types import PullProgress

_LISTED = 9
"""Candidates that a question lists."""


def pull_model(service: "Service", reference: str, *, unverified: bool = False) -> str:
    """Fetch a model with its progress on stderr; on a terminal ask which one is meant. Returns its name."""
    from ...console.progress import show_progress

    try:
        return show_progress(service.pull(reference, unverified=unverified), reference)
    except AmbiguousName as error:
        # Models that are here have no slash in their names; there is nothing to fetch.
        if not can_ask() or not all(name.count("/") >= 2 for name in error.candidates):
            raise
        say(f"{error.reason or error.name}:")
        picked = pick(error.candidates)
        if picked is None:
            raise
    picked = _named(picked, reference)
    return show_progress(service.pull(picked, unverified=unverified), picked)


def ensure_model(
    service: "Service", model: str, settings: "Settings", *, decision: bool | None
) -> str:
    """Return the name of a model that is here, having fetched it where the user wants that.

    `decision` True fetches without asking, False never, None asks on a terminal. Raises ModelNotFound.
    """
    if decision is False or not (decision or can_ask()):
        return model
    try:
        service.show(model)
    except ModelIncomplete as error:
        if decision or agreed(f"{error.message}. Continue it?", default=True):
            return pull_model(service, error.reference or model)
        raise
    except ModelNotFound as error:
        picked = _wanted(model, settings, error, decided=bool(decision))
        return pull_model(service, picked)
    return model


def show_candidates(settings: "Settings", reference: str, *, refresh: bool) -> None:
    """Print what `pull` would choose from, best first, and what it would choose."""
    from ...console.output import table, write_styled

    plan = _plan(settings, reference, refresh=refresh)
    head = ("FILE", "QUANT", "KIT", "SIZE", "SCORE", "")
    cells = [
        (
            one.offer.reference,
            one.offer.reading.quantization or "-",
            one.offer.reading.toolkit or "-",
            _human_size(one.offer.size, one.offer.guessed_size()),
            "-" if one.obstacle else str(one.score),
            "<" if one.offer == plan.choice.chosen else one.remark if not _on_terminal() else "",
        )
        for one in plan.choice.candidates
    ]
    if cells:
        write_styled(table(head, cells))
        sys.stdout.flush()
    chosen = plan.choice.chosen
    would = "" if chosen is None else f"Would fetch {chosen.reference}: "
    say(f"{would}{plan.choice.reason}")


def _wanted(model: str, settings: "Settings", error: ModelNotFound, *, decided: bool) -> str:
    """Return what to pull for a name that is not here. Raises `error` where that is nothing."""
    from ...errors import PullError

    if _is_file(model):
        if not decided and not agreed(f"{model} is not here. Fetch it?", default=True):
            raise error
        return model
    try:
        plan = _plan(settings, model, refresh=False)
    except (PullError, InvalidRequest) as problem:
        if decided:
            raise
        raise _explained(error, problem.message) from None
    choice = plan.choice
    if choice.chosen is not None:
        if not decided:
            say(f"{model} is not here. The Hub has it {choice.reason}:")
            _offer(choice.chosen, plan.remote.size if plan.remote else None, error)
        return _named(choice.chosen.reference, model)
    if choice.usable and can_ask():
        say(f"{model} is not here. On the Hub, {choice.reason}:")
        picked = pick([one.offer.reference for one in choice.usable])
        if picked is None:
            raise error
        return _named(picked, model)
    if decided and choice.usable:
        candidates = tuple(one.offer.reference for one in choice.usable[:_LISTED])
        raise AmbiguousName(model, candidates, reason=choice.reason)
    if decided:
        raise HubNotFound(
            choice.reason, hint=f"`rkllama search {model} --all` lists what there is."
        )
    other = _for_the_cpu(model, settings)
    if other is None:
        raise _explained(error, choice.reason)
    say(f"{model} is not here, and the Hub has it for the CPU only:")
    _offer(other, None, error)
    return _named(other.reference, model)


def _is_file(model: str) -> bool:
    """Return whether a name is that of one file on the Hub."""
    from ...hub.wanted import parse_wanted

    try:
        reference = parse_wanted(model).reference
    except InvalidRequest:
        return False
    return reference is not None and reference.file is not None


def _offer(offer: "Offer", size: int | None, error: ModelNotFound) -> None:
    """Ask whether to fetch a file. Raises `error` where the answer is no."""
    sys.stderr.write(f"  {offer.repo}\n  {offer.file}\n")
    if not agreed(f"Fetch it ({_human_size(size, offer.guessed_size())})?", default=True):
        raise error


def _for_the_cpu(model: str, settings: "Settings") -> "Offer | None":
    """Return the best .gguf of a name that has no .rkllm for this board, if there is one to be sure of."""
    from ...errors import PullError
    from ...hub.api import Hub
    from ...hub.find import Library, other_format
    from ...hub.wanted import parse_wanted

    try:
        return other_format(Hub(), parse_wanted(model), Library(cache=settings.cache)).chosen
    except PullError:
        return None


def _explained(error: ModelNotFound, reason: str) -> ModelNotFound:
    """Return the error with what the Hub has to say to it."""
    first = f"{error.hint} " if error.hint else ""
    error.hint = f"{first}Not on the Hub either: {reason}."
    return error


def _plan(settings: "Settings", text: str, *, refresh: bool) -> "Plan":
    """Ask the Hub what a name means here. Raises PullError, InvalidRequest."""
    from ...board.soc import read_soc
    from ...hub.api import Hub
    from ...hub.find import Library, find, find_in_repository
    from ...hub.offers import this_board
    from ...hub.search import finish
    from ...hub.wanted import parse_wanted

    hub, board = Hub(), this_board(read_soc())
    wanted = parse_wanted(text, hub.endpoint)
    if wanted.reference is not None:
        return find_in_repository(hub, wanted, board)
    where = Library(cache=settings.cache, models=settings.models)
    with Spinner("Asking the Hub…") as spinner:

        def tell(step: "PullProgress") -> None:
            spinner.text = f"Asking the Hub: {step.file}"

        return finish(find(hub, wanted, board, where, refresh=refresh), tell)


# --- Questions ---------------------------------------------------------------------------------


def pick(references: "Sequence[str]") -> str | None:
    """Have the user pick a file from a numbered list; None for none of them."""
    from ...hub.reading import read_names

    listed = references[:_LISTED]
    for number, reference in enumerate(listed, 1):
        user, repo, file = reference.split("/", 2)
        reading = read_names(file, f"{user}/{repo}")
        facts = (reading.size, reading.quantization, reading.platform, reading.variant)
        told = " ".join(fact for fact in facts if fact) or "-"
        sys.stderr.write(f"{number:>2}  {told}, {user}/{repo}\n    {file}\n")
    answer = ask(f"Which one? [1-{len(listed)}, Enter: none] ").strip()
    return listed[int(answer) - 1] if answer in map(str, range(1, len(listed) + 1)) else None


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _named(reference: str, text: str) -> str:
    """Return a reference to a file under the name that was typed."""
    from ...hub.wanted import parse_wanted

    name = parse_wanted(text).name
    return reference if name is None else f"{reference}/{name}"


def _human_size(size: int | None, guessed: int | None) -> str:
    from ...console.output import human_size

    return human_size(size) if size is not None else f"~{human_size(guessed)}" if guessed else "-"
