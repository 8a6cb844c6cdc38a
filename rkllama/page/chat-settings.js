// The settings of one chat: what the model is told beforehand, and how it draws its words.

import { dialog } from './dialog.js';
import { field, fill, form, h, textButton } from './dom.js';
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
  return dialog(t('chat.settings'), (close) => new SettingsForm(settings, model, close).node, { className: 'wide' });
}

class SettingsForm {
  #settings;
  #close;
  #numbers;
  #system = h('textarea', { rows: 4 });
  #tools = h('textarea', { rows: 3, class: 'mono', spellcheck: 'false' });
  #problem = h('p', { class: 'chat-problem', role: 'alert' });

  constructor(settings, model, close) {
    const { system = '', tools = '', options = {} } = settings;
    this.#settings = settings;
    this.#close = close;
    this.#numbers = SAMPLING.map((limits) => numberField(limits, options[limits[0]], model.parameters));
    this.#system.value = system;
    this.#tools.value = tools;
    this.node = this.#form(model.calls || tools || !model.known);
  }

  #form(withTools) {
    return form(
      {},
      () => this.#submit(),
      field(t('chat.system'), this.#system),
      h('p', { class: 'soft' }, t('chat.emptyIsOwn')),
      h('div', { class: 'chat-numbers' }, this.#numbers.map(({ node }) => node)),
      withTools && field(t('chat.tools'), this.#tools),
      this.#problem,
      h(
        'div',
        { class: 'buttons' },
        textButton(t('chat.reset'), () => this.#reset()),
        h('button', { class: 'button primary' }, t('chat.saveSettings')),
      ),
    );
  }

  #submit() {
    if (this.#tools.value.trim() && !isList(this.#tools.value)) {
      fill(this.#problem, t('chat.badTools'));
      this.#tools.focus();
      return;
    }
    const next = { ...this.#settings, options: {} };
    for (const { name, input } of this.#numbers) if (input.value !== '') next.options[name] = Number(input.value);
    setText(next, 'system', this.#system.value);
    setText(next, 'tools', this.#tools.value);
    this.#close(next);
  }

  #reset() {
    for (const input of [this.#system, this.#tools, ...this.#numbers.map((number) => number.input)]) input.value = '';
  }
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
