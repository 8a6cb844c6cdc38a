// The chat's view. It is made once and kept, so that answers go on being written while another view is shown.

import { chatPage } from './chat_page.js';
import { openChatStore } from './chats_store.js';

let chatPageMade = null;

export const chatView = {
  mount(root, place) {
    let left = false;
    chatPageMade ??= openChatStore().then(chatPage);
    chatPageMade.then((page) => {
      if (left) return;
      root.replaceChildren(page.node);
      page.enter(place);
    });
    return () => {
      left = true;
    };
  },
  go(place) {
    chatPageMade.then((page) => page.go(place));
  },
};
