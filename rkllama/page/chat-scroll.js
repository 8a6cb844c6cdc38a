// A scroll that stays at the end while the reader is there.

import { textButton } from './dom.js';
import { t } from './words.js';

/** Pixels from the end that still count as the end. */
const NEAR_END = 80;

/** Keeps `scroller` at its end while its reader is there, as `inner` grows. Only the browser's own notices are used, after
 * it has laid out the page itself: nothing is measured for a token. */
export class StickyScroll {
  #scroller;
  #atEnd = true;
  #top = 0;
  button = textButton(t('chat.toEnd'), () => this.toEnd(), 'small chat-toend', 'download');

  constructor(scroller, inner) {
    this.#scroller = scroller;
    this.button.hidden = true;
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    const sizes = new ResizeObserver(() => this.#atEnd && this.toEnd());
    sizes.observe(inner);
    sizes.observe(scroller);
  }

  toEnd() {
    const scroller = this.#scroller;
    this.#atEnd = true;
    scroller.scrollTop = scroller.scrollHeight;
    this.#top = scroller.scrollTop;
    if (!this.button.hidden) this.button.hidden = true;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    // What was written since the last scroll may lie below; only a reader goes up.
    if (scrollHeight - clientHeight - scrollTop < NEAR_END) this.#atEnd = true;
    else if (scrollTop < this.#top - 1) this.#atEnd = false;
    this.#top = scrollTop;
    this.button.hidden = this.#atEnd;
  }
}
