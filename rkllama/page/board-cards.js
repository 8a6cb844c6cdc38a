// The board's cards: each is there when the board tells of its matter, and absent where it does not.

import { boardHistory, meanLoad } from './board-sampling.js';
import { chart } from './charts.js';
import { fill, h } from './dom.js';
import { wordsAbout } from './models-parts.js';
import { addWords, bytes, figure, percent, t } from './words.js';

addWords({
  'board.npu': ['NPU', 'NPU'],
  'board.npu-load': ['Load of the NPU', 'Charge du NPU'],
  'board.npu-root': ['Only root may read the NPU’s load.', 'Seul root peut lire la charge du NPU.'],
  'board.cpu': ['CPU', 'Processeur'],
  'board.cpu-load': ['Load of the CPU', 'Charge du processeur'],
  'board.cores': ['cores {first}–{last}', 'cœurs {first}–{last}'],
  'board.core': ['core {first}', 'cœur {first}'],
  'board.ddr': ['Memory bus', 'Bus mémoire'],
  'board.ddr-load': ['Load of the memory bus', 'Charge du bus mémoire'],
  'board.clock': ['Clock', 'Fréquence'],
  'board.limit': ['held at {value}', 'limité à {value}'],
  'board.governor': ['governor {name}', 'gouverneur {name}'],
  'board.heat': ['Temperatures', 'Températures'],
  'board.hottest': ['Hottest sensor', 'Capteur le plus chaud'],
  'board.throttled': ['Throttled by heat', 'Bridé par la chaleur'],
  'board.cool': ['Not throttled', 'Non bridé'],
  'board.memory': ['Memory', 'Mémoire'],
  'board.memory-used': ['Memory in use', 'Mémoire utilisée'],
  'board.in-use': ['In use', 'Utilisée'],
  'board.total': ['of {total}', 'sur {total}'],
  'board.cma': ['For devices (CMA)', 'Pour les périphériques (CMA)'],
  'board.queue': ['Queue', 'File d’attente'],
  'board.queue-length': ['Requests that wait', 'Requêtes en attente'],
  'board.busy': ['{count} answer being written|{count} answers being written', '{count} réponse en cours|{count} réponses en cours'],
});

const MOST_LINES = 4;
const COOLEST = 20;
const HOTTEST = 100; // °C at the top of the scale

/** The cards for what `sample` tells, each `{element, draw(sample)}`. */
export function boardCards({ board }) {
  return [
    board.npu && unitCard('npu', board.npu, h('p', { class: 'soft' }, t('board.npu-root'))),
    (board.core_times || board.cpus) && cpuCard(board),
    board.ddr && unitCard('ddr', board.ddr),
    board.temperatures?.length && heatCard(),
    memoryCard(board.memory),
    queueCard(),
  ].filter(Boolean);
}

/** What makes other cards necessary than those that are shown. */
export function shapeOf({ board }) {
  const { npu, ddr, cpus, temperatures, memory, core_times: times } = board;
  return JSON.stringify([npu?.name, npu?.load_percent?.length, ddr?.name, ddr?.load_percent?.length, cpus?.map((cpu) => cpu.name), times?.length, Boolean(temperatures?.length), memory.cma_total_bytes > 0]);
}

function drawFrom(one, values, top) {
  one.draw(boardHistory.map((sample) => ({ at: sample.at, values: values(sample) })), boardHistory.at(-1).at, top);
}

/** A card; `aside` is what stands beside its title. */
function card(key, aside, ...children) {
  const head = h('div', { class: 'board-head' }, h('h2', { id: `board-${key}` }, t(`board.${key}`)), aside);
  return h('section', { class: 'card board-card', 'aria-labelledby': `board-${key}` }, head, children);
}

// --- Clocks ---

const gigahertz = (value) => `${figure(value / 1e9, 2)} GHz`;

/** A clock's figure, its governor, and a small chart. `read(board)` gives the clock of a sample. */
function clockRow(name, clock, read) {
  const label = name || t('board.clock');
  const one = chart({ name: name ? wordsAbout(t('board.clock'), name) : t('board.clock'), lines: [label], show: gigahertz, high: clock.highest_hz || clock.current_hz, small: true });
  const facts = h('p', { class: 'soft board-clock' });
  const draw = (board) => {
    const now = read(board);
    if (!now) return;
    drawFrom(one, (sample) => [read(sample.board)?.current_hz], now.highest_hz);
    const limited = now.limit_hz && now.highest_hz && now.limit_hz < now.highest_hz;
    fill(facts, now.governor && h('span', {}, t('board.governor', { name: now.governor })), limited && h('span', { class: 'badge warn' }, t('board.limit', { value: gigahertz(now.limit_hz) })));
  };
  return { element: h('div', { class: 'board-row' }, one.element, facts), draw };
}

/** The load and the clock of the NPU or the memory bus; `unknown` is what stands in the place of a load. */
function unitCard(key, unit, unknown) {
  const cores = unit.load_percent?.length || 0;
  const lines = Array.from({ length: cores }, (_, at) => (cores > 1 ? t('board.core', { first: at }) : ''));
  const load = cores ? chart({ name: t(`board.${key}-load`), lines, show: percent }) : null;
  const clock = clockRow('', unit, (board) => board[key]);
  const draw = ({ board }) => {
    if (load) drawFrom(load, (sample) => (sample.board[key]?.load_percent || []).map((value) => value / 100));
    clock.draw(board);
  };
  return { element: card(key, null, load?.element || unknown, clock.element), draw };
}

/** A line for each cluster where there are few, else one for all cores. */
function cpuCard(board) {
  const clusters = board.cpus || [];
  const single = clusters.length < 2 || clusters.length > MOST_LINES;
  const names = single ? [''] : clusters.map((cluster) => coresText(cluster.cores));
  const load = board.core_times ? chart({ name: t('board.cpu-load'), lines: names, show: percent }) : null;
  const clocks = (clusters.length > MOST_LINES ? clusters.slice(0, 1) : clusters).map((cluster, at) =>
    clockRow(single ? '' : names[at], cluster, (now) => now.cpus?.find((one) => one.name === cluster.name)),
  );
  const draw = (sample) => {
    if (load) drawFrom(load, ({ loads }) => (single ? [meanLoad(loads)] : clusters.map((cluster) => meanLoad(loads, cluster.cores))));
    for (const clock of clocks) clock.draw(sample.board);
  };
  return { element: card('cpu', null, load?.element, clocks.map((clock) => clock.element)), draw };
}

function coresText(cores) {
  const [first, last] = [cores[0], cores.at(-1)];
  return t(first === last ? 'board.core' : 'board.cores', { first, last });
}

// --- Heat, memory, queue ---

function heatCard() {
  const celsius = (value) => `${figure(value)} °C`;
  const hottest = (board) => (board.temperatures?.length ? Math.max(...board.temperatures.map((sensor) => sensor.celsius)) : null);
  const one = chart({ name: t('board.hottest'), lines: [t('board.hottest')], show: celsius, low: COOLEST, high: HOTTEST });
  const sensors = h('dl', { class: 'board-sensors' });
  const badge = h('span', {});
  const draw = ({ board }) => {
    const { throttled, temperatures = [] } = board;
    drawFrom(one, (sample) => [hottest(sample.board)], Math.max(HOTTEST, hottest(board)));
    fill(badge, throttled === undefined ? null : h('span', { class: throttled ? 'badge bad' : 'badge' }, t(throttled ? 'board.throttled' : 'board.cool')));
    fill(sensors, temperatures.map(({ zone, celsius: value }) => h('div', {}, h('dt', {}, zone.replace(/[-_]thermal$/, '')), h('dd', {}, celsius(value)))));
  };
  return { element: card('heat', badge, one.element, sensors), draw };
}

function memoryCard(memory) {
  const used = ({ memory: now }) => now.total_bytes - now.available_bytes;
  const cmaUsed = ({ memory: now }) => now.cma_total_bytes - now.cma_free_bytes;
  const main = chart({ name: t('board.memory-used'), lines: [t('board.in-use')], show: bytes, high: memory.total_bytes });
  const total = h('span', { class: 'soft' });
  const cma = memory.cma_total_bytes > 0 && memory.cma_free_bytes !== undefined ? chart({ name: t('board.cma'), lines: [t('board.cma')], show: bytes, high: memory.cma_total_bytes, small: true }) : null;
  const draw = ({ board }) => {
    drawFrom(main, (sample) => [used(sample.board)], board.memory.total_bytes);
    fill(total, t('board.total', { total: bytes(board.memory.total_bytes) }));
    if (cma) drawFrom(cma, (sample) => [cmaUsed(sample.board)]);
  };
  return { element: card('memory', total, main.element, cma && h('div', { class: 'board-row' }, cma.element)), draw };
}

function queueCard() {
  const one = chart({ name: t('board.queue-length'), lines: [t('board.queue-length')], show: (value) => figure(value), high: 4 });
  const text = h('span', { class: 'soft' });
  const draw = ({ health }) => {
    drawFrom(one, (sample) => [sample.health.queue], Math.max(4, ...boardHistory.map((sample) => sample.health.queue)));
    const busy = health.models.filter((model) => model.state === 'busy').length;
    fill(text, busy > 0 && t('board.busy', { count: busy }));
  };
  return { element: card('queue', text, one.element), draw };
}
