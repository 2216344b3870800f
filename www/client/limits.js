/**
 * What the server accepts of one client, as its welcome lists it, so that a request that is too
 * large is rejected here with `too_large` and never sent: the server would close the connection for
 * a long message, and all rooms would wait.
 */

import { SwitchboardError } from './words.js';

/** Fields of a request that have a limit of their own. */
const FIELDS = ['room', 'user', 'key', 'token', 'info'];

const encoder = new TextEncoder();

/** @param {string} text @returns {number} */
export const bytesOf = (text) => encoder.encode(text).length;

/** @param {string} text @param {number} most @returns {number} Bytes; 0 if at most `most`. */
function bytesOver(text, most) {
  // A UTF-16 unit has at most three bytes.
  if (text.length * 3 <= most) return 0;
  const size = bytesOf(text);
  return size > most ? size : 0;
}

/**
 * Why the server would not accept a request; null if it would, or if it announced no limits.
 * @param {import('./words.js').Limits} limits
 * @param {object} frame The request, without its data.
 * @param {string} text The whole message.
 * @returns {?SwitchboardError}
 */
export function excess(limits, frame, text) {
  for (const field of FIELDS) {
    const value = frame[field];
    if (value == null || !limits[field]) continue;
    // A personal room is `@` and the user's name, of which each byte may be `%XX`.
    const isPersonal = field === 'room' && value.startsWith('@') && limits.user;
    const most = isPersonal ? 1 + 3 * limits.user : limits[field];
    const size = bytesOver(typeof value === 'string' ? value : JSON.stringify(value), most);
    if (size) return tooLarge(`the ${field}`, size, most);
  }
  const size = limits.message ? bytesOver(text, limits.message) : 0;
  return size ? tooLarge('the message', size, limits.message) : null;
}

function tooLarge(what, size, most) {
  const reason = `${what} has ${size} bytes; the server accepts ${most}`;
  return new SwitchboardError('too_large', reason);
}

/** A request as the text of one message; `json` is the encoded data of a publish. */
export function encode({ type, ...rest }, id, json) {
  const text = JSON.stringify({ type, id, ...rest });
  return json === undefined ? text : `${text.slice(0, -1)},"data":${json}}`;
}
