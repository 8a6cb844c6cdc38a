"""A JSON schema as a grammar over characters: what may come next, what has to, and whether the text may end.

    grammar = compile_schema({"type": "object", "properties": {"name": {"type": "string"}},
                              "required": ["name"], "additionalProperties": False})
    state = grammar.start()
    state.forced()                  # '{"name": '      write it; no model has to be asked
    count, state = state.feed('{"name": ')
    state.kind, state.path          # "string", "$.name"
    count, state = state.feed('"Zoë", "age')
    count                           # 5: up to the closing quote; the comma is refused
    state.forced(), state.may_end   # "}", False

**For whoever runs a model.** States are values: keep one to come back to it. Write `forced()` until it is
empty. Then either `choices()` are few texts of which one has to come, or the model writes, and each character
goes through `advance`; the first one that is refused is where the model has to be stopped, and all before it
stands. A grammar whose `decided_by_prefix` is true never leads into a dead end: every text that was accepted
can be completed. Otherwise something is looked at when a value ends (uniqueItems, not, oneOf with branches
that overlap, if, dependent keys), and it may turn out that a value cannot end as it is: go back to an earlier
state then.

**For whoever checks an answer.** `find_error` takes any order of keys and any layout. What it accepts is
valid: for a parser that refuses duplicate keys, for JSON schema with its formats asserted, and whatever
engine reads the patterns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from . import layout
from .compiler.nodes import compile_nodes
from .frames import (
    BLANKS,
    BOTTOM,
    COMMA,
    FILLED,
    OPENED,
    ArrayAt,
    End,
    Frame,
    KeyAt,
    LiteralAt,
    NumberAt,
    ObjectAt,
    Step,
    StringAt,
    Tail,
    Value,
    advance,
    close,
    merged,
)
from .limits import DEFAULT, MAX_TOPS, Limits
from .numbers import is_number
from .shapes import Array, Literals, Node, Number, Object, String, Words
from .strings import is_free
from .words import WordCursor

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of JSON mode."""

Kind = Literal[
    "object", "array", "string", "number", "integer", "enum", "any", "key", "item", "end"
]
"""What is open: a value of a kind (`enum`: one of given texts, `any`: of several kinds), or the next `key`
of an object or `item` of an array, or their ends; `end`: nothing, the value is whole."""

_MAX_FORCED = 1 << 16
_DEPTH = 32
"""Objects and arrays inside each other in what is written together with a model, where the schema leaves that
open.
"""


def compile_schema(schema: object, root: object | None = None, limits: Limits = DEFAULT) -> Grammar:
    """Compile a JSON schema; `"json"` means any object.

    References are looked up in `root`, the whole document, where the schema is a part of one. Raises
    InvalidSchema for what is not a schema, or can be met by nothing, and UnsupportedSchema for what lies
    outside of what a grammar can hold; both name the place.
    """
    if schema == "json":
        schema = ANY_OBJECT
    node, compiler = compile_nodes(schema, schema if root is None else root, limits)
    checks = compiler.has_checks or compiler.has_unique_items
    return Grammar(node, limits, checks, compiler.size)


class Grammar:
    """A compiled schema: shared by any number of texts and threads."""

    __slots__ = ("_node", "decided_by_prefix", "limits", "size")

    def __init__(self, node: Node, limits: Limits, checks: bool, size: int) -> None:
        self._node = node
        self.limits = limits
        self.decided_by_prefix = not checks
        """Whether every text that is accepted can be completed."""
        self.size = size
        """The different values that the schema describes."""

    def start(self) -> State:
        """Return the state before the first character."""
        return State(self, (Value((BOTTOM,), self._node, 0),), 0, 0, None)

    def for_writing(self) -> Grammar:
        """Return the grammar without keys that its schema does not name and does not ask for, which models
        make up from what they have read, and with an end to values inside each other, which they do not find.
        """
        depth = min(self.limits.depth, max(_DEPTH, int(self._node.height)))
        # Such a key may be all that tells two branches apart.
        limits = replace(self.limits, depth=depth, named_keys=self.decided_by_prefix)
        return Grammar(self._node, limits, not self.decided_by_prefix, self.size)

    def accepts(self, text: str) -> bool:
        """Return whether a whole text is of this grammar."""
        count, state = self.start().feed(text)
        return count == len(text) and state.may_end

    def find_error(self, text: str) -> str | None:
        """Return what is wrong with a whole text, in words for the model; None where nothing is."""
        count, state = self.start().feed(text)
        if count == len(text):
            return None if state.may_end else f"it ends too early, at {state.path}"
        what = f"at {state.path}, {text[count]!r} cannot come after {text[max(0, count - 20) : count]!r}"
        return f"{what} (character {count + 1})"

    def gbnf(self) -> str | None:
        """Return the grammar in llama.cpp's notation; None where it would be too large.

        What `decided_by_prefix` leaves open has to be checked when a text of it is whole.
        """
        from .gbnf.writer import write_gbnf

        return write_gbnf(self._node)


class State:
    """A place in a text: immutable, small, and cheap to keep."""

    __slots__ = ("_blanks", "_grammar", "_tail", "_tops", "position")

    def __init__(
        self,
        grammar: Grammar,
        tops: tuple[Frame, ...],
        position: int,
        blanks: int,
        tail: Tail | None,
    ) -> None:
        self._grammar = grammar
        self._tops = tops
        self._blanks = blanks
        self._tail = tail
        self.position = position
        """The characters so far."""

    def advance(self, char: str) -> State | None:
        """Return the state after one more character; None where it cannot come.

        Blanks and line ends are accepted between tokens, `limits.whitespace` of them in a row.
        """
        grammar = self._grammar
        blanks = 0
        if char in BLANKS and not self.in_string:
            blanks = self._blanks + 1
            if blanks > grammar.limits.whitespace:
                return None
        after = None if grammar.decided_by_prefix else Tail(char, self._tail)
        step = Step(char, self._tail, after, grammar.limits)
        found: list[Frame] = []
        for frame in self._tops:
            advance(frame, step, found)
        if len(found) > 1:
            found = merged(found)[:MAX_TOPS]
        if not found:
            return None
        return State(grammar, tuple(found), self.position + 1, blanks, after)

    def feed(self, text: str) -> tuple[int, State]:
        """Return how many characters of a text can come, and the state after them."""
        state = self
        for count, char in enumerate(text):
            after = state.advance(char)
            if after is None:
                return count, state
            state = after
        return len(text), state

    @property
    def in_string(self) -> bool:
        """Whether a string or a key is open."""
        return isinstance(self._tops[0], StringAt | KeyAt)

    @property
    def in_key(self) -> bool:
        """Whether a key is open."""
        return isinstance(self._tops[0], KeyAt)

    @property
    def key(self) -> str:
        """The key that is open, as far as it is there, or the last whole one of an object."""
        frame = self._tops[0]
        if isinstance(frame, KeyAt):
            return frame.cursor.text
        return frame.key if isinstance(frame, ObjectAt) else ""

    def needs_key(self, name: str) -> bool:
        """Return whether the object here has to have a key that it does not have yet, or any at all."""
        return all(
            isinstance(frame, ObjectAt)
            and (name in frame.missing or len(frame.seen) < frame.shape.least)
            for frame in self._tops
        )

    @property
    def follows_comma(self) -> bool:
        """Whether a key has to come behind a comma."""
        frame = self._tops[0]
        return isinstance(frame, ObjectAt) and frame.phase == COMMA

    def without_key(self, name: str) -> State:
        """Return the state here of an object that goes on without a key which it may have."""
        tops = tuple(
            frame._replace(barred=frame.barred | {name}) if isinstance(frame, ObjectAt) else frame
            for frame in self._tops
        )
        return State(self._grammar, tops, self.position, self._blanks, self._tail)

    @property
    def in_open_text(self) -> bool:
        """Whether a string is open that may hold anything: what comes in it will not be taken back."""
        return all(isinstance(frame, StringAt) and is_free(frame.cursor) for frame in self._tops)

    @property
    def in_escape(self) -> bool:
        """Whether a backslash in a string waits for what belongs to it."""
        return any(isinstance(frame, StringAt | KeyAt) and frame.escape for frame in self._tops)

    @property
    def between_tokens(self) -> bool:
        """Whether neither a key nor a string, a number or a literal is open."""
        return isinstance(self._tops[0], Value | ObjectAt | ArrayAt | End)

    @property
    def may_end(self) -> bool:
        """Whether the text may end here."""
        return any(isinstance(frame, End) for frame in self._ended())

    @property
    def must_end(self) -> bool:
        """Whether nothing but blanks can come."""
        if not self.may_end:
            return False
        return not any(
            (isinstance(frame, NumberAt) and layout.can_grow(frame))
            or (isinstance(frame, LiteralAt) and frame.cursor.open)
            for frame in self._tops
        )

    def _ended(self) -> list[Frame]:
        """The frames here, those of numbers and literals as if they had ended."""
        found: list[Frame] = []
        for frame in self._tops:
            if isinstance(frame, NumberAt):
                if is_number(frame.text, frame.shape):
                    close(frame.outer, self._tail, found)
            elif isinstance(frame, LiteralAt):
                if frame.cursor.complete:
                    close(frame.outer, self._tail, found)
            else:
                found.append(frame)
        return found

    # --- What comes next -------------------------------------------------------------------------

    def forced(self) -> str:
        """Return the longest text that is the only possible one in the canonical layout; often "".

        Canonical are one space behind `:` and `,`, and keys as the schema has them, of which those that it
        does not name are none if it names any and does not ask for others. The text ends where a token
        does: behind `": `, and not behind the quote of a string that is open. An only constant is whole.
        """
        text = ""
        state = self
        while len(text) < _MAX_FORCED:
            nexts = state._continuations(2)
            if len(nexts) != 1:
                break
            more, state = nexts[0]
            text += more
        return text

    def choices(self, limit: int = 256) -> tuple[str, ...]:
        """Return the texts of which one has to come, if there are at least two and at most `limit`.

        They are what is left of the constants of an enum, or keys with their colon, or the end of what is
        open; none where the place is open to more than such texts.
        """
        nexts = self._continuations(limit + 1)
        if not 2 <= len(nexts) <= limit:
            return ()
        return tuple(text for text, _ in nexts)

    def _continuations(self, most: int) -> list[tuple[str, State]]:
        """Up to `most` of the texts of which one has to come, with what they lead to; none where other texts
        may come, too.
        """
        where = layout.Where(self._grammar.limits, self._blanks, self._tail)
        texts: dict[str, None] = {}
        for frame in self._tops:
            found = layout.continuations(frame, where)
            if found is None:
                return []
            texts.update(dict.fromkeys(found))
        nexts: list[tuple[str, State]] = []
        for text in texts:
            count, state = self.feed(text)
            if text and count == len(text):
                nexts.append((text, state))
            if len(nexts) == most:
                break
        return nexts

    # --- What is open ----------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where this place is: `$.items[2].price`. A value's path holds to its last character."""
        names: list[str] = []
        frame: Any = self._tops[0]
        if isinstance(frame, ObjectAt | ArrayAt) and frame.phase in (OPENED, FILLED):
            frame = frame.outer[0]
        elif isinstance(frame, KeyAt):
            frame = frame.outer[0].outer[0]
        while frame.outer:
            if isinstance(frame, ObjectAt):
                key = frame.key
                plain = key.isidentifier()
                names.append(f".{key}" if plain else f"[{key!r}]")
            elif isinstance(frame, ArrayAt):
                names.append(f"[{frame.place}]")
            frame = frame.outer[0]
        return "$" + "".join(reversed(names))

    @property
    def kind(self) -> Kind:
        """What is open here."""
        kinds = {_kind_of(frame) for frame in self._tops}
        return kinds.pop() if len(kinds) == 1 else "any"

    @property
    def awaits_value(self) -> bool:
        """Whether a value begins here, of which there is no character yet."""
        return isinstance(self._tops[0], Value)


def _kind_of(frame: Frame) -> Kind:
    if isinstance(frame, Value):
        return _kind_of_node(frame.node)
    if isinstance(frame, StringAt):
        return "enum" if isinstance(frame.cursor, WordCursor) else "string"
    if isinstance(frame, NumberAt):
        return "integer" if frame.shape.integer else "number"
    if isinstance(frame, LiteralAt):
        return "enum"
    if isinstance(frame, KeyAt | ObjectAt):
        return "key"
    return "item" if isinstance(frame, ArrayAt) else "end"


def _kind_of_node(node: Node) -> Kind:
    kinds: set[Kind] = set()
    for shape in (shape for shapes in node.starts.values() for shape in shapes):
        if isinstance(shape, Words | Literals):
            kinds.add("enum")
        elif isinstance(shape, Number):
            kinds.add("integer" if shape.integer else "number")
        else:
            kinds.add(_KINDS[type(shape)])
    return kinds.pop() if len(kinds) == 1 else "any"


_KINDS: dict[Any, Kind] = {Object: "object", Array: "array", String: "string"}
