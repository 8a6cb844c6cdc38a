// The list at the side: always there on a wide screen, drawn over the chat on a narrow one. And the keys that lead to it.

import { h, iconButton } from './dom.js';
import { t } from './words.js';

const NARROW = matchMedia('(max-width: 56.2rem)');

/** `list` is the list's view. `isShown()` is whether the chat is, `escape()` what Esc does where there is nothing to close. */
export class ChatDrawer {
  #list;
  #does;
  #open = false;
  button = iconButton('menu', t('chat.showList'), () => this.#set(true), { class: 'chat-menu', 'aria-controls': 'chats' });
  shade = h('div', { class: 'chat-shade', hidden: true, on: { click: () => this.#set(false) } });

  constructor(list, does) {
    this.#list = list;
    this.#does = does;
    NARROW.addEventListener('change', () => this.fit());
    document.addEventListener('keydown', (event) => this.#pressed(event));
    this.fit();
  }

  close() {
    if (this.#open) this.#set(false);
  }

  /** Let it be as the screen's width wants it. */
  fit() {
    this.#open &&= NARROW.matches;
    this.#list.node.classList.toggle('chats-open', this.#open);
    this.#list.node.inert = NARROW.matches && !this.#open;
    this.shade.hidden = !this.#open;
    this.button.ariaExpanded = String(this.#open);
  }

  #set(wanted) {
    const was = this.#open;
    this.#open = wanted;
    this.fit();
    if (this.#open) this.#list.search.focus();
    else if (was) this.button.focus();
  }

  #pressed(event) {
    if (!this.#does.isShown() || event.defaultPrevented || document.querySelector('dialog[open]')) return;
    const withControl = event.ctrlKey || event.metaKey;
    const plain = !withControl && !event.altKey;
    if (event.key.toLowerCase() === 'k' && withControl) this.#toSearch(event);
    else if (event.key === '/' && plain && !event.target.closest('input, textarea, select')) this.#toSearch(event);
    else if (event.key === 'Escape' && this.#open) this.#set(false);
    else if (event.key === 'Escape' && !event.isComposing) this.#does.escape();
  }

  #toSearch(event) {
    event.preventDefault();
    this.#set(true);
    this.#list.search.focus();
    this.#list.search.select();
  }
}
