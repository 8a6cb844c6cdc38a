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

/** The section with all downloads, until `end()`; hidden where there is none. `say` speaks to who does not see. */
export class DownloadsPanel {
  #say;
  #rows = new Map();
  #list = h('ul', { class: 'models-downloads' });
  #about = h('p', { class: 'soft' }, t('down.keep-open'));
  #forget = onPulls((pull) => this.#move(pull));
  element = h(
    'section',
    { class: 'models-section', 'aria-labelledby': 'models-downloads', hidden: true },
    h('h2', { id: 'models-downloads', tabindex: -1 }, t('down.title')),
    this.#list,
    this.#about,
  );

  constructor(say) {
    this.#say = say;
    this.update();
  }

  end() {
    this.#forget();
  }

  update() {
    const hadFocus = this.#list.contains(document.activeElement);
    this.#rows = new Map(Array.from(pulls.values(), (pull) => [pull, this.#rows.get(pull) || new PullRow(pull, this.#say)]));
    const left = modelStore.incomplete.filter((part) => !isPulled(part));
    const nodes = [...Array.from(this.#rows.values(), ({ node }) => node), ...left.map(partRow)];
    for (const child of [...this.#list.children]) if (!nodes.includes(child)) child.remove();
    this.#list.append(...nodes);
    for (const row of this.#rows.values()) row.move();
    this.element.hidden = !nodes.length;
    this.#showAbout();
    if (hadFocus && !this.#list.contains(document.activeElement)) {
      document.getElementById(nodes.length ? 'models-downloads' : 'models-here')?.focus();
    }
  }

  #move(pull) {
    const row = this.#rows.get(pull);
    if (row && pulls.has(pull.reference)) row.move();
    else this.update();
    this.#showAbout();
  }

  #showAbout() {
    this.#about.hidden = ![...pulls.values()].some(isRunning);
  }
}

/** A download that runs, or ran here. */
class PullRow {
  #pull;
  #say;
  #drawn = 0;
  #timer = 0;
  #quarter = 0;
  #status = '';
  #name = h('h3', {});
  #note = h('p', { class: 'soft' });
  #bar;
  #text = h('p', { class: 'models-progress' });
  #problem = h('div', {});
  #actions = h('div', { class: 'buttons' });

  constructor(pull, say) {
    this.#pull = pull;
    this.#say = say;
    this.#bar = h('progress', { max: 1, 'aria-label': wordsAbout(t('down.title'), pull.reference) });
    const text = h('div', { class: 'models-download-text' }, this.#name, this.#note, this.#bar, this.#text, this.#problem);
    this.node = h('li', { class: 'card models-download' }, text, this.#actions);
  }

  get #title() {
    return this.#pull.file || this.#pull.reference;
  }

  /** Show how far it is; figures wait where they would change faster than one reads. */
  move() {
    const now = performance.now();
    this.#speakQuarter();
    if (this.#status === this.#pull.status && now - this.#drawn < PULL_TEXT_EVERY) {
      this.#timer ||= setTimeout(() => this.move(), PULL_TEXT_EVERY);
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drawn = now;
    this.#draw();
    if (this.#status !== this.#pull.status) this.#change();
  }

  #draw() {
    const { note } = this.#pull;
    const share = pullShare(this.#pull);
    this.#name.textContent = this.#title;
    this.#note.textContent = note;
    this.#note.hidden = !note;
    if (share === null) this.#bar.removeAttribute('value');
    else this.#bar.value = share;
    this.#text.textContent = pullText(this.#pull, share);
  }

  /** What it offers depends on how it is: running, failed, done. */
  #change() {
    const pull = this.#pull;
    const isOver = pull.status === 'failed';
    const wasRunning = this.#status !== '' && this.#status !== 'failed';
    if (isOver) this.#say(wordsAbout(pull.reference, pull.error.message));
    if (pull.status === 'done') this.#say(t('pull.here', { name: untaggedName(pull.model) }));
    this.#status = pull.status;
    this.#bar.hidden = this.#text.hidden = isOver;
    if (!wasRunning || !isRunning(pull)) this.#offer(isOver);
  }

  #offer(isOver) {
    const pull = this.#pull;
    const hadFocus = this.#actions.contains(document.activeElement);
    fill(this.#problem, isOver && pullProblem(pull));
    fill(
      this.#actions,
      isRunning(pull) && wordButton(t('down.stop'), () => stopAndSay(pull), { about: this.#title }),
      isOver && wordButton(t('down.dismiss'), () => dismissPull(pull)),
    );
    if (hadFocus) (this.#actions.querySelector('button') || document.getElementById('models-downloads')).focus();
  }

  #speakQuarter() {
    const share = pullShare(this.#pull);
    if (this.#pull.status !== 'downloading' || share === null) return;
    const quarter = Math.floor(share / PULL_QUARTER);
    if (quarter > this.#quarter && quarter < 4) this.#say(wordsAbout(this.#title, percent(quarter * PULL_QUARTER)));
    this.#quarter = quarter;
  }
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
