// The search in chats: their texts, read when first searched, and again for those that have changed.

/** Characters around a found word. */
const BEFORE = 24;
const BEHIND = 60;

export class ChatTexts {
  #store;
  #texts = null;

  constructor(store) {
    this.#store = store;
  }

  /** The texts of this chat, or of all, are no longer as they were read. */
  forget(id) {
    if (id === undefined || !this.#texts) this.#texts = null;
    else this.#texts = this.#reread(id, this.#texts);
  }

  /** The chats that have all `words`, in title or texts: id -> the words around the first one in a text, or "". */
  async find(chats, words) {
    this.#texts ??= this.#read();
    const texts = await this.#texts;
    const found = new Map();
    for (const { id, title } of chats) {
      const snippet = matchChat(title.toLowerCase(), texts.get(id) || [], words);
      if (snippet !== null) found.set(id, snippet);
    }
    return found;
  }

  async #read() {
    const texts = new Map();
    await this.#store.texts((id, text) => {
      if (texts.has(id)) texts.get(id).push(text);
      else texts.set(id, [text]);
    });
    return texts;
  }

  async #reread(id, reading) {
    const texts = await reading;
    const entry = await this.#store.load(id);
    return texts.set(id, entry?.messages.map(({ content }) => content) || []);
  }
}

function matchChat(title, texts, words) {
  let snippet = '';
  for (const word of words) {
    if (title.includes(word)) continue;
    const text = texts.find((piece) => piece.toLowerCase().includes(word));
    if (text === undefined) return null;
    const at = text.toLowerCase().indexOf(word);
    snippet ||= `${at > BEFORE ? '…' : ''}${text.slice(Math.max(0, at - BEFORE), at + BEHIND)}`;
  }
  return snippet;
}
