"""Regular expressions as automata over code points, made as far as a text walks through them.

A `Spot` is a place in an automaton: immutable to its users, shared, and it never leads to a dead end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from .characters import ALL, LAST, Ranges
from .patterns import Characters, Choice, Edge, PatternError, Repeat, Tree, parse
from .patterns import Sequence as InOrder

_MAX_STATES = 4_100
"""Of one automaton: `{1,2000}` has some thousands."""
_MAX_KEPT = 20_000
"""Spots of one automaton that are kept for the next text."""
Edges = Sequence[tuple[int, int, "Spot"]]
"""First and last code point, and where they lead: in order, apart from each other."""


class Spot:
    """A place in an automaton from which some text leads to its end."""

    __slots__ = ("_edges", "_next", "accepting", "longest", "shortest")

    accepting: bool
    """Whether the text may end here."""
    shortest: int
    """Characters to the nearest end."""
    longest: float
    """Characters to the farthest end, math.inf where there is none."""

    def __init__(self, accepting: bool, shortest: int, longest: float) -> None:
        self.accepting = accepting
        self.shortest = shortest
        self.longest = longest
        self._edges: Edges | None = None
        self._next: dict[str, Spot | None] = {}

    def step(self, char: str) -> Spot | None:
        """Return where a character leads; None where it cannot come."""
        try:
            return self._next[char]
        except KeyError:
            pass
        code = ord(char)
        edges = self.edges()
        at = bisect_right(edges, code, key=lambda edge: edge[0]) - 1
        found = edges[at][2] if at >= 0 and code <= edges[at][1] else None
        if len(self._next) < 1000:
            self._next[char] = found
        return found

    def targets(self, low: int, high: int) -> Iterator[Spot]:
        """Yield where the code points from `low` to `high` lead."""
        edges = self.edges()
        at = bisect_right(edges, high, key=lambda edge: edge[0]) - 1
        while at >= 0 and edges[at][1] >= low:
            yield edges[at][2]
            at -= 1

    def only_character(self) -> str | None:
        """Return the character that has to come, where there is just one and no end."""
        edges = self.edges()
        if self.accepting or len(edges) != 1 or edges[0][0] != edges[0][1]:
            return None
        return chr(edges[0][0])

    def edges(self) -> Edges:
        """Return where this spot leads."""
        if self._edges is None:
            self._edges = self._find_edges()
        return self._edges

    def _find_edges(self) -> Edges:
        return ()


def compile_pattern(pattern: str, *, search: bool = True) -> Spot | None:
    """Return where a pattern's automaton begins; None where no text matches.

    `search` looks for the pattern anywhere in the text, as JSON schema does. Raises PatternError.
    """
    tree = parse(pattern)
    if _size(tree) > _MAX_STATES:
        raise PatternError("is too large for an automaton")
    return _Automaton(tree, search).begin()


def matches(spot: Spot | None, text: str) -> bool:
    """Return whether a whole text is one of an automaton's."""
    for char in text:
        if spot is None:
            return False
        spot = spot.step(char)
    return spot is not None and spot.accepting


def _size(tree: Tree) -> int:
    if isinstance(tree, Choice | InOrder):
        return 1 + sum(map(_size, tree.parts))
    if isinstance(tree, Repeat):
        inner = _size(tree.part)
        return 1 + (inner + 1) * (tree.least + 1 if tree.most is None else tree.most)
    return 1


class _Automaton:
    """States without a choice of what comes first: each has at most one set of characters, and moves that
    take none.
    """

    def __init__(self, tree: Tree, search: bool) -> None:
        self._moves: list[list[int]] = []
        self._at_begin: list[list[int]] = []
        self._at_end: list[list[int]] = []
        self._characters: list[tuple[Ranges, int] | None] = []
        self._spots: dict[frozenset[int], Spot] = {}
        self._end = self._new()
        self._sink = self._new(self._end)
        if search:
            self._characters[self._sink] = (ALL, self._sink)
        entry = self._build(tree, self._sink)
        self._first = self._new(entry)
        if search:
            self._characters[self._first] = (ALL, self._first)
        self._ends = self._states_at_end()
        self._shortest = self._distances()
        self._longest = self._lengths()

    def _new(self, *moves: int) -> int:
        self._moves.append(list(moves))
        self._at_begin.append([])
        self._at_end.append([])
        self._characters.append(None)
        return len(self._moves) - 1

    def _build(self, tree: Tree, after: int) -> int:
        """Return the first state of a tree that goes on with the state `after`."""
        if isinstance(tree, Characters):
            state = self._new()
            self._characters[state] = (tree.ranges, after)
            return state
        if isinstance(tree, Edge):
            state = self._new()
            (self._at_end if tree.at_end else self._at_begin)[state].append(after)
            return state
        if isinstance(tree, InOrder):
            for part in reversed(tree.parts):
                after = self._build(part, after)
            return after
        if isinstance(tree, Choice):
            return self._new(*(self._build(part, after) for part in tree.parts))
        return self._build_repeat(tree, after)

    def _build_repeat(self, tree: Repeat, after: int) -> int:
        entry = after
        if tree.most is None:
            entry = self._new(after)
            self._moves[entry].insert(0, self._build(tree.part, entry))
        else:
            for _ in range(tree.most - tree.least):
                entry = self._new(self._build(tree.part, entry), after)
        for _ in range(tree.least):
            entry = self._build(tree.part, entry)
        return entry

    # --- What is known of each state ------------------------------------------------------------

    def _states_at_end(self) -> list[bool]:
        """Whether each state may be the last of the text."""
        before: list[list[int]] = [[] for _ in self._moves]
        for state, (moves, at_end) in enumerate(zip(self._moves, self._at_end, strict=True)):
            for target in (*moves, *at_end):
                before[target].append(state)
        ends = [False] * len(before)
        waiting = [self._end]
        while waiting:
            state = waiting.pop()
            if not ends[state]:
                ends[state] = True
                waiting += before[state]
        return ends

    def _distances(self) -> list[float]:
        """The characters from each state to the nearest end; math.inf where there is none."""
        before: list[list[tuple[int, int]]] = [[] for _ in self._moves]
        for state, moves in enumerate(self._moves):
            for target in moves:
                before[target].append((state, 0))
            if (edge := self._characters[state]) and edge[0]:
                before[edge[1]].append((state, 1))
        distances = [math.inf] * len(before)
        waiting = deque((state, 0) for state, ends in enumerate(self._ends) if ends)
        while waiting:
            state, distance = waiting.popleft()
            if distance >= distances[state]:
                continue
            distances[state] = distance
            for origin, cost in before[state]:
                if cost:
                    waiting.append((origin, distance + 1))
                else:
                    waiting.appendleft((origin, distance))
        return distances

    def _lengths(self) -> list[float]:
        """The characters from each state to the farthest end; math.inf where there is none."""
        alive = [distance < math.inf for distance in self._shortest]
        after: list[list[tuple[int, int]]] = []
        before: list[list[int]] = [[] for _ in self._moves]
        for state, moves in enumerate(self._moves):
            targets = [(target, 0) for target in moves if alive[target]]
            if (edge := self._characters[state]) and edge[0] and alive[edge[1]]:
                targets.append((edge[1], 1))
            after.append(targets)
            for target, _ in targets:
                before[target].append(state)
        open_targets = list(map(len, after))
        lengths = [math.inf] * len(after)
        waiting = [state for state, count in enumerate(open_targets) if not count]
        while waiting:  # what is never taken from here lies before a circle
            state = waiting.pop()
            lengths[state] = max(
                (cost + lengths[target] for target, cost in after[state]), default=0
            )
            for origin in before[state]:
                open_targets[origin] -= 1
                if not open_targets[origin]:
                    waiting.append(origin)
        return lengths

    # --- Spots ----------------------------------------------------------------------------------

    def begin(self) -> Spot | None:
        members = self._closure([self._first], at_begin=True)
        accepting = self._is_empty_accepted()
        return self._spot(members, accepting)

    def _is_empty_accepted(self) -> bool:
        seen: set[int] = set()
        waiting = [self._first]
        while waiting:
            state = waiting.pop()
            if state not in seen:
                seen.add(state)
                waiting += self._moves[state] + self._at_begin[state] + self._at_end[state]
        return self._end in seen

    def _closure(self, states: Iterable[int], *, at_begin: bool = False) -> frozenset[int]:
        """The states that are reached without a character, but for those that lead nowhere."""
        seen: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state not in seen:
                seen.add(state)
                waiting += self._moves[state]
                if at_begin:
                    waiting += self._at_begin[state]
        if self._sink in seen and self._characters[self._sink]:
            return frozenset((self._sink,))  # whatever comes, it has matched
        kept = self._characters
        return frozenset(
            state
            for state in seen
            if self._shortest[state] < math.inf and (kept[state] or self._ends[state])
        )

    def spot_after(self, states: frozenset[int]) -> Spot | None:
        found = self._spots.get(states)
        if found is None:
            found = self._spot(self._closure(states))
            if found is not None and len(self._spots) < _MAX_KEPT:
                self._spots[states] = found
        return found

    def _spot(self, members: frozenset[int], accepting: bool | None = None) -> Spot | None:
        if accepting is None:
            accepting = any(self._ends[state] for state in members)
        shortest = min((self._shortest[state] for state in members), default=math.inf)
        if accepting:
            shortest = 0
        if shortest == math.inf:
            return None
        longest = max((self._longest[state] for state in members), default=0.0)
        return _LazySpot(self, members, accepting, int(shortest), longest)

    def edges_of(self, members: frozenset[int]) -> Edges:
        edges = [edge for state in members if (edge := self._characters[state])]
        found: list[tuple[int, int, Spot]] = []
        for low, high, targets in _overlaid(edges):
            spot = self.spot_after(targets)
            if spot is None:
                continue
            if found and found[-1][2] is spot and found[-1][1] == low - 1:
                found[-1] = found[-1][0], high, spot
            else:
                found.append((low, high, spot))
        return found


def _overlaid(edges: list[tuple[Ranges, int]]) -> Iterable[tuple[int, int, frozenset[int]]]:
    """Yield the ranges in which the same states are reached, with those states."""
    if len(edges) == 1:
        targets = frozenset((edges[0][1],))
        yield from ((low, high, targets) for low, high in edges[0][0])
        return
    changes: dict[int, list[tuple[int, int]]] = {}
    for these, target in edges:
        for low, high in these:
            changes.setdefault(low, []).append((target, 1))
            changes.setdefault(high + 1, []).append((target, -1))
    points = sorted(changes)
    active: dict[int, int] = {}
    for at, point in enumerate(points):
        for target, change in changes[point]:
            active[target] = active.get(target, 0) + change
            if not active[target]:
                del active[target]
        if active:
            last = points[at + 1] - 1 if at + 1 < len(points) else LAST
            yield point, last, frozenset(active)


class _LazySpot(Spot):
    """A spot whose edges are found when a text comes by."""

    __slots__ = ("_automaton", "_members")

    def __init__(
        self,
        automaton: _Automaton,
        members: frozenset[int],
        accepting: bool,
        shortest: int,
        longest: float,
    ) -> None:
        super().__init__(accepting, shortest, longest)
        self._automaton = automaton
        self._members = members

    def _find_edges(self) -> Edges:
        return self._automaton.edges_of(self._members)


class _PlainSpot(Spot):
    """A spot whose edges are given."""

    __slots__ = ()

    def lead(self, edges: Edges) -> None:
        self._edges = edges


def intersection(first: Spot, second: Spot, most: int) -> tuple[Spot | None, int]:
    """Return where the automaton of the texts of both begins, None where there are none, and its size.

    Raises PatternError where it has more than `most` spots.
    """
    spots = {(first, second): _PlainSpot(first.accepting and second.accepting, 0, math.inf)}
    leads: dict[Spot, list[tuple[int, int, _PlainSpot]]] = {}
    waiting = [(first, second)]
    while waiting:
        pair = waiting.pop()
        leads[spots[pair]] = lead = []
        for low, high, target in _common(pair[0].edges(), pair[1].edges()):
            if target not in spots:
                accepting = target[0].accepting and target[1].accepting
                spots[target] = _PlainSpot(accepting, 0, math.inf)
                waiting.append(target)
            lead.append((low, high, spots[target]))
        if len(spots) > most:
            raise PatternError("is too large for an automaton, together with what else is demanded")
    return _without_dead_ends(spots[first, second], leads), len(spots)


def _common(first: Edges, second: Edges) -> Iterable[tuple[int, int, tuple[Spot, Spot]]]:
    at, other = 0, 0
    while at < len(first) and other < len(second):
        low = max(first[at][0], second[other][0])
        high = min(first[at][1], second[other][1])
        if low <= high:
            yield low, high, (first[at][2], second[other][2])
        if first[at][1] < second[other][1]:
            at += 1
        else:
            other += 1


def _without_dead_ends(
    begin: _PlainSpot, leads: dict[Spot, list[tuple[int, int, _PlainSpot]]]
) -> Spot | None:
    before: dict[Spot, list[Spot]] = {}
    for spot, lead in leads.items():
        for _, _, target in lead:
            before.setdefault(target, []).append(spot)
    alive: set[Spot] = set()
    waiting: deque[tuple[Spot, int]] = deque((spot, 0) for spot in leads if spot.accepting)
    while waiting:
        spot, distance = waiting.popleft()
        if spot not in alive:
            alive.add(spot)
            spot.shortest = distance
            waiting += ((origin, distance + 1) for origin in before.get(spot, ()))
    if begin not in alive:
        return None
    count: dict[Spot, int] = {}
    for spot in alive:
        lead = [edge for edge in leads[spot] if edge[2] in alive]
        count[spot] = len(lead)
        assert isinstance(spot, _PlainSpot)
        spot.lead(lead)
    ready = [spot for spot in alive if not count[spot]]
    while ready:
        spot = ready.pop()
        spot.longest = max((1 + edge[2].longest for edge in spot.edges()), default=0)
        for origin in before.get(spot, ()):
            if origin in alive:
                count[origin] -= 1
                if not count[origin]:
                    ready.append(origin)
    return begin
