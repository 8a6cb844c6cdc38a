// The server's documented API. Addresses are relative to the page's own, so that it works behind a prefix.

import { remember, remembered, t } from './words.js';

const KEY = 'rkllama-key';
const BASE = new URL(location.pathname.endsWith('/') ? '.' : `${location.pathname.split('/').pop()}/`, location.href);

let askForKey = async () => null;

/** Have `ask(wrong)` called when the server wants an API key: it resolves to one, or to null. `wrong` says that the one
 * which was kept does not fit. */
export function whenKeyIsWanted(ask) {
  let asking = null;
  askForKey = (wrong) => {
    asking ??= ask(wrong).finally(() => {
      asking = null;
    });
    return asking;
  };
}

/** What the server, or the way to it, says went wrong. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(text, { status = 0, hint = '', code = '', retryAfter = null } = {}) {
    super(text);
    Object.assign(this, { status, hint, code, retryAfter });
  }
}

/** The response to a request, whose status is a good one. Raises ApiError, or AbortError through `signal`.
 * `options`: method, json (a body), headers, signal. */
export async function request(path, options = {}) {
  for (;;) {
    const key = remembered(KEY);
    const response = await send(path, options, key);
    if (response.ok) return response;
    if (response.status !== 401) throw await problem(response);
    // Somebody else may have asked for it, and kept it, while this request was on its way.
    if (remembered(KEY) === key) {
      const given = await askForKey(key !== null);
      if (given === null) throw new ApiError(t('key.wanted'), { status: 401 });
      remember(KEY, given);
    }
  }
}

async function send(path, { method, json, headers = {}, signal }, key) {
  const sent = { ...headers };
  // "Authorization" is left to a proxy's own password. A header holds bytes, so a key is sent as those of its UTF-8.
  if (key !== null) sent['X-API-Key'] = String.fromCharCode(...new TextEncoder().encode(key));
  if (json !== undefined) sent['Content-Type'] = 'application/json';
  try {
    return await fetch(new URL(path, BASE), {
      method: method || (json === undefined ? 'GET' : 'POST'),
      headers: sent,
      body: json === undefined ? undefined : JSON.stringify(json),
      signal,
      cache: 'no-store',
      credentials: 'same-origin',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(error.message, { code: 'unreachable' });
  }
}

async function problem(response) {
  const { status, statusText, headers } = response;
  const body = await response.json().catch(() => ({})); // a proxy's page, or nothing
  return toldError({ error: `${status} ${statusText}`, ...body }, status, Number(headers.get('Retry-After')) || null);
}

/** The error that the server tells in `body`. Ollama's clients want all in "error"; "message" is the same without the hint. */
export function toldError({ error, message, hint, code }, status = 500, retryAfter = null) {
  return new ApiError(String(message || error), { status, hint: String(hint || ''), code: String(code || ''), retryAfter });
}

/** The JSON that a request gets. */
export async function getJSON(path, options) {
  return (await request(path, options)).json();
}

/** Yield the objects of a stream of JSON lines. A stream that breaks off raises ApiError "unreachable"; a line
 * with "error" is yielded like the others. */
export async function* lines(path, options) {
  const response = await request(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const pieces = value.split('\n');
      rest.push(pieces[0]);
      if (pieces.length === 1) continue;
      yield JSON.parse(rest.join(''));
      for (const piece of pieces.slice(1, -1)) if (piece) yield JSON.parse(piece);
      rest = [pieces.at(-1)];
    }
    const last = rest.join('').trim();
    if (last) yield JSON.parse(last);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(error.message, { code: 'unreachable' });
  } finally {
    reader.cancel().catch(() => {});
  }
}
