// What a model can do, in words.

import { addWords, t } from './words.js';

addWords({
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
