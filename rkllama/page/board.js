// The view "Board": how the board is doing at this moment and was in the last minutes.

import { boardCards, shapeOf } from './board-cards.js';
import { doctorCard } from './board-doctor.js';
import { memoryModels } from './board-memory.js';
import { BoardSampler, boardHistory } from './board-sampling.js';
import { CHART_MINUTES } from './charts.js';
import { errorBox } from './dialog.js';
import { fill, h } from './dom.js';
import { eachSecond } from './sight.js';
import { addWords, t } from './words.js';

addWords({
  'board.asking': ['Asking the board…', 'Interrogation de la carte…'],
  'board.no-npu': ['No NPU: models run on the CPU', 'Pas de NPU\u202f: les modèles tournent sur le processeur'],
  'board.minutes': ['charts of the last {minutes} minutes', 'courbes des {minutes} dernières minutes'],
});

/** The view, from when it is made until `end()`. */
export class BoardPage {
  #title = h('h1', {}, t('board'));
  #about = h('p', { class: 'soft' }, t('board.asking'));
  #problem = h('div', {});
  #grid = h('div', { class: 'board-grid' });
  #models = memoryModels();
  #cards = [];
  #shape = '';
  #endTicks = eachSecond(() => this.#models.tick());
  #sampler;
  node = h('div', { class: 'page board-page' }, h('div', { class: 'page-head' }, this.#title, this.#about), this.#problem, this.#models.element, this.#grid, doctorCard());

  constructor() {
    if (boardHistory.length) this.#show(boardHistory.at(-1));
    this.#sampler = new BoardSampler((sample) => this.#show(sample), (error) => this.#showError(error));
  }

  end() {
    this.#endTicks();
    this.#sampler.end();
  }

  #show(sample) {
    const { board, health, inMemory } = sample;
    if (shapeOf(sample) !== this.#shape) this.#makeCards(sample);
    this.#title.textContent = board.soc || t('board');
    const about = [`RKLLama ${health.version}`, !board.npu && !board.soc && t('board.no-npu'), t('board.minutes', { minutes: CHART_MINUTES })];
    this.#about.textContent = about.filter(Boolean).join(' · ');
    fill(this.#problem);
    this.#models.draw(inMemory);
    for (const card of this.#cards) card.draw(sample);
  }

  #makeCards(sample) {
    this.#shape = shapeOf(sample);
    this.#cards = boardCards(sample);
    fill(this.#grid, this.#cards.map(({ element }) => element));
  }

  /** It asks again by itself; what is shown stays, with a gap. An error that stays is read out once. */
  #showError(error) {
    if (this.#problem.textContent !== `${error.message}${error.hint}`) fill(this.#problem, errorBox(error));
  }
}
