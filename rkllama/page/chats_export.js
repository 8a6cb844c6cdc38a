// Chats as files, out and in. What is read is checked wholly before anything of it is kept.

import { ANSWER_FIGURES } from './chat_message.js';
import { OPTION_NAMES } from './chat_settings.js';
import { newId } from './chats_store.js';
import { bytes, t } from './words.js';

const FORMAT = 'rkllama-chats';
const VERSION = 1;
const LARGEST_IMPORT = 128e6;
/** Milliseconds beyond which there is no date. */
const LAST_DAY = 8.64e15;
const PICTURE = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+=*$/;

/** Hand a text to the browser as a file to keep. */
export function saveFile(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A file's name from a chat's title. */
export function fileName(title, extension) {
  const plain = title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60);
  return `${plain || 'chat'}.${extension}`;
}

/** The JSON of chats, each `{chat, messages}`, as `chatsFromJSON` reads it. */
export function chatsToJSON(entries) {
  const chats = entries.map(({ chat, messages }) => ({
    title: chat.title,
    created: chat.created,
    updated: chat.updated,
    model: chat.model,
    settings: chat.settings,
    messages: messages.map(({ pictures, ...rest }) => (pictures?.length ? { ...rest, images: pictures.map(({ url }) => url) } : rest)),
  }));
  return `${JSON.stringify({ format: FORMAT, version: VERSION, chats }, null, 1)}\n`;
}

/** A chat to read, or to put into a document. */
export function chatToMarkdown({ chat, messages }) {
  const parts = [`# ${chat.title}`];
  if (chat.settings.system) parts.push(`**${t('chat.system')}**`, quoted(chat.settings.system));
  for (const message of messages) parts.push(`## ${speaker(message)}`, ...messageToMarkdown(message));
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

function speaker({ role, model, toolName }) {
  if (role === 'user') return t('chat.you');
  return role === 'tool' ? t('chat.tool', { name: toolName }) : model || t('chat.assistant');
}

function messageToMarkdown({ content, thinking, calls = [], pictures = [], end }) {
  return [
    ...pictures.map(({ url }, at) => `![${t('chat.picture', { number: at + 1 })}](${url})`),
    thinking ? quoted(thinking) : '',
    content,
    ...calls.map(({ name, arguments: given }) => `\`${name}\`\n\n${fenced(JSON.stringify(given, null, 2))}`),
    ['stopped', 'lost', 'length'].includes(end) ? `*${t('chat.' + end)}*` : '',
  ];
}

const quoted = (text) => text.replace(/^/gm, '> ');
const fenced = (text) => `\`\`\`json\n${text}\n\`\`\``;

/** The chats in a file, new ones: `{chat, messages}` each. Raises Error, whose message says what is wrong with it. */
export async function chatsFromFile(file) {
  if (file.size > LARGEST_IMPORT) throw new Error(t('chat.tooBig', { size: bytes(LARGEST_IMPORT) }));
  let data;
  try {
    data = JSON.parse(await file.text());
  } catch {
    throw new Error(t('chat.noJSON'));
  }
  if (data?.format !== FORMAT || !Array.isArray(data.chats)) throw new Error(t('chat.notOurs'));
  if (!(data.version <= VERSION)) throw new Error(t('chat.newer'));
  return data.chats.map((chat, at) => readChat(chat, `chats[${at}]`));
}

function check(holds, where) {
  if (!holds) throw new Error(t('chat.badPart', { where }));
}

const isText = (value, most = 1e7) => typeof value === 'string' && value.length <= most;
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isOptional = (value, test) => value === undefined || value === null || test(value);

function readChat(given, where) {
  check(isObject(given), where);
  check(isText(given.title, 1000), `${where}.title`);
  check([given.created, given.updated].every((at) => Number.isFinite(at) && Math.abs(at) <= LAST_DAY), `${where}.created`);
  check(isOptional(given.model, isText), `${where}.model`);
  check(Array.isArray(given.messages), `${where}.messages`);
  const messages = given.messages.map((message, at) => readMessage(message, `${where}.messages[${at}]`));
  const { title, created, updated, model = '' } = given;
  const settings = readSettings(given.settings ?? {}, `${where}.settings`);
  return { chat: { id: newId(), title, created, updated, model, settings, revision: 0 }, messages };
}

function readSettings(given, where) {
  check(isObject(given), where);
  const settings = { options: {} };
  for (const name of ['system', 'tools']) {
    check(isOptional(given[name], isText), `${where}.${name}`);
    if (given[name]) settings[name] = given[name];
  }
  check(isOptional(given.options, isObject), `${where}.options`);
  for (const name of OPTION_NAMES) {
    const value = given.options?.[name];
    check(isOptional(value, Number.isFinite), `${where}.options.${name}`);
    if (Number.isFinite(value)) settings.options[name] = value;
  }
  if (typeof given.think === 'boolean') settings.think = given.think;
  return settings;
}

// Only what is known here is taken over, each with its type: whatever else the file has stays out of the chat.

function readMessage(given, where) {
  check(isObject(given) && ['user', 'assistant', 'tool'].includes(given.role), where);
  check(isText(given.content), `${where}.content`);
  const message = { role: given.role, content: given.content, end: 'stop' };
  const take = (names, test, from = given, to = message) => {
    for (const name of names) {
      check(isOptional(from[name], test), `${where}.${name}`);
      if (from[name] !== undefined && from[name] !== null) to[name] = from[name];
    }
  };
  take(['thinking', 'model', 'end', 'toolName', 'callId'], isText);
  take(['at', 'thought', 'dropped'], Number.isFinite);
  take(['repeats'], (value) => typeof value === 'boolean');
  take(Object.keys(ANSWER_FIGURES), Number.isFinite, given.figures ?? {}, (message.figures = {}));
  if (given.error) take(['message', 'hint'], isText, given.error, (message.error = {}));
  if (given.images !== undefined) {
    check(Array.isArray(given.images) && given.images.every((url) => isText(url) && PICTURE.test(url)), `${where}.images`);
    message.pictures = given.images.map((url) => ({ id: newId(), url }));
  }
  if (given.calls !== undefined) message.calls = readCalls(given.calls, `${where}.calls`);
  return message;
}

function readCalls(given, where) {
  check(Array.isArray(given), where);
  return given.map((call) => {
    check(isObject(call) && isText(call.name, 1000) && isObject(call.arguments) && isOptional(call.id, isText), where);
    return { id: call.id ?? '', name: call.name, arguments: call.arguments };
  });
}
