// Where a message is written: its text, its pictures, and the buttons around them.

import { isTouched, sendsMessage } from './chat-parts.js';
import { isPicture } from './chat-pictures.js';
import { PictureTray, sayBadPicture } from './chat-tray.js';
import { form, h, icon, iconButton, textButton } from './dom.js';
import { remember, remembered, t } from './words.js';

const MOST_ROWS = 8;
const draftKey = (id) => `rkllama-draft-${id || 'new'}`;

/** The composer. `does`: send(text, pictures) that says whether it took them, stop(), think(on). */
export class Composer {
  #does;
  #chat = '';
  #tray = new PictureTray({ changed: () => this.#changed(), removed: () => this.#removed() });
  #area = h('textarea', {
    class: 'chat-input',
    rows: 1,
    'aria-label': t('chat.input'),
    placeholder: t('chat.placeholder'),
    enterkeyhint: isTouched() ? 'enter' : 'send',
    on: { input: () => this.#changed(), keydown: (event) => this.#pressed(event), paste: (event) => this.#pasted(event) },
  });
  #thinkButton = textButton(t('chat.think'), () => this.#does.think(this.#thinkButton.ariaPressed !== 'true'), 'small chat-think');
  #sendButton = h('button', { class: 'icon-button primary chat-send', 'aria-label': t('chat.send'), title: t('chat.send') }, icon('send'));
  #stopButton = iconButton('stop', t('down.stop'), () => this.#does.stop(), { class: 'primary chat-stop', hidden: true });
  node = form(
    { class: 'chat-composer' },
    () => this.#submit(),
    h(
      'div',
      { class: 'chat-box' },
      this.#tray.node,
      this.#area,
      h('div', { class: 'chat-tools' }, this.#tray.buttons, this.#thinkButton, h('span', { class: 'chat-space' }), this.#stopButton, this.#sendButton),
      h('p', { class: 'chat-drop', 'aria-hidden': 'true' }, t('chat.addPicture')),
    ),
  );

  constructor(does) {
    this.#does = does;
  }

  /** Take pictures that are dropped anywhere on this element, in which the composer is. */
  acceptDrops(element) {
    element.addEventListener('dragover', (event) => this.#draggedOver(event));
    element.addEventListener('dragleave', ({ relatedTarget }) => element.contains(relatedTarget) || this.#setDropping(false));
    element.addEventListener('drop', (event) => this.#dropped(event));
  }

  /** Write in this chat: its draft comes back. */
  open(id) {
    this.#chat = id;
    this.#area.value = remembered(draftKey(id)) || '';
    this.#tray.clear();
    this.#changed();
  }

  /** The model that is written to: `{name, sees, thinks}`, and whether it is to think. */
  setModel(model, think) {
    this.#tray.setModel(model);
    this.#thinkButton.hidden = !model.thinks;
    this.#thinkButton.ariaPressed = String(think);
  }

  setRunning(running) {
    const hadFocus = [this.#stopButton, this.#sendButton].includes(document.activeElement);
    this.#stopButton.hidden = !running;
    this.#sendButton.hidden = running;
    if (hadFocus && running) this.#stopButton.focus();
    else if (hadFocus) this.focus();
  }

  /** On a phone the keyboard would come up, too. */
  focus() {
    if (!isTouched()) this.#area.focus();
  }

  #changed() {
    const text = this.#area.value;
    this.#grow();
    this.#sendButton.disabled = !text.trim() && !this.#tray.pictures.length;
    remember(draftKey(this.#chat), text.trim() ? text : null);
  }

  #grow() {
    const { style } = this.#area;
    style.setProperty('height', 'auto');
    const { lineHeight, paddingTop } = getComputedStyle(this.#area);
    const most = parseFloat(lineHeight) * MOST_ROWS + parseFloat(paddingTop) * 2;
    const tall = this.#area.scrollHeight;
    style.setProperty('height', `${Math.min(tall, most)}px`);
    style.setProperty('overflow-y', tall > most ? 'auto' : 'hidden');
  }

  #pressed(event) {
    if (!sendsMessage(event)) return;
    event.preventDefault();
    this.node.requestSubmit();
  }

  #submit() {
    const text = this.#area.value.trim();
    const { pictures } = this.#tray;
    if ((!text && !pictures.length) || !this.#does.send(text, pictures)) return;
    forgetDraft(this.#chat);
    this.#area.value = '';
    this.#tray.clear();
    this.#changed();
  }

  #removed() {
    this.#changed();
    this.#area.focus();
  }

  #pasted(event) {
    if (this.#tray.takeFrom(event.clipboardData)) event.preventDefault();
  }

  #draggedOver(event) {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    this.#setDropping(true);
  }

  #dropped(event) {
    const { dataTransfer } = event;
    event.preventDefault();
    this.#setDropping(false);
    const wrong = Array.from(dataTransfer.files).find((file) => !isPicture(file));
    if (wrong) sayBadPicture(wrong);
    this.#tray.takeFrom(dataTransfer);
  }

  #setDropping(dropping) {
    this.node.classList.toggle('chat-dropping', dropping);
  }
}

/** Forget what was written, and not sent, in a chat. */
export function forgetDraft(id) {
  remember(draftKey(id), null);
}
