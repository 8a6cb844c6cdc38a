// The chats that are kept in this browser: in IndexedDB, or in memory where there is none (a private window, a full disk).
//
// A chat's messages are records of their own, and so are its pictures, so that saving a turn writes no more than the turn.
// Each save raises the chat's revision; one that goes on from an older revision than the kept one is refused, since another
// tab has written meanwhile.

const DATABASE = 'rkllama-chats';
const BATCH = 400;
const SLICED = 100;
const announcements = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(DATABASE);

/** Another tab has changed, or deleted, the chat that was to be saved. */
export class ChatChanged extends Error {}

/** A name that no other chat or picture has. `crypto.randomUUID` is not there on http://board. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The store: `kept` is whether it outlives this tab; then list, load, save, remove, texts. */
export async function openChatStore() {
  try {
    return databaseStore(await openDatabase());
  } catch {
    return memoryStore();
  }
}

/** Call `told({id, revision})` when another tab has saved a chat, or deleted it (revision 0). */
export function whenChatsChange(told) {
  announcements?.addEventListener('message', ({ data }) => told(data));
}

function announce(id, revision) {
  announcements?.postMessage({ id, revision });
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => {
      const database = opening.result;
      database.createObjectStore('chats', { keyPath: 'id' });
      database.createObjectStore('messages');
      database.createObjectStore('pictures', { keyPath: 'id' }).createIndex('chat', 'chat');
    };
    opening.onsuccess = () => {
      // A later version of the page, in another tab, may need the database for itself.
      opening.result.onversionchange = () => opening.result.close();
      resolve(opening.result);
    };
    opening.onerror = opening.onblocked = () => reject(opening.error);
  });
}

const result = (asked) =>
  new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });

/** Do `work(stores)` in one transaction: all of it, or nothing. */
function transact(database, mode, work) {
  return new Promise((resolve, reject) => {
    const names = ['chats', 'messages', 'pictures'];
    const transaction = database.transaction(names, mode);
    let value;
    let failure = null;
    transaction.oncomplete = () => resolve(value);
    transaction.onabort = () => reject(failure || transaction.error);
    work(Object.fromEntries(names.map((name) => [name, transaction.objectStore(name)]))).then(
      (given) => {
        value = given;
      },
      (error) => {
        failure = error;
        try {
          transaction.abort();
        } catch {
          // A browser without room has done so itself.
        }
      },
    );
  });
}

const ofChat = (id, from = 0) => IDBKeyRange.bound([id, from], [id, Infinity]);

function databaseStore(database) {
  return {
    kept: true,
    list: async () => byTime(await transact(database, 'readonly', ({ chats }) => result(chats.getAll()))),
    load: (id) => transact(database, 'readonly', (stores) => loadChat(stores, id)),
    save: (chat, messages, from = 0) => saveChats(database, [{ chat, messages, from }]),
    saveAll: (entries) => saveChats(database, entries),
    async remove(id) {
      await transact(database, 'readwrite', async (stores) => {
        stores.chats.delete(id);
        stores.messages.delete(ofChat(id));
        const keys = await result(stores.pictures.index('chat').getAllKeys(id));
        for (const key of keys) stores.pictures.delete(key);
      });
      announce(id, 0);
    },
    texts: (take) => eachText(database, take),
  };
}

async function loadChat({ chats, messages, pictures }, id) {
  const [chat, said, shown] = await Promise.all([
    result(chats.get(id)),
    result(messages.getAll(ofChat(id))),
    result(pictures.index('chat').getAll(id)),
  ]);
  if (!chat) return null;
  const byId = new Map(shown.map((picture) => [picture.id, picture]));
  for (const message of said) {
    if (message.pictures) message.pictures = message.pictures.map((key) => byId.get(key)).filter(Boolean);
  }
  return { chat, messages: said };
}

async function saveChats(database, entries) {
  await transact(database, 'readwrite', async (stores) => {
    const before = await Promise.all(entries.map(({ chat }) => result(stores.chats.get(chat.id))));
    for (const [at, { chat, messages, from = 0 }] of entries.entries()) {
      if ((before[at]?.revision || 0) !== chat.revision) throw new ChatChanged();
      stores.chats.put({ ...chat, revision: chat.revision + 1 });
      if (messages) await putMessages(stores, chat.id, messages, from);
    }
  });
  for (const { chat } of entries) {
    chat.revision += 1;
    announce(chat.id, chat.revision);
  }
}

/** In slices, between which the page can breathe; the transaction is the same one. */
async function putMessages(stores, id, messages, from) {
  const { length } = messages;
  for (let at = from; at < length; at += 1) {
    const { pictures, ...message } = messages[at];
    for (const picture of pictures || []) stores.pictures.put({ ...picture, chat: id });
    const put = stores.messages.put(pictures ? { ...message, pictures: pictures.map((picture) => picture.id) } : message, [id, at]);
    if (at % SLICED === SLICED - 1) await result(put);
  }
  stores.messages.delete(ofChat(id, length));
  // A picture goes with its message.
  const shown = new Set(messages.flatMap(({ pictures = [] }) => pictures.map((picture) => picture.id)));
  for (const key of await result(stores.pictures.index('chat').getAllKeys(id))) if (!shown.has(key)) stores.pictures.delete(key);
}

/** Call `take(chat's id, text)` for every message, in batches between which the page can breathe. */
async function eachText(database, take) {
  let range = null;
  for (;;) {
    const [keys, values] = await transact(database, 'readonly', ({ messages }) =>
      Promise.all([result(messages.getAllKeys(range, BATCH)), result(messages.getAll(range, BATCH))]),
    );
    keys.forEach(([id], at) => take(id, values[at].content));
    if (keys.length < BATCH) return;
    range = IDBKeyRange.lowerBound(keys.at(-1), true);
  }
}

const byTime = (chats) => chats.sort((a, b) => b.updated - a.updated);

function memoryStore() {
  const entries = new Map();
  const put = ({ chat, messages, from = 0 }) => {
    chat.revision += 1;
    const before = entries.get(chat.id)?.messages || [];
    const all = messages ? [...before.slice(0, from), ...messages.slice(from)] : before;
    entries.set(chat.id, structuredClone({ chat, messages: all }));
  };
  return {
    kept: false,
    list: async () => byTime(Array.from(entries.values(), ({ chat }) => ({ ...chat }))),
    load: async (id) => structuredClone(entries.get(id) ?? null),
    save: async (chat, messages, from) => put({ chat, messages, from }),
    saveAll: async (all) => all.forEach(put),
    remove: async (id) => void entries.delete(id),
    texts: async (take) => {
      for (const { chat, messages } of entries.values()) for (const message of messages) take(chat.id, message.content);
    },
  };
}
