// An answer of a chat: shown as it comes, and how it ended.

import { copyAction, messageNode } from './chat-parts.js';
import { Thoughts } from './chat-thoughts.js';
import { resultsForm, toolCall } from './chat-tools.js';
import { errorBox } from './dialog.js';
import { fill, h, iconButton, textButton } from './dom.js';
import { markdownView, renderMarkdown } from './markdown.js';
import { duration, figure, percent, t } from './words.js';

/** An answer, drawn. `does`: again(message), remove(message), goOn(answer), results(messages), isLast(message).
 * What streamAnswer tells is shown by wait, thought, text and call, from `start()` to `end()`. */
export class Answer {
  node = messageNode('assistant', t('chat.assistant'));
  #status = h('p', { class: 'chat-status', hidden: true });
  #notes = h('div', { class: 'chat-notes' });
  #calls = h('div', { class: 'chat-calls' });
  #foot = h('footer', { class: 'chat-foot' });
  #thoughts = null;
  #shown = null; // the text's element
  #text = null; // what the text is streamed into
  #does;

  constructor(message, does) {
    this.message = message;
    this.#does = does;
    fill(this.node, this.#notes, this.#status, this.#calls, this.#foot);
    if (message.thinking) this.#think(message.thinking);
    if (message.content) this.#show(renderMarkdown(message.content));
    for (const call of message.calls || []) this.#calls.append(toolCall(call));
    this.end();
  }

  start() {
    const { content } = this.message;
    fill(this.#foot);
    this.#text = null;
    if (content) this.#write(content);
    this.node.ariaBusy = 'true';
    this.wait(t('chat.waiting'));
  }

  wait(text) {
    this.#status.hidden = false;
    this.#status.textContent = text;
  }

  thought(piece) {
    if (!this.#thoughts) this.#status.hidden = true;
    this.#think(piece);
  }

  text(piece) {
    if (!this.#status.hidden) this.#status.hidden = true;
    if (!this.#text) this.#endThoughts();
    this.#write(piece);
  }

  call(call) {
    this.#status.hidden = true;
    this.#endThoughts();
    this.#calls.append(toolCall(call));
  }

  end() {
    const { message } = this;
    this.node.ariaBusy = null;
    this.#status.hidden = true;
    this.#text?.end();
    this.#endThoughts();
    fill(this.#notes, message.dropped && note('chat.dropped', { count: message.dropped }));
    fill(this.#foot, howItEnded(this, this.#does), figuresOf(message), answerButtons(message, this.#does));
    if (message.end === 'stop' && message.calls?.length && this.#does.isLast(message)) this.#askForResults();
  }

  #askForResults() {
    this.#calls.append(resultsForm(this.message.calls, (results) => this.#does.results(results)));
  }

  #think(piece) {
    if (!this.#thoughts) {
      this.#thoughts = new Thoughts();
      this.#thoughts.node.open = true;
      this.#status.before(this.#thoughts.node);
    }
    this.#thoughts.add(piece);
  }

  #endThoughts() {
    this.#thoughts?.end(this.message.thought);
  }

  #write(piece) {
    if (!this.#text) {
      this.#text = markdownView();
      this.#show(this.#text.node);
    }
    this.#text.append(piece);
  }

  #show(node) {
    if (this.#shown) this.#shown.replaceWith(node);
    else this.#status.before(node);
    this.#shown = node;
  }
}

const ENDINGS = ['stopped', 'length', 'cancelled'];

function howItEnded(answer, does) {
  const { message } = answer;
  const { end, error, repeats, content, calls } = message;
  const again = () => does.again(message);
  // The style sheet shows it below the last answer only.
  const goOn = content && !calls && textButton(t('chat.goOn'), () => does.goOn(answer), 'small chat-goon', 'play');
  if (end === 'lost') return [errorBox({ message: t('chat.lost') }, again), goOn];
  if (error && end === 'format_not_met') return errorBox({ message: t('chat.notMet'), hint: error.message }, again);
  if (error) return [errorBox(error, again), goOn];
  if (repeats) return note('chat.repeats');
  if (ENDINGS.includes(end)) return [note(`chat.${end}`), goOn];
  return end && !content && !calls?.length && note('chat.empty');
}

function note(key, values) {
  return h('p', { class: 'chat-note' }, t(key, values));
}

/** What is told of an answer, and how. */
export const ANSWER_FIGURES = {
  first: duration,
  speed: (value) => figure(value, 1),
  tokens: (value) => figure(value),
  cached: percent,
  loaded: duration,
  queued: duration,
};

function figuresOf({ figures = {}, end }) {
  if (!end) return null;
  const known = Object.entries(ANSWER_FIGURES).filter(([name]) => figures[name] !== undefined);
  const words = known.map(([name, show]) => t(`chat.${name}`, { count: figures[name], value: show(figures[name]) }));
  return words.length && h('p', { class: 'chat-figures' }, words.map((text) => h('span', {}, text)));
}

function answerButtons(message, does) {
  return h(
    'div',
    { class: 'chat-actions' },
    message.content && copyAction(message),
    iconButton('again', t('chat.again'), () => does.again(message)),
    iconButton('trash', t('models.delete'), () => does.remove(message)),
  );
}
