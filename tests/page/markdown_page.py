"""A page with nothing but the renderer of Markdown, under the real page's policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkllama.server import page as serving
from tests.page.looking import Look, Problems, new_context
from tools import page as building

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HOST = "markdown.test"
_SCRIPT = """
Object.assign(window, { markdownView, renderMarkdown, patchChildren, otherPlace, safeTarget, copyText });

/** All of `text` at once. */
window.whole = (text) => {
  const view = markdownView();
  view.append(text);
  view.end();
  view.work(Infinity, Infinity);
  return view.node;
};

/** `text` in pieces, shown after each; next() tells how long the next one is. */
window.streamed = (text, next) => {
  const view = markdownView();
  for (let at = 0; at < text.length; ) {
    const length = next();
    view.append(text.slice(at, at + length));
    view.work(Infinity, Infinity);
    at += length;
  }
  view.end();
  view.work(Infinity, Infinity);
  return view.node;
};

/** Numbers below n, the same for the same seed. */
window.seeded = (seed) => {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
};

/** Nodes as a short text: <p>a <b>c</b></p>, with what matters of a link, a list, a cell, a task, and code. */
window.tree = (node) => {
  if (node.nodeType === Node.TEXT_NODE) return node.data.replaceAll('<', '&lt;');
  if (node.matches('.md-code')) return `<pre ${node.querySelector('.md-language').textContent}>${node.querySelector('code').textContent}</pre>`;
  if (node.matches('.md-plain')) return `<plain>${node.textContent}</plain>`;
  const inner = [...node.childNodes].map(tree).join('');
  if (node.matches('.md, .md-table')) return inner;
  if (node.matches('input')) return node.checked ? '[x]' : '[ ]';
  if (node.matches('br, hr')) return `<${node.localName}>`;
  const name = node.matches('.md-math') ? 'math' : node.matches('.md-place') ? 'place' : node.localName;
  const more = node.getAttribute('href') || node.getAttribute('start') || (node.matches('td, th') && node.className.slice(3)) || '';
  return `<${name}${more && ` ${more}`}>${inner}</${name}>`;
};
window.ready = true;
"""


def open_markdown(browser: Browser, folder: str, problems: Problems, look: Look) -> Page:
    """Open it. What goes wrong in it, and each request that it makes, is noted in `problems`."""
    context = new_context(browser, look)
    problems.watch(context)
    page = context.new_page()
    headers, body = _reply(folder)

    def answer(route: Route) -> None:
        if route.request.url == f"http://{HOST}/":
            route.fulfill(body=body, headers=headers)
        else:
            route.abort()

    page.route("**/*", answer)
    page.goto(f"http://{HOST}/")
    page.wait_for_function("window.ready")
    return page


def _reply(folder: str) -> tuple[dict[str, str], str]:
    """Return the headers that the server gives to such a page, and the page."""
    body = building.build("markdown.js", _SCRIPT)
    path = f"{folder}/page.html"
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(body)
    real = serving.FILE
    serving.FILE = path
    try:
        headers = dict(serving._page.__wrapped__().headers)
    finally:
        serving.FILE = real
    return headers | {"Content-Type": serving.HTML}, body
