"""Answers in the page, in Chromium: what a streamed one costs, and how long a hostile one holds the page up.

A task of the page's main thread is measured in CPU time by the browser's own trace, so that what else runs on
this machine does not count; long tasks as the page itself sees them (PerformanceObserver) are beside it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.page.hostile import LARGE, large_answers
from tests.page.looking import CHROMIUM, Look, Problems, chromium
from tests.page.markdown_page import HOST, open_markdown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Report = Callable[..., None]

_TOKENS = 10_000
_RATE = 200
_SHAPES = {
    "prose": "i % 80 === 79 ? '\\n\\n' : i % 400 === 0 ? '## A heading\\n\\n' : word(i)",
    "one paragraph": "word(i)",
    "code": "i ? (i % 10 ? code[i % 9] : '\\n') : '```python\\n'",
    "table": "i ? (i % 9 ? (i % 3 ? word(i) : '| ') : '|\\n') : '| a | b | c |\\n|---|---|---|\\n'",
    "list": "i % 12 ? word(i) : '\\n- '",
    "nested list": "i % 12 ? word(i) : '\\n' + '  '.repeat((i / 12) % 6) + '- '",
}
_STREAM = """async ([tokens, rate]) => {
    const words = ['the ', 'model ', '**bold** ', 'answers ', '`code` ', 'with ', '*some* ', 'text, '];
    const word = (i) => words[i % 8];
    const code = ['x = ', 'call(', '"text"', ', 12)', ' # note', 'return ', 'self.', 'value ', '+ '];
    const token = (i) => MAKE;
    const view = markdownView();
    const root = document.getElementById('view');
    root.replaceChildren(view.node);
    let long = 0;
    const observer = new PerformanceObserver((list) => { long += list.getEntries().length; });
    observer.observe({ type: 'longtask' });
    const start = performance.now();
    let i = 0;
    const frame = () => { root.scrollTop = root.scrollHeight; if (i < tokens) requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    while (i < tokens) {
        const due = Math.min(tokens, ((performance.now() - start) / 1000) * rate);
        for (; i < due; i += 1) view.append(token(i));
        await new Promise((resolve) => setTimeout(resolve, 1000 / rate));
    }
    await view.end();
    await new Promise((resolve) => setTimeout(resolve, 200));
    window.shown = view;
    return { long, nodes: root.getElementsByTagName('*').length };
}"""
_SHOW = """async (text) => {
    const view = markdownView();
    document.getElementById('view').replaceChildren(view.node);
    view.append(text);
    await view.end();
    await new Promise(requestAnimationFrame);
}"""


def measure(report: Report) -> None:
    """Measure in a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=chromium(), args=list(CHROMIUM))
        for name, make in _SHAPES.items():
            _stream(browser, Path(folder), name, make, report)
        _hostile(browser, Path(folder), report)
        browser.close()


def _stream(browser: Browser, folder: Path, name: str, make: str, report: Report) -> None:
    page = open_markdown(browser, str(folder), Problems(HOST), Look())
    before = _heap(page)
    script = _STREAM.replace("MAKE", make)
    result, tasks = _traced(browser, page, folder, script, [_TOKENS, _RATE])
    assert page.evaluate("shown.node.innerHTML === whole(shown.text).innerHTML")
    what = f"page: {name}, {_TOKENS:,} tokens at {_RATE}/s"
    report(f"{what}, longest task", f"{tasks[-1]:.1f} ms of CPU", "<= 50 ms")
    report("  all tasks", f"{sum(tasks) / _TOKENS:.2f} ms of CPU a token")
    report("  long tasks by the clock", f"{result['long']}", "0, if nothing else runs")
    report(
        "  elements, and memory of the script", f"{result['nodes']}, {_heap(page) - before:.1f} MB"
    )
    page.context.close()


def _hostile(browser: Browser, folder: Path, report: Report) -> None:
    longest: list[tuple[float, float, int]] = []
    for number, text in enumerate(large_answers(LARGE)):
        page = open_markdown(browser, str(folder), Problems(HOST), Look())
        _, tasks = _traced(browser, page, folder, _SHOW, text)
        longest.append((tasks[-1], sum(tasks), number))
        page.context.close()
    what = f"page: {len(longest)} hostile answers of 1 MB"
    task, _, number = max(longest)
    report(f"{what}, longest task", f"{task:.0f} ms of CPU (kind {number})", "<= 200 ms")
    whole, number = max((whole, number) for _, whole, number in longest)
    report("  longest until all is shown", f"{whole:.0f} ms of CPU (kind {number})", "<= 1000 ms")


def _traced(
    browser: Browser, page: Page, folder: Path, script: str, argument: Any
) -> tuple[Any, list[float]]:
    """Return what `script` gives, and the CPU time (ms) of each task of the main thread, sorted."""
    path = folder / "trace.json"
    browser.start_tracing(page=page, path=path, categories=["-*", "toplevel"])
    result = page.evaluate(script, argument)
    browser.stop_tracing()
    events = json.loads(path.read_text())["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = (
        event["tdur"] / 1000
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask"
        and (event["pid"], event["tid"]) in threads
        and "tdur" in event
    )
    return result, sorted(tasks)


def _heap(page: Page) -> float:
    """Return the memory of the page's script in MB, after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used / 1e6
