// The settings of one chat: what the model is told beforehand, and how it draws its words.

import { dialog } from './dialog.js';
import { field, fill, h, textButton } from './dom.js';
import { t } from './words.js';

// Name, least, most, step: what the server takes.
const SAMPLING = [
  ['temperature', 0, 5, 'any'],
  ['top_p', 0, 1, 'any'],
  ['top_k', 0, 2_147_483_647, 1],
  ['repeat_penalty', 0, 10, 'any'],
  ['num_predict', -2, 2_147_483_647, 1],
  ['num_ctx', 4, 16_777_216, 1],
  ['seed', -1, Number.MAX_SAFE_INTEGER, 1],
];

export const OPTION_NAMES = SAMPLING.map(([name]) => name);

/** Ask for a chat's settings; null where nothing is to change. `model` is what the picker knows of the model. */
export function chatSettingsDialog(settings, model) {
  return dialog(t('chat.settings'), (close) => settingsForm(settings, model, close), { className: 'wide' });
}

function settingsForm(settings, model, close) {
  const system = h('textarea', { rows: 4 });
  system.value = settings.system || '';
  const numbers = SAMPLING.map((limits) => numberField(limits, settings.options?.[limits[0]], model.parameters));
  const tools = h('textarea', { rows: 3, class: 'mono', spellcheck: 'false' });
  tools.value = settings.tools || '';
  const problem = h('p', { class: 'chat-problem', role: 'alert' });

  function submitted(event) {
    event.preventDefault();
    if (tools.value.trim() && !isList(tools.value)) {
      fill(problem, t('chat.badTools'));
      tools.focus();
      return;
    }
    const next = { ...settings, options: {} };
    for (const { name, input } of numbers) if (input.value !== '') next.options[name] = Number(input.value);
    setText(next, 'system', system.value);
    setText(next, 'tools', tools.value);
    close(next);
  }

  function reset() {
    for (const field of [system, tools, ...numbers.map(({ input }) => input)]) field.value = '';
  }

  return h(
    'form',
    { on: { submit: submitted } },
    field(t('chat.system'), system),
    h('p', { class: 'soft' }, t('chat.emptyIsOwn')),
    h('div', { class: 'chat-numbers' }, numbers.map(({ node }) => node)),
    (model.calls || settings.tools || !model.known) && field(t('chat.tools'), tools),
    problem,
    h(
      'div',
      { class: 'buttons' },
      textButton(t('chat.reset'), reset),
      h('button', { class: 'button primary' }, t('chat.saveSettings')),
    ),
  );
}

function numberField([name, min, max, step], value, parameters) {
  const input = h('input', { type: 'number', name, min, max, step, inputmode: 'decimal', placeholder: parameters[name] ?? t('chat.ownValue'), value });
  return { name, input, node: field(t(`chat.o.${name}`), input) };
}

function isList(text) {
  try {
    return Array.isArray(JSON.parse(text));
  } catch {
    return false;
  }
}

function setText(settings, name, text) {
  if (text.trim()) settings[name] = text.trim();
  else delete settings[name];
}
