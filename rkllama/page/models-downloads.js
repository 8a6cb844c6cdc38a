// Downloads as they are shown: those that run, those that failed, and what earlier ones have left.

import { modelStore, untaggedName } from './models-data.js';
import { deleteAsked } from './models-list.js';
import { wordButton, wordsAbout } from './models-parts.js';
import { dismissPull, isPulled, isRunning, onPulls, pullRest, pullShare, pulls, startPull, stopPull } from './models-pulls.js';
import { errorBox, notify } from './dialog.js';
import { fill, h } from './dom.js';
import { addWords, bytes, duration, percent, t } from './words.js';

addWords({
  'down.title': ['Downloads', 'Téléchargements'],
  'down.asking': ['Asking the Hub…', 'Interrogation du Hub…'],
  'down.waiting': ['Waiting for another download', 'En attente d’un autre téléchargement'],
  'down.of': ['{done} of {total}', '{done} sur {total}'],
  'down.left': ['{time} left', 'encore {time}'],
  'down.silent': ['waiting for the Hub…', 'en attente du Hub…'],
  'down.resumed': ['went on after {size}', 'repris après {size}'],
  'down.verifying': ['Verifying {done} of {total}', 'Vérification\u202f: {done} sur {total}'],
  'down.ready': ['Ready', 'Prêt'],
  'down.stop': ['Stop', 'Arrêter'],
  'down.stopped': ['Stopped. What has come is kept.', 'Arrêté. Ce qui est arrivé est conservé.'],
  'down.keep-open': ['Downloads go on while this page is open. What has come is kept.', 'Les téléchargements se poursuivent tant que cette page est ouverte. Ce qui est arrivé est conservé.'],
  'down.dismiss': ['Dismiss', 'Retirer'],
  'down.which': ['Which one?', 'Lequel\u202f?'],
  'down.incomplete': ['Incomplete', 'Incomplet'],
  'down.go-on': ['Go on', 'Reprendre'],
  'down.delete-text': ['What has come of {file} ({size}) is deleted from this board.', 'Ce qui est arrivé de {file} ({size}) est supprimé de cette carte.'],
});

const PULL_QUARTER = 0.25;
const PULL_TEXT_EVERY = 500; // milliseconds: figures that change faster are not read

/** The section with all downloads; hidden where there is none. `say` speaks to who does not see. */
export function downloadsPanel(say) {
  const list = h('ul', { class: 'models-downloads' });
  const title = h('h2', { id: 'models-downloads', tabindex: -1 }, t('down.title'));
  const about = h('p', { class: 'soft' }, t('down.keep-open'));
  const element = h('section', { class: 'models-section', 'aria-labelledby': 'models-downloads', hidden: true }, title, list, about);
  const panel = { element, list, about, rows: new Map(), say };
  const update = () => fillDownloads(panel);
  const end = onPulls((pull) => {
    const row = panel.rows.get(pull);
    if (row && pulls.has(pull.reference)) moveRow(panel, row, pull);
    else update();
  });
  update();
  return { element, update, end };
}

function fillDownloads(panel) {
  const running = [...pulls.values()];
  const left = modelStore.incomplete.filter((part) => !isPulled(part));
  const wanted = new Map();
  for (const pull of running) wanted.set(pull, panel.rows.get(pull) || pullRow(pull));
  const hadFocus = panel.list.contains(document.activeElement);
  panel.rows = wanted;
  const rows = [...wanted.values(), ...left.map(partRow)];
  const kept = new Set(rows);
  for (const child of [...panel.list.children]) if (!kept.has(child)) child.remove();
  for (const row of rows) panel.list.append(row);
  for (const [pull, row] of wanted) moveRow(panel, row, pull);
  panel.element.hidden = !rows.length;
  panel.about.hidden = !running.some(isRunning);
  if (hadFocus && !panel.list.contains(document.activeElement)) {
    document.getElementById(rows.length ? 'models-downloads' : 'models-here')?.focus();
  }
}

// --- One that runs, or ran here ---

function pullRow(pull) {
  const parts = {
    name: h('h3', {}, pull.file || pull.reference),
    note: h('p', { class: 'soft', hidden: true }),
    bar: h('progress', { max: 1, 'aria-label': wordsAbout(t('down.title'), pull.reference) }),
    text: h('p', { class: 'models-progress' }),
    problem: h('div', {}),
    actions: h('div', { class: 'buttons' }),
  };
  const row = h('li', { class: 'card models-download' }, h('div', { class: 'models-download-text' }, parts.name, parts.note, parts.bar, parts.text, parts.problem), parts.actions);
  return Object.assign(row, { parts, drawn: 0, timer: 0, quarter: 0, status: '' });
}

function moveRow(panel, row, pull) {
  const { parts } = row;
  const share = pullShare(pull);
  speakQuarter(panel, row, pull, share);
  const now = performance.now();
  if (row.status === pull.status && now - row.drawn < PULL_TEXT_EVERY) {
    row.timer ||= setTimeout(() => moveRow(panel, row, pull), PULL_TEXT_EVERY);
    return;
  }
  clearTimeout(row.timer);
  Object.assign(row, { drawn: now, timer: 0 });
  parts.name.textContent = pull.file || pull.reference;
  parts.note.textContent = pull.note;
  parts.note.hidden = !pull.note;
  if (share === null) parts.bar.removeAttribute('value');
  else parts.bar.value = share;
  parts.text.textContent = pullText(pull, share);
  if (row.status !== pull.status) changeRow(panel, row, pull);
}

/** What a download's row offers depends on how it is: running, failed, done. */
function changeRow(panel, row, pull) {
  const { parts } = row;
  const isOver = pull.status === 'failed';
  if (isOver && row.status !== 'failed') panel.say(wordsAbout(pull.reference, pull.error.message));
  if (pull.status === 'done') panel.say(t('pull.here', { name: untaggedName(pull.model) }));
  const wasRunning = row.status !== '' && row.status !== 'failed';
  row.status = pull.status;
  parts.bar.hidden = isOver;
  parts.text.hidden = isOver;
  if (wasRunning && isRunning(pull)) return;
  panel.about.hidden = ![...pulls.values()].some(isRunning);
  const hadFocus = parts.actions.contains(document.activeElement);
  fill(parts.problem, isOver && pullProblem(pull));
  fill(
    parts.actions,
    isRunning(pull) && wordButton(t('down.stop'), () => stopAndSay(pull), { about: pull.file || pull.reference }),
    isOver && wordButton(t('down.dismiss'), () => dismissPull(pull)),
  );
  if (hadFocus) (parts.actions.querySelector('button') || document.getElementById('models-downloads')).focus();
}

function stopAndSay(pull) {
  stopPull(pull);
  notify(t('down.stopped'));
}

/** The error, and where several models are meant, which one it shall be. */
function pullProblem(pull) {
  const { error } = pull;
  const choose = (name) => {
    dismissPull(pull);
    startPull(name);
  };
  if (!error.candidates?.length) return errorBox(error, () => startPull(pull.reference, pull.file));
  return [
    h('p', {}, t('down.which')),
    h('div', { class: 'models-candidates' }, error.candidates.map((name) => wordButton(name, () => choose(name), { sign: 'download' }))),
  ];
}

function pullText(pull, share) {
  if (pull.status === 'waiting') return t('down.waiting');
  if (pull.status === 'asking') return t('down.asking');
  if (pull.status === 'done') return t('down.ready');
  const values = { done: bytes(pull.completed), total: bytes(pull.total ?? pull.completed) };
  if (pull.status === 'verifying') return t('down.verifying', values);
  const rest = pullRest(pull);
  return [
    share !== null && percent(share),
    t('down.of', values),
    pull.speed > 0 && `${bytes(pull.speed)}/s`,
    rest !== null && t('down.left', { time: duration(Math.ceil(rest)) }),
    pull.silent && t('down.silent'),
    pull.resumed > 0 && t('down.resumed', { size: bytes(pull.resumed) }),
  ]
    .filter(Boolean)
    .join(' · ');
}

function speakQuarter(panel, row, pull, share) {
  if (pull.status !== 'downloading' || share === null) return;
  const quarter = Math.floor(share / PULL_QUARTER);
  if (quarter > row.quarter && quarter < 4) panel.say(wordsAbout(pull.file || pull.reference, percent(quarter * PULL_QUARTER)));
  row.quarter = quarter;
}

// --- What an earlier one has left ---

function partRow(part) {
  const share = part.total ? part.completed / part.total : null;
  const values = { done: bytes(part.completed), total: part.total ? bytes(part.total) : '' };
  return h(
    'li',
    { class: 'card models-download' },
    h(
      'div',
      { class: 'models-download-text' },
      h('h3', {}, part.name, ' ', h('span', { class: 'badge warn' }, t('down.incomplete'))),
      share !== null && h('progress', { max: 1, value: share, 'aria-label': wordsAbout(t('down.title'), part.name) }),
      h('p', { class: 'models-progress' }, share === null ? values.done : `${percent(share)} · ${t('down.of', values)}`),
    ),
    h(
      'div',
      { class: 'buttons' },
      wordButton(t('down.go-on'), () => startPull(part.name, part.file), { about: part.name, look: 'primary', sign: 'download' }),
      wordButton(t('models.delete'), () => askToDeletePart(part), { about: part.name }),
    ),
  );
}

function askToDeletePart(part) {
  const values = { name: part.name, file: part.file, size: bytes(part.completed) };
  const focus = () => document.getElementById(modelStore.incomplete.length ? 'models-downloads' : 'models-here')?.focus();
  return deleteAsked(part.name, values, t('down.delete-text', values), focus);
}
