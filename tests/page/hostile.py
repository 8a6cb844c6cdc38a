"""Answers that a hostile or broken model may write, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

LARGE = 1_000_000

_SCRIPT = "window.pwned=1;fetch('https://evil.test/')"
_HTML = (
    f"<script>{_SCRIPT}</script>",
    f'<img src="https://evil.test/i.png" onerror="{_SCRIPT}">',
    f"<svg onload={_SCRIPT}><use href='https://evil.test/x.svg#a'/></svg>",
    "<iframe src='https://evil.test/'></iframe>",
    f"<a href='javascript:{_SCRIPT}'>a</a>",
    "<link rel=stylesheet href=https://evil.test/s.css>",
    "<style>@import 'https://evil.test/s.css'; * { background: url(https://evil.test/b) }</style>",
    f"<details open ontoggle={_SCRIPT}>",
    "<form action=https://evil.test/><input name=a autofocus onfocus=alert(1)></form>",
    "<base href=https://evil.test/>",
    "<meta http-equiv=refresh content='0;url=https://evil.test/'>",
    f"</p></div><script>{_SCRIPT}</script>",
    f"<![CDATA[<script>{_SCRIPT}</script>]]>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={_SCRIPT}>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "</textarea></title><video poster=https://evil.test/p src=https://evil.test/v autoplay>",
    "<object data=https://evil.test/o></object><embed src=https://evil.test/e>",
)
_TARGETS = (
    f"javascript:{_SCRIPT}",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "\x01javascript:alert(1)",
    "javascript&#58;alert(1)",
    "&#106;avascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:image/svg+xml;base64,PHN2Zz4=",
    "vbscript:x",
    "file:///etc/passwd",
    "//evil.test/",
    "\\\\evil.test\\",
    "https:/\\evil.test",
    "https://bank.com@evil.test/",
    "https://evil.test\u3002com/",
    "https://\u202emoc.knab/",
    "blob:https://evil.test/1",
    "filesystem:x",
    "ftp://evil.test/",
    "https://evil.test/i.png",
    "mailto:a@b.c?subject=x%0d%0aBcc:y@z",
    "about:blank",
    '#" onclick=alert(1) x="',
    'https://e.com/" onmouseover="alert(1)',
    "view-source:https://evil.test",
    "intent://evil.test#Intent;end",
)
_FORMS = (
    "[a]({})",
    "![a]({})",
    "<{}>",
    "[![a]({0})]({0})",
    "[a]: {}",
    "[{0}]({0})",
    "[bank.com]({})",
    "{}",
)
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\ufeff\u061c\u0000\u001b"
_BITS = (
    *"*_~`[]()!<>|#-+=\\$:&\n\t ",
    "**",
    "```\n",
    "- ",
    "> ",
    "1. ",
    "\n\n",
    "|---|\n",
    "![",
    "](",
    "https://",
    "~~~",
    "$$",
    "\\(",
    "a",
    "word ",
)
_LARGE: tuple[Callable[[int], str], ...] = (
    lambda n: "a" * n,
    lambda n: "word " * (n // 5),
    lambda n: "*" * n,
    lambda n: "*a " * (n // 3),
    lambda n: "*a* " * (n // 4),
    lambda n: "`" * n,
    lambda n: "".join("`" * (i % 300) + " " for i in range(n // 150)),
    lambda n: "[" * n,
    lambda n: "[a](" * (n // 4),
    lambda n: "![" * (n // 2) + "](https://e.com)" * 1000,
    lambda n: "> " * (n // 2),
    lambda n: "- " * (n // 2),
    lambda n: ">\n" * (n // 2),
    lambda n: "-\n" * (n // 2),
    lambda n: "\n".join(" " * (i % 2000) + "- a" for i in range(n // 1000)),
    lambda n: "|" * n,
    lambda n: "| a |\n|---|\n" + "|\n" * (n // 2),
    lambda n: "|a" * 2000 + "\n" + "|-" * 2000 + "\n" + "|\n" * (n // 2),
    lambda n: "|a" * 60 + "\n" + "|-" * 60 + "\n" + "|\n" * (n // 2),
    lambda n: "```js\n" + "x = '" * (n // 5),
    lambda n: "```c\n" + "/*" * (n // 2),
    lambda n: "```py\n" + "#\n" * (n // 2),
    lambda n: "```\n" * (n // 4),
    lambda n: "# a\n" * (n // 4),
    lambda n: "\n" * n,
    lambda n: " " * n,
    lambda n: "\t" * n,
    lambda n: "$a " * (n // 3),
    lambda n: "\\(" * (n // 2),
    lambda n: "https://a.b/" * (n // 12),
    lambda n: "<a:" * (n // 3),
    lambda n: "<" * n,
    lambda n: "&amp" * (n // 4),
    lambda n: "\u202e" * n,
    lambda n: "\U0001f600" * (n // 2),
    lambda n: "a\u0301\u0323" * (n // 3),
    lambda n: "**a " * (n // 8) + "a** " * (n // 8),
    lambda n: "[a](https://e.com)" * (n // 18),
    lambda n: "a  \n" * (n // 4),
    lambda n: "_a*" * (n // 3),
    lambda n: "1. " * (n // 3),
    lambda n: "---\n" * (n // 4),
)


def small_answers(count: int, seed: int) -> Iterator[str]:
    """Yield answers of up to some kB."""
    random_ = random.Random(seed)
    kinds = (_html, _links, _bidi, _noise, _nested)
    for i in range(count):
        yield kinds[i % len(kinds)](random_)


def large_answers(size: int = LARGE) -> Iterator[str]:
    """Yield answers of about `size` characters, each of which a slow reader could choke on."""
    return (make(size) for make in _LARGE)


def _html(random_: random.Random) -> str:
    marks = (
        "{}",
        "**{}**",
        "`{}`",
        "- {}",
        "> {}",
        "| {0} |\n|---|\n| {0} |",
        "# {}",
        "```html\n{}\n```",
        "```{}\nx",
        "[{}](https://e.com)",
        "text\n{}\ntext",
    )
    return "\n\n".join(
        random_.choice(marks).format(random_.choice(_HTML)) for _ in range(random_.randint(1, 8))
    )


def _links(random_: random.Random) -> str:
    return "\n\n".join(
        random_.choice(_FORMS).format(random_.choice(_TARGETS))
        for _ in range(random_.randint(3, 20))
    )


def _bidi(random_: random.Random) -> str:
    words = [
        random_.choice(("word", "שלום", "[a](https://e.com)", "`x`", "**b**"))
        + random_.choice(_BIDI)
        for _ in range(50)
    ]
    return " ".join(words)


def _noise(random_: random.Random) -> str:
    return "".join(random_.choice(_BITS) for _ in range(random_.randint(10, 4000)))


def _nested(random_: random.Random) -> str:
    mark = random_.choice(
        ("> ", "- ", "1. ", "> - ", "[", "![", "**a *b ", "`", "| ", "~~", "(", "<b>", "***", "\\(")
    )
    return mark * random_.randint(100, 1000) + random_.choice(
        ("x", "\nx", "](https://e.com)" * 300, "* b** " * 500)
    )
