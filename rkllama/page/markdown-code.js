// Blocks of code, line by line. Their lines are put into boxes of some kB, so that the browser lays out only the last
// one again when a line comes.

import { copyButton } from './clipboard.js';
import { h } from './dom.js';
import { seen } from './markdown-links.js';
import { addWords, t } from './words.js';

addWords({ 'md.code': ['Code', 'Code'] });

const BOX = 4096; // characters
const NEAR = 1; // boxes that are always laid out
const COLOURED = 8000; // nodes of a block: what comes behind them is not coloured

const HASH = 'python|py|bash|sh|shell|zsh|console|yaml|yml|toml|ini|ruby|rb|perl|r|makefile|dockerfile|cmake|julia';
const SLASH = 'js|javascript|jsx|ts|typescript|tsx|c|cpp|c++|h|cs|csharp|java|kotlin|swift|go|rust|rs|php|scala|dart|json|css|scss|zig|proto';
const DASH = 'sql|lua|haskell';
const COMMENTS = Object.fromEntries([[HASH, '#'], [SLASH, '//'], [DASH, '--']].flatMap(([names, mark]) => names.split('|').map((name) => [name, mark])));
const KEYWORDS = new Set(
  ('and as assert async await break case catch class const continue def default do done elif else enum esac except export extends false fi final finally fn for from func function go if impl import in interface is lambda let local match mod mut namespace new nil none not null or package pass private protected pub public raise return self static struct super switch then this throw trait true try type typedef using var void while with yield ' +
    'select insert update delete create table into values set join on group by order having limit int float double char bool boolean string long unsigned')
    .split(' '),
);
// Texts, numbers, words. Each choice begins with another character, so that nothing is read twice.
const TOKENS = /("{3}|'{3})|("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`(?:[^`\\]|\\.)*`?)|(\d[\w.]*)|([\p{L}_$][\p{L}\p{N}_$]*)|\s+|[^]/u.source;

/** Turns lines into pieces [class or null, text]. */
class Colours {
  constructor(name) {
    const mark = COMMENTS[name];
    const block = mark === '#' ? '$^' : '/\\*';
    this.tokens = new RegExp(`(${mark}.*)|(${block})|${TOKENS}`, 'uy');
    this.anyCase = name === 'sql';
    this.until = null; // what ends the comment or text in which a line begins
  }

  /** The pieces of a line; `trial` forgets what it has begun. */
  line(text, trial) {
    const before = this.until;
    const pieces = [];
    let at = 0;
    while (at < text.length) at = this.until ? this.inside(text, at, pieces) : this.token(text, at, pieces);
    if (trial) this.until = before;
    return pieces;
  }

  inside(text, at, pieces) {
    const found = text.indexOf(this.until, at);
    const end = found < 0 ? text.length : found + this.until.length;
    addPiece(pieces, this.until === '*/' ? 'c' : 's', text.slice(at, end));
    if (found >= 0) this.until = null;
    return end;
  }

  token(text, at, pieces) {
    this.tokens.lastIndex = at;
    const [whole, comment, block, triple, string, number, word] = this.tokens.exec(text);
    this.until = block ? '*/' : triple || null;
    let kind = null;
    if (comment || block) kind = 'c';
    else if (triple || string) kind = 's';
    else if (number) kind = 'n';
    else if (KEYWORDS.has(this.anyCase ? word?.toLowerCase() : word)) kind = 'k';
    addPiece(pieces, kind, whole);
    return at + whole.length;
  }
}

function addPiece(pieces, kind, text) {
  const last = pieces.at(-1);
  if (last && last[0] === kind) last[1] += text;
  else pieces.push([kind, text]);
}

/** A block of code with its language and a button, or, with `plain`, text that is shown as it is. */
export class CodeBlock {
  constructor(info, plain = false) {
    const language = /^[^\s{,:]{0,30}/.exec(info)[0];
    const name = language.toLowerCase();
    this.colours = !plain && Object.hasOwn(COMMENTS, name) ? new Colours(name) : null;
    this.plain = plain;
    this.made = 0;
    this.waiting = '';
    this.extra = null;
    this.code = h('code', { dir: plain ? 'auto' : 'ltr' });
    this.node = plain ? h('div', { class: 'md-plain' }, this.code) : framed(this.code, seen(language));
    this.newBox();
  }

  newBox() {
    this.box = h('span', { class: this.code.childElementCount < NEAR ? 'md-box' : 'md-box md-far' });
    this.filled = 0;
    this.made += 2;
    this.code.append(this.box);
  }

  get coloured() {
    return this.colours && this.made < COLOURED;
  }

  /** Add what will not change; `whole` says that a line ends with it. */
  add(text, whole) {
    if (this.filled >= BOX) {
      this.flush();
      this.newBox();
    }
    const line = whole ? `${text}\n` : text;
    if (this.coloured) this.put(this.box, this.colours.line(text, false), whole);
    else this.waiting += line;
    this.filled += line.length;
  }

  /** Show what has no colours, and is put in together: an answer may have many short lines. */
  flush() {
    const { made } = this;
    if (this.waiting) this.put(this.box, [[null, this.waiting]], false);
    // How often it comes to this depends on how the text comes, which must make no difference.
    Object.assign(this, { waiting: '', made });
  }

  put(parent, pieces, whole) {
    if (whole) addPiece(pieces, null, '\n');
    for (const [kind, text] of pieces) {
      const last = parent.lastChild;
      if (kind) parent.append(h('span', { class: `md-${kind}` }, seen(text)));
      else if (last && last.nodeType === Node.TEXT_NODE) last.appendData(seen(text));
      else parent.append(seen(text));
      this.made += kind ? 2 : 1;
    }
  }

  /** Show the beginning of a line that is still to come. */
  preview(text) {
    if (this.extra) this.extra.remove();
    this.extra = null;
    if (!text) return;
    this.flush();
    this.extra = h('span');
    const made = this.made;
    this.put(this.extra, this.coloured ? this.colours.line(text, true) : [[null, text]], false);
    this.made = made;
    this.box.append(this.extra);
  }
}

function framed(code, language) {
  const textOf = () => code.textContent.replace(/\n$/, '');
  const head = h('div', { class: 'md-code-head' }, h('span', { class: 'md-language' }, language), copyButton(textOf, { className: 'md-copy' }));
  const label = language ? `${t('md.code')} ${language}` : t('md.code');
  return h('div', { class: 'md-code' }, head, h('pre', { tabindex: '0', role: 'group', 'aria-label': label }, code));
}
