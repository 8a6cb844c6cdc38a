// The view "Board": how the board is doing at this moment and was in the last minutes.

import { boardCards, shapeOf } from './board-cards.js';
import { doctorCard } from './board-doctor.js';
import { memoryModels } from './board-memory.js';
import { boardHistory, sampleBoard } from './board-sampling.js';
import { CHART_MINUTES } from './charts.js';
import { errorBox } from './dialog.js';
import { fill, h } from './dom.js';
import { addWords, t } from './words.js';

addWords({
  'board.asking': ['Asking the board…', 'Interrogation de la carte…'],
  'board.no-npu': ['No NPU: models run on the CPU', 'Pas de NPU\u202f: les modèles tournent sur le processeur'],
  'board.minutes': ['charts of the last {minutes} minutes', 'courbes des {minutes} dernières minutes'],
});

const BOARD_TICK = 1000;

function mountBoard(root) {
  const title = h('h1', {}, t('board'));
  const about = h('p', { class: 'soft' }, t('board.asking'));
  const problem = h('div', {});
  const grid = h('div', { class: 'board-grid' });
  const models = memoryModels();
  const head = h('div', { class: 'page-head' }, title, about);
  root.append(h('div', { class: 'page board-page' }, head, problem, models.element, grid, doctorCard()));
  let cards = [];
  let shape = '';
  const told = (sample) => {
    if (shapeOf(sample) !== shape) {
      shape = shapeOf(sample);
      cards = boardCards(sample);
      fill(grid, cards.map(({ element }) => element));
    }
    title.textContent = sample.board.soc || t('board');
    about.textContent = [`RKLLama ${sample.health.version}`, !sample.board.npu && !sample.board.soc && t('board.no-npu'), t('board.minutes', { minutes: CHART_MINUTES })].filter(Boolean).join(' · ');
    fill(problem);
    models.draw(sample.inMemory);
    for (const one of cards) one.draw(sample);
  };
  // It asks again by itself; what is shown stays, with a gap. An error that stays is read out once.
  const missed = (error) => {
    if (problem.textContent !== `${error.message}${error.hint}`) fill(problem, errorBox(error));
  };
  const clock = setInterval(() => document.visibilityState === 'visible' && models.tick(), BOARD_TICK);
  if (boardHistory.length) told(boardHistory.at(-1));
  const end = sampleBoard(told, missed);
  return () => {
    clearInterval(clock);
    end();
  };
}

export const boardView = { mount: mountBoard };
