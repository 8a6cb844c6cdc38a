// The blocks of a text, line by line: paragraphs, lists, quotes, code, tables. A block that has ended is never looked at
// again. The beginning of a line that is still to come is shown on trial, and taken back when more of it is there.
//
// Two things differ from CommonMark because models write so: text that is indented by four is no code, and a block of
// code in a list goes on where its lines are not indented.

import { h } from './dom.js';
import { CodeBlock } from './markdown-code.js';
import { nodesIn } from './markdown-nodes.js';
import { cellsOf, Prose, readAlignments, Table } from './markdown-prose.js';
import { addWords, t } from './words.js';

addWords({
  'md.done': ['done', 'fait'],
  'md.open': ['to do', 'à faire'],
});

const DEEPEST_BLOCK = 20; // open quotes, lists and their items
const MOST_NODES = 20_000; // what comes behind them is shown as plain text
const MOST_ITEMS = 100; // of a list, and rows of a table, that are laid out together
const PART = 32; // blocks
const FENCE = /^(`{3,}|~{3,})\s*([^]*)$/;
const HEADING = /^(#{1,6})(?:[ \t]+|$)/;
const MARKER = /^(?:([-*+])|(\d{1,9})([.)]))(?=\s|$)/;
const TASK = /^\[([ xX])\](?=\s)/;
// What may become several things, and is shown when it is known which.
const UNDECIDED = /^[\s>*+\-_=#|:~`\d.)]*(?:\[[ xX]?\]?)?$/;

/** Builds the blocks of a text in `root`. */
export class Blocks {
  constructor(root) {
    Object.assign(this, { root, stack: [], leaf: null, left: MOST_NODES, far: false, trial: null, before: null, shown: '' });
  }

  /** Take a line without its end. `joined`: it goes on one that was too long; `whole`: it ends here. */
  line(text, joined, whole) {
    this.undo();
    this.take(text, joined, whole);
  }

  /** Show the beginning of a line, until the next call. */
  preview(text, joined) {
    if (this.extend(text)) return;
    this.undo();
    if (this.leaf instanceof CodeBlock) this.leaf.flush();
    this.before = { stack: [...this.stack], leaf: this.leaf, left: this.left };
    this.trial = [];
    this.shown = '';
    if (text && !this.undecided(text)) {
      this.take(text, joined, false);
      this.shown = UNDECIDED.test(text) ? '' : text;
    }
    const { leaf } = this.before;
    if (leaf instanceof Prose) leaf.draw(this.leaf === leaf);
    if (this.leaf !== leaf && this.leaf instanceof Prose) this.leaf.draw(true);
  }

  /** Whether there is only more text where there was some before, which is then shown. */
  extend(text) {
    const { leaf, shown } = this;
    if (!this.trial || !shown || !(leaf instanceof Prose) || !text.startsWith(shown)) return false;
    leaf[leaf === this.before.leaf ? 'extra' : 'text'] += text.slice(shown.length);
    leaf.draw(true);
    this.shown = text;
    return true;
  }

  undo() {
    if (!this.trial) return;
    for (const node of this.trial) node.remove();
    Object.assign(this, this.before, { trial: null, before: null });
    if (this.leaf instanceof CodeBlock) this.leaf.preview('');
    if (this.leaf instanceof Prose) this.leaf.extra = '';
  }

  /** The text is over. */
  end() {
    this.undo();
    this.close(0);
  }

  undecided(text) {
    if (text.length > 100) return false;
    if (this.leaf instanceof CodeBlock) return /^\s*[`~]+$/.test(text);
    return UNDECIDED.test(text) && !(this.leaf instanceof Table && text.includes('|'));
  }

  // --- A line ---

  take(text, joined, whole) {
    if (joined) this.more(text, whole);
    // In code at the top a tabulator is one.
    else this.start(this.leaf instanceof CodeBlock && !this.stack.length ? text : withoutTabs(text), whole);
  }

  more(text, whole) {
    if (!this.leaf) this.begin(new Prose('p', this.direction()));
    if (this.leaf instanceof CodeBlock) this.code(text, whole);
    else this.prose(text, true);
    if (whole && this.leaf.tag !== 'p' && this.leaf instanceof Prose) this.closeLeaf();
  }

  start(line, whole) {
    if (this.left <= 0 && !this.leaf?.plain) this.goPlain();
    if (this.leaf?.plain) {
      this.code(line, whole);
      return;
    }
    const [depth, rest] = this.match(line);
    if (this.leaf?.fence && depth === this.stack.length) this.inFence(rest, whole);
    else if (!rest.trim() && whole) this.blank(depth);
    else this.open(depth, rest, whole);
  }

  /** How many of the open blocks the line belongs to, and what of it is inside them. */
  match(line) {
    let rest = line;
    let depth = 0;
    for (; depth < this.stack.length; depth += 1) {
      const inside = this.inside(this.stack[depth], rest);
      if (inside === null) break;
      rest = inside;
    }
    return [depth, rest];
  }

  inside({ kind, indent, marker }, rest) {
    if (kind === 'list') return rest;
    const width = indentOf(rest);
    if (kind === 'quote') return rest[width] === '>' ? rest.slice(width + (rest[width + 1] === ' ' ? 2 : 1)) : null;
    if (width >= indent || width === rest.length) return rest.slice(indent);
    if (this.leaf?.fence) return rest.slice(width);
    // Below "1. text" many models indent a list by two.
    return width >= marker + 2 && MARKER.test(rest.slice(width)) ? rest.slice(width) : null;
  }

  inFence(rest, whole) {
    const { fence, indent } = this.leaf;
    const text = rest.trim();
    const ends = whole && text.length >= fence.length && text === fence[0].repeat(text.length);
    if (ends) this.closeLeaf();
    else this.code(rest.slice(Math.min(indentOf(rest), indent)), whole);
  }

  blank(depth) {
    if (this.stack.slice(depth).some(({ kind }) => kind === 'quote')) this.close(depth);
    else if (!this.leaf?.fence) this.closeLeaf();
  }

  open(matched, line, whole) {
    let depth = matched;
    let rest = line;
    for (;;) {
      const before = rest;
      rest = this.openQuote(depth, rest) ?? this.openItem(depth, rest) ?? rest;
      if (rest === before) break;
      depth = this.stack.length;
    }
    this.openLeaf(depth, rest.slice(indentOf(rest)), whole, indentOf(rest));
  }

  openQuote(depth, rest) {
    const width = indentOf(rest);
    if (rest[width] !== '>' || this.full(depth)) return null;
    this.nest(depth, 'quote', h('blockquote', { dir: 'auto' }));
    return rest.slice(width + (rest[width + 1] === ' ' ? 2 : 1));
  }

  openItem(depth, rest) {
    const width = indentOf(rest);
    const text = rest.slice(width);
    const found = MARKER.exec(text);
    if (!found || this.full(depth) || isRule(text)) return null;
    const [marker, bullet, number, dot] = found;
    const content = text.slice(marker.length);
    // In a paragraph only what is hardly anything else begins a list.
    if (this.inParagraph(depth) && (!content.trim() || (number && Number(number) !== 1))) return null;
    const type = bullet || dot;
    this.openList(depth, type, number);
    const space = indentOf(content);
    const indent = width + marker.length + (space > 4 || space === content.length ? 1 : space);
    const item = h('li', { dir: 'auto' });
    this.nest(this.stack.length, 'item', item, { indent, marker: width });
    return this.openTask(item, content.slice(space));
  }

  /** Go on with the list at `depth`, or open one. A very long one goes on in another, for the browser's sake. */
  openList(depth, type, number) {
    const list = this.stack[depth - 1];
    const same = list?.type === type;
    const first = same ? list.first + list.count : Number(number || 1);
    if (same && list.count < MOST_ITEMS) this.close(depth);
    else this.nest(depth, 'list', listNode(number, first), { type, first, count: 0 });
    const at = this.stack.length - 1;
    this.stack[at] = { ...this.stack[at], count: this.stack[at].count + 1 };
  }

  openTask(item, text) {
    const task = TASK.exec(text);
    if (!task) return text;
    const done = task[1] !== ' ';
    item.classList.add('md-task');
    item.append(h('input', { type: 'checkbox', disabled: true, checked: done, 'aria-label': t(done ? 'md.done' : 'md.open') }));
    return text.slice(task[0].length);
  }

  openLeaf(depth, text, whole, indent) {
    const heading = whole && HEADING.exec(text);
    const shownHeading = heading || HEADING.exec(text);
    const fence = FENCE.exec(text);
    if (!text) this.closeBehind(depth);
    else if (shownHeading) this.heading(depth, shownHeading, text, whole);
    else if (fence && !(fence[1][0] === '`' && fence[2].includes('`'))) this.fence(depth, fence, whole, indent);
    else if (whole && this.underline(depth, text)) return;
    else if (whole && isRule(text)) this.begin(h('hr'), depth);
    else if (whole && this.table(depth, text)) return;
    else if (this.leaf instanceof Table && depth === this.stack.length && this.row(text, whole)) return;
    else this.paragraph(depth, text, whole);
  }

  heading(depth, [mark, { length }], text, whole) {
    const words = text.slice(mark.length);
    // Above an answer stands the page's own heading.
    const heading = new Prose(`h${Math.min(length + 2, 6)}`, { class: `md-h${length}`, ...this.direction() });
    this.begin(heading, depth);
    this.prose(whole ? words.trimEnd().replace(/(?:^|[ \t])#+$/, '').trim() : words, true);
    if (whole) this.closeLeaf();
  }

  fence(depth, [, fence, info], whole, indent) {
    const block = new CodeBlock(info.trim());
    Object.assign(block, { fence, indent });
    this.begin(block, depth);
    if (!whole && info.length > 100) this.code(info, false);
  }

  /** A line of = or - makes the paragraph above it a heading. */
  underline(depth, text) {
    if (!this.inParagraph(depth) || !/^(?:={2,}|-{2,})\s*$/.test(text) || this.leaf.pieces || this.leaf.empty) return false;
    const level = text[0] === '=' ? 1 : 2;
    const { leaf } = this;
    const heading = new Prose(`h${level + 2}`, { class: `md-h${level}`, ...leaf.properties });
    leaf.node.replaceWith(heading.node);
    heading.add(leaf.text, true);
    this.leaf = heading;
    this.closeLeaf();
    return true;
  }

  table(depth, text) {
    if (!this.inParagraph(depth) || !text.includes('|')) return false;
    const alignments = readAlignments(text);
    const head = alignments && this.leaf.lastLine;
    if (!head || !head.includes('|') || cellsOf(head).length !== alignments.length) return false;
    this.leaf.dropLastLine();
    if (this.leaf.empty) this.leaf.node.remove();
    this.begin(new Table(cellsOf(head), alignments), depth);
    return true;
  }

  row(text, whole) {
    // What is too long for a line is no row.
    if (!text.includes('|') || !(whole || this.trial)) return false;
    if (this.leaf.body.childElementCount >= MOST_ITEMS) this.begin(this.leaf.again());
    const row = this.leaf.row('td', cellsOf(text), !whole);
    this.leaf.body.append(row);
    if (this.trial) this.trial.push(row);
    else this.left -= nodesIn([row]);
    return true;
  }

  paragraph(depth, text, whole) {
    // A paragraph goes on even where a quote's or an item's mark is missing.
    if (!(this.leaf instanceof Prose)) this.begin(new Prose('p', this.direction(depth)), depth);
    this.prose(whole ? text.trimEnd() : text, false);
  }

  // --- What is open ---

  inParagraph(depth) {
    return this.leaf instanceof Prose && depth === this.stack.length;
  }

  full(depth) {
    return depth >= DEEPEST_BLOCK;
  }

  /** Blocks in others take their direction from the style, those at the top say that they choose it. */
  direction(depth = this.stack.length) {
    return depth ? {} : { dir: 'auto' };
  }

  /** Open a block that holds others. */
  nest(depth, kind, node, more = {}) {
    this.close(kind === 'item' || !this.atList(depth) ? depth : depth - 1);
    this.place(node);
    this.stack.push({ kind, node, ...more });
  }

  atList(depth) {
    return this.stack[depth - 1]?.kind === 'list';
  }

  /** Open a block that holds text, or nothing. */
  begin(leaf, depth = this.stack.length) {
    this.closeBehind(depth);
    const node = leaf.node || leaf;
    this.place(node);
    this.leaf = leaf.node ? leaf : null;
  }

  closeBehind(depth) {
    this.close(this.atList(depth) ? depth - 1 : depth);
  }

  place(node) {
    (this.stack.at(-1)?.node || this.part()).append(node);
    if (this.trial) this.trial.push(node);
    this.left -= 3;
  }

  /** Where the next block at the top stands. Those of a long text stand in parts, of which the browser lays out and
   * watches only the ones in sight. */
  part() {
    const last = this.root.lastElementChild;
    if (!this.far) return this.root;
    if (last?.matches('.md-part') && last.childElementCount < PART) return last;
    const part = h('div', { class: 'md-part md-far' });
    this.root.append(part);
    if (this.trial) this.trial.push(part);
    return part;
  }

  /** Close all blocks but the first `depth`. */
  close(depth) {
    this.closeLeaf();
    this.stack.length = depth;
  }

  closeLeaf() {
    const { leaf } = this;
    this.leaf = null;
    if (!leaf || this.trial) return;
    if (leaf instanceof Prose) leaf.finish();
    if (leaf instanceof CodeBlock) leaf.flush();
    this.left -= leaf.made;
  }

  prose(text, joined) {
    const { leaf } = this;
    if (!this.trial || leaf !== this.before.leaf) leaf.add(text, joined);
    else Object.assign(leaf, { extra: text, joined });
  }

  code(text, whole) {
    const { leaf } = this;
    if (!this.trial || leaf !== this.before.leaf) leaf.add(text, whole);
    else leaf.preview(text);
  }

  goPlain() {
    this.close(0);
    this.begin(new CodeBlock('', true));
  }
}

function listNode(number, first) {
  if (number === undefined) return h('ul');
  return h('ol', { start: first === 1 ? null : first, class: first > 99 - MOST_ITEMS && first > 1 ? 'md-wide' : null });
}

function isRule(text) {
  return /^(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/.test(text);
}

function indentOf(text) {
  let at = 0;
  while (text[at] === ' ') at += 1;
  return at;
}

/** `line` with blanks for the tabulators before its text. */
function withoutTabs(line) {
  const [head] = /^[\s>*+\-\d.)]*/.exec(line);
  if (!head.includes('\t')) return line;
  let text = '';
  for (const character of head) text += character === '\t' ? ' '.repeat(4 - (text.length % 4)) : character;
  return text + line.slice(head.length);
}
