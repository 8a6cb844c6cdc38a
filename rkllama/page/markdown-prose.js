// Paragraphs, headings and tables.

import { h } from './dom.js';
import { seen } from './markdown-links.js';
import { inlineNodes, nodesIn, patchChildren } from './markdown-nodes.js';
import { addWords, t } from './words.js';

addWords({ 'md.table': ['Table', 'Tableau'] });

const PIECE = 4096; // characters of a paragraph that are read at once
const LONGEST = 4 * PIECE; // characters of a paragraph that are laid out at once
const MOST_MARKED = 6000; // nodes of a paragraph; what comes behind them is shown as plain text
const MOST_COLUMNS = 64;

/** A paragraph or a heading. Only its last piece is ever drawn again. */
export class Prose {
  constructor(tag, properties = {}) {
    this.node = h(tag, properties);
    Object.assign(this, { tag, properties, text: '', extra: '', started: false, fixed: 0, pieces: 0, made: 0 });
  }

  /** Add a line, or with `joined` the rest of one. */
  add(text, joined) {
    this.text += this.started && !joined ? `\n${text}` : text;
    this.started = true;
    while (this.text.length > PIECE) this.settle();
  }

  /** Draw the first piece for good. */
  settle() {
    const end = endOfPiece(this.text);
    const piece = this.text.slice(0, end);
    const nodes = this.made < MOST_MARKED ? inlineNodes(piece) : [document.createTextNode(seen(piece))];
    this.text = this.text.slice(end);
    patchChildren(this.node, this.fixed, nodes);
    this.fixed += nodes.length;
    this.made += nodesIn(nodes);
    this.pieces += 1;
    if (this.pieces % (LONGEST / PIECE) === 0) this.goOn();
  }

  /** A new box for the same paragraph: the browser lays out a whole one when a word comes. */
  goOn() {
    const before = this.node;
    this.node = h(this.tag, { ...this.properties, class: `${this.properties.class || ''} md-more md-far`.trim() });
    this.fixed = 0;
    before.after(this.node);
  }

  /** The last line, if all of it is here. */
  get lastLine() {
    const at = this.text.lastIndexOf('\n');
    return at < 0 && this.pieces ? null : this.text.slice(at + 1);
  }

  dropLastLine() {
    this.text = this.text.slice(0, Math.max(0, this.text.lastIndexOf('\n')));
  }

  get empty() {
    return !this.text && !this.pieces;
  }

  /** Draw the last piece and what is still to come of it. */
  draw(open) {
    const text = this.text + (this.extra && this.started && !this.joined ? `\n${this.extra}` : this.extra);
    patchChildren(this.node, this.fixed, inlineNodes(open ? withoutRow(text) : text, { open }));
  }

  finish() {
    const nodes = inlineNodes(this.text.trimEnd());
    patchChildren(this.node, this.fixed, nodes);
    this.made += nodesIn(nodes);
  }
}

/** A line that begins with | is mostly a table's head: it waits for the line below it. */
function withoutRow(text) {
  const at = text.lastIndexOf('\n');
  return text[at + 1] === '|' && text.length - at < 1000 ? text.slice(0, Math.max(at, 0)) : text;
}

function endOfPiece(text) {
  for (const blank of ['\n', ' ']) {
    const at = text.lastIndexOf(blank, PIECE - 1);
    if (at > PIECE / 2) return at + 1;
  }
  return wholeCharacters(text, PIECE);
}

/** `length`, or one less where it would part the halves of a character. */
export function wholeCharacters(text, length) {
  return /[\ud800-\udbff]/.test(text[length - 1]) ? length - 1 : length;
}

/** The alignments of a table's columns, if `line` is what stands between its head and its rows; null otherwise. */
export function readAlignments(line) {
  if (!/^[\s|:-]+$/.test(line) || !line.includes('-')) return null;
  const cells = cellsOf(line);
  if (cells.length > MOST_COLUMNS || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) => (cell.endsWith(':') ? (cell.startsWith(':') ? 'center' : 'right') : cell.startsWith(':') ? 'left' : ''));
}

/** The texts between the | of a line. */
export function cellsOf(line) {
  const text = line.trim();
  const cells = [''];
  for (let at = text[0] === '|' ? 1 : 0; at < text.length; at += 1) {
    if (text[at] === '\\' && text[at + 1] === '|') {
      cells[cells.length - 1] += '|';
      at += 1;
    } else if (text[at] === '|') cells.push('');
    else cells[cells.length - 1] += text[at];
  }
  if (cells.length > 1 && !cells.at(-1).trim()) cells.pop();
  return cells.map((cell) => cell.trim());
}

export class Table {
  constructor(head, alignments) {
    this.head = head;
    this.alignments = alignments;
    this.body = h('tbody');
    const row = this.row('th', head);
    this.made = nodesIn([row]);
    const table = h('table', {}, h('thead', {}, row), this.body);
    this.node = h('div', { class: 'md-table', tabindex: '0', role: 'group', 'aria-label': t('md.table') }, table);
  }

  /** A table in which it goes on. */
  again() {
    return new Table(this.head, this.alignments);
  }

  row(tag, cells, open = false) {
    const shown = cells.slice(0, this.alignments.length);
    const missing = this.alignments.length - shown.length;
    const nodes = shown.map((cell, at) => this.cell(tag, cell, at, open && at === shown.length - 1));
    if (missing > 0) nodes.push(h(tag, missing > 1 ? { colspan: missing } : {}));
    return h('tr', {}, nodes);
  }

  cell(tag, text, at, open) {
    const align = this.alignments[at];
    return h(tag, { dir: 'auto', class: align ? `md-${align}` : null }, inlineNodes(text, { cell: true, open }));
  }
}
