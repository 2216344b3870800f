/**
 * The words that all files of the client module share: its types, its error, and the small tools
 * that keep a caller's handler apart from our state and one publish apart from another, and that
 * measure time.
 */

/**
 * @typedef {{epoch: string, offset: number}} Position A place in a room's log; the next message has
 * `offset + 1`. @typedef {{room: string, epoch: ?string, offset: ?number, user: ?string, time:
 * number, data: any}} Message
 *   `offset` is null for an ephemeral message; `user` is null for an anonymous one; `time` is in ms
 *   since 1970.
 * @typedef {'connecting'|'open'|'waiting'|'closed'} BoardState @typedef {{state: BoardState, node:
 * ?string, session: ?string, retryIn: ?number, code: ?number, reason: ?string}} Status
 *   `retryIn` (ms) belongs to 'waiting', `code` and `reason` to 'waiting' and 'closed'.
 * @typedef {'waiting'|'joining'|'joined'|'refused'|'left'} RoomState @typedef {{user: string,
 * connections: number, info: ?object}} Member A user with its connections over all nodes.
 *   Whoever has come since the list was read counts with one connection until it is read again.
 * @typedef {object} RoomHandlers @property {(message: Message) => void} [onMessage] @property
 * {(position: Position) => void} [onGap] Messages before this position can be missing. @property
 * {(change: {state: RoomState, recovered?: boolean, top?: number, error?: SwitchboardError}) =>
 * void} [onState] @property {(members: import('./members.js').Members) => void} [onMembers] The
 * list of who is here has changed. Only with
 *   this handler is the list kept, which costs a question for each join.
 * @property {(member: {user: string, info: ?object, version?: number}) => void} [onJoined] A user
 * has come. Where the list is
 *   kept, once for each that was not on it, also after a time away; else each time the server says
 *   so.
 * @property {(member: {user: string, version?: number}) => void} [onLeft] A user has gone,
 * likewise. @typedef {object} Clock @property {() => number} now Milliseconds; never goes back, and
 * may jump forward when the machine wakes. @property {(run: () => void, ms: number) => any}
 * setTimeout @property {(timer: any) => void} clearTimeout @typedef {object} Identity Who one is.
 * With a token the server takes the name and the info from it. @property {?string} [user] The name
 * to go by, where the server is open; null: anonymous. @property {?object} [info] What others may
 * see of one beside the name, where the server is open; at most 512 bytes as JSON. @property
 * {?(string|(() => string|Promise<string>))} [token] The token to sign in with, where it is not; or
 * a function
 *   that gets one, called for each connection and before the former token expires.
 */

/** Answers that say "not now" rather than "no". */
export const PASSING = new Set(['unknown', 'unavailable', 'rate']);

/** An error with a stable `code`: the server's, or `offline`, `closed`, `left`, `queue_full`, `signed_out` from here. */
export class SwitchboardError extends Error {
  /** @param {string} code @param {string} [reason] */
  constructor(code, reason) {
    super(reason || code);
    this.name = 'SwitchboardError';
    this.code = code;
  }
}

export const errorOf = (answer) => new SwitchboardError(String(answer.code ?? 'error'), answer.reason);

/**
 * Measures time by two clocks. `performance.now()` never goes back, but may stand still while the
 * machine sleeps; `Date.now()` does not, but can be set. The sum of the greater steps never goes
 * back and is never short: nothing waits for a clock that was set back, and a key is never taken
 * for younger than it is. @returns {() => number} Milliseconds since it was made.
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

/** A fresh idempotency key. `randomUUID` is missing on pages that are served without TLS. */
export function newKey() {
  const { crypto } = globalThis;
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** An exception of the caller's own handler is the caller's: it surfaces, but never disturbs our state. */
export function call(handler, argument) {
  try {
    handler?.(argument);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
