// A stand-in: the text as it is.

import { h } from './dom.js';

export function markdownView() {
  const node = h('div', { class: 'md' });
  const view = { node, text: '' };
  let waiting = '';
  let frame = 0;
  const flush = () => {
    frame = 0;
    if (waiting) node.append(waiting);
    waiting = '';
  };
  view.append = (piece) => {
    view.text += piece;
    waiting += piece;
    frame ||= requestAnimationFrame(flush);
  };
  view.end = () => {
    cancelAnimationFrame(frame);
    flush();
  };
  return view;
}

export function renderMarkdown(text) {
  return h('div', { class: 'md' }, text);
}
