// Which model is asked: the picker, and what is known of each model.

import { getJSON } from './api.js';
import { fill, h } from './dom.js';
import { modelDetails, untaggedName } from './models-data.js';
import { remember, remembered, t } from './words.js';

const LAST = 'rkllama-model';
const GUIDE = 'guide';

/** The picker. `changed(facts)` is called when another model is meant, by hand or since it is known better. */
export function modelPicker(changed) {
  const facts = new Map();
  let models = [];
  let listed = false;
  let current = remembered(LAST) || '';
  const select = h('select', { class: 'chat-model', 'aria-label': t('chat.model'), on: { change: () => choose(select.value, true) } });
  const about = h('span', { class: 'chat-about' });
  const node = h('div', { class: 'chat-picker' }, select, about);

  /** Read anew what is here; a failure leaves what is shown. */
  async function refresh() {
    const { models: entries } = await getJSON('api/tags');
    models = entries.map((entry) => ({ ...entry, name: untaggedName(entry.name) }));
    listed = true;
    if (!current && models.length) current = (models.find(({ state }) => state) || models[0]).name;
    show();
    await learn(current);
  }

  function choose(name, byHand) {
    current = name;
    if (byHand) remember(LAST, name);
    show();
    changed(known(), byHand);
    learn(name).catch(() => {}); // what the model cannot do is then said by the server
  }

  /** Ask what a model can do. */
  async function learn(name) {
    const entry = models.find((model) => model.name === name);
    if (entry) {
      const { capabilities, parameters } = await modelDetails(entry);
      facts.set(name, { capabilities, parameters: readParameters(parameters) });
    }
    if (name === current) {
      show();
      changed(known(), false);
    }
  }

  function known() {
    const { capabilities = [], parameters = {} } = facts.get(current) || {};
    const has = (capability) => capabilities.includes(capability);
    const entry = models.find(({ name }) => name === current);
    return {
      name: current,
      here: Boolean(entry),
      listed,
      none: listed && !models.length,
      guide: current === GUIDE || entry?.alias_of === GUIDE,
      talks: !capabilities.length || has('completion'),
      sees: has('vision') || entry?.vision === true,
      thinks: has('thinking'),
      calls: has('tools'),
      known: facts.has(current),
      parameters,
    };
  }

  function show() {
    const inMemory = models.filter(({ state }) => state);
    const onDisk = models.filter(({ state }) => !state);
    const missing = current && !models.some(({ name }) => name === current);
    fill(
      select,
      missing || !models.length ? h('option', { value: current }, current ? (listed && current !== GUIDE ? t('chat.notHere', { name: current }) : current) : t('chat.noModel')) : null,
      group(t('chat.inMemory'), inMemory),
      group(t('chat.onDisk'), onDisk),
    );
    select.value = current;
    const { sees, thinks, calls, talks } = known();
    const words = talks ? [sees && 'chat.sees', thinks && 'can.thinking', calls && 'chat.calls'].filter(Boolean).map((key) => t(key)) : [];
    about.textContent = words.join(' · ');
  }

  // What is in memory may have changed since; the list is read anew when it is opened.
  select.addEventListener('pointerdown', () => void refresh().catch(() => {}));
  select.addEventListener('focus', () => void refresh().catch(() => {}));
  show();
  return { node, refresh, choose, known, useGuide: () => choose(GUIDE, true), last: () => remembered(LAST) || current };
}

function group(label, models) {
  if (!models.length) return null;
  return h('optgroup', { label }, models.map(({ name }) => h('option', { value: name }, name)));
}

/** The lines `name value` of /api/show as an object. */
function readParameters(text = '') {
  return Object.fromEntries(Array.from(text.matchAll(/^(\S+)[ \t]+(.*)$/gm), ([, name, value]) => [name, value]));
}
