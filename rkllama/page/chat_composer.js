// Where a message is written: its text, its pictures, and the buttons around them.

import { sendsMessage, pictureRow } from './chat_message.js';
import { MOST_PICTURES, picturesIn, readPicture } from './chat_pictures.js';
import { notify } from './dialog.js';
import { fill, h, icon, iconButton, textButton } from './dom.js';
import { remember, remembered, t } from './words.js';

const MOST_ROWS = 8;
const draftKey = (id) => `rkllama-draft-${id || 'new'}`;

/** The composer. `does`: send(text, pictures) that says whether it took them, stop(), think(on). */
export function composerView(does) {
  let chat = '';
  let pictures = [];
  let sees = false;
  let name = '';
  const row = h('div', {});
  const area = h('textarea', {
    class: 'chat-input',
    rows: 1,
    'aria-label': t('chat.input'),
    placeholder: t('chat.placeholder'),
    enterkeyhint: matchMedia('(pointer: coarse)').matches ? 'enter' : 'send',
    on: { input: changed, keydown: pressed, paste: pasted },
  });
  const files = fileInput({ multiple: true }, take);
  const camera = fileInput({ capture: 'environment' }, take);
  const pictureButton = iconButton('image', t('chat.addPicture'), () => files.click());
  const cameraButton = iconButton('camera', t('chat.takePicture'), () => camera.click(), { class: 'chat-camera' });
  const thinkButton = textButton(t('chat.think'), () => does.think(thinkButton.ariaPressed !== 'true'), 'small chat-think');
  const sendButton = h('button', { class: 'icon-button primary chat-send', 'aria-label': t('chat.send'), title: t('chat.send') }, icon('send'));
  const stopButton = iconButton('stop', t('down.stop'), () => does.stop(), { class: 'primary chat-stop', hidden: true });
  const node = h(
    'form',
    { class: 'chat-composer', on: { submit: submitted } },
    h(
      'div',
      { class: 'chat-box' },
      row,
      area,
      h('div', { class: 'chat-tools' }, pictureButton, cameraButton, files, camera, thinkButton, h('span', { class: 'chat-space' }), stopButton, sendButton),
      h('p', { class: 'chat-drop', 'aria-hidden': 'true' }, t('chat.addPicture')),
    ),
  );

  function changed() {
    grow();
    sendButton.disabled = !area.value.trim() && !pictures.length;
    remember(draftKey(chat), area.value.trim() ? area.value : null);
  }

  function grow() {
    area.style.setProperty('height', 'auto');
    const style = getComputedStyle(area);
    const most = parseFloat(style.lineHeight) * MOST_ROWS + parseFloat(style.paddingTop) * 2;
    const tall = area.scrollHeight;
    area.style.setProperty('height', `${Math.min(tall, most)}px`);
    area.style.setProperty('overflow-y', tall > most ? 'auto' : 'hidden');
  }

  function pressed(event) {
    if (!sendsMessage(event)) return;
    event.preventDefault();
    node.requestSubmit();
  }

  function submitted(event) {
    event.preventDefault();
    const text = area.value.trim();
    if ((!text && !pictures.length) || !does.send(text, pictures)) return;
    remember(draftKey(chat), null);
    area.value = '';
    showPictures([]);
    changed();
  }

  function showPictures(list) {
    pictures = list;
    fill(row, list.length ? pictureRow(list, (picture) => {
      showPictures(pictures.filter((other) => other !== picture));
      changed();
      area.focus();
    }) : null);
  }

  async function take(given) {
    if (!given.length) return;
    if (!sees) {
      notify(t('chat.noEyes', { model: name || t('chat.noModel') }), { error: true });
      return;
    }
    for (const file of given) {
      if (pictures.length >= MOST_PICTURES) {
        notify(t('chat.manyPictures', { most: MOST_PICTURES }), { error: true });
        break;
      }
      try {
        const picture = await readPicture(file);
        if (pictures.length < MOST_PICTURES) showPictures([...pictures, picture]);
      } catch {
        notify(t('chat.badPicture', { name: file.name }), { error: true });
      }
    }
    changed();
  }

  function pasted(event) {
    const given = picturesIn(event.clipboardData);
    if (!given.length) return;
    event.preventDefault();
    take(given);
  }

  function draggedOver(event) {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    node.classList.add('chat-dropping');
  }

  function dropped(event) {
    event.preventDefault();
    node.classList.remove('chat-dropping');
    const given = Array.from(event.dataTransfer.files);
    const wrong = given.find((file) => !file.type.startsWith('image/'));
    if (wrong) notify(t('chat.badPicture', { name: wrong.name }), { error: true });
    take(picturesIn(event.dataTransfer));
  }

  /** On a phone the keyboard would come up, too. */
  function focus() {
    if (!matchMedia('(pointer: coarse)').matches) area.focus();
  }

  return {
    node,
    /** Take pictures that are dropped anywhere on this element, in which the composer is. */
    acceptDrops(element) {
      element.addEventListener('dragover', draggedOver);
      element.addEventListener('dragleave', ({ relatedTarget }) => {
        if (!element.contains(relatedTarget)) node.classList.remove('chat-dropping');
      });
      element.addEventListener('drop', dropped);
    },
    /** Write in this chat: its draft comes back. */
    open(id) {
      chat = id;
      area.value = remembered(draftKey(id)) || '';
      showPictures([]);
      changed();
    },
    /** The model that is written to: `{name, sees, thinks, talks}`, and whether it is to think. */
    setModel(model, think) {
      ({ sees, name } = model);
      pictureButton.hidden = cameraButton.hidden = !sees;
      thinkButton.hidden = !model.thinks;
      thinkButton.ariaPressed = String(think);
    },
    setRunning(running) {
      const hadFocus = [stopButton, sendButton].includes(document.activeElement);
      stopButton.hidden = !running;
      sendButton.hidden = running;
      if (hadFocus && running) stopButton.focus();
      else if (hadFocus) focus();
    },
    focus,
  };
}

/** An input for files, for buttons to click: `take(files)` gets those that are chosen. */
export function fileInput(properties, take) {
  const input = h('input', {
    type: 'file',
    accept: 'image/*',
    class: 'chat-file',
    tabindex: '-1',
    'aria-hidden': 'true',
    ...properties,
    on: {
      change: () => {
        take([...input.files]);
        input.value = '';
      },
    },
  });
  return input;
}

/** Forget what was written, and not sent, in a chat that is deleted. */
export function forgetDraft(id) {
  remember(draftKey(id), null);
}
