// What a model's file and what lies beside it say, in a dialog.

import { capabilityText, modelFact, runsOn, tokensText } from './models-parts.js';
import { modelDetails, untaggedName } from './models-data.js';
import { dialog, errorBox } from './dialog.js';
import { fill, h, icon } from './dom.js';
import { addWords, bytes, figure, moment, t } from './words.js';

addWords({
  'detail.file': ['File', 'Fichier'],
  'detail.path': ['Path', 'Chemin'],
  'detail.family': ['Family', 'Famille'],
  'detail.parameters': ['Parameters', 'Paramètres'],
  'detail.changed': ['Changed', 'Modifié'],
  'detail.parent': ['Made from', 'Créé à partir de'],
  'detail.digest': ['sha256', 'sha256'],
  'detail.encoder': ['Image encoder', 'Encodeur d’images'],
  'detail.encoder-says': ['{size} pixels, {tokens} tokens per picture', '{size} pixels, {tokens} jetons par image'],
  'detail.capabilities': ['Can do', 'Capacités'],
  'detail.license': ['Licence', 'Licence'],
  'detail.template': ['Chat template', 'Modèle de conversation'],
  'detail.defaults': ['Default settings', 'Réglages par défaut'],
  'detail.modelfile': ['Modelfile', 'Modelfile'],
});

/** Show all that is known of a model. */
export function showDetails(model) {
  const body = h('div', { class: 'models-details', 'aria-busy': 'true' }, h('p', { class: 'soft' }, t('models.reading')));
  const ask = () =>
    modelDetails(model).then(
      (details) => fill(body, detailNodes(model, details)),
      (error) => fill(body, errorBox(error, ask)),
    ).finally(() => body.removeAttribute('aria-busy'));
  ask();
  return dialog(untaggedName(model.name), () => body, { className: 'wide' });
}

function detailNodes(model, details) {
  const texts = [
    ['detail.template', details.template],
    ['chat.system', details.system],
    ['detail.defaults', details.parameters],
    ['detail.license', isLongText(details.license) && details.license],
    ['detail.modelfile', details.modelfile],
  ];
  return [
    [details.template_guess, details.encoder?.problem, ...details.notes]
      .filter(Boolean)
      .map((note) => h('p', { class: 'models-warning' }, icon('warning'), h('span', {}, note))),
    h('dl', { class: 'models-table' }, detailRows(model, details)),
    texts.filter(([, text]) => text).map(([key, text]) => h('details', {}, h('summary', {}, t(key)), h('pre', { class: 'models-text', tabindex: 0, 'aria-label': t(key) }, text))),
  ];
}

function isLongText(text) {
  return Boolean(text) && (text.length > 120 || text.includes('\n'));
}

function detailRows(model, details) {
  const { loaded } = model;
  const known = details.details;
  const context = loaded?.context_length || known.context_length;
  return [
    modelFact('detail.file', known.file),
    modelFact('detail.path', known.path),
    modelFact('models.size', bytes(model.size)),
    modelFact('detail.family', known.family),
    modelFact('detail.parameters', known.parameter_size),
    modelFact('models.quantization', known.quantization_level),
    modelFact('models.context', context && tokensText(context)),
    modelFact('models.runs', runsOn(model)),
    modelFact('detail.capabilities', details.capabilities.map(capabilityText).join(', ')),
    modelFact('detail.encoder', details.encoder && encoderText(details.encoder)),
    modelFact('detail.parent', known.parent_model),
    modelFact('board.memory', loaded?.memory && bytes(loaded.memory)),
    modelFact('models.speed', loaded?.tokens_per_second && t('chat.speed', { value: figure(loaded.tokens_per_second, 1) })),
    modelFact('models.threads', loaded?.threads),
    modelFact('detail.license', details.license && details.license.split('\n')[0].slice(0, 120)),
    modelFact('detail.changed', moment(Date.parse(model.modified_at))),
    modelFact('detail.digest', model.digest),
  ];
}

function encoderText({ file, size, width, height, tokens }) {
  const sees = width && tokens ? t('detail.encoder-says', { size: `${width} × ${height}`, tokens: figure(tokens) }) : '';
  return [`${file} (${bytes(size)})`, sees].filter(Boolean).join(', ');
}
