// One answer of /api/chat, from the request to its last line.

import { ApiError, lines, request, toldError } from './api.js';
import { t } from './words.js';

/** Pictures that the server takes in one request; those of older messages stay at home. */
const MOST_SENT = 32;
const MOST_TRIES = 8;
/** Seconds after which a server that stays away is no longer waited for. */
const PATIENCE = 600;

/** The body of the request that has `messages` answered as the chat's settings say. Raises SyntaxError for tools that are
 * not JSON. `thinks` is whether the model can. */
export function chatBody({ model, settings }, messages, thinks) {
  const body = { model, messages: sentMessages(messages), stream: true };
  if (settings.system) body.messages.unshift({ role: 'system', content: settings.system });
  if (Object.keys(settings.options || {}).length) body.options = settings.options;
  if (thinks && settings.think !== undefined) body.think = settings.think;
  if (settings.tools) body.tools = JSON.parse(settings.tools);
  return body;
}

function sentMessages(messages) {
  let room = MOST_SENT;
  const sent = [];
  for (const message of messages.toReversed?.() ?? [...messages].reverse()) {
    const { role, content, thinking, calls, pictures = [], toolName, callId } = message;
    if (role === 'assistant' && !content && !calls?.length) continue; // one that failed, or was stopped before it began
    const entry = { role, content };
    if (thinking) entry.thinking = thinking;
    if (calls?.length) entry.tool_calls = calls.map(({ id, name, arguments: given }) => ({ id, function: { name, arguments: given } }));
    if (role === 'tool') Object.assign(entry, { tool_name: toolName, tool_call_id: callId });
    const shown = pictures.slice(Math.max(0, pictures.length - room));
    room -= shown.length;
    if (shown.length) entry.images = shown.map(({ url }) => url.slice(url.indexOf(',') + 1));
    sent.push(entry);
  }
  return sent.reverse();
}

/** Have `answer` (a message) written by the server. `ask()` gives the request's body, in which the answer is the last message
 * if something of it is there: the server then goes on with it. `on` has what is told on the way: text(piece),
 * thought(piece), call(call), wait(text). Waits and asks again where the server says when, or is away; thoughts without a
 * word of the answer cannot be gone on with. Raises ApiError, or AbortError through `signal`. */
export async function streamAnswer(ask, answer, signal, on) {
  for (let tries = 1; ; tries += 1) {
    try {
      await onceAnswered(ask(), answer, signal, on);
      return;
    } catch (error) {
      const closed = answer.calls || (answer.thinking && !answer.content);
      if (error.name === 'AbortError' || closed || tries >= MOST_TRIES) throw error;
      if (error.retryAfter && [429, 503].includes(error.status)) await countDown(error, signal, on);
      else if (isAway(error)) await untilServerIsBack(error, signal, on);
      else throw error;
    }
  }
}

/** Nobody answered, or a proxy did that has no server behind it at this moment. */
function isAway({ code, status }) {
  return code === 'unreachable' || (code === '' && [502, 503, 504].includes(status));
}

async function onceAnswered(body, answer, signal, on) {
  const start = performance.now();
  const goesOn = Boolean(answer.content);
  const options = { json: body, signal, headers: { 'X-RKLLama-Watch-Queue': '1' } };
  let thinkingSince = null;
  for await (const line of lines('api/chat', options)) {
    if (line.error !== undefined && !line.done) throw toldError(line);
    if (line.queue_position > 0) on.wait(t('chat.queue', { count: line.queue_position }));
    else if (line.queue_position === 0) on.wait(t('chat.waiting'));
    const { thinking, content, tool_calls: calls } = line.message || {};
    if (thinking || content || calls) answer.figures.first ??= (performance.now() - start) / 1000;
    if (thinking) {
      thinkingSince ??= performance.now();
      answer.thinking = (answer.thinking || '') + thinking;
      on.thought(thinking);
    }
    if (thinkingSince !== null && (content || calls || line.done)) {
      answer.thought = (performance.now() - thinkingSince) / 1000;
      thinkingSince = null;
    }
    if (content) {
      answer.content += content;
      on.text(content);
    }
    for (const { id = '', function: called } of calls || []) {
      const call = { id, name: called.name, arguments: called.arguments };
      (answer.calls ??= []).push(call);
      on.call(call);
    }
    if (line.done) return lastLine(line, answer, goesOn);
  }
  // A stream has a last line: without it, something on the way has closed the connection.
  throw new ApiError(t('chat.lost'), { code: 'unreachable' });
}

function lastLine(line, answer, goesOn) {
  answer.end = line.done_reason || 'stop';
  if (line.repeats) answer.repeats = true;
  if (line.dropped_messages) answer.dropped = line.dropped_messages;
  if (line.error) answer.error = { message: String(line.error), hint: '' };
  const { figures } = answer;
  const seconds = (name) => (line[name] ?? 0) / 1e9;
  // Of an answer that was cut off nobody told how many tokens it had.
  if (line.eval_count && !goesOn) figures.tokens = line.eval_count;
  else if (figures.tokens) figures.tokens += line.eval_count || 0;
  if (line.eval_count && line.eval_duration) figures.speed = line.eval_count / seconds('eval_duration');
  if (line.cached_count && line.prompt_eval_count) figures.cached = line.cached_count / line.prompt_eval_count;
  if (seconds('load_duration') > 0.2) figures.loaded = seconds('load_duration');
  if (seconds('queue_duration') > 0.2) figures.queued = seconds('queue_duration');
}

async function countDown(error, signal, on) {
  for (let left = Math.min(error.retryAfter, 120); left > 0; left -= 1) {
    on.wait(t('chat.retryIn', { time: `${left}\u202fs` }));
    await pause(1, signal);
  }
  on.wait(t('chat.waiting'));
}

/** Wait until /health answers: there is no event for a server's return, so it is asked ever less often. */
async function untilServerIsBack(error, signal, on) {
  on.wait(`${t('chat.stayedAway')} ${t('chat.unreachable')}`);
  const patience = performance.now() + PATIENCE * 1000;
  for (let wait = 1; performance.now() < patience; wait = Math.min(15, wait * 1.6)) {
    await pause(wait, signal);
    try {
      await request('health', { signal });
      on.wait(t('chat.waiting'));
      return;
    } catch (failure) {
      if (failure.name === 'AbortError') throw failure;
    }
  }
  throw error;
}

/** Wait so many seconds, or until the device has a network again. */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const end = (settle) => () => {
      clearTimeout(timer);
      window.removeEventListener('online', done);
      signal.removeEventListener('abort', stop);
      settle(signal.reason);
    };
    const done = end(resolve);
    const stop = end(reject);
    const timer = setTimeout(done, seconds * 1000);
    window.addEventListener('online', done);
    signal.addEventListener('abort', stop);
  });
}
