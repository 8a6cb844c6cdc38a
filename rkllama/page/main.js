// The shell: which view is shown, by the address behind "#".

// In an order in which the page packs well.
import { keyDialog, notify } from './dialog.js';
import { whenKeyIsWanted } from './api.js';
import { boardView } from './board.js';
import { modelsView } from './models.js';
import { chatView } from './chat.js';
import { t, translate } from './words.js';

// A view: mount(root, rest) shows it in `root` (`rest` is the address behind its name) and returns what undoes that.
const VIEWS = { chat: chatView, models: modelsView, board: boardView };

let shown = null;
let unmount = () => {};

function route() {
  const [name, place = ''] = location.hash.slice(1).split('/');
  const view = Object.hasOwn(VIEWS, name) ? name : 'chat';
  // A question is about the view that it was asked in; Back takes both away.
  for (const open of document.querySelectorAll('dialog')) open.close();
  if (shown?.view === view && VIEWS[view].go) {
    VIEWS[view].go(place);
    return;
  }
  unmount();
  const root = document.getElementById('view');
  root.replaceChildren();
  root.dataset.view = view;
  shown = { view };
  for (const tab of document.querySelectorAll('[data-tab]')) {
    if (tab.dataset.tab === view) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  document.title = `${t(view)} · RKLLama`;
  unmount = VIEWS[view].mount(root, place) || (() => {});
}

export function start() {
  translate(document);
  whenKeyIsWanted(keyDialog);
  window.addEventListener('hashchange', route);
  window.addEventListener('unhandledrejection', ({ reason }) => notify(reason.message, { error: true }));
  // "#view" is no view: as an address it would lead to the chat.
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    document.getElementById('view').focus();
  });
  route();
}

start();
