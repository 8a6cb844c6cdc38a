"""From what somebody asked for to one file on the Hub, or to a question that only they can answer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from ..errors import AmbiguousName, HubNotFound, InvalidRequest, PullError, Unsupported
from ..models.reference import choose_file
from ..types import PullProgress
from .api import Hub, RemoteFile, Repository
from .choice import SHOWN, Candidate, Choice, choose, choose_in_repository
from .offers import Board, Offer, offers_of
from .search import Found, finish, questions, search
from .wanted import Wanted

_ROUNDS = 4
"""Files whose size is asked for, until one fits the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Where answers of the Hub are kept, and where models lie; None for a search that keeps nothing."""

    cache: str | None = None
    models: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A choice with the chosen file's announcement, None where nothing was chosen; what was not answered."""

    choice: Choice
    remote: RemoteFile | None = None
    failures: tuple[str, ...] = ()


def find(
    hub: Hub, wanted: Wanted, board: Board, where: Library = Library(), *, refresh: bool = False
) -> Generator[PullProgress, None, Plan]:
    """Search for a name that was typed and return the plan; raises PullError, not for want of a choice."""
    found = Found()
    asked = questions(wanted.text, board.format, board.soc)
    steps = search(hub, asked, cache=where.cache, refresh=refresh, models=where.models)
    while True:
        try:
            label = next(steps)
        except StopIteration as stop:
            found = stop.value
            break
        yield PullProgress(status="resolving", file=label)
    offers = list(found.offers)
    choice = choose(wanted, offers, board)
    remote = None
    for _ in range(_ROUNDS):
        if choice.chosen is None:
            break
        remote = _announced(hub, choice.chosen)
        sized = replace(choice.chosen, size=remote.size)
        offers = [sized if offer is choice.chosen else offer for offer in offers]
        choice = choose(wanted, offers, board)
        if choice.chosen == sized:
            return Plan(choice=choice, remote=remote, failures=found.failures)
    if choice.chosen is not None:
        choice = replace(choice, chosen=None)
    return Plan(choice=choice, failures=found.failures)


def find_in_repository(hub: Hub, wanted: Wanted, board: Board) -> Plan:
    """Return what `file_in` would choose from. Raises PullError, InvalidRequest for one file."""
    target = wanted.reference
    assert target is not None
    if target.file is not None:
        raise InvalidRequest(f"{wanted.text} is one file: there is no choice", param="model")
    repository = hub.repository(target.repo, target.revision)
    tagged = target.tagged(repository.files)
    wanted = replace(wanted, text=repository.id)
    return Plan(choice=choose_in_repository(wanted, offers_of(repository.id, tagged), board))


def _announced(hub: Hub, offer: Offer) -> RemoteFile:
    return hub.file(Repository(id=offer.repo, revision="main"), offer.file)


def other_format(
    hub: Hub, wanted: Wanted, where: Library = Library(), *, refresh: bool = False
) -> Choice:
    """Return what there is of a name as .gguf, for a board that has no .rkllm of it."""
    steps = search(hub, questions(wanted.text, "gguf", None), cache=where.cache, refresh=refresh)
    return choose(wanted, finish(steps).offers, Board())


def settled(
    hub: Hub, wanted: Wanted, plan: Plan, board: Board, where: Library = Library()
) -> Offer:
    """Return the chosen file. Raises AmbiguousName with the candidates, HubNotFound with the reason."""
    choice = plan.choice
    if choice.chosen is not None:
        return choice.chosen
    missed = f"; not answered: {plan.failures[0]}" if plan.failures else ""
    if choice.usable:
        raise AmbiguousName(
            wanted.text, _references(choice.usable), reason=f"{choice.reason}{missed}"
        )
    raise HubNotFound(f"{choice.reason}{missed}", hint=_elsewhere(hub, wanted, board, where))


def _elsewhere(hub: Hub, wanted: Wanted, board: Board, where: Library) -> str:
    hint = f"`rkllama search {wanted.text} --all` lists what there is."
    if board.format != "rkllm":
        return hint
    try:
        choice = other_format(hub, wanted, where)
    except PullError:
        return hint
    best = choice.chosen or (choice.usable[0].offer if choice.usable else None)
    if best is None:
        return hint
    return f"It is there as .gguf, for the CPU: rkllama pull {best.reference}"


def _references(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(one.offer.reference for one in candidates[:SHOWN])


def file_in(repository: Repository, wanted: Wanted, board: Board | None) -> tuple[str, str | None]:
    """Return the file of a repository that a reference means: the one that it names, else its only model,
    else the best for the board, with what is to be said of that choice.

    Raises what models.reference.choose_file raises, and Unsupported where all are for other SoCs.
    """
    target = wanted.reference
    assert target is not None
    if target.file is not None or board is None or board.soc is None:
        file = choose_file(repository.files, target)
        return file, _warning(repository.id, file, board)
    offers = list(offers_of(repository.id, target.tagged(repository.files)))
    choice = choose_in_repository(replace(wanted, text=repository.id), offers, board)
    if len(offers) > 1 and choice.chosen is not None:
        return choice.chosen.file, f"chose {choice.chosen.file}: {choice.reason}"
    foreign = [one for one in choice.candidates if _is_foreign(one.offer, board)]
    if offers and len(foreign) == len(offers):
        raise Unsupported(
            f"{repository.id} has no file for {board.soc}: {foreign[0].remark}",
            hint="To fetch it all the same, name the file: rkllama pull USER/REPO/FILE",
        )
    if len(offers) > 1 and len(choice.usable) > 0:
        raise AmbiguousName(repository.id, _references(choice.usable), reason=choice.reason)
    return choose_file(repository.files, target), None


def _warning(repo: str, file: str, board: Board | None) -> str | None:
    """Return what is to be said of a file that was named in full but is for another board."""
    for offer in offers_of(repo, [file]) if board is not None and board.soc else ():
        if board is not None and _is_foreign(offer, board):
            platform = (offer.reading.platform or "").upper()
            return f"{file} is for {platform}, and this is an {board.soc}: it will not run here"
    return None


def _is_foreign(offer: Offer, board: Board) -> bool:
    return offer.format == "rkllm" and offer.reading.platform not in (None, board.platform)
