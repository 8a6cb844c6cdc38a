// The saving of chats that are open, each a `{chat, messages}`.

import { ChatChanged, newId } from './chats-store.js';
import { notify } from './dialog.js';
import { t } from './words.js';

/** Saves entries, one save of a chat after the other. `forked(entry, old id)` is called when another tab has changed the
 * chat, so that what is here had to become a chat of its own. */
export class ChatSaver {
  #store;
  #forked;

  constructor(store, forked) {
    this.#store = store;
    this.#forked = forked;
  }

  /** Save an entry's messages from the `from`th on, or only what is not messages (`from` null). */
  save(entry, from) {
    entry.saving = (entry.saving ?? Promise.resolve()).then(() => this.#save(entry, from));
    return entry.saving;
  }

  async #save(entry, from) {
    if (entry.removed) return;
    const { chat, messages } = entry;
    if (from !== null) chat.updated = Date.now();
    try {
      await this.#store.save(chat, from === null ? null : messages, from ?? 0);
    } catch (error) {
      if (error instanceof ChatChanged) await this.#fork(entry).catch(sayUnsaved);
      else sayUnsaved(error);
    }
  }

  async #fork(entry) {
    const { chat, messages } = entry;
    entry.chat = { ...chat, id: newId(), title: t('chat.copyOf', chat), revision: 0 };
    for (const message of messages) {
      if (message.pictures) message.pictures = message.pictures.map((picture) => ({ ...picture, id: newId() }));
    }
    await this.#store.save(entry.chat, messages, 0);
    notify(t('chat.forked'));
    this.#forked(entry, chat.id);
  }
}

function sayUnsaved(error) {
  notify(t('chat.notSaved', { reason: error.message }), { error: true });
}
