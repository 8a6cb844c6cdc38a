// What the views of models and of the board share: buttons, facts, and what a model can do in words.

import { h, textButton } from './dom.js';
import { addWords, figure, t } from './words.js';

addWords({
  'models.about': ['{text}: {name}', '{text}\u202f: {name}'],
  'models.size': ['Size', 'Taille'],
  'models.quantization': ['Quantization', 'Quantification'],
  'models.context': ['Context', 'Contexte'],
  'models.runs': ['Runs on', 'Fonctionne sur'],
  'models.speed': ['Last answer', 'Dernière réponse'],
  'models.threads': ['CPUs', 'Processeurs'],
  'can.completion': ['writes', 'rédige'],
  'can.vision': ['sees pictures', 'voit les images'],
  'can.thinking': ['thinks', 'réfléchit'],
  'can.tools': ['tools', 'outils'],
  'can.embedding': ['embeddings', 'vecteurs'],
  'can.rerank': ['ranks texts', 'classe des textes'],
  'can.insert': ['fills in', 'complète'],
});

const CAPABILITIES_SHOWN = ['vision', 'thinking', 'tools', 'embedding', 'rerank', 'insert'];
const CAPABILITIES_IN_WORDS = new Set(['completion', ...CAPABILITIES_SHOWN]);

/** Those of a model's capabilities that tell it from others, always in the same order. */
export function shownCapabilities(capabilities) {
  return CAPABILITIES_SHOWN.filter((name) => capabilities.includes(name));
}

/** A capability for people; one that is new here as the server calls it. */
export function capabilityText(name) {
  return CAPABILITIES_IN_WORDS.has(name) ? t(`can.${name}`) : name;
}

/** A button with a text. `about` is the model that it is about, `look` a class, `sign` an icon. */
export function wordButton(text, onClick, { about = '', look = '', sign = '' } = {}) {
  const button = textButton(h('span'), onClick, look, sign);
  setWords(button, text, about);
  return button;
}

/** Give a button another text. */
export function setWords(button, text, about) {
  button.lastChild.textContent = text;
  if (about) button.setAttribute('aria-label', wordsAbout(text, about));
}

/** "Load: qwen3": what a button does, and with which model, for who does not see where it stands. */
export function wordsAbout(text, name) {
  return t('models.about', { text, name });
}

/** Let a button look and sound as if it could not be pressed, but keep the focus. */
export function setIdle(button, idle) {
  button.setAttribute('aria-disabled', idle);
}

/** One fact as term and description; null where nothing is known. */
export function modelFact(key, value) {
  return value ? h('div', {}, h('dt', {}, t(key)), h('dd', {}, String(value))) : null;
}

/** Make the list `root` hold a row for each model. Each keeps its node, so that the focus stays where it is. */
export function fillRows(root, models, make, draw) {
  const rows = new Map([...root.children].map((row) => [row.dataset.model, row]));
  for (const [name, row] of rows) if (!models.some((model) => model.name === name)) row.remove();
  models.forEach((model, at) => {
    const row = rows.get(model.name) || make(model);
    draw(row, model);
    if (root.children[at] !== row) root.insertBefore(row, root.children[at] || null);
  });
}

export function tokensText(count) {
  return t('chat.tokens', { count, value: figure(count) });
}

/** What runs a model: the runtime that has it in memory, else the chip that its file is for. */
export function runsOn(model) {
  const { loaded, details } = model;
  if (loaded?.runtime) return loaded.runtime;
  if (details.format === 'rkllm') return details.platform ? `NPU (${details.platform.toUpperCase()})` : 'NPU';
  return 'CPU (.gguf)';
}
