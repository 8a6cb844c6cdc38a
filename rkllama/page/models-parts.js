// What the views of models and of the board share: buttons, facts, and what a model can do in words.

import { h, icon } from './dom.js';
import { addWords, t } from './words.js';

addWords({
  'models.size': ['Size', 'Taille'],
  'models.quantization': ['Quantization', 'Quantification'],
  'models.context': ['Context', 'Contexte'],
  'models.tokens': ['{count} tokens', '{count} jetons'],
  'models.runs': ['Runs on', 'Fonctionne sur'],
  'models.memory': ['Memory', 'Mémoire'],
  'models.speed': ['Last answer', 'Dernière réponse'],
  'models.per-second': ['{count} tokens/s', '{count} jetons/s'],
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

/** A button with a text. `name` is what it is called where the text alone says too little, `look` a class, `sign` an icon. */
export function wordButton(text, onClick, { name = null, look = '', sign = '' } = {}) {
  return h('button', { type: 'button', class: `button ${look}`.trim(), 'aria-label': name, on: { click: onClick } }, sign ? icon(sign) : null, h('span', {}, text));
}

/** Let a button look and sound as if it could not be pressed, but keep the focus. */
export function setIdle(button, idle) {
  button.setAttribute('aria-disabled', idle);
}

/** One fact as term and description; null where nothing is known. */
export function modelFact(key, value) {
  return value ? h('div', {}, h('dt', {}, t(key)), h('dd', {}, String(value))) : null;
}

/** What runs a model: the runtime that has it in memory, else the chip that its file is for. */
export function runsOn(model) {
  const { loaded, details } = model;
  if (loaded?.runtime) return loaded.runtime;
  if (details.format === 'rkllm') return details.platform ? `NPU (${details.platform.toUpperCase()})` : 'NPU';
  return 'CPU (.gguf)';
}
