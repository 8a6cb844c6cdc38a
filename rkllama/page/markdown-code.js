// Blocks of code, line by line. Their lines are put into boxes of some kB, so that the browser lays out only the last
// one again when a line comes.

import { copyButton } from './clipboard.js';
import { h } from './dom.js';
import { seen } from './markdown-links.js';
import { addWords, t } from './words.js';

addWords({ 'md.code': ['Code', 'Code'] });

const BOX = 4096; // characters
const COLOURED = 100_000; // characters of a block

const HASH = 'python|py|bash|sh|shell|zsh|console|yaml|yml|toml|ini|conf|ruby|rb|perl|r|makefile|make|dockerfile|cmake|nix|elixir|julia';
const SLASH = 'js|javascript|jsx|ts|typescript|tsx|c|cpp|c++|h|hpp|cs|csharp|java|kotlin|swift|go|golang|rust|rs|php|scala|dart|json|jsonc|css|scss|zig|glsl|cuda|proto|groovy';
const DASH = 'sql|lua|haskell|hs|ada|vhdl|elm';
const COMMENTS = Object.fromEntries([[HASH, '#'], [SLASH, '//'], [DASH, '--']].flatMap(([names, mark]) => names.split('|').map((name) => [name, mark])));
const KEYWORDS = new Set(
  ('abstract and as assert async await begin break case catch class const continue def default defer del delete do done elif else elsif end enum esac except export extends extern final finally fn for foreach from func function go goto if impl implements import in interface is lambda let local loop match mod module mut namespace new nil nonlocal not null or package pass private protected pub public raise return self static struct super switch template then this throw trait true false none try type typedef typeof union unless until use using var virtual void when where while with yield ' +
    'select insert update create table into values set join left right inner outer on group by order having limit int float double char bool boolean string long unsigned')
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
    if (block !== undefined) this.until = '*/';
    else if (triple !== undefined) this.until = triple;
    let kind = null;
    if (comment !== undefined || block !== undefined) kind = 'c';
    else if (triple !== undefined || string !== undefined) kind = 's';
    else if (number !== undefined) kind = 'n';
    else if (word !== undefined && KEYWORDS.has(this.anyCase ? word.toLowerCase() : word)) kind = 'k';
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
    this.size = 0;
    this.made = 0;
    this.extra = null;
    this.code = h('code', { dir: plain ? 'auto' : 'ltr' });
    this.node = plain ? h('div', { class: 'md-plain' }, this.code) : framed(this.code, seen(language));
    this.newBox();
  }

  newBox() {
    this.box = h('span', { class: 'md-box' });
    this.filled = 0;
    this.code.append(this.box);
  }

  /** Add what will not change; `whole` says that a line ends with it. */
  add(text, whole) {
    this.preview('');
    if (this.filled >= BOX) this.newBox();
    this.put(this.box, this.pieces(text, false), whole);
    this.filled += text.length + 1;
    this.size += text.length + 1;
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

  pieces(text, trial) {
    return this.colours && this.size < COLOURED ? this.colours.line(text, trial) : [[null, text]];
  }

  /** Show the beginning of a line that is still to come. */
  preview(text) {
    if (this.extra) this.extra.remove();
    this.extra = null;
    if (!text) return;
    this.extra = h('span');
    const made = this.made;
    this.put(this.extra, this.pieces(text, true), false);
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
