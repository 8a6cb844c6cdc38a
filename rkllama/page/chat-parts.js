// What questions, answers and the composer share.

import { copyText } from './clipboard.js';
import { notify } from './dialog.js';
import { fill, h, icon, iconButton } from './dom.js';
import { t } from './words.js';

/** The element of a message of this role; `label` says whose it is. */
export function messageNode(role, label, ...children) {
  return h('article', { class: `chat-message chat-${role}`, 'aria-label': label }, ...children);
}

/** The pictures of a message; `remove(picture)` puts a button on each. */
export function pictureRow(pictures, remove = null) {
  return h('div', { class: 'chat-pictures' }, pictures.map((picture, at) => pictureThumb(picture, at + 1, remove)));
}

function pictureThumb(picture, number, remove) {
  return h(
    'figure',
    { class: 'chat-thumb' },
    h('img', { src: picture.url, alt: t('chat.picture', { number }), decoding: 'async' }),
    remove && iconButton('close', t('chat.removePicture', { number }), () => remove(picture), { class: 'small' }),
  );
}

/** Whether a key sends what is written: Enter does, except with Shift, where a word is being composed (Japanese, Chinese),
 * and on devices that are touched, whose keyboards have no Shift+Enter. */
export function sendsMessage(event) {
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key !== 'Enter' || event.shiftKey || composing) return false;
  return event.ctrlKey || event.metaKey || !isTouched();
}

/** Whether the device is touched, and has a keyboard on its screen. */
export function isTouched() {
  return matchMedia('(pointer: coarse)').matches;
}

/** Copies a message as it was written, an answer's Markdown too. */
export function copyAction({ content }) {
  const button = iconButton('copy', t('copy.do'), async () => {
    if (!(await copyText(content))) {
      notify(t('copy.failed'), { error: true });
      return;
    }
    show('check', 'copy.done');
    setTimeout(() => show('copy', 'copy.do'), 2000);
  });
  const show = (sign, words) => {
    fill(button, icon(sign));
    button.setAttribute('aria-label', t(words));
  };
  return button;
}
