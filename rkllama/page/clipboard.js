// Copying. A board is mostly opened over plain http, where browsers have no navigator.clipboard.

import { fill, h, icon } from './dom.js';
import { addWords, t } from './words.js';

addWords({
  'copy.do': ['Copy', 'Copier'],
  'copy.done': ['Copied', 'Copié'],
  'copy.failed': ['Not copied', 'Non copié'],
});

/** Put `text` into the clipboard; whether the browser let it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = h('textarea', { class: 'unseen', readonly: true, tabindex: '-1', 'aria-hidden': 'true' });
  area.style.whiteSpace = 'pre'; // or blanks would be joined
  area.value = text;
  // Behind a modal dialog only what is in it can be selected.
  (focused?.closest('dialog') || document.body).append(area);
  area.select();
  try {
    return document.execCommand('copy');
  } catch {
    return false;
  } finally {
    area.remove();
    focused?.focus({ preventScroll: true });
  }
}

/** A button that copies what `textOf()` gives, and says so where it stands. */
export function copyButton(textOf, { label = t('copy.do'), className = 'button small' } = {}) {
  const words = h('span', { 'aria-live': 'polite' }, label);
  const button = h('button', { type: 'button', class: className, on: { click: copy } }, icon('copy'), words);
  let timer = 0;
  const show = (name, text) => {
    button.replaceChild(icon(name), button.firstChild);
    fill(words, text);
  };
  async function copy() {
    const copied = await copyText(textOf());
    show(copied ? 'check' : 'warning', t(copied ? 'copy.done' : 'copy.failed'));
    clearTimeout(timer);
    timer = setTimeout(() => show('copy', label), 2000);
  }
  return button;
}
