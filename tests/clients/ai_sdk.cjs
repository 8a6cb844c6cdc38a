// Uses npm's `ai` as a program would: node ai_sdk.cjs SCENARIO URL MODEL QUESTION.
// Prints what it saw as a line of JSON; NODE_PATH says where the packages lie.
'use strict'

const [scenario, host, name, prompt] = process.argv.slice(2)
const { generateObject, generateText, streamObject, Output, jsonSchema } = require('ai')
const { createOpenAICompatible } = require('@ai-sdk/openai-compatible')

const provider = createOpenAICompatible({ name: 'rkllama', baseURL: `${host}/v1`, supportsStructuredOutputs: true })
const model = provider(name)
const schema = jsonSchema({
  type: 'object',
  properties: {
    title: { type: 'string' },
    servings: { type: 'integer' },
    steps: { type: 'array', items: { type: 'string' } },
  },
  required: ['title', 'servings', 'steps'],
  additionalProperties: false,
})
const asked = { model, prompt, maxRetries: 0 }

async function object() {
  return (await generateObject({ ...asked, schema })).object
}

async function output() {
  return (await generateText({ ...asked, output: Output.object({ schema }) })).output
}

async function streamed() {
  const result = streamObject({ ...asked, schema })
  const partial = []
  for await (const part of result.partialObjectStream) partial.push(part)
  return { partial, object: await result.object }
}

async function failure() {
  try {
    return { object: await object() }
  } catch (error) {
    return { name: error.name, message: error.message, text: error.text ?? null }
  }
}

const scenarios = { object, output, streamed, failure }
scenarios[scenario]().then((seen) => console.log(JSON.stringify(seen)))
