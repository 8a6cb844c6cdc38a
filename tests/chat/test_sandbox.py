"""What a chat template cannot do to the server: take its time, its memory, or the interpreter's lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rkllama.chat import sandbox
from rkllama.errors import InvalidRequest


def render(source: str, **variables: object) -> str:
    return sandbox.render(sandbox.compile_template(source), variables, "test")


@contextmanager
def nothing_stands_still() -> Iterator[None]:
    """Another thread runs on: no single operation keeps the interpreter's lock."""
    pauses = [0.0]
    over = threading.Event()

    def look() -> None:
        last = time.monotonic()
        while not over.wait(0.01):
            now = time.monotonic()
            pauses.append(now - last)
            last = now

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert max(pauses) < 1


NUMBERS = {
    "squares": "{% set a = 2 ** 4000 %}" + "{% set a = a * a %}" * 40,
    "a great power": "{% set a = 2 ** 4000000 %}{% set b = a * a %}{% set c = b * b %}",
    "a power of a great base": "{% set a = (2 ** 4000) ** 4000 %}",
    "of hexadecimal digits": "{% set a = ('f' * 1000000) | int(0, 16) %}{{ a // 3 }}",
    "sums": "{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}",
    "digits to round to": "{{ 1 | round(100000000, 'ceil') }}",
    "bytes": "{{ (5).to_bytes(1000000000, 'big') }}",
}

TEXTS = {
    "%": "{{ '%1000000000d' % 1 }}",
    "format's width": "{{ '{:1000000000}'.format(1) }}",
    "format's computed width": "{{ '{:{w}}'.format(1, w='1000000000') }}",
    "format's repeated fields": "{{ ('{0}' * 100000).format('x' * 1000000) }}",
    "format's attributes": "{% set n = namespace(x='x' * 1000000) %}{{ ('{0.x}' * 9999).format(n) }}",
    "format_map": "{{ ('{x}' * 100000).format_map({'x': 'x' * 1000000}) }}",
    "replace": "{{ ('a' * 10000).replace('a', 'x' * 1000000) }}",
    "the filter replace": "{{ ('a' * 10000) | replace('a', 'x' * 1000000) }}",
    "join": "{{ ('x' * 1000000).join('a' * 10000) }}",
    "join of a generator": "{{ ('x' * 1000000).join((0 or range(9999)) | map('string')) }}",
    "the filter join": "{{ ('a' * 10000) | join('x' * 1000000) }}",
    "join of an attribute": "{% set n = namespace(x='x' * 1000000) %}"
    "{{ ([n] * 10000) | join(attribute='x') }}",
    "tabs": "{{ ('\t' * 1000000).expandtabs(tabsize=99999) }}",
    "a keyword's width": "{{ 'x\ny' | indent(width=1000000000) }}",
    "zeros": "{{ '1'.zfill(1000000000) }}",
    "translations": "{{ ('x' * 1000000).translate({120: 'y' * 1000000}) }}",
    "bytes": "{{ 'x'.encode() * 1000000000 }}",
    "indented JSON": "{{ [1] | tojson(indent=2000000000) }}",
    "separated JSON": "{{ ([1] * 9999) | tojson(separators=('x' * 999999, ':')) }}",
    "indented lines": "{{ ('\n' * 1000000) | indent('x' * 9999) }}",
    "block sets": "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "constant text": "{% set y %}{% for i in range(99999) %}"
    + "z" * 99999
    + "{% endfor %}{% endset %}",
    "written lists": "{% set l = ['x' * 9999] * 100 %}{% set y %}{% for i in range(99999) %}{{ l }}"
    "{% endfor %}{% endset %}",
    "slices": "{% set a = 'x' * 3000000 %}" + "{% set b = a[1:] %}" * 999,
    "a date": "{{ strftime_now('%c' * 1000000) }}",
    "batches": "{{ [1] | batch(1000000000, 'x') | list }}",
    "letters": "{{ ('x' * 3000000) | sort | length }}",
}

TREES = {
    "lists": "[n.x, n.x]",
    "tuples": "(n.x, n.x)",
    "sums": "[n.x] + [n.x]",
    "flat lists": "n.x + n.x",
    "batches": "(n.x + n.x) | batch(1000) | list",
    "dicts": "{'a': n.x, 'b': n.x}",
    "calls of dict": "dict(a=n.x, b=n.x)",
    "keys": "{}.fromkeys('ab', n.x)",
    "views": "[{'a': n.x}.items(), {'b': n.x}.values()]",
    "defaults": "[u, u] | map('default', n.x) | list",
    "sums of lists": "[n.x, n.x] | sum(start=[])",
}
"""What doubles a value, or holds it twice."""


def tree(doubling: str, use: str) -> str:
    return (
        "{% set n = namespace(x=[0, 0]) %}{% for i in range(60) %}{% set n.x = "
        + doubling
        + " %}{% endfor %}"
        + use
    )


COSTLY = (
    {f"numbers: {name}": source for name, source in NUMBERS.items()}
    | {f"texts: {name}": source for name, source in TEXTS.items()}
    | {f"trees: {name}": tree(source, "{{ n.x }}") for name, source in TREES.items()}
    | {
        "trees, compared": tree("[n.x, n.x]", "{{ n.x == [n.x[0], n.x[1]] }}"),
        "trees, as JSON": tree("[n.x, n.x]", "{{ n.x | tojson }}"),
    }
)


@pytest.mark.integration
@pytest.mark.parametrize("name", COSTLY)
def test_what_grows_without_bounds_is_refused_beforehand(name: str) -> None:
    with nothing_stands_still(), pytest.raises(InvalidRequest, match="cannot render") as caught:
        render(COSTLY[name], messages=[])
    assert "MemoryError" not in str(caught.value)


SLOW = {
    "blocks that call themselves": "{% set n = namespace(n=60) %}{% block a %}"
    "{% set n.n = n.n - 1 %}{% if n.n > 0 %}{{ self.a() }}{{ self.a() }}{% endif %}"
    "{% set n.n = n.n + 1 %}{% endblock %}",
    "a filter in a filter": "{{ (0 or range(99999)) | map('round', 99999, 'ceil') | list }}",
    "a test in a filter": "{% set l = range(99999) | list %}{{ l | select('in', l) | list }}",
    "a loop that leaves all out": "{% set a = 'x' * 3000000 %}{% set b = a + 'y' %}"
    "{% set c = a + 'z' %}{% for i in range(99999) if b == c %}{% endfor %}",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", SLOW)
def test_what_takes_long_is_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.3)
    with (
        nothing_stands_still(),
        pytest.raises(InvalidRequest, match=r"did not finish within 0\.3 s"),
    ):
        render(SLOW[name])


@pytest.mark.integration
@pytest.mark.parametrize("part", ["{{ a + b * c }}", "{{ a }}", "{% if a %}{% endif %}"])
def test_a_giant_template_is_not_compiled(part: str) -> None:
    with nothing_stands_still(), pytest.raises(sandbox.BrokenTemplate, match="parts"):
        sandbox.compile_template(part * (190_000 // len(part)))


def test_namespaces_that_hold_each_other_are_not_written_out() -> None:
    assert (
        render("{% set n = namespace() %}{% set n.x = [n, n] %}{{ n.x }}").count("namespace") == 2
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '{}, {:,} and {:.2f}'.format('a', 1234567, 0.5) }}", "a, 1,234,567 and 0.50"),
        ("{{ '{{{a}}}'.format(a=1) }}", "{1}"),
        ("{{ 'abc'.ljust(5) }}|{{ '7'.zfill(3) }}|{{ 'x'.center(3) }}", "abc  |007| x "),
        ("{{ ', '.join(items | map(attribute='name')) }}", "a, b"),
        ("{{ items | map(attribute='name') | join(', ') }}", "a, b"),
        ("{{ items | join('+', attribute='name') }}", "a+b"),
        ("{{ items | sum(attribute='n') }}{{ [[1], [2]] | sum(start=[]) }}", "3[1, 2]"),
        ("{{ 1700000000 | string }}{{ 1700000000 | tojson }}", "17000000001700000000"),
        ("{{ [1700000000] | select('>', 1600000000) | list }}", "[1700000000]"),
        ("{{ namespace(limit=1000000000).limit + 1 }}", "1000000001"),
        ("{{ 'aaa' | replace('a', 'b', 2) }}{{ 'aaa'.replace('a', 'b', 1) }}", "bbabaa"),
        ("{% for m in items %}{% set b = m.name.replace('a', 'b') %}{{ b }}{% endfor %}", "bb"),
        ("{{ 'a\nb' | indent(2) }}{{ 'a' | indent('> ', true) }}", "a\n  b> a"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}{{ {'b': 1} | tojson(indent=1) }}", None),
        ("{% macro f(function) %}{{ function }}{% endmacro %}{{ f(function='a') }}", "a"),
        ("{% set a, b = 1, 2 %}{% for k, v in {'x': a}.items() %}{{ k }}{{ v + b }}{% endfor %}", "x3"),
        ("{{ 2 ** 10 }}{{ 7 // 2 }}{{ 2 ** -1 }}{{ [0] * 3 }}", "102430.5[0, 0, 0]"),
        ("{{ long | trim | length }}", "1000000"),
    ],
)  # fmt: skip
def test_what_templates_do_is_allowed(source: str, text: str | None) -> None:
    items = [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
    written = render(source, items=items, long="x" * 1_000_000)
    assert written == ('[1,2]{\n "b": 1\n}' if text is None else text)


def test_a_long_conversation_may_be_rebuilt_turn_by_turn() -> None:
    source = (
        "{% set n = namespace(turns=[], text='') %}{% for m in messages %}"
        "{% set n.turns = n.turns + [m] %}{% set n.text = n.text ~ m.content %}{% endfor %}"
        "{{ n.turns | length }} {{ n.text | length }}"
    )
    messages = [{"role": "user", "content": "x" * 1000} for _ in range(300)]
    assert render(source, messages=messages) == "300 300000"
