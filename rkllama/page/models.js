// The view "Models": getting one, downloads, and what is here.

import { modelStore, onModels, refreshModels } from './models-data.js';
import { DownloadsPanel } from './models-downloads.js';
import { fillModels, tickModels } from './models-list.js';
import { wordButton } from './models-parts.js';
import { startPull } from './models-pulls.js';
import { SearchPanel } from './models-search.js';
import { errorBox } from './dialog.js';
import { fill, h } from './dom.js';
import { eachSecond, isInSight, onSight } from './sight.js';
import { addWords, bytes, t } from './words.js';

addWords({
  'models.here': ['On this board', 'Sur cette carte'],
  'models.count': ['{count} model, {size}|{count} models, {size}', '{count} modèle, {size}|{count} modèles, {size}'],
  'models.reading': ['Reading…', 'Lecture…'],
  'models.none': ['Search for one above, or begin with the guide.', 'Cherchez-en un ci-dessus, ou commencez par le guide.'],
  'models.guide': ['Use the guide', 'Utiliser le guide'],
});

/** The view, from when it is made until `end()`. */
export class ModelsPage {
  #live = h('p', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  #search = new SearchPanel();
  #downloads = new DownloadsPanel((text) => this.#say(text));
  #here = new HerePanel();
  #ends = [
    () => this.#search.end(),
    () => this.#downloads.end(),
    onModels(() => this.#update()),
    onSight(() => isInSight() && refreshModels()),
    eachSecond(() => this.#here.tick()),
  ];
  node = h('div', { class: 'page models-page' }, h('h1', { class: 'unseen' }, t('models')), this.#search.element, this.#downloads.element, this.#here.element, this.#live);

  constructor() {
    refreshModels();
  }

  end() {
    for (const end of this.#ends) end();
  }

  #say(text) {
    this.#live.textContent = text;
  }

  #update() {
    this.#here.update();
    this.#downloads.update();
  }
}

/** The models that are on the board. */
class HerePanel {
  #list = h('ul', { class: 'models-list' });
  #count = h('p', { class: 'soft' });
  #empty = h('div', { class: 'models-empty' });
  element = h(
    'section',
    { class: 'models-section', 'aria-labelledby': 'models-here' },
    h('div', { class: 'page-head' }, h('h2', { id: 'models-here', tabindex: -1 }, t('models.here')), this.#count),
    this.#empty,
    this.#list,
  );

  constructor() {
    this.update();
  }

  update() {
    const { models, error } = modelStore;
    if (models) fillModels(this.#list);
    this.#count.textContent = models?.length ? t('models.count', { count: models.length, size: bytes(sizeOnDisk(models)) }) : '';
    fill(this.#empty, emptyText(models, error));
    this.#empty.hidden = !this.#empty.hasChildNodes();
  }

  tick() {
    tickModels(this.#list);
  }
}

/** The bytes of models, of which several may share a file. */
function sizeOnDisk(models) {
  const sizes = new Map(models.map((model) => [model.details.path, model.size]));
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
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
