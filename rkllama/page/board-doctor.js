// What `rkllama doctor` finds: problems first, with the lines that cure them, and what is good folded.

import { getJSON } from './api.js';
import { setIdle, setWords, wordButton } from './models-parts.js';
import { copyButton } from './clipboard.js';
import { errorBox } from './dialog.js';
import { fill, h } from './dom.js';
import { addWords, moment, t } from './words.js';

addWords({
  'doctor.title': ['Doctor', 'Docteur'],
  'doctor.about': ['Checks the board, drivers, runtime, models and the way to Hugging Face, and says how to cure what is wrong.', 'Vérifie carte, pilotes, runtime, modèles et accès à Hugging Face, et dit comment réparer ce qui ne va pas.'],
  'doctor.run': ['Check this board', 'Vérifier cette carte'],
  'doctor.again': ['Check again', 'Vérifier à nouveau'],
  'doctor.running': ['Checking…', 'Vérification…'],
  'doctor.well': ['All is well.', 'Tout va bien.'],
  'doctor.broken': ['{count} broken|{count} broken', '{count} panne|{count} pannes'],
  'doctor.warning': ['{count} warning|{count} warnings', '{count} avertissement|{count} avertissements'],
  'doctor.good': ['{count} check is good|{count} checks are good', '{count} vérification réussie|{count} vérifications réussies'],
  'doctor.unseen': ['{count} thing that only root sees|{count} things that only root sees', '{count} élément que seul root voit|{count} éléments que seul root voit'],
  'doctor.is-broken': ['Broken', 'En panne'],
  'doctor.is-warning': ['Warning', 'Avertissement'],
  'doctor.should': ['Good: {good}', 'Attendu\u202f: {good}'],
  'doctor.source': ['Seen in {source}', 'Vu dans {source}'],
  'doctor.at': ['Checked {when}', 'Vérifié le {when}'],
});

const SEVERITY = ['broken', 'warning'];
let lastCheckup = null;

/** The card. It checks when it is asked to, since that also asks Hugging Face; what it found last is kept. */
export function doctorCard() {
  const status = h('p', { class: 'soft', role: 'status' });
  const found = h('div', { class: 'board-findings' });
  const button = wordButton('', () => checkUp(parts));
  const parts = { status, found, button };
  showCheckup(parts);
  return h('section', { class: 'card board-wide', 'aria-labelledby': 'board-doctor' }, h('div', { class: 'page-head' }, h('h2', { id: 'board-doctor' }, t('doctor.title')), button), status, found);
}

async function checkUp(parts) {
  if (parts.button.getAttribute('aria-disabled') === 'true') return;
  setIdle(parts.button, true);
  parts.status.textContent = t('doctor.running');
  try {
    lastCheckup = { at: Date.now(), ...(await getJSON('api/rkllama/doctor')) };
    showCheckup(parts);
  } catch (error) {
    lastCheckup = null;
    parts.status.textContent = '';
    fill(parts.found, errorBox(error, () => checkUp(parts)));
  } finally {
    setIdle(parts.button, false);
  }
}

function showCheckup({ status, found, button }) {
  setWords(button, t(lastCheckup ? 'doctor.again' : 'doctor.run'));
  if (!lastCheckup) {
    status.textContent = t('doctor.about');
    return;
  }
  const { findings, at } = lastCheckup;
  const of = (wanted) => findings.filter((finding) => finding.status === wanted);
  const wrong = SEVERITY.flatMap(of);
  const counts = SEVERITY.filter((name) => of(name).length).map((name) => t(`doctor.${name}`, { count: of(name).length }));
  status.textContent = `${counts.join(', ') || t('doctor.well')} · ${t('doctor.at', { when: moment(at) })}`;
  fill(
    found,
    byGroup(wrong).map(([group, entries]) => h('div', {}, h('h3', {}, group), h('ul', { class: 'board-problems' }, entries.map(problemItem)))),
    folded('doctor.good', of('good')),
    folded('doctor.unseen', of('unseen')),
  );
}

/** Findings in groups; the group of the worst comes first. */
function byGroup(findings) {
  const groups = new Map();
  for (const finding of findings) groups.set(finding.group, [...(groups.get(finding.group) || []), finding]);
  return [...groups];
}

function folded(key, findings) {
  if (!findings.length) return null;
  return h(
    'details',
    {},
    h('summary', {}, t(key, { count: findings.length })),
    byGroup(findings).map(([group, entries]) => [h('h3', {}, group), h('dl', { class: 'models-table' }, entries.map(({ title, found }) => h('div', {}, h('dt', {}, title), h('dd', {}, found))))]),
  );
}

function problemItem({ status, title, found, good, advice, cure, source }) {
  return h(
    'li',
    {},
    h('p', {}, h('span', { class: status === 'broken' ? 'badge bad' : 'badge warn' }, t(`doctor.is-${status}`)), ' ', h('strong', {}, title), ' ', found),
    good && h('p', { class: 'soft' }, t('doctor.should', { good })),
    advice && h('p', {}, advice),
    cure?.length > 0 && cureLines(cure.join('\n')),
    source && h('p', { class: 'soft board-source' }, t('doctor.source', { source })),
  );
}

function cureLines(text) {
  return h('div', { class: 'board-cure' }, h('pre', { class: 'models-text', tabindex: 0 }, text), copyButton(() => text));
}
