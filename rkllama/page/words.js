// The page's texts in English and French. A part of the page adds its own with `addWords`.

/** Characters by which a name would have the rest of a sentence written backwards. */
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;
const TABLES = { en: {}, fr: {} };

/** The language of the page: the first of the browser's that there is. */
export const language = navigator.languages.map((name) => name.slice(0, 2)).find((name) => name in TABLES) || 'en';

/** Text kept in this browser under `name`; null where there is none, or the browser keeps nothing. */
export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keep `text` under `name`; null forgets it. */
export function remember(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // A browser that keeps nothing still shows the page.
  }
}

/** Add `{key: [english, french]}`. */
export function addWords(words) {
  for (const [key, [english, french]] of Object.entries(words)) {
    TABLES.en[key] = english;
    TABLES.fr[key] = french;
  }
}

/** The text `key`, with `{name}` replaced by values.name. A number `count` chooses between "one|many". */
export function t(key, values = {}) {
  let text = TABLES[language][key];
  if (text === undefined) throw new Error(`no words for ${key}`);
  if ('count' in values && text.includes('|')) {
    const forms = text.split('|');
    text = new Intl.PluralRules(language).select(values.count) === 'one' ? forms[0] : forms[1];
  }
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]).replace(TURNS, ''));
}

const number = (digits) => new Intl.NumberFormat(language, { maximumFractionDigits: digits });

/** 1234.5 as people of this language write it. */
export function figure(value, digits = 0) {
  return number(digits).format(value);
}

/** A share of 0 to 1 as "43 %"; "43%" in English. */
export function percent(share) {
  return new Intl.NumberFormat(language, { style: 'percent' }).format(Math.floor(share * 100) / 100);
}

/** Bytes in the unit that fits: "1.7 GB". */
export function bytes(value) {
  const units = language === 'fr' ? ['o', 'ko', 'Mo', 'Go', 'To'] : ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  let rest = value;
  while (rest >= 999.5 && at < units.length - 1) {
    rest /= 1000;
    at += 1;
  }
  return `${figure(rest, rest < 9.95 && at > 0 ? 1 : 0)}\u202f${units[at]}`;
}

/** Seconds as people say them: "0.8 s", "2 min 5 s", "3 h 10 min". */
export function duration(seconds) {
  if (seconds < 9.95) return `${figure(seconds, 1)}\u202fs`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}\u202fs`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}\u202fmin ${whole % 60}\u202fs`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}\u202fh ${minutes % 60}\u202fmin`;
  return t('days', { count: Math.floor(hours / 24) });
}

/** A day and a time, short. */
export function moment(milliseconds, style = { timeStyle: 'short' }) {
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium', ...style }).format(milliseconds);
}

/** Put this language into the nodes that came with the page. */
export function translate(root) {
  document.documentElement.lang = language;
  for (const node of root.querySelectorAll('[data-words]')) node.textContent = t(node.dataset.words);
  for (const node of root.querySelectorAll('[data-label]')) node.setAttribute('aria-label', t(node.dataset.label));
}

addWords({
  skip: ['Skip to the content', 'Aller au contenu'],
  sections: ['Sections', 'Sections'],
  chat: ['Chat', 'Discussion'],
  models: ['Models', 'Modèles'],
  board: ['Board', 'Carte'],
  days: ['{count} day|{count} days', '{count} jour|{count} jours'],
  cancel: ['Cancel', 'Annuler'],
  close: ['Close', 'Fermer'],
  retry: ['Try again', 'Réessayer'],
});
