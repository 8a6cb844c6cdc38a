// What a text may hide: characters that are not seen, and links that lead elsewhere than they say.

const LONGEST_TARGET = 2000;

// Overrides of the writing direction, and controls. A tabulator and a line feed are none.
const DECEIVING = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/gu;
// In a link also what has no width.
const UNSEEN = /[\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]/gu;

/** `text` with the characters that could make it look like another one written out, as ⟨U+202E⟩. */
export function seen(text) {
  return text.replace(DECEIVING, written);
}

/** The same, more strictly, for what a link says. */
export function seenInLink(text) {
  return seen(text).replace(UNSEEN, written);
}

function written(character) {
  return `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`;
}

/** The URL that a link may lead to; null for every scheme but http, https and mailto, for a user's name before the
 * host, and for what is not an absolute address without blanks. */
export function safeTarget(text) {
  if (text.length > LONGEST_TARGET || !/^(?:https?:\/\/[^/]|mailto:[^/])/i.test(text)) return null;
  if (/[\s\\]/.test(text) || seenInLink(text) !== text || !URL.canParse(text)) return null;
  const url = new URL(text);
  const known = ['http:', 'https:', 'mailto:'].includes(url.protocol);
  return known && !url.username && !url.password ? url : null;
}

/** Where `url` leads, if `text`, which stands for it, names another place; null otherwise. */
export function otherPlace(text, url) {
  const place = url.protocol === 'mailto:' ? url.pathname : url.host;
  const said = text.normalize('NFKC').trim().toLowerCase();
  if (said.includes('@')) return said === place.toLowerCase() || said === url.href.toLowerCase() ? null : place;
  const address = /^https?:/.test(said) ? said : `https://${said}`;
  if (said.includes('.') && !/\s/.test(said) && URL.canParse(address) && /^[\x20-\x7e]*$/.test(text)) {
    return new URL(address).host === place ? null : place;
  }
  const names = said.split(/[^\p{L}\p{N}.-]+/u).filter((name) => /[^.]\.[^.]/.test(name) && /\p{L}/u.test(name));
  return names.every((name) => name === place || place.endsWith(`.${name}`)) ? null : place;
}
