// Questions and notices over the page.

import { field, h, iconButton, textButton } from './dom.js';
import { addWords, t } from './words.js';

addWords({
  'key.title': ['API key', 'Clé d’API'],
  'key.wanted': ['This server asks for an API key. It is kept in this browser only.', 'Ce serveur demande une clé d’API. Elle reste dans ce navigateur.'],
  'key.wrong': ['The server does not know this key.', 'Le serveur ne connaît pas cette clé.'],
  'key.label': ['Key', 'Clé'],
  'key.use': ['Use this key', 'Utiliser cette clé'],
});

/** Show a modal dialog; resolves to what `close(value)` is called with, null where it is dismissed.
 * `build(close)` returns the content below the title. */
export function dialog(title, build, { className = '' } = {}) {
  return new Promise((resolve) => {
    let result = null;
    const close = (value) => {
      result = value;
      element.close();
    };
    const element = h(
      'dialog',
      {
        class: `dialog ${className}`.trim(),
        'aria-labelledby': 'dialog-title',
        on: {
          close: () => {
            element.remove();
            resolve(result);
          },
          click: (event) => {
            if (event.target === element) element.close();
          },
        },
      },
      h(
        'div',
        { class: 'dialog-body' },
        h('header', { class: 'dialog-head' }, h('h2', { id: 'dialog-title' }, title), iconButton('close', t('close'), () => element.close())),
        build(close),
      ),
    );
    document.body.append(element);
    element.showModal();
  });
}

/** Ask a question that `action` (the button's text) agrees to. */
export async function confirmed(title, text, action, { danger = false } = {}) {
  const answer = await dialog(title, (close) => [
    h('p', {}, text),
    h(
      'div',
      { class: 'buttons' },
      textButton(t('cancel'), () => close(false)),
      h('button', { type: 'button', class: danger ? 'button danger' : 'button primary', autofocus: true, on: { click: () => close(true) } }, action),
    ),
  ]);
  return answer === true;
}

/** Ask for an API key; null where none is given. */
export function keyDialog(wrong) {
  return dialog(t('key.title'), (close) => {
    const input = h('input', { type: 'password', name: 'key', autocomplete: 'current-password', required: true, autofocus: true, 'aria-describedby': 'key-about' });
    return h(
      'form',
      {
        method: 'dialog',
        on: {
          submit: (event) => {
            event.preventDefault();
            const key = input.value.trim();
            if (key) close(key);
          },
        },
      },
      h('p', { id: 'key-about' }, wrong ? t('key.wrong') : t('key.wanted')),
      field(t('key.label'), input),
      h('div', { class: 'buttons' }, h('button', { class: 'button primary' }, t('key.use'))),
    );
  });
}

/** Say something for a few seconds at the page's foot. An error stays until it is closed. */
export function notify(text, { error = false, action = null } = {}) {
  const same = [...document.querySelectorAll('.notice > span')].find((span) => span.textContent === text);
  same?.parentNode.remove();
  const notice = h('div', { class: error ? 'notice error' : 'notice' }, h('span', {}, text));
  const remove = () => notice.remove();
  if (action) {
    const act = () => {
      remove();
      action.run();
    };
    notice.append(textButton(action.text, act, 'small'));
  }
  notice.append(iconButton('close', t('close'), remove));
  document.getElementById('notices').append(notice);
  if (!error) setTimeout(remove, action ? 8000 : 4000);
}

/** An error with its hint and, where `again` is given, a way to try again. */
export function errorBox(error, again = null) {
  return h(
    'div',
    { class: 'error-box', role: 'alert' },
    h('p', { class: 'error-text' }, error.message),
    error.hint && h('p', { class: 'error-hint' }, error.hint),
    again && textButton(t('retry'), again, 'small'),
  );
}
