// The conversation: its messages one below the other, and a scroll that stays at the end while the reader is there.

import { fill, h, icon } from './dom.js';
import { messageView } from './chat_message.js';
import { t } from './words.js';

/** Messages that are drawn before the first paint; the others when they come near the screen. */
const DRAWN_AT_ONCE = 6;
/** Pixels from the end that still count as the end. */
const NEAR_END = 80;

/** The log. `does` is for the messages' buttons. */
export function logView(does) {
  const inner = h('div', { class: 'chat-inner' });
  const node = h('div', { class: 'chat-log', role: 'log', 'aria-live': 'off', 'aria-label': t('chat.log'), tabindex: '0' }, inner);
  const views = new Map();
  const scroll = stickyScroll(node, inner);
  const drawer = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        drawer.unobserve(target);
        views.get(target)?.draw();
      }
    },
    { root: node, rootMargin: '1000px 0px' },
  );

  function add(message) {
    const view = messageView(message, does);
    views.set(view.node, view);
    inner.append(view.node);
    return view;
  }

  return {
    node,
    toEndButton: scroll.button,
    /** Show these messages, at their end; `running` is the view of an answer that is being written, if there is one. */
    show(messages, running = null) {
      drawer.disconnect();
      views.clear();
      const shown = messages.map((message) => (running?.message === message ? running : messageView(message, does)));
      for (const view of shown) views.set(view.node, view);
      fill(inner, shown.map((view) => view.node));
      for (const view of shown.slice(-DRAWN_AT_ONCE)) view.draw();
      for (const view of shown.slice(0, -DRAWN_AT_ONCE)) drawer.observe(view.node);
      scroll.toEnd();
    },
    /** Show one more message, drawn. */
    add(message) {
      const view = add(message);
      view.draw();
      return view;
    },
    /** Take the messages from the `count`th on away. */
    cut(count) {
      for (const node of [...inner.children].slice(count)) {
        views.delete(node);
        node.remove();
      }
    },
    /** Show something else in the place of messages. */
    instead(...nodes) {
      drawer.disconnect();
      views.clear();
      fill(inner, ...nodes);
    },
    toEnd: scroll.toEnd,
  };
}

/** Keep a scroller at its end while its reader is there. Only the browser's own notices are used, after it has laid out the
 * page itself: nothing is measured for a token. */
function stickyScroll(node, inner) {
  let atEnd = true;
  let top = 0;
  const toEnd = () => {
    atEnd = true;
    node.scrollTop = node.scrollHeight;
    top = node.scrollTop;
    button.hidden = true;
  };
  const button = h('button', { type: 'button', class: 'button small chat-toend', hidden: true, on: { click: toEnd } }, icon('download'), t('chat.toEnd'));
  node.addEventListener(
    'scroll',
    () => {
      const now = node.scrollTop;
      const near = node.scrollHeight - node.clientHeight - now < NEAR_END;
      // What was written since the last scroll may lie below; only a reader goes up.
      if (near) atEnd = true;
      else if (now < top - 1) atEnd = false;
      top = now;
      button.hidden = atEnd;
    },
    { passive: true },
  );
  new ResizeObserver(() => {
    if (atEnd) toEnd();
  }).observe(inner);
  new ResizeObserver(() => {
    if (atEnd) toEnd();
  }).observe(node);
  return { toEnd, button };
}
