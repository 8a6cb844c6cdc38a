// What a model thinks before it answers: open while it is thought, folded then.

import { h } from './dom.js';
import { duration, t } from './words.js';

/** Thoughts. A line is an element of its own, so that a new word lays out its line only; words are put in once per frame. */
export class Thoughts {
  #title = h('summary', {}, t('chat.thinking'));
  #body = h('div', { class: 'chat-thoughts-text' });
  #waiting = '';
  #line = null;
  #frame = 0;
  #ended = false;
  node = h('details', { class: 'chat-thoughts' }, this.#title, this.#body);

  add(piece) {
    this.#waiting += piece;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** Fold them; `seconds` is how long they took. */
  end(seconds) {
    if (this.#ended) return;
    this.#ended = true;
    cancelAnimationFrame(this.#frame);
    this.#flush();
    this.node.open = false;
    this.#title.textContent = seconds === undefined ? t('chat.thoughtOnly') : t('chat.thought', { time: duration(seconds) });
  }

  #flush() {
    this.#frame = 0;
    const pieces = this.#waiting.split('\n');
    this.#waiting = '';
    pieces.forEach((piece, at) => {
      if (at > 0 || !this.#line) this.#body.append(h('div', {}, (this.#line = new Text(piece))));
      else this.#line.appendData(piece);
    });
  }
}
