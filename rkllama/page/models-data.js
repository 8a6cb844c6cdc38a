// What the server has: models on its disk, in memory, and downloads that are not complete. Whoever shows them
// listens; it is asked when something has changed, never again and again.

import { getJSON, request } from './api.js';

const MODEL_STAYS = Date.UTC(2300, 0);
const SKEW_SEEN = 3000; // the server tells its time in whole seconds
const LONGEST_TIMER = 2 ** 31 - 1;

/** `models` is null until the server has told; `acting` says what is being done with a model, by name. */
export const modelStore = { models: null, incomplete: [], soc: null, error: null, acting: new Map() };

const modelListeners = new Set();
const shownDetails = new Map();
let expiryTimer = 0;
let clockSkew = 0; // milliseconds by which the server's clock is ahead of the browser's

/** Have `listener()` called whenever the store has changed; returns what ends that. */
export function onModels(listener) {
  modelListeners.add(listener);
  return () => {
    modelListeners.delete(listener);
    if (!modelListeners.size) clearTimeout(expiryTimer);
  };
}

function tellModels() {
  for (const listener of modelListeners) listener();
}

/** A name as people say it. */
export function untaggedName(name) {
  return name.replace(/:latest$/, '');
}

/** The time in milliseconds, by this browser's clock, at which a model in memory goes; null where it stays. */
export function expiryOf(loaded) {
  const at = Date.parse(loaded.expires_at);
  return Number.isNaN(at) || at > MODEL_STAYS ? null : at - clockSkew;
}

/** The models in memory. Many boards have no clock that runs without power, so theirs is compared with ours. */
export async function modelsInMemory(options) {
  const response = await request('api/ps', options);
  const skew = Date.parse(response.headers.get('Date')) - Date.now();
  clockSkew = Math.abs(skew) > SKEW_SEEN ? skew : 0;
  return (await response.json()).models;
}

/** Ask the server for all of it. What goes wrong stands in the store. */
export async function refreshModels() {
  try {
    const [tags, inMemory] = await Promise.all([getJSON('api/tags'), modelsInMemory()]);
    modelStore.models = joinedModels(tags.models, inMemory);
    modelStore.incomplete = tags.incomplete || [];
    modelStore.error = null;
  } catch (error) {
    modelStore.error = error;
  }
  watchExpiry();
  tellModels();
}

/** Models with what is known of each in memory (`loaded`), and the aliases that lead to it. */
function joinedModels(listed, inMemory) {
  const loaded = new Map(inMemory.map((model) => [model.details.path, model]));
  return listed
    .filter((model) => !model.alias_of)
    .map((model) => ({
      ...model,
      loaded: loaded.get(model.details.path) || null,
      aliases: listed.filter((other) => other.alias_of === untaggedName(model.name)).map((other) => untaggedName(other.name)),
    }))
    .sort((one, other) => one.name.localeCompare(other.name));
}

/** A model leaves memory at a time that is known, so that is when to ask again. */
function watchExpiry() {
  clearTimeout(expiryTimer);
  const times = (modelStore.models || []).filter((model) => model.loaded).map((model) => expiryOf(model.loaded));
  const next = Math.min(...times.filter((at) => at !== null));
  if (!modelListeners.size || next === Infinity) return;
  // A model that is answering stays beyond its time; it is looked at again a little later.
  const delay = Math.max(next - Date.now() + 1000, 5000);
  if (delay > LONGEST_TIMER) return;
  expiryTimer = setTimeout(() => {
    if (document.visibilityState === 'visible') refreshModels();
  }, delay);
}

/** All that `/api/show` says of a model; asked once for each state of its file. */
export function modelDetails(model) {
  const key = `${model.name} ${model.modified_at}`;
  if (!shownDetails.has(key)) {
    const asked = getJSON('api/show', { json: { model: model.name } });
    shownDetails.set(key, asked);
    asked.catch(() => shownDetails.delete(key));
  }
  return shownDetails.get(key);
}

/** The SoC's name; null on a machine without an NPU. Asked once. */
export async function boardSoc() {
  modelStore.soc ??= getJSON('api/rkllama/board').then((board) => board.soc || null, () => null);
  return modelStore.soc;
}

async function actOnModel(name, what, work) {
  modelStore.acting.set(name, what);
  tellModels();
  try {
    await work();
  } finally {
    modelStore.acting.delete(name);
    await refreshModels();
  }
}

export function loadModel(name) {
  return actOnModel(name, 'loading', () => request('api/generate', { json: { model: name } }));
}

export function unloadModel(name) {
  return actOnModel(name, 'unloading', () => request('api/generate', { json: { model: name, keep_alive: 0 } }));
}

export function deleteModel(name) {
  return actOnModel(name, 'deleting', () => request('api/delete', { method: 'DELETE', json: { model: name } }));
}
