// Files of chats: saved from the store, and read into it.

import { chatToMarkdown, chatsFromFile, chatsToJSON } from './chats-export.js';
import { notify } from './dialog.js';
import { t } from './words.js';

/** Save one chat as a file to read ("md"), or to import elsewhere ("json"). */
export async function saveChat(store, { id }, as) {
  const entry = await store.load(id);
  if (!entry) return;
  const { title } = entry.chat;
  if (as === 'md') saveFile(title, 'md', 'text/markdown', chatToMarkdown(entry));
  else saveJSON(title, [entry]);
}

/** Save these chats as one file. */
export async function saveAllChats(store, chats) {
  const entries = [];
  for (const { id } of chats) entries.push(await store.load(id));
  saveJSON('rkllama chats', entries.filter(Boolean));
}

/** Take the chats of a file into the store, and say how that went; whether they are there. */
export async function importChats(store, file) {
  try {
    const entries = await chatsFromFile(file);
    await store.saveAll(entries);
    notify(t('chat.imported', { count: entries.length }));
    return true;
  } catch (error) {
    notify(t('chat.notImported', { name: file.name, reason: error.message }), { error: true });
    return false;
  }
}

function saveJSON(title, entries) {
  saveFile(title, 'json', 'application/json', chatsToJSON(entries));
}

/** Hand a text to the browser as a file to keep. */
function saveFile(title, extension, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = address;
  link.download = fileName(title, extension);
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A file's name from a chat's title. */
function fileName(title, extension) {
  const plain = title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60);
  return `${plain || 'chat'}.${extension}`;
}
