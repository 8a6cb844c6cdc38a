// One message of a chat: a question, an answer, what a tool gave.

import { Answer } from './chat-answer.js';
import { Question } from './chat-question.js';
import { ToolResult } from './chat-tools.js';

const MESSAGE_VIEWS = { user: Question, assistant: Answer, tool: ToolResult };

/** A message, drawn: `{node, message}`, an Answer for an answer. `does` has what its buttons do. */
export function messageView(message, does) {
  return new MESSAGE_VIEWS[message.role](message, does);
}

/** About how tall a message will be, so that the scroll bar is about right before it is drawn. */
export function guessHeight({ content, pictures }) {
  const rows = Math.ceil(content.length / 80) + (content.match(/\n/g)?.length || 0) + 1;
  return rows * 24 + 56 + (pictures?.length ? 140 : 0);
}
