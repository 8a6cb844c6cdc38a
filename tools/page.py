"""Put the page together from the modules and styles beside it.

`python tools/page.py` writes rkllama/page/page.html; `--check` writes nothing and fails where that file is
not what they give.

Comments and needless blanks are left out of it, by rjsmin and rcssmin, so that a phone loads it the sooner;
names stay. This is no bundler: the modules are written into one function, in the order in which they need
each other. So names at the top of a module are unique across all modules, and modules import names only
(`import { a } from './b.js'`), nothing renamed. The texts of all modules stand together: they pack better so.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import rcssmin
import rjsmin

PAGE = Path(__file__).parent.parent / "rkllama" / "page"
RESULT = PAGE / "page.html"
FIRST = "main.js"
STYLES = ("base.css", "chat.css", "markdown.css", "models.css", "board.css")
LARGEST = 60_000
"""Bytes of the page when it is packed by gzip."""

_IMPORT = re.compile(r"^import (?:\{([^}]*)\} from )?'\./([\w-]+\.js)';\n", re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.M)
_EXPORTED = re.compile(r"^export (?:async )?(?:function\*?|const|let|class) ([\w$]+)", re.M)
_WORDS = re.compile(r"^addWords\(\{(.*|\n(?s:.*?)^)\}\);\n", re.M)
_NEEDLESS = re.compile(r"[,;]\n\s*(?=\})|,\n\s*(?=[\])])")
_DECLARED = re.compile(r"^( *)(const|let) (?!.*//).*;\n(?:\1\2 (?!.*//).*;\n)+", re.M)
_NESTED = re.compile(r"^(?! *(?://|/?\*)).*`[^`\n]*\$\{[^`}\n]*`.*", re.M)
_TOP = re.compile(r"^(?:async )?(?:function\*?|const|let|class) ([\w$]+)", re.M)


def build(first: str = FIRST, ending: str = "") -> str:
    """Return the page of the module `first` and those that it needs; `ending` is script that tests put behind
    them. Raises ValueError for modules that do not fit together.
    """
    owners: dict[str, str] = {}
    pieces = [_piece(name, owners) for name in _in_order(first, [], set())]
    words = [text.strip().rstrip(",") for piece in pieces for text in _WORDS.findall(piece)]
    pieces = [_WORDS.sub("", piece) for piece in pieces]
    pieces.insert(-1, f"addWords({{{','.join(words)}}});\n")
    script = "(() => {\n'use strict';\n\n" + "\n".join(pieces) + ending + "})();\n"
    style = "\n".join(_read(name).strip() for name in STYLES) + "\n"
    if found := _NESTED.search(script):
        raise ValueError(f"rjsmin takes the inner one of two nested templates apart: {found[0]}")
    for text, end in ((script, "</script"), (style, "</style"), (script, "<!--")):
        if end in text.lower():
            raise ValueError(f"{end} would end the script or style it stands in")
    page = _read("page.template.html")
    short = rcssmin.cssmin(style), rjsmin.jsmin(script)
    return page.replace("/* <style> */", short[0]).replace("/* <script> */", short[1])


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _piece(name: str, owners: dict[str, str]) -> str:
    """Return a module as it stands in the one function; `owners` tells which module has which name."""
    text = _read(name)
    for words, source in _IMPORT.findall(text):
        exported = set(_EXPORTED.findall(_read(source)))
        if missing := {word.strip() for word in words.split(",")} - exported - {""}:
            raise ValueError(f"{name} imports {missing}, which {source} does not export")
    body = _EXPORT.sub("", _IMPORT.sub("", text)).strip()
    if re.search(r"^(?:import|export)\b", body, re.M):
        raise ValueError(f"{name} imports or exports in a way that this cannot put together")
    for top in _TOP.findall(body):
        if owners.setdefault(top, name) != name:
            raise ValueError(f"{name} and {owners[top]} both have {top} at their top")
    # Not needed: a second `const`, and what stands before a closing bracket. No text goes over a line's end.
    body = _DECLARED.sub(lambda found: re.sub(rf";\n *{found[2]} ", ", ", found[0]), body)
    return _NEEDLESS.sub("\n", f"{body}\n")


def _in_order(name: str, above: list[str], seen: set[str]) -> Iterator[str]:
    """Yield the modules that `name` needs, each before those that need it, and then `name`."""
    if name in above:
        raise ValueError(f"modules need each other in a circle: {' -> '.join([*above, name])}")
    if name in seen:
        return
    for _, source in _IMPORT.findall(_read(name)):
        yield from _in_order(source, [*above, name], seen)
    seen.add(name)
    yield name


def main() -> int:
    page = build()
    size = len(gzip.compress(page.encode(), 9, mtime=0))
    if size > LARGEST:
        print(f"the page has {size} bytes packed, more than {LARGEST}", file=sys.stderr)
        return 1
    if "--check" in sys.argv[1:]:
        if not RESULT.is_file() or RESULT.read_text() != page:
            print(
                f"{RESULT} is not what its source gives: run python tools/page.py", file=sys.stderr
            )
            return 1
        return 0
    RESULT.write_text(page)
    print(f"{RESULT}: {len(page.encode())} bytes, {size} packed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
