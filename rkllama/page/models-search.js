// The search for models on the Hub: what is typed, what fits this board, and what does not, with the reason.

import { getJSON } from './api.js';
import { boardSoc } from './models-data.js';
import { capabilityText, setIdle, setWords, shownCapabilities, wordButton } from './models-parts.js';
import { isRunning, onPulls, pullShare, pulls, startPull } from './models-pulls.js';
import { errorBox } from './dialog.js';
import { field, fill, h, icon } from './dom.js';
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

/** The panel, and what undoes it. */
export function searchPanel() {
  Object.assign(lastSearch, nothingSearched);
  const panel = {
    input: h('input', { type: 'search', name: 'query', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', placeholder: t('search.hint')}),
    format: h('select', { name: 'format' }, h('option', { value: '' }, t('search.npu')), h('option', { value: 'gguf' }, t('search.cpu'))),
    status: h('p', { class: 'soft', role: 'status' }),
    typed: h('div', { class: 'models-typed' }),
    results: h('div', { class: 'models-results' }),
    timer: 0,
    controller: new AbortController(),
    soc: null,
  };
  panel.choice = field(t('models.runs'), panel.format, { class: 'field models-format', hidden: true });
  const submit = (event) => {
    event.preventDefault();
    searchNow(panel);
  };
  const element = h(
    'section',
    { class: 'card models-search', 'aria-labelledby': 'models-search-title' },
    h('h2', { id: 'models-search-title' }, t('search.title')),
    h('form', { role: 'search', class: 'models-form', on: { submit, input: (event) => searchSoon(panel, event) } }, field(t('search.label'), panel.input), panel.choice),
    panel.typed,
    panel.status,
    panel.results,
  );
  boardSoc().then((soc) => {
    panel.soc = soc;
    panel.choice.hidden = soc === null;
    showResults(panel);
  });
  const forget = onPulls((pull) => markResult(panel, pull));
  return { element, input: panel.input, end: () => { forget(); clearTimeout(panel.timer); panel.controller.abort(); } };
}

function searchSoon(panel, event) {
  clearTimeout(panel.timer);
  offerTyped(panel);
  panel.timer = setTimeout(() => searchNow(panel), event.target === panel.format ? 0 : SEARCH_AFTER);
}

/** Ask for what is typed. An address or a path is not searched: it can only be fetched. */
async function searchNow(panel) {
  clearTimeout(panel.timer);
  offerTyped(panel);
  panel.controller.abort();
  Object.assign(lastSearch, nothingSearched, { text: panel.input.value.trim(), format: panel.format.value, models: [] });
  if (lastSearch.text.length < 2 || isHubReference(lastSearch.text)) {
    showResults(panel);
    return;
  }
  await fetchSearchPage(panel, 1);
}

function isHubReference(text) {
  return text.includes('/');
}

async function fetchSearchPage(panel, page) {
  panel.controller = new AbortController();
  const { signal } = panel.controller;
  const asked = new URLSearchParams({ query: lastSearch.text });
  if (lastSearch.format) asked.set('format', lastSearch.format);
  if (page > 1) asked.set('page', page);
  panel.status.textContent = t('search.asking');
  panel.results.setAttribute('aria-busy', 'true');
  try {
    const answer = await getJSON(`api/rkllama/search?${asked}`, { signal });
    const known = new Set(lastSearch.models.map((model) => model.reference));
    const fresh = answer.models.filter((model) => !known.has(model.reference));
    Object.assign(lastSearch, { page, models: [...lastSearch.models, ...fresh], warning: answer.warning || '', more: answer.more });
    showResults(panel);
  } catch (error) {
    if (signal.aborted) return;
    panel.status.textContent = '';
    fill(panel.results, errorBox(error, () => fetchSearchPage(panel, page)));
  } finally {
    if (!signal.aborted) panel.results.removeAttribute('aria-busy');
  }
}

// --- What is shown ---

function showResults(panel) {
  const fitting = lastSearch.models.filter((model) => model.fits);
  const unfit = lastSearch.models.filter((model) => !model.fits);
  const best = fitting.filter((model) => model.best);
  const [shown, others] = best.length ? [best, fitting.filter((model) => !model.best)] : [fitting, []];
  panel.status.textContent = lastSearch.page ? searchSummary(panel, fitting.length, unfit.length) : '';
  fill(
    panel.results,
    lastSearch.warning && h('p', { class: 'models-warning' }, icon('warning'), lastSearch.warning),
    shown.length > 0 && h('ul', { class: 'models-offers' }, shown.map(offerRow)),
    foldedOffers('search.others', others, false),
    foldedOffers('search.not', unfit, !fitting.length),
    lastSearch.more && wordButton(t('search.more'), () => fetchSearchPage(panel, lastSearch.page + 1)),
  );
}

function searchSummary(panel, fitting, others) {
  if (!fitting) return t(others ? 'search.none-fits' : 'search.none');
  const onNPU = panel.soc !== null && lastSearch.format !== 'gguf';
  return t('search.fits', { count: fitting, board: onNPU ? panel.soc : t('search.machine') });
}

function foldedOffers(key, offers, open) {
  if (!offers.length) return null;
  return h('details', { open }, h('summary', {}, t(key, { count: offers.length })), h('ul', { class: 'models-offers' }, offers.map(offerRow)));
}

/** What is typed can be fetched as it stands, too. */
function offerTyped(panel) {
  const text = panel.input.value.trim();
  if (text.length < 2) {
    fill(panel.typed);
    return;
  }
  fill(
    panel.typed,
    wordButton(t('search.pull', { text }), () => startPull(text), { look: isHubReference(text) ? 'primary' : '', sign: 'download' }),
    !isHubReference(text) && h('span', { class: 'soft' }, t('search.exact')),
  );
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

/** Let a result say how far its download is, and that it is here now. */
function markResult(panel, pull) {
  const offer = lastSearch.models.find((model) => model.reference === pull.reference);
  const row = [...panel.results.querySelectorAll('[data-reference]')].find((one) => one.dataset.reference === pull.reference);
  if (!offer || !row) return;
  offer.here ||= pull.status === 'done';
  const button = row.querySelector('button');
  if (!offer.here) {
    sayPull(button, offer);
    return;
  }
  const hadFocus = row.contains(document.activeElement);
  const fresh = offerRow(offer);
  row.replaceWith(fresh);
  if (hadFocus) fresh.focus();
}
