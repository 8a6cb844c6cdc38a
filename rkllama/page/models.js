// The view "Models": getting one, downloads, and what is here.

import { modelStore, onModels, refreshModels } from './models-data.js';
import { downloadsPanel } from './models-downloads.js';
import { fillModels, tickModels } from './models-list.js';
import { wordButton } from './models-parts.js';
import { startPull } from './models-pulls.js';
import { searchPanel } from './models-search.js';
import { errorBox } from './dialog.js';
import { fill, h } from './dom.js';
import { addWords, bytes, t } from './words.js';

addWords({
  'models.here': ['On this board', 'Sur cette carte'],
  'models.count': ['{count} model, {size}|{count} models, {size}', '{count} modèle, {size}|{count} modèles, {size}'],
  'models.reading': ['Reading…', 'Lecture…'],
  'models.none': ['Search for one above, or begin with the guide.', 'Cherchez-en un ci-dessus, ou commencez par le guide.'],
  'models.guide': ['Use the guide', 'Utiliser le guide'],
});

const MODELS_TICK = 1000;

function mountModels(root) {
  const live = h('p', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  const say = (text) => {
    live.textContent = text;
  };
  const search = searchPanel();
  const downloads = downloadsPanel(say);
  const here = herePanel();
  root.append(h('div', { class: 'page models-page' }, h('h1', { class: 'unseen' }, t('models')), search.element, downloads.element, here.element, live));
  const look = () => {
    if (document.visibilityState === 'visible') refreshModels();
  };
  const ends = [
    search.end,
    downloads.end,
    onModels(() => {
      here.update();
      downloads.update();
    }),
  ];
  document.addEventListener('visibilitychange', look);
  const clock = setInterval(() => document.visibilityState === 'visible' && tickModels(here.list), MODELS_TICK);
  refreshModels();
  return () => {
    document.removeEventListener('visibilitychange', look);
    clearInterval(clock);
    for (const end of ends) end();
  };
}

function herePanel() {
  const list = h('ul', { class: 'models-list' });
  const count = h('p', { class: 'soft' });
  const empty = h('div', { class: 'models-empty' });
  const title = h('h2', { id: 'models-here', tabindex: -1 }, t('models.here'));
  const element = h('section', { class: 'models-section', 'aria-labelledby': 'models-here' }, h('div', { class: 'page-head' }, title, count), empty, list);
  const update = () => {
    const { models, error } = modelStore;
    if (models) fillModels(list);
    const size = [...new Map((models || []).map((model) => [model.details.path, model.size])).values()].reduce((sum, one) => sum + one, 0);
    count.textContent = models?.length ? t('models.count', { count: models.length, size: bytes(size) }) : '';
    fill(empty, emptyText(models, error));
    empty.hidden = !empty.hasChildNodes();
  };
  update();
  return { element, list, update };
}

function emptyText(models, error) {
  if (error) return errorBox(error, refreshModels);
  if (models === null) return h('p', { class: 'soft' }, t('models.reading'));
  if (models.length) return null;
  return h(
    'div',
    { class: 'card models-none' },
    h('p', {}, ['chat.noModels', 'models.none', 'chat.guideIs'].map((key) => `${t(key)} `)),
    wordButton(t('models.guide'), () => startPull('guide'), { look: 'primary', sign: 'play' }),
  );
}

export const modelsView = { mount: mountModels };
