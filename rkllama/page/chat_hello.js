// What stands in a chat that is still empty.

import { errorBox } from './dialog.js';
import { h, textButton } from './dom.js';
import { t } from './words.js';

const ABOUT_RKLLAMA = ['chat.g1', 'chat.g2', 'chat.g3', 'chat.g4'];
const ABOUT_ANYTHING = ['chat.e1', 'chat.e2', 'chat.e3', 'chat.e4'];

/** A greeting with questions to begin with; without a model, how to get one. `error` is why none could be listed. */
export function chatHello(model, error, does) {
  if (error) return h('div', { class: 'chat-hello' }, errorBox(error, does.refresh));
  if (model.none && !model.guide) return noModels(does);
  if (!model.talks) return h('div', { class: 'chat-hello' }, h('p', {}, t('chat.noTalk')));
  const questions = model.guide ? ABOUT_RKLLAMA : ABOUT_ANYTHING;
  return h(
    'div',
    { class: 'chat-hello' },
    h('h1', {}, t('chat.hello')),
    h(
      'div',
      { class: 'chat-examples' },
      questions.map((key) => h('button', { type: 'button', class: 'chat-example', on: { click: () => does.ask(t(key)) } }, t(key))),
    ),
  );
}

function noModels(does) {
  return h(
    'div',
    { class: 'chat-hello' },
    h('h1', {}, t('chat.noModels')),
    h('p', { class: 'soft' }, t('chat.guideIs')),
    h(
      'div',
      { class: 'chat-choices' },
      h('a', { class: 'button primary', href: '#models' }, t('search.title')),
      textButton(t('models.guide'), does.useGuide),
    ),
  );
}
