// The conversation: its messages one below the other, and a scroll that stays at the end while the reader is there.
//
// Messages stand in groups. A group that is far from the screen is one text, which the browser's own search finds and which
// nothing has to lay out; its messages are drawn when it comes near. So a long chat costs what is looked at of it.

import { guessHeight, messageView } from './chat-message.js';
import { StickyScroll } from './chat-scroll.js';
import { fill, h } from './dom.js';
import { t } from './words.js';

/** Messages in a group. */
const GROUP = 8;

/** The log. `does` is for the messages' buttons. */
export class ChatLog {
  #does;
  #groups = [];
  #inner = h('div', { class: 'chat-inner' });
  node = h('div', { class: 'chat-log', role: 'log', 'aria-live': 'off', 'aria-label': t('chat.log'), tabindex: '0' }, this.#inner);
  #scroll = new StickyScroll(this.node, this.#inner);
  #near = new IntersectionObserver((entries) => this.#come(entries), { root: this.node, rootMargin: '800px 0px' });

  constructor(does) {
    this.#does = does;
  }

  /** The button that leads to the end, while the reader is elsewhere. */
  get toEndButton() {
    return this.#scroll.button;
  }

  toEnd() {
    this.#scroll.toEnd();
  }

  /** Show these messages, at their end; `running` is the view of an answer that is being written, if there is one. */
  show(messages, running = null) {
    this.#clear();
    for (let at = 0; at < messages.length; at += GROUP) this.#group(messages.slice(at, at + GROUP), running);
    this.#groups.at(-1)?.draw();
    fill(this.#inner, this.#groups.map(({ node }) => node));
    this.toEnd();
  }

  /** Show one more message, drawn. */
  add(message) {
    let last = this.#groups.at(-1);
    if (!last || last.size >= GROUP) {
      last = this.#group([]);
      this.#inner.append(last.node);
    }
    return last.add(message);
  }

  /** Take the messages from the `count`th on away. */
  cut(count) {
    for (const { node } of this.#groups.splice(Math.ceil(count / GROUP))) node.remove();
    if (count % GROUP) this.#groups.at(-1).cut(count % GROUP);
  }

  /** Show something else in the place of messages. */
  instead(node) {
    this.#clear();
    this.#inner.classList.add('chat-empty');
    fill(this.#inner, node);
  }

  #group(messages, running = null) {
    const group = new MessageGroup(messages, running, this.#does);
    this.#groups.push(group);
    this.#near.observe(group.node);
    return group;
  }

  #come(entries) {
    for (const { isIntersecting, target } of entries) if (isIntersecting) this.#groups.find(({ node }) => node === target)?.draw();
  }

  #clear() {
    this.#near.disconnect();
    this.#groups = [];
    this.#inner.classList.remove('chat-empty');
  }
}

class MessageGroup {
  #messages;
  #running;
  #does;
  #drawn = false;

  constructor(messages, running, does) {
    this.#messages = messages;
    this.#running = running;
    this.#does = does;
    this.node = h('div', { class: 'chat-group' }, messages.map(({ content }) => content).join('\n\n'));
    this.node.style.setProperty('--chat-tall', `${messages.reduce((sum, message) => sum + guessHeight(message), 0)}px`);
  }

  get size() {
    return this.#messages.length;
  }

  draw() {
    if (this.#drawn) return;
    this.#drawn = true;
    fill(this.node);
    for (const message of this.#messages) this.#append(message);
  }

  add(message) {
    this.draw();
    this.#messages.push(message);
    return this.#append(message);
  }

  cut(count) {
    this.draw();
    this.#messages.length = count;
    for (const child of [...this.node.children].slice(count)) child.remove();
  }

  #append(message) {
    const view = this.#running?.message === message ? this.#running : messageView(message, this.#does);
    this.node.append(view.node);
    return view;
  }
}
