"""What chat templates may do, and what the sandbox keeps from them."""

from __future__ import annotations

from rkllama.chat import sandbox
from tests.cases import cases


def render(source: str, **variables: object) -> str:
    return sandbox.render(source, variables)


@cases(
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
