// What the board tells, every two seconds while somebody looks, and what it told in the last minutes.

import { getJSON } from './api.js';
import { CHART_MINUTES } from './charts.js';
import { modelsInMemory } from './models-data.js';

const SAMPLE_EVERY = 2000;
const SAMPLE_SOON = 700; // after the first one: a load is the difference of two
const SAMPLES_KEPT = CHART_MINUTES * 60 * 1000 + SAMPLE_EVERY;

/** `{at, board, inMemory, health, loads}` of the last minutes, oldest first. It outlives the view, which then shows a gap. */
export const boardHistory = [];

/** Ask again and again, only while the page is seen, and call `told(sample)` or `missed(error)`. Returns what ends it. */
export function sampleBoard(told, missed) {
  let timer = 0;
  let controller = null;
  const stop = () => {
    clearTimeout(timer);
    controller?.abort();
    controller = null;
  };
  const ask = async () => {
    const mine = new AbortController();
    controller = mine;
    let sample;
    try {
      sample = await takeSample(mine.signal);
      if (mine.signal.aborted) return;
      keepSample(sample);
      told(sample);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (boardHistory.at(-1) === sample) boardHistory.pop(); // it could not be shown, and would not be next time
      missed(error);
      if (error.status === 401) return; // whoever gave no key is not asked again and again
    }
    timer = setTimeout(ask, boardHistory.length < 2 ? SAMPLE_SOON : SAMPLE_EVERY);
  };
  const look = () => {
    stop();
    if (document.visibilityState === 'visible') ask();
  };
  document.addEventListener('visibilitychange', look);
  look();
  return () => {
    document.removeEventListener('visibilitychange', look);
    stop();
  };
}

async function takeSample(signal) {
  const [board, inMemory, health] = await Promise.all([getJSON('api/rkllama/board', { signal }), modelsInMemory({ signal }), getJSON('health', { signal })]);
  return { at: Date.now(), board, inMemory, health };
}

function keepSample(sample) {
  sample.loads = coreLoads(boardHistory.at(-1)?.board.core_times, sample.board.core_times);
  while (boardHistory.length && sample.at - boardHistory[0].at > SAMPLES_KEPT) boardHistory.shift();
  boardHistory.push(sample);
}

/** Each core's share of work between two readings, by its number; empty where there are no two. */
function coreLoads(before, after) {
  const earlier = new Map((before || []).map((time) => [time.core, time]));
  const loads = new Map();
  for (const time of after || []) {
    const old = earlier.get(time.core);
    const busy = old ? time.busy_seconds - old.busy_seconds : 0;
    const all = old ? busy + time.idle_seconds - old.idle_seconds : 0;
    if (all > 0) loads.set(time.core, Math.min(1, Math.max(0, busy / all)));
  }
  return loads;
}

/** The mean load of some cores, or of all; null where none is known. */
export function meanLoad(loads, cores = null) {
  const known = (cores || [...loads.keys()]).map((core) => loads.get(core)).filter((load) => load !== undefined);
  return known.length ? known.reduce((sum, load) => sum + load, 0) / known.length : null;
}
