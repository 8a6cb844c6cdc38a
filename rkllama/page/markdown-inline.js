// The markup inside a paragraph, a heading or a cell. `readInline` reads it into a tree of plain values; it looks at no
// character more often than a fixed number of times, and nests no deeper than DEEPEST.

import { safeTarget } from './markdown-links.js';

const DEEPEST = 10;
const LONGEST_LINK = 2000;
const MOST_PARENTHESES = 8;
const TAGS = { '*': ['em', 'strong'], _: ['em', 'strong'], '~': [null, 'del'] };
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: '\u00a0', '#39': "'" };
const PLAIN = /[^\\`*_~![\]<$:&\n]+/y;
const BLANK = /[\s\u00a0]/;
const PUNCTUATION = /[\p{P}\p{S}]/u;
// Chinese and Japanese have no blanks, so that these stand for both sides of a word's end.
const IDEOGRAPH = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;

/** The tree of `text`: a list of texts and of nodes {tag, children | text, …}, where `tag` is em, strong, del, code, math,
 * br, a (`url`, `image`), or null for none. `open` is for a text whose end is still to come: what it has begun is shown
 * as if it ended here. In a table's cell <br> is a line's end. */
export function readInline(text, { open = false, cell = false } = {}) {
  return new InlineReader(open ? withoutEnd(text) : text, open, cell).read();
}

/** Leave out the marks at the end, of which it is not known yet what they are, and the target of an unfinished link. */
function withoutEnd(text) {
  return text.replace(/!?\[([^[\]]*)\]\([^()\s]*$/, '$1').replace(/[*_~`[!\\<$]{1,3}$/, '');
}

class InlineReader {
  constructor(text, open, cell) {
    Object.assign(this, { text, open, cell, at: 0, items: [], brackets: [], linkFloor: 0, ticks: null, ends: {} });
  }

  read() {
    while (this.at < this.text.length) {
      PLAIN.lastIndex = this.at;
      const plain = PLAIN.exec(this.text);
      if (plain) this.say(plain[0]);
      else this.mark(this.text[this.at]);
    }
    return pairMarks(this.items, this.open);
  }

  mark(character) {
    if (character === '\\') this.escape();
    else if (character === '`') this.code();
    else if (character in TAGS) this.emphasis(character);
    else if (character === '[') this.bracket('[', false);
    else if (character === '!' && this.text[this.at + 1] === '[') this.bracket('![', true);
    else if (character === ']') this.closeBracket();
    else if (character === '<') this.angle();
    else if (character === '$') this.dollar();
    else if (character === ':') this.colon();
    else if (character === '&') this.entity();
    else if (character === '\n') this.add({ tag: 'br' }, 1);
    else this.say(character);
  }

  /** Add a node that the next `length` characters stand for. */
  add(node, length) {
    this.items.push(node);
    this.at += length;
  }

  /** Add `text`, which `length` characters stand for. */
  say(text, length = text.length) {
    this.add(text, length);
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === '\n') this.add({ tag: 'br' }, 2);
    else if ((next === '(' && this.math('\\)', 2)) || (next === '[' && this.math('\\]', 2))) return;
    else if (next !== undefined && /[!-/:-@[-`{-~]/.test(next)) this.say(next, 2);
    else this.say('\\');
  }

  /** Whether the text from here up to `end` is a formula, which is then added as it stands. */
  math(end, length) {
    const found = this.next(end, this.at + length);
    if (found < 0) return false;
    const text = this.text.slice(this.at, found + end.length);
    this.add({ tag: 'math', text }, text.length);
    return true;
  }

  /** Where `end` is next, -1 if nowhere. What is once known is not looked for again. */
  next(end, from) {
    const known = this.ends[end];
    if (known === undefined || (known >= 0 && known < from)) this.ends[end] = this.text.indexOf(end, from);
    return this.ends[end];
  }

  dollar() {
    if (this.text[this.at + 1] === '$') {
      if (!this.math('$$', 2)) this.say('$$');
      return;
    }
    const end = this.next('$', this.at + 1);
    const inner = end < 0 ? '' : this.text.slice(this.at + 1, end);
    if (isFormula(inner, this.text[end + 1] || ' ')) this.add({ tag: 'math', text: `$${inner}$` }, inner.length + 2);
    else this.say('$');
  }

  code() {
    this.ticks ??= runsOf(this.text);
    const length = runLength(this.text, this.at, '`');
    const places = this.ticks.get(length) || [];
    // The places are in order, and are asked for in order.
    while (places.length && places.at(-1) <= this.at) places.pop();
    const end = places.length ? places.at(-1) : this.open ? this.text.length : -1;
    if (end < 0) {
      this.say('`'.repeat(length));
      return;
    }
    const text = this.text.slice(this.at + length, end).replaceAll('\n', ' ');
    const padded = text.startsWith(' ') && text.endsWith(' ') && text.trim() !== '';
    this.add({ tag: 'code', text: padded ? text.slice(1, -1) : text }, end + length - this.at);
  }

  emphasis(mark) {
    const count = runLength(this.text, this.at, mark);
    const before = characterBefore(this.text, this.at);
    const after = characterAt(this.text, this.at + count);
    const opens = touches(after, before);
    const closes = touches(before, after);
    const word = mark === '_';
    this.add(
      {
        mark,
        count,
        length: count,
        opens: opens && (!word || !closes || PUNCTUATION.test(before)),
        closes: closes && (!word || !opens || PUNCTUATION.test(after)),
        starts: BLANK.test(before) || PUNCTUATION.test(before) || IDEOGRAPH.test(before),
      },
      count,
    );
  }

  bracket(text, image) {
    this.brackets.push({ index: this.items.length, image });
    this.say(text);
  }

  closeBracket() {
    const bracket = this.brackets.pop();
    const inLink = bracket && !bracket.image && this.brackets.length < this.linkFloor;
    this.linkFloor = Math.min(this.linkFloor, this.brackets.length);
    const target = bracket && !inLink && this.text[this.at + 1] === '(' ? readTarget(this.text, this.at + 2) : null;
    const url = target && safeTarget(target.text);
    if (!url) {
      this.say(']');
      return;
    }
    const children = pairMarks(this.items.splice(bracket.index).slice(1), false);
    this.add(linkNode(url, children, bracket.image), target.end - this.at);
    // No link stands in a link: those that are still open are none.
    if (!bracket.image) this.linkFloor = this.brackets.length;
  }

  angle() {
    const found = /<(?:(br ?\/?)|([a-z][a-z+.-]*:[^\s<>]{1,2000})|([\w.+-]{1,64}@[\w-][\w.-]{0,250}))>/iy;
    found.lastIndex = this.at;
    const [whole, end, address, mail] = found.exec(this.text) || ['<'];
    const url = address || mail ? safeTarget(address || `mailto:${mail}`) : null;
    if (end && this.cell) this.add({ tag: 'br' }, whole.length);
    else if (url) this.add(linkNode(url, [address || mail], false), whole.length);
    else this.say('<');
  }

  /** An address that stands in the text by itself. Its scheme has been read already. */
  colon() {
    const before = this.items.at(-1);
    const scheme = typeof before === 'string' ? /(?:^|[^\p{L}\p{N}])(https?)$/iu.exec(before.slice(-6)) : null;
    const address = scheme && this.text.startsWith('://', this.at) ? scheme[1] + bareAddress(this.text, this.at) : '';
    const url = address ? safeTarget(address) : null;
    if (!url) {
      this.say(':');
      return;
    }
    this.items[this.items.length - 1] = before.slice(0, -scheme[1].length);
    this.add(linkNode(url, [address], false), address.length - scheme[1].length);
  }

  entity() {
    const found = /&(amp|lt|gt|quot|nbsp|#39);/y;
    found.lastIndex = this.at;
    const [whole, name] = found.exec(this.text) || ['&'];
    this.say(name ? ENTITIES[name] : '&', whole.length);
  }
}

/** "from $5 to $10" is no formula: one touches its marks, stands in one line, and no digit or letter follows it. */
function isFormula(inner, after) {
  if (inner !== inner.trim() || !inner || inner.includes('\n') || /[\p{L}\p{N}]/u.test(after)) return false;
  return !/^\d/.test(inner) || !inner.includes(' ') || /[\\^_=+]/.test(inner);
}

function linkNode(url, children, image) {
  return { tag: 'a', url, image, children: children.map(withoutLinks), depth: depthOf(children) + 1 };
}

function withoutLinks(node) {
  if (typeof node === 'string' || !node.children) return node;
  return { ...node, tag: node.tag === 'a' ? null : node.tag, children: node.children.map(withoutLinks) };
}

function depthOf(children) {
  return children.reduce((most, { depth = 0 }) => Math.max(most, depth), 0);
}

function runLength(text, from, character) {
  let at = from;
  while (text[at] === character) at += 1;
  return at - from;
}

/** The places of the runs of backticks by their length, the last first. */
function runsOf(text) {
  const runs = new Map();
  for (let at = text.indexOf('`'); at >= 0; at = text.indexOf('`', at)) {
    const length = runLength(text, at, '`');
    if (!runs.has(length)) runs.set(length, []);
    runs.get(length).push(at);
    at += length;
  }
  for (const places of runs.values()) places.reverse();
  return runs;
}

function characterAt(text, at) {
  return at < text.length ? String.fromCodePoint(text.codePointAt(at)) : ' ';
}

function characterBefore(text, at) {
  if (at === 0) return ' ';
  const low = /[\udc00-\udfff]/.test(text[at - 1]) && at > 1;
  return characterAt(text, low ? at - 2 : at - 1);
}

/** Whether a mark belongs to the word that it touches with `inner`, and not to `outer`. */
function touches(inner, outer) {
  if (BLANK.test(inner)) return false;
  return !PUNCTUATION.test(inner) || BLANK.test(outer) || PUNCTUATION.test(outer) || IDEOGRAPH.test(outer);
}

/** The `text` of a link's target, which starts at `from`, and where the link ends; null if it does not. */
function readTarget(text, from) {
  const angled = /\s?<([^<>\n]{0,2000})>/y;
  angled.lastIndex = from;
  const inAngles = angled.exec(text);
  const start = inAngles ? angled.lastIndex : from;
  const end = inAngles ? start : plainTargetEnd(text, from);
  const title = /\s{0,9}(?:"[^"]{0,500}"|'[^']{0,500}')?\s{0,9}\)/y;
  title.lastIndex = end;
  if (!title.exec(text)) return null;
  return { text: inAngles ? inAngles[1] : text.slice(from, end), end: title.lastIndex };
}

function plainTargetEnd(text, from) {
  let depth = 0;
  for (let at = from; at < text.length && at < from + LONGEST_LINK; at += 1) {
    const character = text[at];
    if (BLANK.test(character) || depth > MOST_PARENTHESES) return at;
    if (character === '(') depth += 1;
    if (character === ')') depth -= 1;
    if (depth < 0) return at;
  }
  return text.length;
}

/** The rest of an address behind its scheme, without the marks that end the sentence it stands in. */
function bareAddress(text, from) {
  const found = /[^\s<>"`|\\^{}*]{1,2000}/y;
  found.lastIndex = from;
  let [address] = found.exec(text);
  let open = timesIn(address, '(') - timesIn(address, ')');
  for (;;) {
    const last = address.at(-1);
    if (/[?!.,:;'_~\]。，、；：！？）」』】]/.test(last)) address = address.slice(0, -1);
    else if (last === ')' && open < 0) {
      address = address.slice(0, -1);
      open += 1;
    } else return address;
  }
}

function timesIn(text, character) {
  return text.split(character).length - 1;
}

// --- Emphasis ---

/** Join the marks in `items` to pairs, as CommonMark does. `open` joins those whose end is still to come, too. */
function pairMarks(items, open) {
  const pairs = new Pairs();
  for (const item of items) {
    if (item.mark) pairs.mark(item);
    else pairs.out.push(item);
  }
  if (open) pairs.closeAll();
  return pairs.out.map((item) => (item.mark ? item.mark.repeat(item.count) : item));
}

class Pairs {
  constructor() {
    this.out = [];
    this.openers = [];
    this.serial = 0;
    this.bottoms = {}; // no opener with a smaller number fits this kind of closer
  }

  mark(item) {
    if (item.closes) this.close(item);
    if (!item.count) return;
    if (item.opens) this.openers.push({ item, index: this.out.length, serial: (this.serial += 1) });
    this.out.push(item);
  }

  close(closer) {
    while (closer.count) {
      const kind = `${closer.mark}${closer.opens}${closer.mark === '~' ? closer.length : closer.length % 3}`;
      const at = this.find(closer, this.bottoms[kind] || 0);
      if (at < 0) {
        this.bottoms[kind] = this.serial;
        return;
      }
      const used = sizeOfPair(this.openers[at].item, closer);
      this.openers.length = at + 1;
      this.join(this.openers[at], used);
      closer.count -= used;
    }
  }

  find(closer, bottom) {
    for (let at = this.openers.length - 1; at >= 0 && this.openers[at].serial > bottom; at -= 1) {
      const { item } = this.openers[at];
      if (item.mark === closer.mark && fits(item, closer) && sizeOfPair(item, closer)) return at;
    }
    return -1;
  }

  /** Put what stands behind `opener` into a node. */
  join({ item, index }, used) {
    const children = this.out.splice(index + 1).map((child) => (child.mark ? child.mark.repeat(child.count) : child));
    item.count -= used;
    const depth = depthOf(children) + 1;
    const text = item.mark.repeat(used);
    if (!item.count) {
      this.out.pop();
      this.openers.pop();
    }
    if (depth > DEEPEST) this.out.push({ tag: null, children: [text, ...children, text], depth: DEEPEST });
    else this.out.push({ tag: TAGS[item.mark][used - 1], children, depth });
  }

  closeAll() {
    while (this.openers.length) {
      const opener = this.openers.at(-1);
      const { item } = opener;
      const used = item.mark === '~' ? (item.count === 2 ? 2 : 0) : Math.min(item.count, 2);
      if (used && item.starts && this.out.length > opener.index + 1) this.join(opener, used);
      else this.openers.pop();
    }
  }
}

function sizeOfPair(opener, closer) {
  if (opener.mark === '~') return opener.length === 2 && closer.length === 2 ? 2 : 0;
  return opener.count >= 2 && closer.count >= 2 ? 2 : 1;
}

/** CommonMark's rule of three: a run that could open and close joins no run with which it adds up to one. */
function fits(opener, closer) {
  if (!opener.closes && !closer.opens) return true;
  return (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}
