/**
 * The client of Switchboard's native protocol: one WebSocket that returns by itself, rooms that stay joined over
 * reconnects, and publishes that arrive exactly once. It needs no build step and no package; it runs in browsers and
 * in any runtime with a global `WebSocket` (or one handed in as an option).
 *
 * What it promises to `onMessage`: a room's messages in offset order, none twice, none missing; where the server can
 * no longer supply some, `onGap` is called instead of a silence.
 *
 * @example
 * const board = new Switchboard('wss://chat.example/ws', { user: 'ada' });
 * const room = board.join('lobby', { onMessage: ({ user, data }) => console.log(user, data) });
 * await room.publish({ text: 'hello' });
 */

/**
 * @typedef {{epoch: string, offset: number}} Position A place in a room's log; the next message has `offset + 1`.
 * @typedef {{room: string, epoch: ?string, offset: ?number, user: ?string, time: number, data: any}} Message
 *   `offset` is null for an ephemeral message; `user` is null for an anonymous one; `time` is in ms since 1970.
 * @typedef {'connecting'|'open'|'waiting'|'closed'} BoardState
 * @typedef {{state: BoardState, node: ?string, session: ?string, retryIn: ?number, code: ?number, reason: ?string}} Status
 *   `retryIn` (ms) belongs to 'waiting', `code` and `reason` to 'waiting' and 'closed'.
 * @typedef {'waiting'|'joining'|'joined'|'refused'|'left'} RoomState
 * @typedef {object} RoomHandlers
 * @property {(message: Message) => void} [onMessage]
 * @property {(position: Position) => void} [onGap] Messages before this position can be missing.
 * @property {(change: {state: RoomState, recovered?: boolean, top?: number, error?: SwitchboardError}) => void} [onState]
 * @property {(member: {user: string, version?: number}) => void} [onJoined] A user's first connection came.
 * @property {(member: {user: string, version?: number}) => void} [onLeft] A user's last connection went.
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds; may jump forward when the machine wakes.
 * @property {(run: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @typedef {object} Options
 * @property {?string} [user] The name to go by, where the server is open.
 * @property {?(string|(() => string|Promise<string>))} [token] The token to sign in with, where it is not; or a function
 *   that gets one, called for each connection and before the former token expires.
 * @property {number} [queue] Publishes one room may hold unanswered; 100 unless told.
 * @property {typeof WebSocket} [WebSocket]
 * @property {Clock} [clock]
 * @property {() => number} [random] From 0 up to 1, for jitter.
 */

const CONNECT_DEADLINE = 10_000;
const ANSWER_DEADLINE = 30_000;
/** How long a silent server may take to answer our ping: the slowest mobile networks need seconds. */
const PONG_DEADLINE = 10_000;
const BACKOFF_FIRST = 500;
const BACKOFF_MOST = 20_000;
/** A connection counts as good after this long; before, a server that accepts and hangs up would be hammered. */
const STEADY_AFTER = 5_000;
/** Servers remember a key for five minutes. After that a retry could add the message a second time. */
const KEY_LIFE = 270_000;

/** When the next token is fetched, as a part of the former's time. */
const REFRESH_AT = 0.9;
/** ms; runtimes let longer timers fire at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Answers that say "not now" rather than "no". */
const PASSING = new Set(['unknown', 'unavailable', 'rate']);
/** We sent more than our rate allows, all the time. */
const TOO_FAST = 3004;
/** Where the backoff begins then: up to eight seconds. */
const TOO_FAST_ATTEMPT = 4;
const isFinal = (code) => (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);

/** An error with a stable `code`: the server's, or `offline`, `closed`, `left`, `queue_full` from here. */
export class SwitchboardError extends Error {
  /** @param {string} code @param {string} [reason] */
  constructor(code, reason) {
    super(reason || code);
    this.name = 'SwitchboardError';
    this.code = code;
  }
}

const errorOf = (answer) => new SwitchboardError(String(answer.code ?? 'error'), answer.reason);

/** A fresh idempotency key. `randomUUID` is missing on pages that are served without TLS. */
export function newKey() {
  const { crypto } = globalThis;
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** An exception of the caller's own handler is the caller's: it surfaces, but never disturbs our state. */
function call(handler, argument) {
  try {
    handler?.(argument);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * A room one has joined. Made by {@link Switchboard#join}; fields and methods that begin with `_` belong to it.
 *
 *     waiting ──connection──▶ joining ──ok──▶ joined ──hole──▶ joining …
 *        ▲                       └──error──▶ refused            (any of them ──leave()──▶ left)
 *        └───────── connection lost ─────────────┘
 */
export class Room {
  constructor(name, handlers, link) {
    this.name = name;
    /** @type {RoomState} */ this.state = 'waiting';
    /** @type {?Position} Where one stands; null until the first join is answered. */ this.position = null;
    this._handlers = handlers;
    this._link = link;
    this._queue = []; // publishes in order; only the first may be on its way
    this._tries = 0; // joins in a row that were answered "not now"
    this._forgotten = false; // the server gave up our position: the next join's answer is a gap
    this._hole = null; // the offset at which a hole was last met
  }

  /**
   * Publishes to the room, after what was published before. Retried with the same key until it is answered, over
   * any number of connections, so it is in the log exactly once. An `ephemeral` publish (typing …) is sent at most
   * once and has no position.
   * @param {any} data Anything JSON can say. It is encoded now; later changes do not count.
   * @param {{key?: string, others?: boolean, ephemeral?: boolean}} [options] `others`: do not send it back to me.
   * @returns {Promise<?Position>} Rejects with a {@link SwitchboardError}.
   */
  async publish(data, { key = newKey(), others = false, ephemeral = false } = {}) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new TypeError('data must be something JSON can say');
    if (this.state === 'left') throw new SwitchboardError('left', `you have left the room ${this.name}`);
    const flags = others ? { others } : {};
    if (ephemeral) {
      await this._link.ask({ type: 'publish', room: this.name, ephemeral, ...flags }, json);
      return null;
    }
    if (this._queue.length >= this._link.queue) {
      throw new SwitchboardError('queue_full', `${this.name} has ${this._queue.length} unanswered publishes; wait for one to be answered`);
    }
    return new Promise((resolve, reject) => {
      const frame = { type: 'publish', room: this.name, key, ...flags };
      this._queue.push({ frame, json, resolve, reject, conn: null, firstSent: null, tries: 0 });
      this._link.pump(this);
    });
  }

  /**
   * One page of the room's log, ascending by offset.
   * @param {{before?: number, limit?: number}} [page] The `limit` messages that come just before the offset `before`.
   * @returns {Promise<{epoch: string, messages: Message[], more: boolean}>}
   */
  async history({ before, limit } = {}) {
    const { epoch, messages = [], more = false } = await this._link.ask({ type: 'history', room: this.name, limit, before });
    return { epoch, messages: messages.map((message) => this._seen(message, epoch)), more };
  }

  /** Leaves the room. Publishes still queued are rejected with the code `left`. */
  leave() {
    if (this.state !== 'left') this._link.leave(this);
  }

  _enter(state, more) {
    this.state = state;
    call(this._handlers.onState, { state, ...more });
  }

  _seen({ offset = null, user = null, time, data }, epoch) {
    return { room: this.name, epoch, offset, user, time, data };
  }

  _joined({ epoch, offset, top, recovered }, since) {
    this._tries = 0;
    const whole = !this._forgotten && (!since || recovered === true);
    // Standing lower than we said would show us old messages again, so our own position keeps the upper hand.
    const stands = since && whole && since.epoch === epoch ? Math.max(offset, since.offset) : offset;
    this.position = { epoch, offset: stands };
    this._forgotten = false;
    if (!whole) call(this._handlers.onGap, { ...this.position });
    if (this.state === 'joining') this._enter('joined', { recovered: since ? whole : undefined, top });
  }

  /** Takes a pushed message; true if it lies behind a hole, so that the room must be joined anew. */
  _message(message) {
    if (message.offset == null) {
      call(this._handlers.onMessage, this._seen(message, null));
      return false;
    }
    // While a join is on its way only its answer tells where we stand; what comes before it comes again after it.
    if (this.state !== 'joined' || message.offset <= this.position.offset) return false;
    if (message.offset > this.position.offset + 1) return true;
    this.position = { epoch: this.position.epoch, offset: message.offset };
    this._hole = null;
    if (!message.own) call(this._handlers.onMessage, this._seen(message, this.position.epoch));
    return false;
  }

  _gap({ epoch, offset }) {
    if (this.state !== 'joined') return;
    this.position = { epoch, offset };
    call(this._handlers.onGap, { epoch, offset });
  }

  _reject(error) {
    for (const entry of this._queue.splice(0)) entry.reject(error);
  }
}

/** One client of Switchboard. It connects when made and returns by itself until it is closed. */
export class Switchboard {
  #url;
  #WebSocket;
  #clock;
  #random;
  #queue;
  #token;
  #user; // the name our publishes go by
  #wanted; // the name asked for; differs from #user while publishes under the old one are unanswered
  #rooms = new Map();
  #listeners = new Map();
  #conn = null; // the current socket and all that ends with it
  #attempt = 0; // connections in a row that were not steady
  #retry = null;
  #status = { state: 'closed', node: null, session: null, retryIn: null, code: null, reason: null };

  /**
   * @param {?(string|URL)} [url] Unless given: `/ws` on the page's own host.
   * @param {Options} [options]
   */
  constructor(url, { user = null, token = null, queue = 100, WebSocket = globalThis.WebSocket, clock, random = Math.random } = {}) {
    const page = globalThis.location;
    this.#url = String(url ?? `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}/ws`);
    this.#WebSocket = WebSocket;
    this.#clock = clock ?? {
      now: () => Date.now(),
      setTimeout: (run, ms) => setTimeout(run, ms),
      clearTimeout: (timer) => clearTimeout(timer),
    };
    this.#random = random;
    this.#queue = queue;
    this.#token = token;
    this.#user = this.#wanted = user;
    this.connect();
  }

  /** @returns {Status} */
  get status() {
    return { ...this.#status };
  }

  /**
   * Listens for 'state' ({@link Status}) or 'error' ({@link SwitchboardError}: a refused sign-in, or an error that
   * answers nothing we asked).
   * @param {'state'|'error'} event
   * @param {(what: any) => void} listener
   * @returns {() => void} Stops listening.
   */
  on(event, listener) {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  /**
   * Joins a room and stays in it over reconnects, until {@link Room#leave}.
   * @param {string} name
   * @param {RoomHandlers} [handlers]
   * @returns {Room}
   */
  join(name, handlers = {}) {
    if (typeof name !== 'string' || !name) throw new TypeError('a room needs a name');
    if (this.#rooms.has(name)) throw new SwitchboardError('already_joined', `the room ${name} is joined already; leave it first`);
    const room = new Room(name, handlers, {
      queue: this.#queue,
      ask: (frame, json) => this.#ask(frame, json),
      pump: (which) => this.#pump(which),
      leave: (which) => this.#leave(which),
    });
    this.#rooms.set(name, room);
    if (this.#conn?.entered) this.#join(this.#conn, room);
    return room;
  }

  /**
   * Changes the name one goes by (null: anonymous). What was published before still goes out under the old name.
   * @param {?string} user
   */
  setUser(user) {
    this.#wanted = user;
    this.#settleUser();
  }

  /**
   * Signs in with another token of the same user, before the former ends.
   * @param {Options['token']} token
   */
  setToken(token) {
    this.#token = token;
    if (this.#conn?.open) this.#authenticate(this.#conn);
  }

  /** Connects at once when waiting or closed; when open, asks the server for a sign of life. */
  connect() {
    const conn = this.#conn;
    if (conn) return conn.heartbeat ? this.#probe(conn) : undefined;
    this.#clock.clearTimeout(this.#retry);
    this.#connect();
    this.#watchPage(true);
  }

  /** Ends the connection for good. Queued publishes are rejected; `connect()` would begin again. */
  close() {
    const conn = this.#conn;
    this.#clock.clearTimeout(this.#retry);
    if (conn) this.#detach(conn).close(1000);
    if (conn || this.#status.state !== 'closed') this.#ended(1000, 'closed here');
  }

  #enter(state, more) {
    this.#status = { state, node: null, session: null, retryIn: null, code: null, reason: null, ...more };
    this.#emit('state', this.status);
  }

  #emit(event, what) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) call(listener, what);
  }

  // The connection, from its first attempt to the next one.

  #connect() {
    const socket = new this.#WebSocket(this.#url);
    const conn = {
      socket,
      open: false,
      entered: false, // rooms are asked for: we have said who we are, or have nothing to say
      auth: 'settled', // 'settled' | 'asked' | 'refused'
      user: null, // the name this connection has signed in with
      refusal: null,
      pending: new Map(), // request id → what to do with its answer
      timers: new Set(),
      requests: 0,
      tries: 0,
      heartbeat: null, // ms; null until the welcome
      heard: this.#clock.now(),
      pinged: null,
      watch: null,
      refresh: null, // the timer of the next token
      returnAt: null, // set by a farewell
    };
    this.#conn = conn;
    socket.onopen = () => this.#opened(conn);
    socket.onmessage = ({ data }) => this.#received(conn, data);
    socket.onclose = ({ code, reason }) => this.#lost(conn, code, reason);
    socket.onerror = () => {}; // a close always follows and tells more; outside browsers an unheard error is fatal
    conn.greeting = this.#later(conn, CONNECT_DEADLINE, () => this.#drop(conn, 'no welcome in time'));
    this.#enter('connecting');
  }

  #opened(conn) {
    conn.open = true;
    if (this.#user == null && this.#token == null) this.#enterRooms(conn);
    else this.#authenticate(conn);
  }

  /** A command after the one that says who we are need not wait for its answer: the server keeps their order. */
  #enterRooms(conn) {
    if (conn.entered) return;
    conn.entered = true;
    for (const room of [...this.#rooms.values()]) this.#join(conn, room);
    this.#pumpAll();
  }

  /** Forgets the connection and all that hangs on it; returns its socket, from which nothing is heard any more. */
  #detach(conn) {
    this.#conn = null;
    const { socket, timers, pending } = conn;
    socket.onopen = socket.onmessage = socket.onclose = null;
    for (const timer of timers) this.#clock.clearTimeout(timer);
    for (const { lost } of pending.values()) lost?.();
    return socket;
  }

  #drop(conn, reason, delay) {
    conn.socket.onclose = null;
    conn.socket.close();
    this.#lost(conn, 1006, reason, delay);
  }

  #lost(conn, code, reason, delay) {
    const { returnAt } = conn;
    this.#detach(conn);
    if (isFinal(code)) return this.#ended(code, reason);
    if (code === TOO_FAST) this.#attempt = Math.max(this.#attempt, TOO_FAST_ATTEMPT);
    if (returnAt !== null) delay ??= Math.max(0, returnAt - this.#clock.now());
    delay ??= this.#jitter(this.#attempt++);
    this.#retry = this.#clock.setTimeout(() => this.#connect(), delay);
    this.#enter('waiting', { retryIn: delay, code, reason });
    for (const room of [...this.#rooms.values()]) room._enter('waiting');
  }

  #ended(code, reason) {
    this.#watchPage(false);
    this.#attempt = 0;
    this.#enter('closed', { code, reason });
    const error = new SwitchboardError('closed', reason || `the server closed the connection for good (${code})`);
    for (const room of [...this.#rooms.values()]) {
      room._reject(error);
      room._enter('waiting');
    }
  }

  /** Full jitter: clients that lost one node together return spread out. */
  #jitter(tries) {
    return this.#random() * Math.min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** Math.min(tries, 16));
  }

  #later(conn, ms, run) {
    const timer = this.#clock.setTimeout(() => {
      conn.timers.delete(timer);
      run();
    }, ms);
    conn.timers.add(timer);
    return timer;
  }

  #cancel(conn, timer) {
    conn.timers.delete(timer);
    this.#clock.clearTimeout(timer);
  }

  #request(conn, frame, { json, done, lost }) {
    const id = ++conn.requests;
    const deadline = this.#later(conn, ANSWER_DEADLINE, () => this.#drop(conn, 'no answer in time'));
    conn.pending.set(id, { done, lost, deadline });
    const { type, ...rest } = frame;
    const text = JSON.stringify({ type, id, ...rest });
    conn.socket.send(json === undefined ? text : `${text.slice(0, -1)},"data":${json}}`);
  }

  /** A request that is not worth repeating on another connection. */
  #ask(frame, json) {
    const conn = this.#conn;
    if (!conn?.open) return Promise.reject(new SwitchboardError('offline', 'there is no connection at the moment'));
    return new Promise((resolve, reject) => {
      this.#request(conn, frame, {
        json,
        done: (answer) => (answer.type === 'error' ? reject(errorOf(answer)) : resolve(answer)),
        lost: () => reject(new SwitchboardError('closed', 'the connection ended before the answer came')),
      });
    });
  }

  // What the server says.

  #received(conn, text) {
    conn.heard = this.#clock.now();
    conn.pinged = null;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#emit('error', new SwitchboardError('bad_frame', 'the server sent what is not JSON'));
    }
    const request = frame?.id == null ? undefined : conn.pending.get(frame.id);
    if (request) {
      conn.pending.delete(frame.id);
      this.#cancel(conn, request.deadline);
      return request.done?.(frame);
    }
    const room = this.#rooms.get(frame?.room);
    switch (frame?.type) {
      case 'welcome':
        return this.#welcomed(conn, frame);
      case 'message':
        return room?._message(frame) ? this.#hole(conn, room) : undefined;
      case 'gap':
        return room?._gap(frame);
      case 'joined':
        return call(room?._handlers.onJoined, { user: frame.user, version: frame.version });
      case 'left':
        return call(room?._handlers.onLeft, { user: frame.user, version: frame.version });
      case 'removed':
        return room?._enter('refused', { error: new SwitchboardError('removed', frame.reason) });
      case 'bye':
        return this.#farewell(conn, frame);
      case 'error':
        return this.#emit('error', errorOf(frame));
    }
  }

  #welcomed(conn, { node = null, session = null, heartbeat }) {
    this.#cancel(conn, conn.greeting);
    this.#later(conn, STEADY_AFTER, () => (this.#attempt = 0));
    conn.heartbeat = (heartbeat > 0 ? heartbeat : 25) * 1000;
    this.#watch(conn);
    this.#enter('open', { node, session });
  }

  /** The node drains: it goes on for the moment, but we connect elsewhere (the balancer knows where) when it says. */
  #farewell(conn, { reason, retry }) {
    if (!Number.isFinite(retry)) return;
    conn.returnAt = this.#clock.now() + retry;
    this.#later(conn, retry, () => this.#drop(conn, reason));
  }

  /** Browsers hide WebSocket pings from scripts, so a silent connection is tried with a ping of the protocol. */
  #watch(conn) {
    const now = this.#clock.now();
    if (conn.pinged === null && now - conn.heard >= conn.heartbeat) {
      conn.pinged = now;
      this.#request(conn, { type: 'ping' }, {});
    }
    const due = conn.pinged === null ? conn.heard + conn.heartbeat : conn.pinged + PONG_DEADLINE;
    if (due <= now) return this.#drop(conn, 'the server is silent');
    conn.watch = this.#later(conn, due - now, () => this.#watch(conn));
  }

  #probe(conn) {
    conn.heard = Math.min(conn.heard, this.#clock.now() - conn.heartbeat);
    this.#cancel(conn, conn.watch);
    this.#watch(conn);
  }

  /** A network that is back, or a page that is looked at again, is no time to wait out a backoff. */
  #woken = () => {
    if (globalThis.document?.visibilityState !== 'hidden') this.connect();
  };

  #watchPage(on) {
    const change = on ? 'addEventListener' : 'removeEventListener';
    globalThis[change]?.('online', this.#woken);
    globalThis.document?.[change]?.('visibilitychange', this.#woken);
  }

  // Who we are.

  #authenticate(conn) {
    const [user, token] = [this.#user, this.#token];
    if (user == null && token == null) return;
    conn.user = user;
    if (typeof token !== 'function') return this.#show(conn, token == null ? { user } : { token });
    const isHere = () => this.#conn === conn && this.#token === token;
    Promise.resolve()
      .then(token)
      .then(
        (fresh) => isHere() && this.#show(conn, { token: fresh }),
        (error) => {
          if (!isHere()) return;
          this.#emit('error', new SwitchboardError('no_token', error?.message));
          this.#later(conn, this.#jitter(conn.tries++), () => this.#authenticate(conn));
        },
      );
  }

  #show(conn, credentials) {
    conn.auth = 'asked';
    this.#request(conn, { type: 'auth', ...credentials }, {
      done: (answer) => {
        const again = PASSING.has(answer.code) || (answer.code === 'expired' && typeof this.#token === 'function');
        if (answer.type === 'error' && again) {
          return this.#later(conn, this.#jitter(conn.tries++), () => this.#authenticate(conn));
        }
        conn.refusal = answer.type === 'error' ? errorOf(answer) : null;
        conn.auth = conn.refusal ? 'refused' : 'settled';
        if (conn.refusal) this.#emit('error', conn.refusal);
        else this.#signedIn(conn, answer);
        this.#pumpAll();
      },
    });
    this.#enterRooms(conn);
  }

  #signedIn(conn, { expires }) {
    conn.tries = 0;
    // What was refused before may be allowed now.
    for (const room of [...this.#rooms.values()]) if (room.state === 'refused') this.#join(conn, room);
    this.#cancel(conn, conn.refresh);
    if (typeof this.#token !== 'function' || !Number.isFinite(expires)) return;
    const delay = Math.min(Math.max(expires * 1000 * REFRESH_AT, 1000), LONGEST_TIMER);
    conn.refresh = this.#later(conn, delay, () => this.#authenticate(conn));
  }

  /** Keys count per publisher, so a publish on its way must be answered before the name may change. */
  #settleUser() {
    if (this.#wanted === this.#user || [...this.#rooms.values()].some((room) => room._queue[0]?.firstSent != null)) return;
    this.#user = this.#wanted;
    const conn = this.#conn;
    if (!conn?.open) return;
    // A session's name never changes: only one without a name can take one, any other begins anew.
    if (conn.user !== null && conn.auth !== 'refused') return this.#drop(conn, 'another name', 0);
    conn.auth = 'settled';
    this.#authenticate(conn);
    this.#pumpAll();
  }

  // Rooms.

  #join(conn, room) {
    const since = room.position;
    room._enter('joining');
    this.#request(conn, { type: 'join', room: room.name, ...(since && { since }) }, {
      done: (answer) => {
        if (room.state === 'left') return;
        if (answer.type !== 'error') {
          room._joined(answer, since);
          return this.#pump(room);
        }
        if (PASSING.has(answer.code)) {
          return this.#later(conn, this.#jitter(room._tries++), () => room.state === 'joining' && this.#join(conn, room));
        }
        if (answer.code !== 'unrecoverable' || !since) {
          room._enter('refused', { error: errorOf(answer) });
          return this.#pump(room);
        }
        room.position = null;
        room._forgotten = true;
        this.#join(conn, room);
      },
    });
  }

  /** The same hole twice is beyond what this node can mend: another connection may. */
  #hole(conn, room) {
    if (room._hole === room.position.offset) return this.#drop(conn, `${room.name} has a hole`);
    room._hole = room.position.offset;
    this.#join(conn, room);
  }

  #leave(room) {
    this.#rooms.delete(room.name);
    if (this.#conn?.open) this.#request(this.#conn, { type: 'leave', room: room.name }, {});
    room._enter('left');
    room._reject(new SwitchboardError('left', `you have left the room ${room.name}`));
    this.#settleUser();
  }

  // Publishes: the first of each room's queue is on its way, or waits for a connection or its next try.

  #pumpAll() {
    for (const room of [...this.#rooms.values()]) this.#pump(room);
  }

  #pump(room) {
    const conn = this.#conn;
    const entry = room._queue[0];
    if (!entry || !conn?.entered || conn.auth === 'asked' || entry.conn === conn) return;
    if (conn.auth === 'refused') {
      room._reject(conn.refusal);
      return this.#settleUser();
    }
    // Whoever stands nowhere yet would not hear its own words: a join takes longer than a publish.
    if (room.position === null && room.state !== 'refused') return;
    const now = this.#clock.now();
    if (entry.firstSent === null && this.#wanted !== this.#user) return;
    if (entry.firstSent !== null && now - entry.firstSent > KEY_LIFE) {
      const reason = 'no answer for so long that a retry could publish it twice';
      return this.#settle(room, () => entry.reject(new SwitchboardError('unknown', reason)));
    }
    entry.conn = conn;
    entry.firstSent ??= now;
    this.#request(conn, entry.frame, {
      json: entry.json,
      done: (answer) => {
        if (room._queue[0] !== entry) return;
        if (answer.type !== 'error') {
          return this.#settle(room, () => entry.resolve({ epoch: answer.epoch, offset: answer.offset }));
        }
        if (!PASSING.has(answer.code)) return this.#settle(room, () => entry.reject(errorOf(answer)));
        this.#later(conn, this.#jitter(entry.tries++), () => {
          entry.conn = null;
          this.#pump(room);
        });
      },
    });
  }

  #settle(room, answer) {
    room._queue.shift();
    answer();
    this.#settleUser();
    this.#pump(room);
  }
}
