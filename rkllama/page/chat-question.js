// A question of a chat, and its editing.

import { copyAction, messageNode, pictureRow, sendsMessage } from './chat-parts.js';
import { fill, h, iconButton, textButton } from './dom.js';
import { t } from './words.js';

const MOST_EDITED_ROWS = 12;

/** A question, drawn. `does`: edit(message, text), remove(message). */
export class Question {
  node = messageNode('user', t('chat.you'));
  #does;
  #area;

  constructor(message, does) {
    this.message = message;
    this.#does = does;
    this.#show();
  }

  #show() {
    const { message } = this;
    this.#fill(
      message.content && h('div', { class: 'chat-bubble' }, message.content),
      h(
        'div',
        { class: 'chat-actions' },
        iconButton('edit', t('chat.edit'), () => this.#edit()),
        copyAction(message),
        iconButton('trash', t('models.delete'), () => this.#does.remove(message)),
      ),
    );
  }

  #fill(...children) {
    const { pictures } = this.message;
    fill(this.node, pictures?.length && pictureRow(pictures), ...children);
  }

  #edit() {
    const { content } = this.message;
    const rows = Math.min(MOST_EDITED_ROWS, content.split('\n').length + 1);
    const area = h('textarea', { class: 'chat-editing', rows, 'aria-label': t('chat.edited'), on: { keydown: (event) => this.#pressed(event) } });
    area.value = content;
    this.#area = area;
    this.#fill(area, h('div', { class: 'buttons' }, textButton(t('cancel'), () => this.#cancel()), textButton(t('chat.send'), () => this.#send(), 'primary')));
    area.focus();
    area.setSelectionRange(content.length, content.length);
  }

  #pressed(event) {
    if (event.key === 'Escape') {
      event.stopPropagation();
      this.#cancel();
    } else if (sendsMessage(event)) {
      event.preventDefault();
      this.#send();
    }
  }

  #cancel() {
    this.#show();
    this.node.querySelector('.chat-actions button').focus();
  }

  #send() {
    const { message } = this;
    const text = this.#area.value.trim();
    if (text || message.pictures?.length) this.#does.edit(message, text);
  }
}
