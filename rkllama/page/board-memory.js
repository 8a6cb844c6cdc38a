// The models in memory, as the view "Board" shows them.

import { untaggedName, unloadModel } from './models-data.js';
import { memoryText, sayFailure } from './models-list.js';
import { fillRows, modelFact, setIdle, setWords, tokensText, wordButton } from './models-parts.js';
import { notify } from './dialog.js';
import { fill, h } from './dom.js';
import { addWords, bytes, figure, t } from './words.js';

addWords({
  'board.models': ['Models in memory', 'Modèles en mémoire'],
  'board.no-models': ['None. A model is loaded when it is first asked.', 'Aucun. Un modèle est chargé à la première question.'],
});

/** The card, and `draw(models)` with what `/api/ps` tells. */
export function memoryModels() {
  const list = h('ul', { class: 'board-models' });
  const none = h('p', { class: 'soft' }, t('board.no-models'));
  const title = h('h2', { id: 'board-models', tabindex: -1 }, t('board.models'));
  const element = h('section', { class: 'card board-wide', 'aria-labelledby': 'board-models' }, title, none, list);
  const draw = (models) => {
    fillRows(list, models, (model) => residentRow(model, title), drawResident);
    none.hidden = models.length > 0;
  };
  const tick = () => {
    for (const row of list.children) row.state.textContent = memoryText(row.model);
  };
  return { element, draw, tick };
}

function residentRow(model, title) {
  const name = untaggedName(model.name);
  const state = h('span', { class: 'badge good' });
  const facts = h('dl', { class: 'models-facts' });
  const unload = wordButton(t('models.unload'), () => unloadResident(row, title), { about: name });
  const row = h('li', { dataset: { model: model.name } }, h('div', { class: 'models-model-text' }, h('h3', {}, name, ' ', state), facts), unload);
  return Object.assign(row, { state, facts, unload });
}

function drawResident(row, model) {
  row.model = model;
  row.state.textContent = memoryText(model);
  fill(
    row.facts,
    modelFact('board.memory', model.memory && bytes(model.memory)),
    modelFact('models.speed', model.tokens_per_second && t('chat.speed', { value: figure(model.tokens_per_second, 1) })),
    modelFact('models.context', model.context_length && tokensText(model.context_length)),
    modelFact('models.runs', model.runtime),
    modelFact('models.threads', model.threads),
  );
}

async function unloadResident(row, title) {
  if (row.unload.getAttribute('aria-disabled') === 'true') return;
  setIdle(row.unload, true);
  setWords(row.unload, t('models.unloading'));
  try {
    await unloadModel(row.model.name);
    notify(t('models.unloaded', { name: untaggedName(row.model.name) }));
    const hadFocus = row.contains(document.activeElement);
    row.remove();
    if (hadFocus) title.focus();
  } catch (error) {
    sayFailure(error);
    setIdle(row.unload, false);
    setWords(row.unload, t('models.unload'));
  }
}
