// The chats at the side: searched, renamed, deleted, exported, imported.

import { fileInput } from './chat_composer.js';
import { chatToMarkdown, chatsFromFile, chatsToJSON, fileName, saveFile } from './chats_export.js';
import { dialog, notify } from './dialog.js';
import { field, fill, h, icon, iconButton, textButton } from './dom.js';
import { moment, t } from './words.js';

/** Chats that are listed at once; the rest when the list's end is near. */
const LISTED = 100;

/** The list of a store's chats. `does`: rename(chat, title), remove(chat), imported(entries), close(). */
export function chatsListView(store, does) {
  let chats = [];
  let current = '';
  let matches = null;
  let limit = LISTED;
  let searching = 0;
  const texts = chatTexts(store);
  const list = h('ul', { class: 'chats-list' });
  const more = h('li', { class: 'chats-end' });
  const search = h('input', { type: 'search', 'aria-label': t('chat.search'), placeholder: t('chat.search'), on: { input: find, keydown: searchKey } });
  const file = fileInput({ accept: '.json,application/json' }, importFile);
  const node = h(
    'nav',
    { class: 'chats', id: 'chats', 'aria-label': t('chat.list') },
    h(
      'div',
      { class: 'chats-head' },
      h('a', { class: 'button chats-new', href: '#chat', on: { click: () => does.fresh() } }, icon('plus'), t('chat.new')),
      iconButton('close', t('chat.hideList'), () => does.close(), { class: 'chats-close' }),
    ),
    h('div', { class: 'chats-search' }, search),
    !store.kept && h('p', { class: 'chats-note' }, t('chat.notKept')),
    list,
    h(
      'div',
      { class: 'chats-foot' },
      textButton(t('chat.import'), () => file.click(), 'small', 'upload'),
      textButton(t('chat.exportAll'), exportAll, 'small', 'download'),
      file,
    ),
  );
  new IntersectionObserver(
    ([{ isIntersecting }]) => {
      if (!isIntersecting || limit >= shown().length) return;
      limit += LISTED;
      show();
    },
    { root: list, rootMargin: '400px' },
  ).observe(more);

  const shown = () => (matches ? chats.filter(({ id }) => matches.has(id)) : chats);

  function show() {
    const all = shown();
    const rows = all.slice(0, limit).map((chat) => chatRow(chat, chat.id === current, matches?.get(chat.id), openMenu, does.close));
    const { activeElement } = document;
    const focused = list.contains(activeElement) && activeElement.closest('.chats-row').firstChild.dataset.chat;
    fill(list, rows, all.length ? null : h('li', { class: 'chats-none' }, t(matches ? 'chat.noMatch' : 'chat.noChats')), more);
    if (!focused) return;
    const link = [...list.querySelectorAll('a')].find(({ dataset }) => dataset.chat === focused);
    (activeElement.matches('a') ? link : link?.nextSibling)?.focus();
    if (!link) search.focus();
  }

  async function find() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    searching += 1;
    const turn = searching;
    limit = LISTED;
    const found = words.length ? await texts.find(chats, words) : null;
    if (turn !== searching) return; // more has been typed meanwhile
    matches = found;
    show();
  }

  function searchKey(event) {
    if (event.key === 'Escape' && search.value) {
      event.stopPropagation();
      search.value = '';
      find();
    }
  }

  async function openMenu(chat) {
    const action = await chatMenu(chat);
    if (action === null) return;
    if (action.title !== undefined) await does.rename(chat, action.title);
    else if (action.remove) await does.remove(chat);
    else await exportChat(chat, action.as);
  }

  async function exportChat({ id }, as) {
    const entry = await store.load(id);
    if (!entry) return;
    const { title } = entry.chat;
    if (as === 'md') saveFile(fileName(title, 'md'), 'text/markdown', chatToMarkdown(entry));
    else saveFile(fileName(title, 'json'), 'application/json', chatsToJSON([entry]));
  }

  async function exportAll() {
    const entries = [];
    for (const { id } of chats) entries.push(await store.load(id));
    saveFile(fileName('rkllama chats', 'json'), 'application/json', chatsToJSON(entries.filter(Boolean)));
  }

  async function importFile([given]) {
    if (!given) return;
    try {
      const entries = await chatsFromFile(given);
      await store.saveAll(entries);
      notify(t('chat.imported', { count: entries.length }));
      await does.imported();
    } catch (error) {
      notify(t('chat.notImported', { name: given.name, reason: error.message }), { error: true });
    }
  }

  return {
    node,
    search,
    /** Show what the store has now; `changed` is the chat whose texts are no longer as they were read. */
    async refresh(changed) {
      texts.forget(changed);
      chats = await store.list();
      if (search.value) await find();
      else show();
    },
    /** The chat that is shown beside the list. */
    mark(id) {
      current = id;
      for (const link of list.querySelectorAll('a')) {
        if (link.dataset.chat === id) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
      }
    },
  };
}

function chatRow(chat, isCurrent, snippet, openMenu, close) {
  const title = chat.title || t('chat.untitled');
  return h(
    'li',
    { class: 'chats-row' },
    h(
      'a',
      { href: `#chat/${chat.id}`, class: 'chats-link', 'aria-current': isCurrent ? 'true' : null, dataset: { chat: chat.id }, on: { click: close } },
      h('span', { class: 'chats-title' }, title),
      h('span', { class: 'chats-when' }, snippet || moment(chat.updated)),
    ),
    iconButton('more', t('chat.more', { title }), () => openMenu(chat), { class: 'chats-more' }),
  );
}

/** What is to be done with a chat: `{title}`, `{remove}`, `{as}`, or null. */
function chatMenu(chat) {
  return dialog(t('chat.about'), (close) => {
    const title = h('input', { value: chat.title, maxlength: 200, required: true });
    const act = (sign, words, action, look) => textButton(t(words), () => close(action), look, sign);
    return h(
      'form',
      {
        on: {
          submit: (event) => {
            event.preventDefault();
            if (title.value.trim()) close({ title: title.value.trim() });
          },
        },
      },
      field(t('chat.title'), title),
      h('div', { class: 'buttons' }, h('button', { class: 'button primary' }, t('chat.rename'))),
      h(
        'div',
        { class: 'chats-menu' },
        act('download', 'chat.asMarkdown', { as: 'md' }),
        act('download', 'chat.asJSON', { as: 'json' }),
        act('trash', 'models.delete', { remove: true }, 'danger'),
      ),
    );
  });
}

/** The texts of all chats, read when first searched, and again for those that have changed. */
function chatTexts(store) {
  let texts = null;

  async function read() {
    const pieces = new Map();
    await store.texts((id, text) => {
      if (pieces.has(id)) pieces.get(id).push(text);
      else pieces.set(id, [text]);
    });
    return pieces;
  }

  return {
    forget(id) {
      if (id === undefined || !texts) texts = null;
      else texts = texts.then(async (pieces) => pieces.set(id, (await store.load(id))?.messages.map(({ content }) => content) || []));
    },
    /** The chats that have all `words`, in title or texts: id -> the words around the first one in a text, or "". */
    async find(chats, words) {
      texts ??= read();
      const pieces = await texts;
      const found = new Map();
      for (const { id, title } of chats) {
        const snippet = matchChat(title.toLowerCase(), pieces.get(id) || [], words);
        if (snippet !== null) found.set(id, snippet);
      }
      return found;
    },
  };
}

function matchChat(title, texts, words) {
  let snippet = '';
  for (const word of words) {
    if (title.includes(word)) continue;
    const text = texts.find((piece) => piece.toLowerCase().includes(word));
    if (text === undefined) return null;
    const at = text.toLowerCase().indexOf(word);
    snippet ||= `${at > 24 ? '…' : ''}${text.slice(Math.max(0, at - 24), at + 60)}`;
  }
  return snippet;
}
