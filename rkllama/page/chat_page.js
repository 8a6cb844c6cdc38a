// The chat: which conversation is shown, and what happens to it.

import { composerView, forgetDraft } from './chat_composer.js';
import { chatDrawer } from './chat_drawer.js';
import { chatHello } from './chat_hello.js';
import { logView } from './chat_log.js';
import { modelPicker } from './chat_model.js';
import { chatRuns, chatSaver, endAbandoned } from './chat_runs.js';
import { chatSettingsDialog } from './chat_settings.js';
import './chat_words.js';
import { chatsListView } from './chats_list.js';
import { newId, whenChatsChange } from './chats_store.js';
import { notify } from './dialog.js';
import { h, iconButton } from './dom.js';
import { t } from './words.js';

const TITLE = 60;
/** Characters of a finished answer that are read to who cannot see it. */
const ANNOUNCED = 1500;

const freshEntry = () => ({ chat: { id: '', title: '', created: 0, updated: 0, model: '', settings: { options: {} }, revision: 0 }, messages: [] });

/** The chat's page over a store: `node`, `enter(place)`, `go(place)`. */
export function chatPage(store) {
  let entry = freshEntry();
  let opening = 0;
  let stale = false;
  let hello = '';
  let modelsError = null;
  const save = chatSaver(store, forked);
  const runs = chatRuns(save);
  const log = logView({ edit, remove, again, goOn, results, isLast: (message) => entry.messages.at(-1) === message });
  const composer = composerView({ send, stop: () => runs.stop(entry), think });
  const picker = modelPicker(modelChanged);
  const list = chatsListView(store, { rename, remove: removeChat, imported: () => list.refresh(), close: () => drawer.close(), fresh });
  const drawer = chatDrawer(list, { isShown: () => node.isConnected, escape: () => runs.stop(entry) });
  const announcement = h('div', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  const main = h(
    'section',
    { class: 'chat-main', 'aria-label': t('chat') },
    h('div', { class: 'chat-bar' }, drawer.button, picker.node, h('span', { class: 'chat-space' }), iconButton('settings', t('chat.settings'), changeSettings)),
    log.node,
    h('div', { class: 'chat-below' }, log.toEndButton, composer.node),
    announcement,
  );
  const node = h('div', { class: 'chat-view' }, list.node, drawer.shade, main);
  composer.acceptDrops(node);

  // --- Which chat is shown ---

  async function go(id) {
    if (id === entry.chat.id && (id || !entry.messages.length)) return;
    opening += 1;
    const turn = opening;
    const run = runs.ofChat(id);
    const next = run?.entry || (id ? await store.load(id) : freshEntry());
    if (turn !== opening) return;
    if (!next) {
      notify(t('chat.gone'), { error: true });
      location.hash = '#chat';
      return;
    }
    if (!run && id) endAbandoned(next);
    show(next);
    drawer.close();
  }

  function show(next) {
    const { chat, messages } = next;
    // What is being written stays, where another tab has changed the chat.
    if (chat.id !== entry.chat.id || !chat.id) composer.open(chat.id);
    entry = next;
    stale = false;
    hello = '';
    list.mark(chat.id);
    picker.choose(chat.model || picker.last(), false);
    if (messages.length) log.show(messages, runs.of(entry)?.view);
    showState();
  }

  /** What depends on more than the messages: the greeting, the buttons. */
  function showState() {
    const model = picker.known();
    const { think: chosen } = entry.chat.settings;
    composer.setModel(model, chosen ?? model.parameters.think !== 'false');
    composer.setRunning(Boolean(runs.of(entry)));
    if (!entry.messages.length) greet(model);
  }

  function greet(model) {
    const { none, guide, talks } = model;
    const next = JSON.stringify([none, guide, talks, modelsError?.message]);
    if (next === hello) return; // so that a focus within stays
    hello = next;
    log.instead(chatHello(model, modelsError, { ask: (text) => send(text, []), refresh, useGuide: picker.useGuide }));
  }

  async function reload() {
    const next = await store.load(entry.chat.id);
    if (next && !runs.of(entry)) show(next);
  }

  async function refresh() {
    try {
      await picker.refresh();
      modelsError = null;
    } catch (error) {
      modelsError = error;
    }
    showState();
  }

  function modelChanged(_, byHand) {
    if (byHand && entry.chat.id) entry.chat.model = picker.known().name;
    showState();
  }

  /** A new chat with the model that was chosen elsewhere. */
  function begun() {
    opening += 1;
    history.replaceState(null, '', '#chat');
    show(freshEntry());
  }

  function fresh() {
    drawer.close();
    composer.focus();
  }

  function forked(changed, old) {
    list.refresh();
    if (changed === entry) showAddress(changed.chat.id);
    else if (entry.chat.id === old) reload();
  }

  function showAddress(id) {
    history.replaceState(null, '', `#chat/${id}`);
    list.mark(id);
  }

  // --- Asking ---

  function send(text, pictures) {
    const model = picker.known();
    if (runs.of(entry)) return false;
    if (!model.name || !model.talks) {
      notify(t(model.name ? 'chat.noTalk' : 'chat.noModels'), { error: true });
      return false;
    }
    const message = { role: 'user', content: text, at: Date.now() };
    if (pictures.length) message.pictures = pictures;
    if (!entry.chat.id) begin(text);
    push(message);
    ask(entry.messages.length - 1);
    return true;
  }

  function begin(text) {
    const { chat } = entry;
    const line = text.split('\n', 1)[0].trim();
    chat.id = newId();
    chat.created = Date.now();
    chat.title = line.length > TITLE ? `${line.slice(0, TITLE)}…` : line || t('chat.picture', { number: 1 });
    showAddress(chat.id);
    forgetDraft('');
    composer.open(chat.id);
  }

  function push(message) {
    if (!entry.messages.length) log.show([]);
    entry.messages.push(message);
    return log.add(message);
  }

  /** Have what was said answered; the messages from the `from`th on are new. */
  function ask(from) {
    const { name } = picker.known();
    entry.chat.model = name;
    const view = push({ role: 'assistant', content: '', model: name, figures: {}, at: Date.now() });
    log.toEnd();
    return write(view, from);
  }

  /** Have an answer that was cut off written on. */
  function goOn(view) {
    const { message } = view;
    if (runs.of(entry) || entry.messages.at(-1) !== message) return;
    for (const name of ['end', 'error', 'repeats']) delete message[name];
    write(view, entry.messages.length - 1);
  }

  async function write(view, from) {
    const asked = entry;
    const saved = save(asked, from).then(() => list.refresh(asked.chat.id));
    const written = runs.start(asked, view, picker.known().thinks);
    showState();
    holdFocus();
    await Promise.all([saved, written]);
    if (asked === entry) {
      const { error, content } = view.message;
      announcement.textContent = `${t('chat.assistant')}: ${(error?.message || content).slice(0, ANNOUNCED)}`;
      showState();
    }
    list.refresh(asked.chat.id);
    refresh();
  }

  async function cutTo(count) {
    const changed = entry;
    await runs.stop(changed);
    const before = changed.messages;
    changed.messages = before.slice(0, count);
    log.cut(count);
    // An answer alone is asked for again; with more, somebody may not have meant it.
    if (before.length - count > 2) sayRemoved(before.length - count, () => holdMessages(changed, before, count));
  }

  /** Have an entry hold these messages, which differ from the `from`th on. */
  async function holdMessages(changed, messages, from) {
    await runs.stop(changed);
    changed.messages = messages;
    save(changed, from).then(() => list.refresh(changed.chat.id));
    if (changed !== entry) return;
    log.show(messages);
    hello = '';
    showState();
    holdFocus();
  }

  /** The focus goes to the composer where what had it is gone. */
  function holdFocus() {
    if (document.activeElement === document.body) composer.focus();
  }

  function sayRemoved(count, undo) {
    notify(t('chat.removed', { count }), { action: { text: t('chat.undo'), run: undo } });
  }

  async function edit(message, text) {
    const at = entry.messages.indexOf(message);
    await cutTo(at);
    push({ ...message, content: text, at: Date.now() });
    ask(at);
  }

  async function again(message) {
    const at = entry.messages.indexOf(message);
    await cutTo(at);
    ask(at);
  }

  function results(messages) {
    const at = entry.messages.length;
    messages.forEach(push);
    ask(at);
  }

  /** Delete a message; with a question goes what answers it. */
  async function remove(message) {
    const changed = entry;
    await runs.stop(changed);
    const before = changed.messages;
    const at = before.indexOf(message);
    let end = at + 1;
    if (message.role === 'user') while (end < before.length && before[end].role !== 'user') end += 1;
    holdMessages(changed, [...before.slice(0, at), ...before.slice(end)], at);
    sayRemoved(end - at, () => holdMessages(changed, before, at));
  }

  // --- Chats as a whole ---

  async function rename(chat, title) {
    const whole = runs.ofChat(chat.id)?.entry || (chat.id === entry.chat.id ? entry : { chat, messages: [] });
    whole.chat.title = title;
    await save(whole, null);
    await list.refresh(chat.id);
  }

  async function removeChat({ id, title }) {
    const whole = runs.ofChat(id)?.entry || (id === entry.chat.id ? entry : await store.load(id));
    if (!whole) return;
    await runs.stop(whole);
    whole.removed = true;
    await whole.saving;
    await store.remove(id);
    if (id === entry.chat.id) location.hash = '#chat';
    await list.refresh(id);
    forgetDraft(id);
    notify(t('chat.deleted', { title }), { action: { text: t('chat.undo'), run: () => putBack(whole) } });
  }

  async function putBack({ chat, messages }) {
    await store.save({ ...chat, revision: 0 }, messages, 0);
    await list.refresh(chat.id);
  }

  function think(on) {
    entry.chat.settings = { ...entry.chat.settings, think: on };
    keepSettings();
  }

  async function changeSettings() {
    const changed = entry;
    const settings = await chatSettingsDialog(changed.chat.settings, picker.known());
    if (settings === null) return;
    changed.chat.settings = settings;
    keepSettings();
  }

  function keepSettings() {
    if (entry.chat.id) save(entry, null);
    showState();
  }

  // --- What comes from outside ---

  whenChatsChange(({ id, revision }) => {
    list.refresh(id);
    if (id !== entry.chat.id || runs.of(entry) || revision <= entry.chat.revision) return;
    if (document.hidden || !node.isConnected) stale = true;
    else reload();
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden || !node.isConnected) return;
    if (stale) reload();
    refresh();
  });

  list.refresh();
  show(entry);
  return {
    node,
    enter(place) {
      if (place === 'new') begun();
      else if (!place && entry.chat.id) showAddress(entry.chat.id);
      else go(place);
      if (stale) reload();
      log.toEnd();
      drawer.fit();
      composer.focus();
      refresh();
    },
    go,
  };
}
