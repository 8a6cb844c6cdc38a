// Which model is asked: the picker, and what is known of each model.

import { getJSON } from './api.js';
import { fill, h } from './dom.js';
import { modelDetails, untaggedName } from './models-data.js';
import { remember, remembered, t } from './words.js';

const LAST = 'rkllama-model';
const GUIDE = 'guide';

/** The picker. `changed(byHand)` is called when another model is meant, by hand or since it is known better. */
export class ModelPicker {
  #changed;
  #facts = new Map();
  #models = [];
  #listed = false;
  #current = remembered(LAST) || '';
  #select = h('select', { class: 'chat-model', 'aria-label': t('chat.model'), on: { change: () => this.choose(this.#select.value, true) } });
  #about = h('span', { class: 'chat-about' });
  node = h('div', { class: 'chat-picker' }, this.#select, this.#about);

  constructor(changed) {
    this.#changed = changed;
    // What is in memory may have changed since; the list is read anew when it is opened.
    for (const event of ['pointerdown', 'focus']) this.#select.addEventListener(event, () => void this.refresh().catch(() => {}));
    this.#show();
  }

  /** The model of a chat that has none yet. */
  get last() {
    return remembered(LAST) || this.#current;
  }

  /** Read anew what is here; a failure leaves what is shown. */
  async refresh() {
    const { models } = await getJSON('api/tags');
    this.#models = models.map((entry) => ({ ...entry, name: untaggedName(entry.name) }));
    this.#listed = true;
    this.#current ||= (this.#models.find(({ state }) => state) || this.#models[0])?.name || '';
    this.#show();
    await this.#learn(this.#current);
  }

  choose(name, byHand) {
    this.#current = name;
    if (byHand) remember(LAST, name);
    this.#show();
    this.#changed(byHand);
    this.#learn(name).catch(() => {}); // what the model cannot do is then said by the server
  }

  useGuide() {
    this.choose(GUIDE, true);
  }

  /** What is known of the model that is chosen. */
  known() {
    const { capabilities = [], parameters = {} } = this.#facts.get(this.#current) || {};
    const has = (capability) => capabilities.includes(capability);
    const entry = this.#find(this.#current);
    return {
      name: this.#current,
      none: this.#listed && !this.#models.length,
      guide: this.#current === GUIDE || entry?.alias_of === GUIDE,
      talks: !capabilities.length || has('completion'),
      sees: has('vision') || entry?.vision === true,
      thinks: has('thinking'),
      calls: has('tools'),
      known: this.#facts.has(this.#current),
      parameters,
    };
  }

  #find(name) {
    return this.#models.find((model) => model.name === name);
  }

  /** Ask what a model can do. */
  async #learn(name) {
    const entry = this.#find(name);
    if (entry) {
      const { capabilities, parameters } = await modelDetails(entry);
      this.#facts.set(name, { capabilities, parameters: readParameters(parameters) });
    }
    if (name === this.#current) {
      this.#show();
      this.#changed(false);
    }
  }

  #show() {
    const { sees, thinks, calls, talks } = this.known();
    fill(
      this.#select,
      !this.#find(this.#current) && h('option', { value: this.#current }, this.#missingText()),
      modelGroup(t('chat.inMemory'), this.#models.filter(({ state }) => state)),
      modelGroup(t('chat.onDisk'), this.#models.filter(({ state }) => !state)),
    );
    this.#select.value = this.#current;
    const words = [sees && 'chat.sees', thinks && 'can.thinking', calls && 'chat.calls'].filter((key) => talks && key);
    this.#about.textContent = words.map((key) => t(key)).join(' · ');
  }

  /** What stands for a model that is not in the list. */
  #missingText() {
    const name = this.#current;
    if (!name) return t('chat.noModel');
    return this.#listed && name !== GUIDE ? t('chat.notHere', { name }) : name;
  }
}

function modelGroup(label, models) {
  return models.length > 0 && h('optgroup', { label }, models.map(({ name }) => h('option', { value: name }, name)));
}

/** The lines `name value` of /api/show as an object. */
function readParameters(text = '') {
  return Object.fromEntries(Array.from(text.matchAll(/^(\S+)[ \t]+(.*)$/gm), ([, name, value]) => [name, value]));
}
