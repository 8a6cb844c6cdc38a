// The shell: which view is shown, by the address behind "#".

// In an order in which the page packs well.
import { keyDialog, notify } from './dialog.js';
import { chatView } from './chat.js';
import { BoardPage } from './board.js';
import { ModelsPage } from './models.js';
import { whenKeyIsWanted } from './api.js';
import { t, translate } from './words.js';

// A view: mount(root, rest) shows it in `root` (`rest` is the address behind its name) and returns what undoes that.
const VIEWS = { chat: chatView, models: viewOf(ModelsPage), board: viewOf(BoardPage) };

let unmount = () => {};

/** The view of a page that is made anew each time. */
function viewOf(Page) {
  return {
    mount(root) {
      const page = new Page();
      root.append(page.node);
      return () => page.end();
    },
  };
}

function route() {
  const [name, place = ''] = location.hash.slice(1).split('/');
  const view = Object.hasOwn(VIEWS, name) ? name : 'chat';
  // A question is about the view that it was asked in; Back takes both away.
  for (const open of document.querySelectorAll('dialog')) open.close();
  const root = document.getElementById('view');
  if (root.dataset.view === view && VIEWS[view].go) {
    VIEWS[view].go(place);
    return;
  }
  unmount();
  root.replaceChildren();
  root.dataset.view = view;
  for (const tab of document.querySelectorAll('[data-tab]')) tab.ariaCurrent = tab.dataset.tab === view ? 'page' : null;
  document.title = `${t(view)} · RKLLama`;
  unmount = VIEWS[view].mount(root, place);
}

function start() {
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
