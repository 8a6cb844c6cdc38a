"""What a chat template cannot do to the server: take its time, its memory, or the interpreter's lock."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from rkllama.chat.renderer import BrokenTemplate, RenderError, TooCostly
from rkllama.engine import template_process
from rkllama.engine.template_process import MAX_BYTES, MAX_PROMPT, read_block, render, write_block
from rkllama.errors import RKLLamaError
from rkllama.files import IMPORT_ROOT
from tests.waiting import until

pytestmark = pytest.mark.integration

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


SLOW = {
    "blocks that call themselves": "{% set n = namespace(n=60) %}{% block a %}"
    "{% set n.n = n.n - 1 %}{% if n.n > 0 %}{{ self.a() }}{{ self.a() }}{% endif %}"
    "{% set n.n = n.n + 1 %}{% endblock %}",
    "a filter in a filter": "{{ (0 or range(99999)) | map('round', 99999, 'ceil') | list }}",
    "a test in a filter": "{% set l = range(99999) | list %}{{ l | select('in', l) | list }}",
    "a loop that leaves all out": "{% set a = 'x' * 3000000 %}{% set b = a + 'y' %}"
    "{% set c = a + 'z' %}{% for i in range(99999) if b == c %}{% endfor %}",
}


GIANTS = {
    f"giant: {part}": part * (190_000 // len(part))
    for part in ("{{ a + b * c }}", "{{ a }}", "{% if a %}{% endif %}")
}

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "doubles": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    "multiplies": "{{ 'x' * 99999999999 }}",
    "powers": "{{ 9 ** 999999999 }}",
    "pads": "{{ 'x'.ljust(99999999999) }}",
    "prints": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "ranges": "{% for a in range(10 ** 9) %}{% endfor %}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "nests": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "holds itself": "{% set n = namespace() %}{% set n.x = [n, n] %}{{ n.x }}",
}

HOSTILE = COSTLY | {f"slow: {name}": source for name, source in SLOW.items()} | GIANTS | ENDLESS
HARMLESS = {
    "giant: {% if a %}{% endif %}",
    "numbers: sums",
    "texts: indented lines",
    "texts: slices",
    "trees, compared",
    "holds itself",
}
"""What Jinja or Python bounds by itself: it may be rendered."""


class Outcome(NamedTuple):
    """What became of a child: its reply (None where it ended), seconds of CPU, bytes of memory."""

    reply: bytes | None
    seconds: float
    memory: int


METER = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", *sys.argv[1:]], os.environ)
usage = os.wait4(pid, 0)[2]
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
"""
"""A small process to start the child from: what a child used counts from the size of its parent on."""


def run_alone(source: str, seconds: float) -> Outcome:
    """Render in a child that serves nothing else, so that all it costs can be told."""
    request = BytesIO()
    write_block(request, source.encode())
    write_block(request, json.dumps({"messages": []}).encode())
    limits = map(str, (seconds, MAX_BYTES, MAX_PROMPT))
    done = subprocess.run(
        [sys.executable, "-S", "-c", METER, template_process.__name__, *limits],
        input=request.getvalue(),
        capture_output=True,
        cwd=IMPORT_ROOT,
        check=True,
    )
    *_, used, kilobytes = done.stderr.split()
    try:
        reply = read_block(BytesIO(done.stdout))
    except EOFError:
        reply = None
    return Outcome(reply, float(used), int(kilobytes) << 10)


@pytest.fixture(scope="module")
def start() -> Outcome:
    """What a child costs that has next to nothing to render."""
    outcome = run_alone("x", 1)
    assert outcome.reply == b"\0x"
    return outcome


@pytest.mark.parametrize("name", HOSTILE)
def test_no_template_costs_more_than_its_share(name: str, start: Outcome) -> None:
    outcome = run_alone(HOSTILE[name], 0.3)
    assert outcome.seconds < 3 * start.seconds + 0.6
    assert outcome.memory < 200 << 20
    is_text = outcome.reply is not None and outcome.reply[0] == 0
    assert not is_text or name in HARMLESS


def test_the_limits_are_those_that_the_documents_name() -> None:
    assert (template_process.MAX_SECONDS, MAX_BYTES <= 200 << 20) == (2, True)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    template_process.end_idle()
    yield
    template_process.end_idle()


def children() -> list[int]:
    return [child._process.pid for child in template_process._idle]


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


def test_what_takes_long_is_ended_and_the_server_goes_on() -> None:
    with nothing_stands_still(), pytest.raises(TooCostly, match="did not finish within 2 s"):
        render(ENDLESS["powers"], {})
    assert children() == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("multiplies", "needs more than 128 MB"),
        ("calls itself", "recursion"),
        ("ranges", "Range too big"),
    ],
)
def test_the_reason_is_told(name: str, reason: str) -> None:
    with pytest.raises(RenderError, match=reason):
        render(ENDLESS[name], {})


def test_a_prompt_has_a_greatest_length() -> None:
    assert len(render("{{ 'x' * 16777216 }}", {})) == MAX_PROMPT
    with pytest.raises(TooCostly, match="more than 16777216 characters"):
        render("{{ 'x' * 16777217 }}", {})


def test_a_template_that_is_none_is_broken() -> None:
    with pytest.raises(BrokenTemplate, match="line 2"):
        render("\n{% if %}", {})


def test_the_template_s_own_words_come_through() -> None:
    with pytest.raises(RenderError, match="No, ä") as caught:
        render("{{ raise_exception('No, ä') }}", {})
    assert type(caught.value) is RenderError


def test_values_and_text_come_through_unchanged() -> None:
    value = {"ä": [1, 2.5, None, True, {"b": "x\ud800\U0001f600\n"}]}
    written = render("{{ v | tojson }}|{{ v['ä'][4].b }}|{{ v['ä'][2] is none }}", {"v": value})
    assert written == f"{json.dumps(value, ensure_ascii=False)}|x\ud800\U0001f600\n|True"


def test_what_is_nested_too_deeply_is_refused() -> None:
    nested: list[object] = []
    for _ in range(99_999):
        nested = [nested]
    with pytest.raises(RenderError, match="nested too deeply"):
        render("x", {"v": nested})


def test_a_child_serves_one_template_again_and_again() -> None:
    source = "{{ raise_exception('no') if v == 0 else v }}"
    assert render(source, {"v": 1}) == "1"
    (child,) = children()
    with pytest.raises(RenderError, match="no"):
        render(source, {"v": 0})
    assert render(source, {"v": 2}) == "2"
    assert children() == [child]
    render("another", {})
    assert len(children()) == 2
    render("a third", {})
    assert len(children()) == 2
    assert child not in children()


def test_a_child_that_was_killed_is_replaced() -> None:
    render("x", {})
    (process,) = (child._process for child in template_process._idle)
    process.kill()
    process.wait()
    assert render("x", {}) == "x"
    assert children() != [process.pid]


def test_many_at_once_get_their_own_text_from_few_children() -> None:
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: texts.append(render("{{ v }}", {"v": n})))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, texts)) == list(range(20))
    assert len(children()) <= 2


def test_a_child_ends_with_its_parent() -> None:
    program = (
        "import os; from rkllama.engine import template_process as t; t.render('x', {});"
        "print(t._idle[0]._process.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=IMPORT_ROOT
    )
    until(lambda: not is_running(int(done.stdout)))


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_fails_for_reasons_of_its_own_is_the_server_s_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(template_process, "MAX_BYTES", "many")
    with pytest.raises(RKLLamaError, match="ended with status 1") as caught:
        render("x", {})
    assert caught.value.status == 500
