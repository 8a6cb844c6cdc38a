// What can be done with one chat of the list.

import { dialog } from './dialog.js';
import { field, form, h, textButton } from './dom.js';
import { t } from './words.js';

/** Ask what is to be done with a chat: `{title}`, `{remove}`, `{as}`, or null. */
export function chatMenu(chat) {
  return dialog(t('chat.about'), (close) => [
    titleForm(chat.title, (title) => close({ title })),
    h(
      'div',
      { class: 'chats-menu' },
      textButton(t('chat.asMarkdown'), () => close({ as: 'md' }), '', 'download'),
      textButton(t('chat.asJSON'), () => close({ as: 'json' }), '', 'download'),
      textButton(t('models.delete'), () => close({ remove: true }), 'danger', 'trash'),
    ),
  ]);
}

function titleForm(before, rename) {
  const input = h('input', { value: before, maxlength: 200, required: true });
  const submit = () => {
    const title = input.value.trim();
    if (title) rename(title);
  };
  return form(
    {},
    submit,
    field(t('chat.title'), input),
    h('div', { class: 'buttons' }, h('button', { class: 'button primary' }, t('chat.rename'))),
  );
}
