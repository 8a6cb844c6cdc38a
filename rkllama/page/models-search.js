// The search for models on the Hub: what is typed, what fits this board, and what does not, with the reason.

import { getJSON } from './api.js';
import { boardSoc } from './models-data.js';
import { capabilityText, setIdle, setWords, shownCapabilities, wordButton } from './models-parts.js';
import { isRunning, onPulls, pullShare, pulls, startPull } from './models-pulls.js';
import { errorBox } from './dialog.js';
import { field, fill, form, h, icon } from './dom.js';
import { addWords, bytes, figure, language, moment, percent, t } from './words.js';

addWords({
  'search.title': ['Get a model', 'Obtenir un modèle'],
  'search.label': ['Search Hugging Face, or type a reference', 'Chercher sur Hugging Face, ou saisir une référence'],
  'search.hint': ['qwen3, gemma3:1b, USER/REPO/FILE.rkllm', 'qwen3, gemma3:1b, UTILISATEUR/DÉPÔT/FICHIER.rkllm'],
  'search.npu': ['NPU (.rkllm)', 'NPU (.rkllm)'],
  'search.cpu': ['CPU (.gguf)', 'CPU (.gguf)'],
  'search.pull': ['Download “{text}”', 'Télécharger «\u202f{text}\u202f»'],
  'search.exact': ['The server takes what fits this board best under that name.', 'Le serveur prend ce qui convient le mieux à cette carte sous ce nom.'],
  'search.asking': ['Searching…', 'Recherche…'],
  'search.none': ['Nothing of that name was found.', 'Aucun modèle de ce nom n’a été trouvé.'],
  'search.none-fits': ['Nothing of that name fits this board.', 'Aucun modèle de ce nom ne convient à cette carte.'],
  'search.fits': ['{count} file fits {board}|{count} files fit {board}', '{count} fichier convient à {board}|{count} fichiers conviennent à {board}'],
  'search.machine': ['this machine', 'cette machine'],
  'search.not': ['{count} file that does not fit|{count} files that do not fit', '{count} fichier qui ne convient pas|{count} fichiers qui ne conviennent pas'],
  'search.best': ['Recommended', 'Conseillé'],
  'search.others': ['{count} other file that fits|{count} other files that fit', '{count} autre fichier qui convient|{count} autres fichiers qui conviennent'],
  'search.about': ['about {size}', 'environ {size}'],
  'search.here': ['Already here', 'Déjà là'],
  'search.more': ['More results', 'Plus de résultats'],
  'search.downloads': ['{count} download|{count} downloads', '{count} téléchargement|{count} téléchargements'],
  'search.get': ['Download', 'Télécharger'],
  'search.getting': ['Downloading', 'En cours'],
  'search.context': ['context {count}', 'contexte {count}'],
  'search.gated': ['Licence to be accepted on the Hub', 'Licence à accepter sur le Hub'],
});

const SEARCH_AFTER = 350; // milliseconds after the last key
const SEARCH_COMPACT = new Intl.NumberFormat(language, { notation: 'compact', maximumFractionDigits: 1 });

const nothingSearched = { text: '', format: '', page: 0, models: [], warning: '', more: false };
const lastSearch = { ...nothingSearched };

/** The panel, until `end()`. */
export class SearchPanel {
  #input = h('input', { type: 'search', name: 'query', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', placeholder: t('search.hint') });
  #format = h('select', { name: 'format' }, h('option', { value: '' }, t('search.npu')), h('option', { value: 'gguf' }, t('search.cpu')));
  #choice = field(t('models.runs'), this.#format, { class: 'field models-format', hidden: true });
  #typed = h('div', { class: 'models-typed' });
  #status = h('p', { class: 'soft', role: 'status' });
  #results = h('div', { class: 'models-results' });
  #timer = 0;
  #controller = new AbortController();
  #soc = null;
  #forget = onPulls((pull) => this.#mark(pull));
  element = h(
    'section',
    { class: 'card models-search', 'aria-labelledby': 'models-search-title' },
    h('h2', { id: 'models-search-title' }, t('search.title')),
    form({ role: 'search', class: 'models-form' }, () => this.#searchNow(), field(t('search.label'), this.#input), this.#choice),
    this.#typed,
    this.#status,
    this.#results,
  );

  constructor() {
    Object.assign(lastSearch, nothingSearched);
    this.#input.addEventListener('input', () => this.#searchIn(SEARCH_AFTER));
    this.#format.addEventListener('input', () => this.#searchIn(0));
    boardSoc().then((soc) => this.#setBoard(soc));
  }

  end() {
    this.#forget();
    clearTimeout(this.#timer);
    this.#controller.abort();
  }

  #setBoard(soc) {
    this.#soc = soc;
    this.#choice.hidden = soc === null;
    this.#show();
  }

  #searchIn(milliseconds) {
    clearTimeout(this.#timer);
    this.#offerTyped();
    this.#timer = setTimeout(() => this.#searchNow(), milliseconds);
  }

  /** Ask for what is typed. An address or a path is not searched: it can only be fetched. */
  async #searchNow() {
    const text = this.#input.value.trim();
    clearTimeout(this.#timer);
    this.#offerTyped();
    this.#controller.abort();
    Object.assign(lastSearch, nothingSearched, { text, format: this.#format.value });
    if (text.length < 2 || isHubReference(text)) this.#show();
    else await this.#fetch(1);
  }

  async #fetch(page) {
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    this.#status.textContent = t('search.asking');
    this.#results.ariaBusy = 'true';
    try {
      await fetchSearchPage(page, signal);
      this.#show();
    } catch (error) {
      if (signal.aborted) return;
      this.#status.textContent = '';
      fill(this.#results, errorBox(error, () => this.#fetch(page)));
    } finally {
      if (!signal.aborted) this.#results.ariaBusy = null;
    }
  }

  #show() {
    const { models, page, warning, more } = lastSearch;
    const fitting = models.filter(({ fits }) => fits);
    const unfit = models.filter(({ fits }) => !fits);
    const best = fitting.filter((model) => model.best);
    const [shown, others] = best.length ? [best, fitting.filter((model) => !model.best)] : [fitting, []];
    this.#status.textContent = page ? this.#summary(fitting.length, unfit.length) : '';
    fill(
      this.#results,
      warning && h('p', { class: 'models-warning' }, icon('warning'), warning),
      shown.length > 0 && h('ul', { class: 'models-offers' }, shown.map(offerRow)),
      foldedOffers('search.others', others, false),
      foldedOffers('search.not', unfit, !fitting.length),
      more && wordButton(t('search.more'), () => this.#fetch(page + 1)),
    );
  }

  #summary(fitting, others) {
    if (!fitting) return t(others ? 'search.none-fits' : 'search.none');
    const onNPU = this.#soc !== null && lastSearch.format !== 'gguf';
    return t('search.fits', { count: fitting, board: onNPU ? this.#soc : t('search.machine') });
  }

  /** What is typed can be fetched as it stands, too. */
  #offerTyped() {
    const text = this.#input.value.trim();
    const isReference = isHubReference(text);
    const pull = () => startPull(text);
    fill(
      this.#typed,
      text.length > 1 && [wordButton(t('search.pull', { text }), pull, { look: isReference ? 'primary' : '', sign: 'download' }), !isReference && h('span', { class: 'soft' }, t('search.exact'))],
    );
  }

  /** Let a result say how far its download is, and that it is here now. */
  #mark(pull) {
    const offer = lastSearch.models.find((model) => model.reference === pull.reference);
    const row = [...this.#results.querySelectorAll('[data-reference]')].find((one) => one.dataset.reference === pull.reference);
    if (!offer || !row) return;
    offer.here ||= pull.status === 'done';
    if (offer.here) replaceRow(row, offerRow(offer));
    else sayPull(row.querySelector('button'), offer);
  }
}

/** Add a page of results to what was found. Raises ApiError, or AbortError through `signal`. */
async function fetchSearchPage(page, signal) {
  const asked = new URLSearchParams({ query: lastSearch.text });
  if (lastSearch.format) asked.set('format', lastSearch.format);
  if (page > 1) asked.set('page', page);
  const { models, warning = '', more } = await getJSON(`api/rkllama/search?${asked}`, { signal });
  const known = new Set(lastSearch.models.map((model) => model.reference));
  const fresh = models.filter((model) => !known.has(model.reference));
  Object.assign(lastSearch, { page, models: [...lastSearch.models, ...fresh], warning, more });
}

function isHubReference(text) {
  return text.includes('/');
}

// --- One result ---

function foldedOffers(key, offers, open) {
  if (!offers.length) return null;
  return h('details', { open }, h('summary', {}, t(key, { count: offers.length })), h('ul', { class: 'models-offers' }, offers.map(offerRow)));
}

function offerRow(offer) {
  return h(
    'li',
    { class: 'models-offer', tabindex: -1, dataset: { reference: offer.reference } },
    h(
      'div',
      { class: 'models-offer-text' },
      h('h3', {}, offerName(offer), ' ', offer.best && h('span', { class: 'badge good' }, t('search.best')), offer.here && h('span', { class: 'badge' }, t('search.here'))),
      h('p', { class: 'soft' }, isHubReference(offer.reference) ? offer.repository : `${offer.repository} · ${offer.file.split('/').pop()}`),
      h('p', { class: 'models-facts' }, offerFacts(offer).map((fact) => h('span', {}, fact))),
      offer.problem && h('p', { class: 'models-problem' }, icon('warning'), h('span', {}, offer.problem)),
      offer.doubt && h('p', { class: 'models-doubt' }, icon('warning'), h('span', {}, offer.doubt)),
    ),
    offer.here ? null : offerButton(offer),
  );
}

/** The short name that leads to an offer, as `pull` takes it, or the name of its file. */
function offerName({ reference, file }) {
  return isHubReference(reference) ? file.split('/').pop() : reference;
}

function offerFacts(offer) {
  return [
    offer.size === undefined ? offer.estimated_size && t('search.about', { size: bytes(offer.estimated_size) }) : bytes(offer.size),
    offer.quantization,
    offer.context_length && t('search.context', { count: figure(offer.context_length) }),
    offer.platform && offer.platform.toUpperCase(),
    ...shownCapabilities(offer.capabilities || []).map(capabilityText),
    offer.gated && t('search.gated'),
    offer.downloads !== undefined && t('search.downloads', { count: offer.downloads }).replace(String(offer.downloads), SEARCH_COMPACT.format(offer.downloads)),
    offer.updated && searchDay(offer.updated),
  ].filter(Boolean);
}

function searchDay(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? text : moment(at, {});
}

/** A button that stays, with its focus, while the download runs. */
function offerButton(offer) {
  const button = wordButton('', () => startPull(offer.reference, offer.file.split('/').pop()), { look: offer.best ? 'primary' : '', sign: 'download' });
  sayPull(button, offer);
  return button;
}

function sayPull(button, offer) {
  const pull = pulls.get(offer.reference);
  const running = pull !== undefined && isRunning(pull);
  const share = running ? pullShare(pull) : null;
  setIdle(button, running);
  setWords(button, share === null ? t(running ? 'search.getting' : 'search.get') : percent(share), offerName(offer));
}

function replaceRow(row, fresh) {
  const hadFocus = row.contains(document.activeElement);
  row.replaceWith(fresh);
  if (hadFocus) fresh.focus();
}
