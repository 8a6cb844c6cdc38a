// The chat: its parts, and which conversation is shown.

// In an order in which the page packs well.
import { Conversation, freshEntry } from './chat-conversation.js';
import { ChatsList } from './chats-list.js';
import { Composer, forgetDraft } from './chat-composer.js';
import { ChatSaver } from './chats-saver.js';
import { whenChatsChange } from './chats-store.js';
import { ChatRuns, endAbandoned } from './chat-runs.js';
import { ModelPicker } from './chat-model.js';
import { chatHello } from './chat-hello.js';
import './chat-words.js';
import { ChatDrawer } from './chat-drawer.js';
import { notify } from './dialog.js';
import { h, iconButton } from './dom.js';
import { isInSight, onSight } from './sight.js';
import { t } from './words.js';

/** Characters of a finished answer that are read to who cannot see it. */
const ANNOUNCED = 1500;

/** The chat's page over a store. */
export class ChatPage {
  #store;
  #saver;
  #runs;
  #talk;
  #composer;
  #picker = new ModelPicker((byHand) => this.#modelChanged(byHand));
  #list;
  #drawer;
  #announcement = h('div', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  #opening = 0;
  #stale = false;
  #modelsError = null;
  #hello = null;

  constructor(store) {
    this.#store = store;
    this.#saver = new ChatSaver(store, (entry, old) => this.#forked(entry, old));
    this.#runs = new ChatRuns(this.#saver);
    this.#talk = this.#makeTalk();
    this.#list = this.#makeList();
    this.#drawer = new ChatDrawer(this.#list, { isShown: () => this.node.isConnected, escape: () => this.#talk.stop() });
    this.#composer = new Composer(this.#talk);
    this.node = h('div', { class: 'chat-view' }, this.#list.node, this.#drawer.shade, this.#main());
    this.#composer.acceptDrops(this.node);
    whenChatsChange((change) => this.#changedElsewhere(change));
    onSight(() => this.#isSeen && this.#lookAgain());
    this.#list.refresh();
    this.#show(this.#talk.entry);
  }

  /** Be shown, with the chat of this address; "new" is an empty one with the model that was chosen elsewhere. */
  enter(place) {
    const { id } = this.#chat;
    if (place === 'new') this.#openNew();
    else if (!place && id) this.#showAddress(id);
    else this.go(place);
    this.#talk.log.toEnd();
    this.#drawer.fit();
    this.#composer.focus();
    this.#lookAgain();
  }

  /** Show the chat of this id, or a new one where it is empty. */
  async go(id) {
    if (id === this.#chat.id && (id || !this.#talk.entry.messages.length)) return;
    this.#opening += 1;
    const turn = this.#opening;
    const run = this.#runs.ofChat(id);
    const entry = run?.entry || (id ? await this.#store.load(id) : freshEntry());
    if (turn !== this.#opening) return;
    if (!entry) {
      notify(t('chat.gone'), { error: true });
      location.hash = '#chat';
      return;
    }
    if (!run && id) endAbandoned(entry);
    this.#show(entry);
    this.#drawer.close();
  }

  // --- The parts ---

  #makeTalk() {
    return new Conversation(this.#saver, this.#runs, {
      model: () => this.#picker.known(),
      begun: (id) => this.#begun(id),
      changed: () => this.#changed(),
      saved: ({ chat }) => this.#list.refresh(chat.id),
      ended: (entry, answer) => this.#ended(entry, answer),
    });
  }

  #makeList() {
    return new ChatsList(this.#store, {
      rename: (chat, title) => this.#rename(chat, title),
      remove: (chat) => this.#remove(chat),
      fresh: () => this.#focusComposer(),
      close: () => this.#drawer.close(),
    });
  }

  #main() {
    const settings = iconButton('settings', t('chat.settings'), () => this.#talk.changeSettings());
    return h(
      'section',
      { class: 'chat-main', 'aria-label': t('chat') },
      h('div', { class: 'chat-bar' }, this.#drawer.button, this.#picker.node, h('span', { class: 'chat-space' }), settings),
      this.#talk.log.node,
      h('div', { class: 'chat-below' }, this.#talk.log.toEndButton, this.#composer.node),
      this.#announcement,
    );
  }

  #focusComposer() {
    this.#drawer.close();
    this.#composer.focus();
  }

  // --- What is shown ---

  get #chat() {
    return this.#talk.entry.chat;
  }

  get #isSeen() {
    return isInSight() && this.node.isConnected;
  }

  #show(entry) {
    const { id, model } = entry.chat;
    // What is being written stays, where another tab has changed the chat.
    if (id !== this.#chat.id || !id) this.#composer.open(id);
    this.#talk.show(entry);
    this.#stale = false;
    this.#list.mark(id);
    this.#picker.choose(model || this.#picker.last, false);
    this.#showState();
  }

  #openNew() {
    this.#opening += 1;
    history.replaceState(null, '', '#chat');
    this.#show(freshEntry());
  }

  #showAddress(id) {
    history.replaceState(null, '', `#chat/${id}`);
    this.#list.mark(id);
  }

  /** What depends on more than the messages: the greeting, the buttons. */
  #showState() {
    const model = this.#picker.known();
    this.#composer.setModel(model, this.#chat.settings.think ?? model.parameters.think !== 'false');
    this.#composer.setRunning(this.#talk.isRunning);
    if (!this.#talk.entry.messages.length) this.#greet(model);
  }

  #greet(model) {
    const { none, guide, talks } = model;
    const key = JSON.stringify([none, guide, talks, this.#modelsError?.message]);
    if (this.#hello?.parentNode && this.#hello.dataset.key === key) return; // so that a focus within stays
    this.#hello = chatHello(model, this.#modelsError, {
      ask: (text) => this.#talk.send(text),
      refresh: () => this.#refreshModels(),
      useGuide: () => this.#picker.useGuide(),
    });
    this.#hello.dataset.key = key;
    this.#talk.log.instead(this.#hello);
  }

  // --- What changes it ---

  #begun(id) {
    this.#showAddress(id);
    forgetDraft('');
    this.#composer.open(id);
  }

  #changed() {
    this.#showState();
    // What had the focus may be gone.
    if (document.activeElement === document.body) this.#composer.focus();
  }

  #ended(entry, { error, content }) {
    if (entry === this.#talk.entry) {
      this.#announcement.textContent = `${t('chat.assistant')}: ${(error?.message || content).slice(0, ANNOUNCED)}`;
      this.#showState();
    }
    this.#list.refresh(entry.chat.id);
    this.#refreshModels();
  }

  #modelChanged(byHand) {
    if (byHand && this.#chat.id) this.#chat.model = this.#picker.known().name;
    this.#showState();
  }

  async #refreshModels() {
    try {
      await this.#picker.refresh();
      this.#modelsError = null;
    } catch (error) {
      this.#modelsError = error;
    }
    this.#showState();
  }

  #forked(entry, old) {
    this.#list.refresh();
    if (entry === this.#talk.entry) this.#showAddress(entry.chat.id);
    else if (this.#chat.id === old) this.#reload();
  }

  #changedElsewhere({ id, revision }) {
    this.#list.refresh(id);
    if (id !== this.#chat.id || this.#talk.isRunning || revision <= this.#chat.revision) return;
    if (this.#isSeen) this.#reload();
    else this.#stale = true;
  }

  /** Take in what has changed while nobody looked. */
  #lookAgain() {
    if (this.#stale) this.#reload();
    this.#refreshModels();
  }

  async #reload() {
    const entry = await this.#store.load(this.#chat.id);
    if (entry && !this.#talk.isRunning) this.#show(entry);
  }

  // --- Chats as a whole ---

  /** A chat that is shown here, or being answered. */
  #openEntry(id) {
    return this.#runs.ofChat(id)?.entry || (id === this.#chat.id && this.#talk.entry);
  }

  async #rename(chat, title) {
    const entry = this.#openEntry(chat.id) || { chat, messages: [] };
    entry.chat.title = title;
    await this.#saver.save(entry, null);
    await this.#list.refresh(chat.id);
  }

  async #remove({ id, title }) {
    const entry = this.#openEntry(id) || (await this.#store.load(id));
    if (!entry) return;
    await this.#runs.stop(entry);
    entry.removed = true;
    await entry.saving;
    await this.#store.remove(id);
    if (id === this.#chat.id) location.hash = '#chat';
    await this.#list.refresh(id);
    forgetDraft(id);
    notify(t('chat.deleted', { title }), { action: { text: t('chat.undo'), run: () => this.#putBack(entry) } });
  }

  async #putBack({ chat, messages }) {
    await this.#store.save({ ...chat, revision: 0 }, messages, 0);
    await this.#list.refresh(chat.id);
  }
}
