// The conversation: its messages one below the other, and a scroll that stays at the end while the reader is there.
//
// Messages stand in groups. A group that is far from the screen is one text, which the browser's own search finds and which
// nothing has to lay out; its messages are drawn when it comes near. So a long chat costs what is looked at of it.

import { fill, h, textButton } from './dom.js';
import { guessHeight, messageView } from './chat_message.js';
import { t } from './words.js';

const GROUP = 8;
/** Pixels from the end that still count as the end. */
const NEAR_END = 80;

/** The log. `does` is for the messages' buttons. */
export function logView(does) {
  const inner = h('div', { class: 'chat-inner' });
  const node = h('div', { class: 'chat-log', role: 'log', 'aria-live': 'off', 'aria-label': t('chat.log'), tabindex: '0' }, inner);
  const scroll = stickyScroll(node, inner);
  let groups = [];
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) groups.find((group) => group.node === target)?.draw();
    },
    { root: node, rootMargin: '800px 0px' },
  );

  function group(messages, running) {
    const made = groupView(messages, running, does);
    groups.push(made);
    near.observe(made.node);
    return made;
  }

  function clear() {
    near.disconnect();
    groups = [];
    inner.classList.remove('chat-empty');
  }

  return {
    node,
    toEndButton: scroll.button,
    /** Show these messages, at their end; `running` is the view of an answer that is being written, if there is one. */
    show(messages, running = null) {
      clear();
      for (let at = 0; at < messages.length; at += GROUP) group(messages.slice(at, at + GROUP), running);
      groups.at(-1)?.draw();
      fill(inner, groups.map((each) => each.node));
      scroll.toEnd();
    },
    /** Show one more message, drawn. */
    add(message) {
      let last = groups.at(-1);
      if (!last || last.messages.length >= GROUP) {
        last = group([], null);
        inner.append(last.node);
      }
      return last.add(message);
    },
    /** Take the messages from the `count`th on away. */
    cut(count) {
      groups.slice(Math.ceil(count / GROUP)).forEach((each) => each.node.remove());
      groups = groups.slice(0, Math.ceil(count / GROUP));
      if (count % GROUP) groups.at(-1).cut(count % GROUP);
    },
    /** Show something else in the place of messages. */
    instead(...nodes) {
      clear();
      inner.classList.add('chat-empty');
      fill(inner, ...nodes);
    },
    toEnd: scroll.toEnd,
  };
}

function groupView(messages, running, does) {
  const node = h('div', { class: 'chat-group' }, messages.map(({ content }) => content).join('\n\n'));
  node.style.setProperty('--chat-tall', `${messages.reduce((sum, message) => sum + guessHeight(message), 0)}px`);
  let drawn = false;
  const view = (message) => {
    const made = running?.message === message ? running : messageView(message, does);
    node.append(made.node);
    return made;
  };
  const group = {
    node,
    messages,
    draw() {
      if (drawn) return;
      drawn = true;
      fill(node);
      messages.forEach(view);
    },
    add(message) {
      group.draw();
      messages.push(message);
      return view(message);
    },
    cut(count) {
      group.draw();
      messages.length = count;
      for (const child of [...node.children].slice(count)) child.remove();
    },
  };
  return group;
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
    if (!button.hidden) button.hidden = true;
  };
  const button = textButton(t('chat.toEnd'), toEnd, 'small chat-toend', 'download');
  button.hidden = true;
  const scrolled = () => {
    const now = node.scrollTop;
    // What was written since the last scroll may lie below; only a reader goes up.
    if (node.scrollHeight - node.clientHeight - now < NEAR_END) atEnd = true;
    else if (now < top - 1) atEnd = false;
    top = now;
    button.hidden = atEnd;
  };
  node.addEventListener('scroll', scrolled, { passive: true });
  const resized = new ResizeObserver(() => {
    if (atEnd) toEnd();
  });
  resized.observe(inner);
  resized.observe(node);
  return { toEnd, button };
}
