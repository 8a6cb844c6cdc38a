"""Which boards may get a request: by the model that it names, in whatever way clients write that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

EVERYWHERE = "boards"
"""HAProxy's name for all boards, which get what is for no smaller group."""
_MOST_GROUPS = 32
"""Groups of boards that a configuration has; models of further ones may be sent to any board."""
_LONGEST = 256


class Group(NamedTuple):
    """Boards that have the same model, and so share the requests for it."""

    name: str
    boards: tuple[str, ...]


class Routes(NamedTuple):
    """Where requests go."""

    groups: tuple[Group, ...]
    """The first one is all boards, unless there are none."""
    models: dict[str, str]
    """The group of each model that not all boards have, by each spelling in small letters."""
    left_out: tuple[str, ...] = ()
    """Models that cannot be told apart by HAProxy, because of their names or their number."""


def plan_routes(boards: Sequence[str], names: Mapping[str, Sequence[str]]) -> Routes:
    """Return the routes to `boards`, each of which has the models and aliases in `names`.

    Boards of which nothing is known have no entry there, and get no request for a model that others have.
    """
    holders: dict[str, set[str]] = {}
    for board in boards:
        for name in names.get(board, ()):
            for spelling in spellings(name):
                holders.setdefault(spelling, set()).add(board)
    groups = {frozenset(boards): Group(EVERYWHERE, tuple(boards))}
    models: dict[str, str] = {}
    left_out = {name for own in names.values() for name in own if not spellings(name)}
    for spelling, owners in sorted(holders.items()):
        group = groups.get(frozenset(owners))
        if group is None:
            if len(groups) > _MOST_GROUPS:
                left_out.add(spelling)
                continue
            members = tuple(board for board in boards if board in owners)
            group = Group(f"{EVERYWHERE}-{len(groups)}", members)
            groups[frozenset(owners)] = group
        models[spelling] = group.name
    return Routes(tuple(groups.values()), models, tuple(sorted(left_out)))


def spellings(name: str) -> set[str]:
    """Return how clients write a model's name, in small letters; none for one that no line can hold."""
    if not 0 < len(name) <= _LONGEST or not name.isprintable() or " " in name or name[0] == "#":
        return set()
    plain = lower(name).removesuffix(":latest")
    bare = plain.removesuffix(".rkllm").removesuffix(".gguf")
    tagless = {bare.replace(":", "-")} if ":" in bare else set()
    if not bare or bare[0] == "#":
        return set()
    return {plain, bare, *tagless, *({f"{bare}:latest"} if ":" not in bare else ())}


def lower(name: str) -> str:
    """Return a name as HAProxy's `lower` has it: it knows the letters of ASCII."""
    return "".join(char.lower() if char.isascii() else char for char in name)
