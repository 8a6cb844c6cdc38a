// Answers that are being written, and the saving of chats.

import { chatBody, streamAnswer } from './chat_stream.js';
import { ChatChanged, newId } from './chats_store.js';
import { notify } from './dialog.js';
import { t } from './words.js';

/** Milliseconds after which what has come of an answer is saved, should the tab be closed. */
const SAVED_EACH = 3000;
/** Milliseconds after its last save from which an answer without an end is no longer being written, in no tab. */
const ABANDONED = 15_000;

/** Saves entries, `{chat, messages}`, one save of a chat after the other. `forked(entry, old id)` is called when another tab
 * has changed the chat, so that what is here had to become a chat of its own. */
export function chatSaver(store, forked) {
  async function save(entry, from) {
    if (entry.removed) return;
    const { chat, messages } = entry;
    if (from !== null) chat.updated = Date.now();
    try {
      await store.save(chat, from === null ? null : messages, from ?? 0);
    } catch (error) {
      if (error instanceof ChatChanged) await fork(entry).catch(sayUnsaved);
      else sayUnsaved(error);
    }
  }

  const sayUnsaved = (error) => notify(t('chat.notSaved', { reason: error.message }), { error: true });

  async function fork(entry) {
    const { id } = entry.chat;
    entry.chat = { ...entry.chat, id: newId(), title: t('chat.copyOf', { title: entry.chat.title }), revision: 0 };
    for (const message of entry.messages) {
      if (message.pictures) message.pictures = message.pictures.map((picture) => ({ ...picture, id: newId() }));
    }
    await store.save(entry.chat, entry.messages, 0);
    notify(t('chat.forked'));
    forked(entry, id);
  }

  /** Save an entry's messages from the `from`th on, or only what is not messages (`from` null). */
  return (entry, from) => {
    entry.saving = (entry.saving ?? Promise.resolve()).then(() => save(entry, from));
    return entry.saving;
  };
}

/** The answers that are being written, by chat. */
export function chatRuns(save) {
  const runs = new Set();
  const find = (entry) => [...runs].find((run) => run.entry === entry);

  /** Have the last message of `entry`, which `view` shows, written. Resolves when it has ended, however that was. */
  async function start(entry, view, thinks) {
    const controller = new AbortController();
    const run = { entry, view, stop: () => controller.abort() };
    runs.add(run);
    const at = entry.messages.length - 1;
    view.live.start();
    run.done = write(entry, view, thinks, controller.signal, () => save(entry, at)).finally(() => runs.delete(run));
    await run.done;
    await save(entry, at);
  }

  return {
    start,
    of: find,
    ofChat: (id) => [...runs].find((run) => run.entry.chat.id === id),
    /** Stop the answer of an entry, and wait until it has stopped. */
    async stop(entry) {
      const run = find(entry);
      run?.stop();
      await run?.done;
    },
  };
}

async function write(entry, view, thinks, signal, save) {
  const answer = view.message;
  try {
    const ask = () => chatBody(entry.chat, entry.messages, thinks);
    await streamAnswer(ask, answer, signal, savingOften(view.live, save));
  } catch (error) {
    setEnding(answer, error);
  }
  view.end();
}

function savingOften(live, save) {
  let saved = performance.now();
  const saving = (tell) => (piece) => {
    tell(piece);
    if (performance.now() - saved < SAVED_EACH) return;
    saved = performance.now();
    save();
  };
  return { ...live, text: saving(live.text), thought: saving(live.thought) };
}

function setEnding(answer, error) {
  if (answer.thinking && !answer.content) answer.thought ??= (Date.now() - answer.at) / 1000 - (answer.figures.first || 0);
  const came = answer.content || answer.thinking;
  if (error.name === 'AbortError') answer.end = 'stopped';
  else if (error.code === 'unreachable' && came) answer.end = 'lost';
  else {
    answer.end = 'error';
    answer.error = explained(error);
  }
}

function explained(error) {
  if (error.code === 'unreachable') return { message: t('chat.stayedAway') };
  if (error instanceof SyntaxError) return { message: t('chat.badTools') };
  return { message: error.message, hint: error.hint || '' };
}

/** What was loaded may end with an answer whose tab was closed while it was written. */
export function endAbandoned({ chat, messages }) {
  const last = messages.at(-1);
  if (last?.role === 'assistant' && !last.end && Date.now() - chat.updated > ABANDONED) last.end = 'lost';
}
