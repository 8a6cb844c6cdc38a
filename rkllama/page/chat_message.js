// One message of a chat: a question, an answer, what a tool gave.

import { copyText } from './clipboard.js';
import { errorBox, notify } from './dialog.js';
import { fill, h, icon, iconButton, textButton } from './dom.js';
import { markdownView, renderMarkdown } from './markdown.js';
import { duration, figure, percent, t } from './words.js';

/** A message, drawn. `does` has what its buttons do: edit, remove, again, goOn, results, isLast. Gives `node`, and for an
 * answer `live`, which is streamAnswer's `on`, and `end()`. */
export function messageView(message, does) {
  const node = h('article', { class: `chat-message chat-${message.role}`, 'aria-label': messageLabel(message) });
  const view = { node, message };
  ({ user: drawQuestion, assistant: drawAnswer, tool: drawResult })[message.role](view, does);
  return view;
}

function messageLabel({ role, toolName }) {
  if (role === 'tool') return t('chat.tool', { name: toolName });
  return role === 'user' ? t('chat.you') : t('chat.assistant');
}

/** About how tall a message will be, so that the scroll bar is about right before it is drawn. */
export function guessHeight({ content, pictures }) {
  const rows = Math.ceil(content.length / 80) + (content.match(/\n/g)?.length || 0) + 1;
  return rows * 24 + 56 + (pictures?.length ? 140 : 0);
}

// --- A question -------------------------------------------------------------------------------

function drawQuestion(view, does) {
  const { message, node } = view;
  fill(
    node,
    message.pictures?.length && pictureRow(message.pictures),
    message.content && h('div', { class: 'chat-bubble' }, message.content),
    h(
      'div',
      { class: 'chat-actions' },
      iconButton('edit', t('chat.edit'), () => editQuestion(view, does)),
      copyAction(message),
      iconButton('trash', t('models.delete'), () => does.remove(message)),
    ),
  );
}

/** The pictures of a message; `remove(picture)` puts a button on each. */
export function pictureRow(pictures, remove = null) {
  return h(
    'div',
    { class: 'chat-pictures' },
    pictures.map((picture, at) =>
      h(
        'figure',
        { class: 'chat-thumb' },
        h('img', { src: picture.url, alt: t('chat.picture', { number: at + 1 }), decoding: 'async' }),
        remove && iconButton('close', t('chat.removePicture', { number: at + 1 }), () => remove(picture), { class: 'small' }),
      ),
    ),
  );
}

function editQuestion(view, does) {
  const { message, node } = view;
  const before = [...node.childNodes];
  const back = () => {
    fill(node, ...before);
    node.querySelector('.chat-actions button').focus();
  };
  const send = () => {
    const text = area.value.trim();
    if (text || message.pictures?.length) does.edit(message, text);
  };
  const area = h('textarea', {
    class: 'chat-editing',
    rows: Math.min(12, message.content.split('\n').length + 1),
    'aria-label': t('chat.edited'),
    on: {
      keydown: (event) => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          back();
        } else if (sendsMessage(event)) {
          event.preventDefault();
          send();
        }
      },
    },
  });
  area.value = message.content;
  fill(
    node,
    message.pictures?.length && pictureRow(message.pictures),
    area,
    h(
      'div',
      { class: 'buttons' },
      textButton(t('cancel'), back),
      textButton(t('chat.send'), send, 'primary'),
    ),
  );
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

/** Whether a key sends what is written: Enter does, except with Shift, where a word is being composed (Japanese, Chinese),
 * and on devices that are touched, whose keyboards have no Shift+Enter. */
export function sendsMessage(event) {
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key !== 'Enter' || event.shiftKey || composing) return false;
  return event.ctrlKey || event.metaKey || !matchMedia('(pointer: coarse)').matches;
}

/** Copies a message as it was written, an answer's Markdown too. */
function copyAction({ content }) {
  const button = iconButton('copy', t('copy.do'), async () => {
    if (!(await copyText(content))) {
      notify(t('copy.failed'), { error: true });
      return;
    }
    show('check', 'copy.done');
    setTimeout(() => show('copy', 'copy.do'), 2000);
  });
  const show = (sign, words) => {
    fill(button, icon(sign));
    button.setAttribute('aria-label', t(words));
  };
  return button;
}

// --- An answer --------------------------------------------------------------------------------

function drawAnswer(view, does) {
  const { message, node } = view;
  const parts = {
    status: h('p', { class: 'chat-status', hidden: true }),
    notes: h('div', { class: 'chat-notes' }),
    thoughts: null,
    shown: null,
    text: null,
    calls: h('div', { class: 'chat-calls' }),
    foot: h('footer', { class: 'chat-foot' }),
  };
  fill(node, parts.notes, parts.status, parts.calls, parts.foot);
  if (message.thinking) {
    openThoughts(view, parts).add(message.thinking);
    parts.thoughts.end(message.thought);
  }
  if (message.content) parts.status.before((parts.shown = renderMarkdown(message.content)));
  for (const call of message.calls || []) parts.calls.append(callView(call));
  view.live = liveAnswer(view, parts);
  view.end = () => endAnswer(view, parts, does);
  view.end();
}

function openThoughts(view, parts) {
  parts.thoughts ??= thoughtsView();
  if (!parts.thoughts.node.isConnected && !parts.thoughts.node.parentNode) parts.status.before(parts.thoughts.node);
  return parts.thoughts;
}

/** What streamAnswer tells, shown as it comes. */
function liveAnswer(view, parts) {
  const { message, node } = view;
  const wait = (text) => {
    parts.status.hidden = false;
    parts.status.textContent = text;
  };
  const began = () => {
    parts.status.hidden = true;
  };
  const newText = () => {
    parts.text = markdownView();
    if (parts.shown) parts.shown.replaceWith(parts.text.node);
    else parts.status.before(parts.text.node);
    parts.shown = parts.text.node;
  };
  const goOn = () => {
    newText();
    parts.text.append(message.content);
  };
  return {
    start() {
      fill(parts.foot);
      parts.text = null;
      if (message.content) goOn();
      node.setAttribute('aria-busy', 'true');
      wait(t('chat.waiting'));
    },
    wait,
    thought(piece) {
      if (!parts.thoughts) {
        began();
        openThoughts(view, parts).node.open = true;
      }
      parts.thoughts.add(piece);
    },
    text(piece) {
      if (!parts.status.hidden) began();
      if (!parts.text) {
        parts.thoughts?.end(message.thought);
        newText();
      }
      parts.text.append(piece);
    },
    call(call) {
      began();
      parts.thoughts?.end(message.thought);
      parts.calls.append(callView(call));
    },
  };
}

function endAnswer(view, parts, does) {
  const { message, node } = view;
  node.removeAttribute('aria-busy');
  parts.status.hidden = true;
  parts.text?.end();
  if (message.thinking) parts.thoughts.end(message.thought);
  fill(parts.notes, message.dropped && note('chat.dropped', { count: message.dropped }));
  fill(parts.foot, howItEnded(view, does), figuresOf(message), answerButtons(message, does));
  if (message.calls?.length && message.end === 'stop') parts.calls.append(resultsForm(message, does));
}

const ENDINGS = ['stopped', 'length', 'cancelled'];

function howItEnded(view, does) {
  const { message } = view;
  const { end, error, repeats, content, calls } = message;
  const again = () => does.again(message);
  const goOn = content && !calls && goOnButton(view, does);
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

/** The style sheet shows it below the last answer only. */
function goOnButton(view, does) {
  return textButton(t('chat.goOn'), () => does.goOn(view), 'small chat-goon', 'play');
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

/** Folded thoughts, open while they are thought. A line is an element of its own, so that a new word lays out its line only;
 * words are put in once per frame. */
function thoughtsView() {
  const title = h('summary', {}, t('chat.thinking'));
  const body = h('div', { class: 'chat-thoughts-text' });
  const node = h('details', { class: 'chat-thoughts' }, title, body);
  let waiting = '';
  let line = null;
  let frame = 0;
  const flush = () => {
    frame = 0;
    const pieces = waiting.split('\n');
    waiting = '';
    pieces.forEach((piece, at) => {
      if (at > 0 || !line) body.append(h('div', {}, (line = new Text(piece))));
      else line.appendData(piece);
    });
  };
  let ended = false;
  return {
    node,
    add(piece) {
      waiting += piece;
      frame ||= requestAnimationFrame(flush);
    },
    /** Fold them; `seconds` is how long they took. */
    end(seconds) {
      if (ended) return;
      ended = true;
      cancelAnimationFrame(frame);
      flush();
      node.open = false;
      title.textContent = seconds === undefined ? t('chat.thoughtOnly') : t('chat.thought', { time: duration(seconds) });
    },
  };
}

// --- Tools ------------------------------------------------------------------------------------

function callView({ name, arguments: given }) {
  return h('div', { class: 'chat-call' }, h('p', {}, t('chat.call', { name })), h('pre', { tabindex: '0' }, JSON.stringify(given, null, 2)));
}

/** Where the person at the page is the tool: a result for each call. */
function resultsForm(message, does) {
  const { calls } = message;
  const areas = calls.map(({ name }) => h('textarea', { rows: 2, 'aria-label': t('chat.tool', { name }), placeholder: t('chat.tool', { name }) }));
  const form = h(
    'form',
    {
      class: 'chat-results',
      on: {
        submit: (event) => {
          event.preventDefault();
          form.remove();
          does.results(calls.map(({ id, name }, at) => ({ role: 'tool', content: areas[at].value, toolName: name, callId: id })));
        },
      },
    },
    areas,
    h('div', { class: 'buttons' }, h('button', { class: 'button small' }, t('chat.giveResults', { count: calls.length }))),
  );
  return does.isLast(message) ? form : '';
}

function drawResult({ message, node }) {
  fill(node, h('div', { class: 'chat-call' }, h('p', {}, t('chat.tool', { name: message.toolName })), h('pre', { tabindex: '0' }, message.content)));
}
