// The list at the side: always there on a wide screen, drawn over the chat on a narrow one. And the keys that lead to it.

import { h, iconButton } from './dom.js';
import { t } from './words.js';

const NARROW = matchMedia('(max-width: 56.2rem)');

/** `list` is the list's view. `escape` is what Esc does where there is nothing to close. */
export function chatDrawer(list, { isShown, escape }) {
  let open = false;
  const button = iconButton('menu', t('chat.showList'), () => set(true), { class: 'chat-menu', 'aria-expanded': 'false', 'aria-controls': 'chats' });
  const shade = h('div', { class: 'chat-shade', hidden: true, on: { click: () => set(false) } });

  function set(wanted) {
    const was = open;
    open = wanted && NARROW.matches;
    fit();
    if (open) list.search.focus();
    else if (was) button.focus();
  }

  function fit() {
    open &&= NARROW.matches;
    list.node.classList.toggle('chats-open', open);
    list.node.inert = NARROW.matches && !open;
    shade.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
  }

  function toSearch(event) {
    event.preventDefault();
    if (NARROW.matches) set(true);
    list.search.focus();
    list.search.select();
  }

  NARROW.addEventListener('change', fit);
  document.addEventListener('keydown', (event) => {
    if (!isShown() || event.defaultPrevented || document.querySelector('dialog[open]')) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey)) toSearch(event);
    else if (event.key === '/' && plain && !event.target.closest('input, textarea, select')) toSearch(event);
    else if (event.key === 'Escape' && open) set(false);
    else if (event.key === 'Escape' && !event.isComposing) escape();
  });
  fit();
  return { button, shade, fit, close: () => open && set(false) };
}
