// Uses npm's `ollama` as a program would: node js.cjs SCENARIO URL MODEL [QUESTION].
// Prints what it saw as a line of JSON; NODE_PATH says where the package lies.
'use strict'

const [scenario, host, model, question] = process.argv.slice(2)
const { Ollama } = require(scenario === 'browser' ? 'ollama/browser' : 'ollama')
const client = new Ollama({ host })

const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Tell the weather.',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}

const COUNTRY = {
  type: 'object',
  properties: { name: { type: 'string' }, capital: { type: 'string' } },
  required: ['name', 'capital'],
}

function ask(more) {
  return client.chat({ model, messages: [{ role: 'user', content: question }], ...more })
}

async function all(pending) {
  const parts = []
  for await (const part of await pending) parts.push(part)
  return parts
}

async function failure(pending) {
  try {
    await all(pending)
  } catch (error) {
    return { name: error.name, message: error.message, status: error.status_code ?? null }
  }
  return null
}

async function toolLoop() {
  const messages = [{ role: 'user', content: question }]
  const first = await client.chat({ model, messages, tools: [WEATHER] })
  const [call] = first.message.tool_calls
  messages.push(first.message)
  messages.push({ role: 'tool', tool_name: call.function.name, content: 'mild @vnpu{reply=It is mild.}' })
  const last = await client.chat({ model, messages, tools: [WEATHER] })
  return { called: call.function, answer: last.message.content }
}

async function aborted() {
  const parts = await ask({ stream: true })
  let seen = 0
  const error = await failure((async function* () {
    for await (const part of parts) {
      seen += 1
      client.abort()
      yield part
    }
  })())
  const after = await client.generate({ model, prompt: 'free again' })
  return { seen, error, after: after.response }
}

async function models() {
  await client.copy({ source: model, destination: 'mine' })
  const from = { model: 'pirate', from: model, system: 'You are a pirate.', parameters: { num_predict: 3 } }
  const steps = await all(client.create({ ...from, stream: true }))
  const shown = await client.show({ model: 'pirate' })
  await client.delete({ model: 'mine' })
  const { models } = await client.list()
  return {
    steps: steps.map((step) => step.status),
    system: shown.system,
    parameters: shown.parameters,
    names: models.map((listed) => listed.name).sort(),
  }
}

async function status() {
  const before = await client.ps()
  await client.generate({ model, prompt: '' })
  const after = await client.ps()
  return {
    version: (await client.version()).version,
    before: before.models.length,
    loaded: after.models.map((loaded) => ({ name: loaded.name, expires: loaded.expires_at })),
    capabilities: (await client.show({ model })).capabilities,
  }
}

async function errors() {
  return {
    unknown: await failure(client.show({ model: 'nothing-here' }).then(() => [])),
    pull: await failure(client.pull({ model: 'not a model', stream: true })),
    midway: await failure(ask({ stream: true })),
  }
}

const SCENARIOS = {
  aborted,
  browser: () => ask({}),
  chat: () => ask({ think: true }),
  embed: () => client.embed({ model, input: ['the cat', 'a lorry'] }),
  errors,
  format: () => ask({ format: COUNTRY }),
  generated: () => all(client.generate({ model, prompt: question, stream: true })),
  models,
  picture: () =>
    client.chat({ model, messages: [{ role: 'user', content: 'What is it?', images: [Buffer.from(question, 'base64')] }] }),
  status,
  streamed: () => all(ask({ stream: true })),
  toolLoop,
}

SCENARIOS[scenario]().then((seen) => console.log(JSON.stringify(seen)))
