// The conversation that is shown, and what happens to what is said in it: asked, answered, edited, deleted.

import { ChatLog } from './chat-log.js';
import { chatSettingsDialog } from './chat-settings.js';
import { newId } from './chats-store.js';
import { notify } from './dialog.js';
import { t } from './words.js';

/** Characters of a title that is made of the first question. */
const TITLE = 60;

/** A chat in which nothing was said yet. */
export function freshEntry() {
  return { chat: { id: '', title: '', created: 0, updated: 0, model: '', settings: { options: {} }, revision: 0 }, messages: [] };
}

/** The conversation: `entry` is `{chat, messages}`, `log` shows it. `does`: model() that tells which one is to answer,
 * begun(id), changed(), saved(entry), ended(entry, answer). */
export class Conversation {
  entry = freshEntry();
  log = new ChatLog(this);
  #saver;
  #runs;
  #does;

  constructor(saver, runs, does) {
    this.#saver = saver;
    this.#runs = runs;
    this.#does = does;
  }

  /** Go over to this chat. An empty one leaves the log to a greeting. */
  show(entry) {
    const { messages } = entry;
    this.entry = entry;
    if (messages.length) this.log.show(messages, this.#runs.of(entry)?.view);
  }

  get isRunning() {
    return Boolean(this.#runs.of(this.entry));
  }

  isLast(message) {
    return this.entry.messages.at(-1) === message;
  }

  stop() {
    return this.#runs.stop(this.entry);
  }

  // --- Asking ---

  /** Ask; whether the question was taken. */
  send(text, pictures = []) {
    const { name, talks } = this.#does.model();
    if (this.isRunning) return false;
    if (!name || !talks) {
      notify(t(name ? 'chat.noTalk' : 'chat.noModels'), { error: true });
      return false;
    }
    const message = { role: 'user', content: text, at: Date.now() };
    if (pictures.length) message.pictures = pictures;
    if (!this.entry.chat.id) this.#begin(text);
    this.#askWith([message]);
    return true;
  }

  /** Give what the tools gave that the last answer has called. */
  results(messages) {
    this.#askWith(messages);
  }

  /** Have a question asked in other words; what came after it goes. */
  async edit(message, text) {
    await this.#cutTo(message);
    this.#askWith([{ ...message, content: text, at: Date.now() }]);
  }

  /** Have an answer written anew. */
  async again(message) {
    await this.#cutTo(message);
    this.#askWith([]);
  }

  /** Have an answer that was cut off written on. */
  goOn(view) {
    const { message } = view;
    if (this.isRunning || !this.isLast(message)) return;
    for (const name of ['end', 'error', 'repeats']) delete message[name];
    this.#write(view, this.entry.messages.length - 1);
  }

  #begin(text) {
    const { chat } = this.entry;
    const line = text.split('\n', 1)[0].trim();
    chat.id = newId();
    chat.created = Date.now();
    chat.title = line.length > TITLE ? `${line.slice(0, TITLE)}…` : line || t('chat.picture', { number: 1 });
    this.#does.begun(chat.id);
  }

  /** Add these messages, and have all that was said answered. */
  #askWith(messages) {
    const from = this.entry.messages.length;
    const { name } = this.#does.model();
    for (const message of messages) this.#push(message);
    this.entry.chat.model = name;
    const view = this.#push({ role: 'assistant', content: '', model: name, figures: {}, at: Date.now() });
    this.log.toEnd();
    this.#write(view, from);
  }

  #push(message) {
    const { messages } = this.entry;
    if (!messages.length) this.log.show([]);
    messages.push(message);
    return this.log.add(message);
  }

  /** Have the last answer written; the messages from the `from`th on are not saved yet. */
  async #write(view, from) {
    const { entry } = this;
    const saved = this.#save(entry, from);
    const written = this.#runs.start(entry, view, this.#does.model().thinks);
    this.#does.changed();
    await Promise.all([saved, written]);
    this.#does.ended(entry, view.message);
  }

  async #save(entry, from) {
    await this.#saver.save(entry, from);
    this.#does.saved(entry);
  }

  // --- Its settings ---

  think(think) {
    this.#keepSettings(this.entry, { ...this.entry.chat.settings, think });
  }

  async changeSettings() {
    const { entry } = this;
    const settings = await chatSettingsDialog(entry.chat.settings, this.#does.model());
    if (settings !== null) this.#keepSettings(entry, settings);
  }

  #keepSettings(entry, settings) {
    entry.chat.settings = settings;
    if (entry.chat.id) this.#saver.save(entry, null);
    this.#does.changed();
  }

  // --- Taking away ---

  /** Delete a message; with a question goes what answers it. */
  async remove(message) {
    const { entry } = this;
    await this.#runs.stop(entry);
    const before = entry.messages;
    const at = before.indexOf(message);
    let end = at + 1;
    if (message.role === 'user') while (end < before.length && before[end].role !== 'user') end += 1;
    this.#hold(entry, [...before.slice(0, at), ...before.slice(end)], at);
    sayRemoved(end - at, () => this.#hold(entry, before, at));
  }

  /** Take a message away, and what came after it. */
  async #cutTo(message) {
    const { entry } = this;
    const at = entry.messages.indexOf(message);
    await this.#runs.stop(entry);
    const before = entry.messages;
    entry.messages = before.slice(0, at);
    this.log.cut(at);
    const count = before.length - at;
    // An answer alone is asked for again; with more, somebody may not have meant it.
    if (count > 2) sayRemoved(count, () => this.#hold(entry, before, at));
  }

  /** Have an entry hold these messages, which differ from the `from`th on. */
  async #hold(entry, messages, from) {
    await this.#runs.stop(entry);
    entry.messages = messages;
    this.#save(entry, from);
    if (entry !== this.entry) return;
    this.log.show(messages);
    this.#does.changed();
  }
}

function sayRemoved(count, undo) {
  notify(t('chat.removed', { count }), { action: { text: t('chat.undo'), run: undo } });
}
