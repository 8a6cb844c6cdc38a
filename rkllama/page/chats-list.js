// The chats at the side: searched, renamed, deleted, exported, imported.

import { importChats, saveAllChats, saveChat } from './chats-files.js';
import { chatMenu } from './chats-menu.js';
import { ChatTexts } from './chats-search.js';
import { fileInput, fill, h, icon, iconButton, textButton } from './dom.js';
import { moment, t } from './words.js';

/** Chats that are listed at once; the rest when the list's end is near. */
const LISTED = 100;

/** The list of a store's chats. `does`: rename(chat, title), remove(chat), fresh(), close(). */
export class ChatsList {
  #store;
  #does;
  #texts;
  #chats = [];
  #current = '';
  #matches = null;
  #limit = LISTED;
  #searching = 0;
  #rows = h('ul', { class: 'chats-list' });
  #end = h('li', { class: 'chats-end' });
  #file = fileInput({ accept: '.json,application/json' }, ([file]) => this.#import(file));
  search = h('input', {
    type: 'search',
    'aria-label': t('chat.search'),
    placeholder: t('chat.search'),
    on: { input: () => this.#find(), keydown: (event) => this.#pressed(event) },
  });

  constructor(store, does) {
    this.#store = store;
    this.#does = does;
    this.#texts = new ChatTexts(store);
    this.node = h(
      'nav',
      { class: 'chats', id: 'chats', 'aria-label': t('chat.list') },
      this.#head(),
      h('div', { class: 'chats-search' }, this.search),
      !store.kept && h('p', { class: 'chats-note' }, t('chat.notKept')),
      this.#rows,
      this.#foot(),
    );
    new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.#showMore(), { root: this.#rows, rootMargin: '400px' }).observe(this.#end);
  }

  /** Show what the store has now; `changed` is the chat whose texts are no longer as they were read. */
  async refresh(changed) {
    this.#texts.forget(changed);
    this.#chats = await this.#store.list();
    if (this.search.value) await this.#find();
    else this.#show();
  }

  /** The chat that is shown beside the list. */
  mark(id) {
    this.#current = id;
    for (const link of this.#rows.querySelectorAll('a')) link.ariaCurrent = link.dataset.chat === id ? 'true' : null;
  }

  #head() {
    return h(
      'div',
      { class: 'chats-head' },
      h('a', { class: 'button chats-new', href: '#chat', on: { click: () => this.#does.fresh() } }, icon('plus'), t('chat.new')),
      iconButton('close', t('chat.hideList'), () => this.#does.close(), { class: 'chats-close' }),
    );
  }

  #foot() {
    return h(
      'div',
      { class: 'chats-foot' },
      textButton(t('chat.import'), () => this.#file.click(), 'small', 'upload'),
      textButton(t('chat.exportAll'), () => saveAllChats(this.#store, this.#chats), 'small', 'download'),
      this.#file,
    );
  }

  get #shown() {
    return this.#matches ? this.#chats.filter(({ id }) => this.#matches.has(id)) : this.#chats;
  }

  #show() {
    const shown = this.#shown;
    const focus = this.#keptFocus();
    const none = !shown.length && h('li', { class: 'chats-none' }, t(this.#matches ? 'chat.noMatch' : 'chat.noChats'));
    fill(this.#rows, shown.slice(0, this.#limit).map((chat) => this.#row(chat)), none, this.#end);
    focus();
  }

  /** What gives the focus back to the row that has it, once the rows are made anew. */
  #keptFocus() {
    const { activeElement } = document;
    if (!this.#rows.contains(activeElement)) return () => {};
    const { chat } = activeElement.closest('.chats-row').firstChild.dataset;
    return () => {
      const link = [...this.#rows.querySelectorAll('a')].find(({ dataset }) => dataset.chat === chat);
      const same = activeElement.matches('a') ? link : link?.nextSibling;
      (same || this.search).focus();
    };
  }

  #row(chat) {
    const { id, updated } = chat;
    const title = chat.title || t('chat.untitled');
    return h(
      'li',
      { class: 'chats-row' },
      h(
        'a',
        { href: `#chat/${id}`, class: 'chats-link', 'aria-current': id === this.#current && 'true', dataset: { chat: id }, on: { click: () => this.#does.close() } },
        h('span', { class: 'chats-title' }, title),
        h('span', { class: 'chats-when' }, this.#matches?.get(id) || moment(updated)),
      ),
      iconButton('more', t('chat.more', { title }), () => this.#openMenu(chat), { class: 'chats-more' }),
    );
  }

  #showMore() {
    if (this.#limit >= this.#shown.length) return;
    this.#limit += LISTED;
    this.#show();
  }

  async #find() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.#searching += 1;
    const turn = this.#searching;
    this.#limit = LISTED;
    const found = words.length ? await this.#texts.find(this.#chats, words) : null;
    if (turn !== this.#searching) return; // more has been typed meanwhile
    this.#matches = found;
    this.#show();
  }

  #pressed(event) {
    if (event.key !== 'Escape' || !this.search.value) return;
    event.stopPropagation();
    this.search.value = '';
    this.#find();
  }

  async #openMenu(chat) {
    const { title, remove, as } = (await chatMenu(chat)) || {};
    if (title) await this.#does.rename(chat, title);
    if (remove) await this.#does.remove(chat);
    if (as) await saveChat(this.#store, chat, as);
  }

  async #import(file) {
    if (file && (await importChats(this.#store, file))) await this.refresh();
  }
}
