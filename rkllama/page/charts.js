// Small charts of the last minutes, drawn by hand: lines with an area below, from the right edge, which is now.

import { fill, h, svg } from './dom.js';
import { addWords, t } from './words.js';

addWords({
  'chart.says': ['{name}, last {minutes} minutes: {figures}', '{name}, {minutes} dernières minutes\u202f: {figures}'],
  'chart.line': ['{name} {now}, from {low} to {high}', '{name} {now}, de {low} à {high}'],
  'chart.nothing': ['no figure yet', 'pas encore de valeur'],
  'chart.range': ['{low} to {high}', '{low} à {high}'],
});

export const CHART_MINUTES = 5;
const CHART_WIDTH = CHART_MINUTES * 60; // a unit of the drawing is a second
const CHART_HEIGHT = 60;
const CHART_GAP = 7; // seconds without a figure that break a line

/** A chart. `name` is what it shows, `lines` the names of its lines (one may be ''), `show(value)` writes a
 * value, `low` and `high` are the scale's ends. `draw(samples, now, high)` takes `{at, values}`, times in
 * milliseconds, a value null or undefined where there is none. */
export function chart({ name, lines, show, low = 0, high = 1, small = false }) {
  const drawn = lines.map((_, at) => ({
    area: svg('path', { class: `chart-area chart-${at}` }),
    line: svg('path', { class: `chart-line chart-${at}`, 'vector-effect': 'non-scaling-stroke' }),
  }));
  const drawing = svg(
    'svg',
    { class: small ? 'chart-drawing chart-small' : 'chart-drawing', viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': name },
    // Areas first: no line is behind the area of another one.
    lines.length === 1 ? drawn[0].area : null,
    drawn.map(({ line }) => line),
  );
  const legend = h('ul', { class: 'chart-legend' }, lines.map((line, at) => legendEntry(line, at, lines.length > 1)));
  const element = h('figure', { class: small ? 'chart chart-beside' : 'chart' }, drawing, h('figcaption', {}, legend));
  const draw = (samples, now, top = high) => {
    const figures = lines.map((line, at) => {
      const points = pointsOf(samples, at, now);
      drawLine(drawn[at], points, (value) => CHART_HEIGHT - 1 - ((value - low) / (top - low)) * (CHART_HEIGHT - 2));
      return chartFigures(line, points, show);
    });
    figures.forEach((one, at) => fillLegend(legend.children[at], one));
    drawing.setAttribute('aria-label', t('chart.says', { name, minutes: CHART_MINUTES, figures: figures.map((one) => one.says).join('; ') }));
  };
  return { element, draw };
}

function legendEntry(line, at, isKeyed) {
  const key = svg('svg', { class: 'chart-key', viewBox: '0 0 20 8', 'aria-hidden': 'true' }, svg('path', { class: `chart-line chart-${at}`, d: 'M0 4H20' }));
  return h('li', {}, isKeyed && key, line && h('span', { class: 'chart-name' }, line), ' ', h('strong', { class: 'chart-now' }), ' ', h('span', { class: 'chart-range soft' }));
}

function fillLegend(entry, { now, range }) {
  fill(entry.querySelector('.chart-now'), now);
  fill(entry.querySelector('.chart-range'), range);
}

/** The line's points as [seconds from the left, value], a null between two that do not belong together. */
function pointsOf(samples, at, now) {
  const points = [];
  let before = null;
  for (const sample of samples) {
    const x = CHART_WIDTH - (now - sample.at) / 1000;
    const value = sample.values[at];
    if (x < 0 || value === null || value === undefined) continue;
    if (before !== null && x - before > CHART_GAP) points.push(null);
    points.push([x, value]);
    before = x;
  }
  return points;
}

function drawLine({ area, line }, points, y) {
  let path = '';
  let below = '';
  let first = null;
  let last = null;
  const close = () => {
    if (last !== null) below += `L${last} ${CHART_HEIGHT}L${first} ${CHART_HEIGHT}Z`;
    first = last = null;
  };
  for (const point of points) {
    if (point === null) {
      close();
      continue;
    }
    const x = point[0].toFixed(1);
    const step = `${first === null ? 'M' : 'L'}${x} ${y(point[1]).toFixed(1)}`;
    // A point alone is a dot: a line of no length with round ends.
    path += first === null ? `${step}h0` : step;
    below += step;
    first ??= x;
    last = x;
  }
  close();
  line.setAttribute('d', path);
  area.setAttribute('d', below);
}

function chartFigures(line, points, show) {
  const values = points.filter(Boolean).map((point) => point[1]);
  if (!values.length) return { now: '', range: '', says: `${line} ${t('chart.nothing')}`.trim() };
  const [now, low, high] = [values.at(-1), Math.min(...values), Math.max(...values)].map(show);
  return { now, range: low === high ? '' : t('chart.range', { low, high }), says: t('chart.line', { name: line, now, low, high }).trim() };
}
