// From what was read to nodes of the page.

import { h } from './dom.js';
import { readInline } from './markdown-inline.js';
import { otherPlace, seen, seenInLink } from './markdown-links.js';
import { addWords, t } from './words.js';

addWords({ 'md.image': ['Image: {name}', 'Image\u202f: {name}'] });

/** The nodes of a paragraph's text. `options` are readInline's. */
export function inlineNodes(text, options) {
  return nodesOf(readInline(text, options), seen);
}

function nodesOf(tree, clean) {
  const nodes = [];
  let plain = '';
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(clean(plain)));
    plain = '';
  };
  const add = (item) => {
    if (typeof item === 'string') plain += item;
    else if (item.tag === null) item.children.forEach(add);
    else {
      flush();
      nodes.push(nodeOf(item, clean));
    }
  };
  tree.forEach(add);
  flush();
  return nodes;
}

function nodeOf(item, clean) {
  if (item.tag === 'a') return link(item);
  if (item.tag === 'code') return h('code', {}, clean(item.text));
  if (item.tag === 'math') return h('code', { class: 'md-math' }, clean(item.text));
  return h(item.tag, {}, nodesOf(item.children || [], clean));
}

/** A link says where it leads if its text says something else. An image is a link, too: nothing is fetched unasked. */
function link({ url, image, children }) {
  const content = nodesOf(children, seenInLink);
  const text = content.map((node) => node.textContent).join('');
  const place = text.trim() ? otherPlace(text, url) : seenInLink(url.host || url.pathname);
  const properties = { href: url.href, title: url.href, target: '_blank', rel: 'noopener noreferrer nofollow' };
  const words = image ? t('md.image', { name: text.trim() || place }) : content;
  const rest = place && !(image && !text.trim()) ? h('span', { class: 'md-place' }, `${text.trim() ? ' ' : ''}(${place})`) : null;
  return h('a', properties, words, rest);
}

/** Make the children of `parent` behind the first `fixed` ones the given nodes, and leave alone those that are so already:
 * what somebody has selected stays selected while the text below it grows. Returns how many were put in. */
export function patchChildren(parent, fixed, nodes) {
  let old = parent.childNodes[fixed] || null;
  let put = 0;
  for (const node of nodes) {
    const next = old && old.nextSibling;
    if (!old) {
      parent.append(node);
      put += 1;
    } else if (old.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) {
      extendText(old, node.data);
    } else if (!old.isEqualNode(node)) {
      old.replaceWith(node);
      put += 1;
    }
    old = next;
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
  return put;
}

/** About how many nodes these are, with those in them. */
export function nodesIn(nodes) {
  return nodes.reduce((sum, node) => sum + (node.nodeType === Node.ELEMENT_NODE ? 2 + 2 * node.getElementsByTagName('*').length : 1), 0);
}

function extendText(node, text) {
  if (node.data === text) return;
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}
