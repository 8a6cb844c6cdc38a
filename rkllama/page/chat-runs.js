// Answers that are being written.

import { chatBody, streamAnswer } from './chat-stream.js';
import { t } from './words.js';

/** Milliseconds after which what has come of an answer is saved, should the tab be closed. */
const SAVED_EACH = 3000;
/** Milliseconds after its last save from which an answer without an end is no longer being written, in no tab. */
const ABANDONED = 15_000;

/** The answers that are being written, by chat. */
export class ChatRuns {
  #saver;
  #runs = new Set();

  constructor(saver) {
    this.#saver = saver;
  }

  of(entry) {
    return this.#find((run) => run.entry === entry);
  }

  ofChat(id) {
    return this.#find((run) => run.entry.chat.id === id);
  }

  #find(test) {
    return [...this.#runs].find(test);
  }

  /** Have the last message of `entry`, which `view` shows, written. Resolves when it has ended, however that was. */
  async start(entry, view, thinks) {
    const controller = new AbortController();
    const run = { entry, view, stop: () => controller.abort() };
    this.#runs.add(run);
    const at = entry.messages.length - 1;
    const save = () => this.#saver.save(entry, at);
    view.start();
    run.done = write(entry, view, thinks, controller.signal, save).finally(() => this.#runs.delete(run));
    await run.done;
    await save();
  }

  /** Stop the answer of an entry, and wait until it has stopped. */
  async stop(entry) {
    const run = this.of(entry);
    run?.stop();
    await run?.done;
  }
}

async function write(entry, view, thinks, signal, save) {
  const answer = view.message;
  try {
    const ask = () => chatBody(entry.chat, entry.messages, thinks);
    await streamAnswer(ask, answer, signal, savingOften(view, save));
  } catch (error) {
    setEnding(answer, error);
  }
  view.end();
}

function savingOften(view, save) {
  let saved = performance.now();
  const saving = (tell) => (piece) => {
    tell(piece);
    if (performance.now() - saved < SAVED_EACH) return;
    saved = performance.now();
    save();
  };
  return {
    wait: (text) => view.wait(text),
    call: (call) => view.call(call),
    text: saving((piece) => view.text(piece)),
    thought: saving((piece) => view.thought(piece)),
  };
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
