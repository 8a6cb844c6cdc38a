// Markdown that is shown while it is written. Texts become text nodes; nothing is ever parsed as HTML.
//
// The work is done in slices, one in each frame of the screen, so that no text makes the page stand still.

import { h } from './dom.js';
import { Blocks } from './markdown-blocks.js';
import { wholeCharacters } from './markdown-prose.js';

const SLICE = 8; // milliseconds
const [LEAST, MOST] = [4096, 131_072]; // characters in a slice: the browser has to lay them out, too
const AT_ONCE = 20_000; // characters that renderMarkdown shows before it returns
const LINE = 4096; // characters of a line that are looked at together
const LONG = 4096; // characters, behind which blocks that are out of sight are not laid out and painted
const LATEST = 250; // milliseconds: in a hidden tab no frames come

/** A view of a text that comes in pieces: `node` (a DIV), `append(text)`, `end()`, which resolves when all is shown,
 * and `text`, all that came. */
export function markdownView() {
  return new MarkdownView();
}

/** A view of a whole text. The end of a very long one comes in the next frames. */
export function renderMarkdown(text) {
  const view = new MarkdownView();
  view.append(text);
  view.end();
  view.work(AT_ONCE, Infinity);
  return view.node;
}

class MarkdownView {
  constructor() {
    this.node = h('div', { class: 'md' });
    this.blocks = new Blocks(this.node);
    this.text = '';
    this.taken = 0; // characters that are in the blocks
    this.rest = ''; // what is not in the blocks yet
    this.joined = false; // whether it begins inside a line
    this.ended = null;
    this.length = LEAST;
    this.behind = 0; // when the last slice ended, if it left something
    this.wait = null;
  }

  append(text) {
    if (this.ended) throw new Error('this text has ended');
    this.text += text;
    this.rest += text;
    this.schedule();
  }

  end() {
    if (!this.ended) {
      this.ended = new Promise((resolve) => {
        this.resolve = resolve;
      });
      this.schedule();
    }
    return this.ended;
  }

  schedule() {
    if (this.wait) return;
    const run = () => this.work(this.sliceLength(), SLICE);
    this.wait = { frame: requestAnimationFrame(run), timer: setTimeout(run, LATEST) };
  }

  /** Slices grow while frames come as often as they should, and shrink when they do not. */
  sliceLength() {
    const time = performance.now() - this.behind;
    if (this.behind) this.length = time < 25 ? Math.min(MOST, this.length * 2) : Math.max(LEAST, this.length / 2);
    return this.length;
  }

  /** Show what has come, up to `length` characters and for `time` milliseconds. */
  work(length, time) {
    this.unschedule();
    if (!this.blocks) return;
    const until = performance.now() + time;
    const least = Math.max(0, this.rest.length - length);
    let more = true;
    while (more && this.rest.length > least && performance.now() < until) more = this.takeLine();
    this.behind = more && this.rest ? performance.now() : 0;
    if (this.behind) this.schedule();
    else if (this.ended) this.finish();
    else this.blocks.preview(this.rest, this.joined);
  }

  unschedule() {
    if (!this.wait) return;
    cancelAnimationFrame(this.wait.frame);
    clearTimeout(this.wait.timer);
    this.wait = null;
  }

  /** Put a line, or a part of one that is too long, into the blocks; false if none is here. */
  takeLine() {
    const head = this.rest.slice(0, LINE);
    const end = head.indexOf('\n');
    if (end < 0 && this.rest.length <= LINE) return false;
    const length = end < 0 ? wholeCharacters(head, LINE) : end;
    this.blocks.line(withoutReturn(head.slice(0, length), end >= 0), this.joined, end >= 0);
    this.taken += length;
    this.blocks.far = this.taken > LONG;
    this.rest = this.rest.slice(end < 0 ? length : length + 1);
    this.joined = end < 0;
    return true;
  }

  finish() {
    if (this.rest || this.joined) this.blocks.line(withoutReturn(this.rest, true), this.joined, true);
    this.blocks.end();
    Object.assign(this, { blocks: null, rest: '' });
    this.resolve();
  }
}

function withoutReturn(line, whole) {
  return whole && line.endsWith('\r') ? line.slice(0, -1) : line;
}
