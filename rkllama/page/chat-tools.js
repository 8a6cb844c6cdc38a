// The tools of a chat: what a model calls, and what came of it. The person at the page is the tool.

import { messageNode } from './chat-parts.js';
import { form, h } from './dom.js';
import { t } from './words.js';

/** A call, as the model wrote it. */
export function toolCall({ name, arguments: given }) {
  return toolText(t('chat.call', { name }), JSON.stringify(given, null, 2));
}

/** The message with what a tool gave. */
export class ToolResult {
  constructor(message) {
    const name = t('chat.tool', { name: message.toolName });
    this.message = message;
    this.node = messageNode('tool', name, toolText(name, message.content));
  }
}

function toolText(title, text) {
  return h('div', { class: 'chat-call' }, h('p', {}, title), h('pre', { tabindex: '0' }, text));
}

/** A field for the result of each call, which `give(messages)` gets. */
export function resultsForm(calls, give) {
  const areas = calls.map(({ name }) => {
    const label = t('chat.tool', { name });
    return h('textarea', { rows: 2, 'aria-label': label, placeholder: label });
  });
  const submit = () => {
    element.remove();
    give(calls.map(({ id, name }, at) => ({ role: 'tool', content: areas[at].value, toolName: name, callId: id })));
  };
  const element = form(
    { class: 'chat-results' },
    submit,
    areas,
    h('div', { class: 'buttons' }, h('button', { class: 'button small' }, t('chat.giveResults', { count: calls.length }))),
  );
  return element;
}
