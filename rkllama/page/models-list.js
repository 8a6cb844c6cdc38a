// The models that are here: what each is, what it can do, whether it is in memory, and what can be done with it.

import { capabilityText, fillRows, modelFact, runsOn, setIdle, setWords, shownCapabilities, tokensText, wordButton, wordsAbout } from './models-parts.js';
import { deleteModel, expiryOf, loadModel, modelDetails, modelStore, untaggedName, unloadModel } from './models-data.js';
import { showDetails } from './models-details.js';
import { confirmed, notify } from './dialog.js';
import { fill, h, iconButton } from './dom.js';
import { addWords, bytes, duration, remember, t } from './words.js';

addWords({
  'models.chat': ['Chat', 'Discuter'],
  'models.load': ['Load', 'Charger'],
  'models.unload': ['Unload', 'Décharger'],
  'models.loading': ['Loading…', 'Chargement…'],
  'models.unloading': ['Unloading…', 'Déchargement…'],
  'models.deleting': ['Deleting…', 'Suppression…'],
  'models.details': ['Details', 'Détails'],
  'models.delete': ['Delete', 'Supprimer'],
  'models.delete-title': ['Delete {name}?', 'Supprimer {name}\u202f?'],
  'models.delete-text': ['The file {file} ({size}) is deleted from this board. To have it again, it must be downloaded again.', 'Le fichier {file} ({size}) est supprimé de cette carte. Pour l’avoir de nouveau, il faudra le retélécharger.'],
  'models.delete-loaded': ['It is in memory: answers that it is writing stop.', 'Il est en mémoire\u202f: les réponses en cours s’arrêtent.'],
  'models.delete-name-only': ['Only the name {name} is deleted. The file {file} ({size}) stays, since {parent} uses it.', 'Seul le nom {name} est supprimé. Le fichier {file} ({size}) reste, car {parent} l’utilise.'],
  'models.deleted': ['{name} is deleted', '{name} est supprimé'],
  'models.loaded': ['{name} is in memory', '{name} est en mémoire'],
  'models.unloaded': ['{name} is no longer in memory', '{name} n’est plus en mémoire'],
  'models.aliases': ['Also called', 'Aussi appelé'],
  'models.stays': ['in memory', 'en mémoire'],
  'models.left': ['in memory, {time} left', 'en mémoire, encore {time}'],
  'models.busy': ['answering', 'répond'],
});

/** Put the models into the list `root`. */
export function fillModels(root) {
  fillRows(root, modelStore.models, modelRow, updateRow);
}

function modelRow(model) {
  const name = untaggedName(model.name);
  const parts = {
    badges: h('p', { class: 'models-badges' }),
    facts: h('dl', { class: 'models-facts' }),
    chat: h('a', { class: 'button primary', href: '#chat/new', 'aria-label': wordsAbout(t('models.chat'), name), on: { click: () => remember('rkllama-model', name) } }, t('models.chat')),
    memory: wordButton('', () => switchMemory(row.model), { look: 'models-memory-button' }),
    details: wordButton(t('models.details'), () => showDetails(row.model), { about: name }),
    trash: iconButton('trash', wordsAbout(t('models.delete'), name), () => askToDelete(row.model, row)),
  };
  const row = h(
    'li',
    { class: 'card models-model', dataset: { model: model.name } },
    h('div', { class: 'models-model-text' }, h('h3', { tabindex: -1 }, name), parts.badges, parts.facts),
    h('div', { class: 'models-actions' }, parts.chat, parts.memory, parts.details, parts.trash),
  );
  return Object.assign(row, { model, parts });
}

function updateRow(row, model) {
  row.model = model;
  fillFacts(row, model);
  fillBadges(row, null);
  fillMemory(row);
  modelDetails(model).then(
    (details) => {
      if (row.model !== model) return;
      fillBadges(row, details);
      row.parts.chat.classList.toggle('models-gone', !details.capabilities.includes('completion'));
    },
    () => {}, // A model whose file cannot be read stays in the list without its abilities; the details say why.
  );
}

function fillFacts(row, model) {
  const { size, details, aliases } = model;
  const context = model.loaded?.context_length || details.context_length;
  fill(
    row.parts.facts,
    modelFact('models.size', bytes(size)),
    modelFact('models.quantization', details.quantization_level),
    modelFact('models.context', context && tokensText(context)),
    modelFact('models.runs', runsOn(model)),
    modelFact('board.memory', model.loaded?.memory && bytes(model.loaded.memory)),
    modelFact('models.aliases', aliases.join(', ')),
  );
}

function fillBadges(row, details) {
  const { model } = row;
  // What was told before stays until it is told anew, so that nothing jumps.
  if (details) row.capabilities = shownCapabilities(details.capabilities);
  const able = row.capabilities || (model.vision ? ['vision'] : []);
  fill(
    row.parts.badges,
    model.details.parameter_size && h('span', { class: 'badge' }, model.details.parameter_size),
    able.map((name) => h('span', { class: 'badge' }, capabilityText(name))),
    model.loaded && h('span', { class: 'badge good', dataset: { expires: '' } }, memoryText(model.loaded)),
  );
}

/** "in memory for 4 min": the state of a model in memory in words. */
export function memoryText(loaded) {
  if (loaded.state === 'busy') return t('models.busy');
  if (loaded.state === 'loading') return t('models.loading');
  const at = expiryOf(loaded);
  return at === null ? t('models.stays') : t('models.left', { time: duration(Math.max(0, Math.round((at - Date.now()) / 1000))) });
}

/** Count down: called each second while somebody looks. */
export function tickModels(root) {
  for (const row of root.children) {
    const badge = row.querySelector('[data-expires]');
    if (badge && row.model.loaded) badge.textContent = memoryText(row.model.loaded);
  }
}

function fillMemory(row) {
  const { model, parts } = row;
  const acting = modelStore.acting.get(model.name);
  setWords(parts.memory, t(`models.${acting || (model.loaded ? 'unload' : 'load')}`), untaggedName(model.name));
  setIdle(parts.memory, Boolean(acting));
  row.setAttribute('aria-busy', Boolean(acting));
}

async function switchMemory(model) {
  if (modelStore.acting.has(model.name)) return;
  const name = untaggedName(model.name);
  try {
    await (model.loaded ? unloadModel(model.name) : loadModel(model.name));
    notify(t(model.loaded ? 'models.unloaded' : 'models.loaded', { name }));
  } catch (error) {
    sayFailure(error);
  }
}

/** Say an error with what helps. */
export function sayFailure(error) {
  notify([error.message, error.hint].filter(Boolean).join(' '), { error: true });
}

async function askToDelete(model, row) {
  const details = await modelDetails(model).catch(() => null);
  const parent = details?.details.parent_model;
  const values = { name: untaggedName(model.name), file: model.details.file, size: bytes(model.size), parent };
  const text = [t(parent ? 'models.delete-name-only' : 'models.delete-text', values), model.loaded && !parent && t('models.delete-loaded')];
  // The focus goes to the next model, or to the one before, or to the list's title.
  const next = row.nextElementSibling || row.previousElementSibling;
  const focus = () => (next?.isConnected ? next.querySelector('h3') : document.getElementById('models-here')).focus();
  await deleteAsked(model.name, values, text.filter(Boolean).join(' '), focus);
}

/** Delete a model if the answer to the question is yes, and then give the focus to what is left. */
export async function deleteAsked(model, values, text, focus) {
  if (!(await confirmed(t('models.delete-title', values), text, t('models.delete'), { danger: true }))) return;
  try {
    await deleteModel(model);
    notify(t('models.deleted', values));
    focus();
  } catch (error) {
    sayFailure(error);
  }
}
