/**
 * What all files of the client module share: its types, its error, and small tools that isolate a
 * caller's handlers, create keys and measure time.
 */

/**
 * @typedef {{epoch: string, offset: number}} Position A position in a room's log; the next message
 * has `offset + 1`.
 * @typedef {{room: string, epoch: ?string, offset: ?number, user: ?string, time: number,
 * data: any}} Message `offset` is null for an ephemeral message; `user` is null for an anonymous
 * one; `time` is in ms since 1970.
 * @typedef {'connecting'|'open'|'waiting'|'closed'} BoardState
 * @typedef {{state: BoardState, node: ?string, session: ?string, retryIn: ?number, code: ?number,
 * reason: ?string, waitsFor: ?'token'}} Status `retryIn` (ms) belongs to 'waiting', `code` and
 * `reason` to 'waiting' and 'closed'. `waitsFor` is 'token' while the token function gives none
 * that the server accepts; it is called again.
 * @typedef {'waiting'|'joining'|'joined'|'refused'|'left'} RoomState
 * @typedef {{user: string, connections: number, info: ?object}} Member A user with its connections
 * over all nodes. A user that joined after the list was read counts with one connection until it
 * is read again.
 * @typedef {object} RoomHandlers
 * @property {(message: Message) => void} [onMessage]
 * @property {(position: Position) => void} [onGap] Messages before this position can be missing.
 * @property {(change: {state: RoomState, recovered?: boolean, top?: number,
 * error?: SwitchboardError}) => void} [onState]
 * @property {(members: import('./members.js').Members) => void} [onMembers] The list of members has
 * changed. Only with this handler is the list kept, which costs a request for each join.
 * @property {(member: {user: string, info: ?object, version?: number}) => void} [onJoined] A user
 * has joined. Where the list is kept, once for each user that was not on it, also after a
 * disconnection; else for each event of the server.
 * @property {(member: {user: string, version?: number}) => void} [onLeft] A user has left,
 * likewise.
 * @typedef {{message?: number, room?: number, user?: number, key?: number, token?: number,
 * info?: number, rooms?: number, rate?: number}} Limits What the server accepts: bytes of a
 * message, of names, keys, tokens and info; rooms of a connection; commands per second (0: any
 * number). Empty if the server does not say.
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds; never goes back, and may jump forward when the machine
 * wakes.
 * @property {(run: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @typedef {object} Identity The user of a client. With a token the server takes the name and the
 * info from it.
 * @property {?string} [user] The user name, where the server is open; null: anonymous.
 * @property {?object} [info] What other clients may see beside the name, where the server is open;
 * at most 512 bytes as JSON.
 * @property {?(string|(() => string|Promise<string>))} [token] The token to sign in with, where the
 * server is not open; or a function that returns one, called for each connection and before the
 * previous token expires. It is called again, with growing pauses, if it fails, gives no token
 * within 10 s, or one that the server refuses.
 */

/** Codes of temporary errors. */
export const PASSING = new Set(['unknown', 'unavailable', 'rate']);

/**
 * An error with a stable `code`: one of the server's, or the client's own `offline`, `closed`,
 * `left`, `queue_full`, `signed_out`, `no_token`, `too_large` (the server would not accept so many
 * bytes).
 */
export class SwitchboardError extends Error {
  /** @param {string} code @param {string} [reason] */
  constructor(code, reason) {
    super(reason || code);
    this.name = 'SwitchboardError';
    this.code = code;
  }
}

export const errorOf = ({ code, reason }) => new SwitchboardError(String(code ?? 'error'), reason);

/**
 * Measures time by two clocks. `performance.now()` never goes back, but may stop while the machine
 * sleeps; `Date.now()` does not stop, but can be set. The sum of the greater steps never goes back
 * and is never short: no timer waits for a clock that was set back, and the age of a key is never
 * underestimated.
 * @returns {() => number} Milliseconds since it was created.
 */
export function stopwatch(steady = () => performance.now(), wall = () => Date.now()) {
  let [lastSteady, lastWall, passed] = [steady(), wall(), 0];
  return () => {
    const [nowSteady, nowWall] = [steady(), wall()];
    passed += Math.max(nowSteady - lastSteady, nowWall - lastWall, 0);
    [lastSteady, lastWall] = [nowSteady, nowWall];
    return passed;
  };
}

/**
 * The name of a user's personal room: every byte but `A-Z a-z 0-9 _ . : -` is `%XX`.
 * @example await board.publish(personalRoom('ada@example.com'), { text: 'psst' });
 */
export function personalRoom(user) {
  const escape = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  const encoded = encodeURIComponent(user).replace(/[!'()*~]/g, escape);
  return `@${encoded.replaceAll('%3A', ':')}`;
}

let keys = 0;

/**
 * A new idempotency key: random, and with a number, so that two keys of one page differ whatever
 * the generator returns. No clock is in it. `randomUUID` is missing on pages without TLS.
 */
export function newKey() {
  const { crypto } = globalThis;
  const number = (keys++).toString(16);
  if (crypto.randomUUID) return `${crypto.randomUUID()}-${number}`;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const random = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${random}-${number}`;
}

/** Calls a handler. Its exception surfaces as an uncaught error and does not affect our state. */
export function call(handler, argument) {
  try {
    handler?.(argument);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
