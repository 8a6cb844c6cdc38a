// Downloads of models. They belong to the page and not to a view: one goes on while another view is shown, and
// ends when the page is closed. What has come by then stays with the server, and the next pull goes on from there.

import { ApiError, lines, toldError } from './api.js';
import { refreshModels, untaggedName } from './models-data.js';
import { notify } from './dialog.js';
import { h, icon } from './dom.js';
import { addWords, percent, t } from './words.js';

addWords({
  'pull.here': ['{name} is here', '{name} est prêt'],
  'pull.failed': ['The download of {name} failed: {problem}', 'Le téléchargement de {name} a échoué\u202f: {problem}'],
  'pull.show': ['Show', 'Afficher'],
  'pull.running': ['{count} download, {percent}|{count} downloads, {percent}', '{count} téléchargement, {percent}|{count} téléchargements, {percent}'],
});

const SPEED_EVERY = 1000; // milliseconds over which a speed is taken
const PULL_SILENT_AFTER = 6000;
const PULLS_AT_ONCE = 3; // a browser has six connections to a server, and other things to ask
const PULL_RUNNING = new Set(['waiting', 'asking', 'downloading', 'verifying']);

/** The downloads of this page by their reference, in the order in which they began. */
export const pulls = new Map();
const pullListeners = new Set();

/** Have `listener(pull)` called whenever a download has moved; returns what ends that. */
export function onPulls(listener) {
  pullListeners.add(listener);
  return () => pullListeners.delete(listener);
}

function tellPulls(pull) {
  for (const listener of pullListeners) listener(pull);
  showPullsInTop();
}

export function isRunning(pull) {
  return PULL_RUNNING.has(pull.status);
}

/** Whether this page is fetching the file of an incomplete download, or has tried to. */
export function isPulled(part) {
  return [...pulls.values()].some((pull) => pull.file === part.file || pull.reference === part.name);
}

/** The share that is there, 0 to 1; null where that is not known. */
export function pullShare(pull) {
  return pull.total ? pull.completed / pull.total : null;
}

/** Seconds until a download is done at the present speed; null where nobody can tell. */
export function pullRest(pull) {
  return pull.speed && pull.total ? (pull.total - pull.completed) / pull.speed : null;
}

/** Fetch what `reference` means; one that runs already is left alone. `file` is its file, where that is known. */
export function startPull(reference, file = null) {
  const before = pulls.get(reference);
  if (before && isRunning(before)) return before;
  const pull = { reference, file, status: 'waiting', total: null, completed: 0, resumed: 0, speed: null, note: '', error: null, model: null, silent: false };
  Object.assign(pull, { controller: new AbortController(), marks: null, timer: 0 });
  pulls.delete(reference);
  pulls.set(reference, pull);
  tellPulls(pull);
  followNext();
  return pull;
}

function followNext() {
  const running = [...pulls.values()].filter((pull) => isRunning(pull) && pull.status !== 'waiting').length;
  const next = [...pulls.values()].find((pull) => pull.status === 'waiting');
  if (next && running < PULLS_AT_ONCE) followPull(next);
}

/** Stop a download. What has come stays with the server. */
export function stopPull(pull) {
  pull.controller.abort();
  if (pull.status === 'waiting') dismissPull(pull);
}

/** Take a download that has ended off the list. */
export function dismissPull(pull) {
  pulls.delete(pull.reference);
  tellPulls(pull);
}

async function followPull(pull) {
  pull.status = 'asking';
  tellPulls(pull);
  try {
    const options = { json: { model: pull.reference }, signal: pull.controller.signal };
    for await (const line of lines('api/pull', options)) takePullLine(pull, line);
    if (isRunning(pull)) throw new ApiError(t('chat.lost'), { code: 'unreachable' });
  } catch (error) {
    if (pull.controller.signal.aborted) {
      pulls.delete(pull.reference);
      pull.status = 'stopped';
    } else {
      Object.assign(pull, { status: 'failed', error });
    }
  }
  clearTimeout(pull.timer);
  tellPulls(pull);
  followNext();
  if (pull.status !== 'stopped') tellElsewhere(pull);
  await refreshModels();
  if (pull.status === 'done') dismissPull(pull);
}

function takePullLine(pull, line) {
  if (line.error) throw Object.assign(toldError(line), { candidates: line.candidates || [] });
  if (line.note) pull.note = line.note;
  if (line.status === 'success') {
    Object.assign(pull, { status: 'done', model: line.model || pull.reference });
  } else if ('completed' in line) {
    Object.assign(pull, { status: line.status.startsWith('verifying') ? 'verifying' : 'downloading', total: line.total || null });
    takeBytes(pull, line);
    pull.file = line.file.split('/').pop();
  }
  heardPull(pull);
  tellPulls(pull);
}

/** A download whose server hears nothing from the Hub has no speed, whatever it had. */
function heardPull(pull) {
  pull.silent = false;
  clearTimeout(pull.timer);
  pull.timer = setTimeout(() => {
    Object.assign(pull, { silent: true, speed: null, marks: null });
    tellPulls(pull);
  }, PULL_SILENT_AFTER);
}

function takeBytes(pull, line) {
  const now = performance.now();
  const isAnother = pull.file !== null && line.file && line.file.split('/').pop() !== pull.file;
  Object.assign(pull, { completed: line.completed, resumed: line.resumed || 0 });
  if (isAnother || !pull.marks || pull.status !== 'downloading' || line.completed < pull.marks.bytes) {
    pull.marks = { at: now, bytes: line.completed };
    if (isAnother || pull.status !== 'downloading') pull.speed = null;
    return;
  }
  const passed = now - pull.marks.at;
  if (passed < SPEED_EVERY) return;
  const speed = ((line.completed - pull.marks.bytes) / passed) * 1000;
  // Some seconds count, so that the time left does not jump about.
  pull.speed = pull.speed === null ? speed : pull.speed * 0.75 + speed * 0.25;
  pull.marks = { at: now, bytes: line.completed };
}

// --- Where another view is shown ---

function isModelsShown() {
  return document.getElementById('view').dataset.view === 'models';
}

function tellElsewhere(pull) {
  if (isModelsShown()) return;
  const action = { text: t('pull.show'), run: () => { location.hash = '#models'; } };
  if (pull.status === 'done') notify(t('pull.here', { name: untaggedName(pull.model) }), { action });
  else notify(t('pull.failed', { name: pull.reference, problem: pull.error.message }), { error: true, action });
}

/** A sign in the bar at the top for the downloads that run. The chat has that place while it is shown. */
function showPullsInTop() {
  const running = [...pulls.values()].filter(isRunning);
  const place = document.getElementById('top-end');
  const old = document.getElementById('models-top');
  if (!running.length || document.getElementById('view').dataset.view === 'chat') {
    old?.remove();
    return;
  }
  const known = running.filter((pull) => pull.total);
  const sum = (key) => known.reduce((total, pull) => total + pull[key], 0);
  const share = known.length ? percent(sum('completed') / sum('total')) : '…';
  const sign = old || place.appendChild(h('a', { id: 'models-top', class: 'models-top', href: '#models' }, icon('download'), h('span', {})));
  sign.setAttribute('aria-label', t('pull.running', { count: running.length, percent: share }));
  sign.lastChild.textContent = share;
}

window.addEventListener('hashchange', () => setTimeout(showPullsInTop));
