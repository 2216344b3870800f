/**
 * The client of Switchboard's native protocol: one WebSocket that reconnects by itself, rooms that
 * stay joined over reconnects, and publishes that arrive exactly once. It needs no build step and
 * no package; it runs in browsers and in any runtime with a global `WebSocket` (or one given as an
 * option). This file has the connection, the identity and the requests; `client/` has the room, its
 * list of members, and the types.
 *
 * `onMessage` receives a room's messages in offset order, each once, without gaps; if the server no
 * longer has some of them, `onGap` is called. `onMembers` receives the list of members, which
 * becomes correct again after every reconnect, change of node and fault.
 *
 * @example
 * const board = new Switchboard('wss://chat.example/ws', { user: 'ada', info: { name: 'Ada' } });
 * const room = board.join('lobby', {
 *   onMessage: ({ user, data }) => console.log(user, data),
 *   onMembers: (members) => console.log(members.count, members.list().map(({ user }) => user)),
 * });
 * await room.publish({ text: 'hello' });
 * // not kept, at most once
 * await room.publish({ typing: true }, { ephemeral: true, others: true });
 *
 * @example <caption>Direct messages: only Ada's connections receive her personal room.</caption>
 * board.personal({ onMessage: ({ user, data }) => console.log('direct, from', user, data) });
 * await board.publish('@bob', { text: 'psst' });
 *
 * @typedef {import('./client/words.js').Identity} Identity
 * @typedef {import('./client/words.js').Status} Status
 * @typedef {import('./client/words.js').Clock} Clock
 * @typedef {import('./client/words.js').RoomHandlers} RoomHandlers
 * @typedef {object} Settings
 * @property {number} [queue] The number of unanswered publishes of one room; 100 by default.
 * @property {typeof WebSocket} [WebSocket]
 * @property {Clock} [clock]
 * @property {() => number} [random] From 0 up to 1, for jitter.
 * @typedef {Identity & Settings} Options
 */

import { bytesOf, encode, excess } from './client/limits.js';
import { HISTORY, JOIN, LIST, Pacer, costOf } from './client/pace.js';
import { Outlet, Room } from './client/room.js';
import {
  PASSING,
  SwitchboardError,
  call,
  errorOf,
  newKey,
  personalRoom,
  stopwatch,
} from './client/words.js';

export { Members } from './client/members.js';
export { Room, SwitchboardError, newKey, personalRoom };

const CONNECT_DEADLINE = 10_000;
const ANSWER_DEADLINE = 30_000;
/** The timeout for the reply to a ping: the slowest mobile networks need seconds. */
const PONG_DEADLINE = 10_000;
const BACKOFF_FIRST = 500;
const BACKOFF_MOST = 20_000;
/**
 * A connection resets the backoff only after this time, so that a server that accepts and closes
 * gets no burst.
 */
const STEADY_AFTER = 5_000;
/**
 * Servers remember a key for five minutes. After that a retry could add the message a second time.
 */
const KEY_LIFE = 270_000;

/** The timeout of a token function. */
const TOKEN_DEADLINE = 10_000;
/** When the next token is fetched, as a part of the present token's lifetime. */
const REFRESH_AT = 0.9;
/** ms; runtimes let longer timers fire at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Close code: the client sends more than its rate allows. */
const TOO_FAST = 3004;
/** The attempt at which the backoff then begins: up to eight seconds. */
const TOO_FAST_ATTEMPT = 4;
/** A connection that held for so long was not too fast; the server waits a shorter time. */
const SLOW_AFTER = 60_000;
/** Close code: a message is longer than the server accepts. */
const TOO_LARGE = 1009;
/** Such a close delays the next connection by up to two seconds at first. */
const TOO_LARGE_ATTEMPT = 2;
/** Codes of RFC 6455 for faults in what this client sent; a new connection would repeat them. */
const FAULTS = new Set([1002, 1003, 1007, 1008, TOO_LARGE, 1010]);
const isFinal = (code) =>
  FAULTS.has(code) || (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);

const NO_DETAILS = Object.freeze({
  node: null,
  session: null,
  retryIn: null,
  code: null,
  reason: null,
  waitsFor: null,
});
/** Whether a text can be a token: it has no blanks, so that an error page is none. */
const isToken = (text) => /^[!-~]+$/.test(text);

/** One client of Switchboard. It connects when created and reconnects until it is closed. */
export class Switchboard {
  #url;
  #WebSocket;
  #clock;
  #random;
  #identity; // the sender of our publishes
  #wanted; // the requested identity; another object while publishes of the old one are unanswered
  #user = null; // the name confirmed by the server
  #rooms = new Map();
  #outlets = new Map(); // rooms that are published to without a join, while publishes wait
  #personal = null;
  #link = {
    queue: 0,
    ask: (frame, json) => this.#ask(frame, json),
    check: (frame, json) => this.#check(frame, json),
    pump: (outlet) => this.#pump(outlet),
    leave: (room) => this.#leave(room),
    recover: (room) => this.#conn?.entered && this.#join(this.#conn, room),
    readMembers: (room) => this.#conn?.open && this.#readMembers(this.#conn, room),
  };
  #listeners = new Map();
  #conn = null; // the current socket and all state that ends with it
  #limits = {}; // of the last server that sent a welcome
  #mostBytes = Infinity; // less than any message for which a server ended the connection
  #attempt = 0; // consecutive connections that did not last
  #tooFast = 0; // consecutive connections that were too fast
  #retry = null;
  #status = { state: 'closed', ...NO_DETAILS };

  /**
   * @param {?(string|URL)} [url] Default: `/ws` on the page's own host.
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    const { user = null, info = null, token = null, queue = 100 } = options;
    const { WebSocket = globalThis.WebSocket, clock, random = Math.random } = options;
    const page = globalThis.location;
    this.#url = String(url ?? `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}/ws`);
    this.#WebSocket = WebSocket;
    this.#clock = clock ?? {
      now: stopwatch(),
      setTimeout: (run, ms) => setTimeout(run, ms),
      clearTimeout: (timer) => clearTimeout(timer),
    };
    this.#random = random;
    this.#link.queue = queue;
    this.#identity = this.#wanted = { user, info, token };
    this.connect();
  }

  /** @returns {Status} */
  get status() {
    return { ...this.#status };
  }

  /** The name confirmed by the server, also while disconnected; null: none, or not yet. */
  get user() {
    return this.#user;
  }

  /**
   * Listens for 'state' ({@link Status}), 'user' (the name that the server confirmed, or null),
   * 'room' ({@link Room}: a backend has brought the user into it; see {@link Room#listen}) or
   * 'error' ({@link SwitchboardError}: a refused sign-in, a token function that gave no token, or
   * an error that replies to no request).
   * @param {'state'|'user'|'room'|'error'} event
   * @param {(what: any) => void} listener
   * @returns {() => void} Stops listening.
   */
  on(event, listener) {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  /**
   * Joins a room and keeps it joined over reconnects, until {@link Room#leave} or until the server
   * removes the user from it; then join it again if the user wants that. A room that a backend has
   * brought the user into gets these handlers.
   * @param {string} name
   * @param {RoomHandlers} [handlers]
   * @returns {Room}
   */
  join(name, handlers = {}) {
    if (typeof name !== 'string' || !name) throw new TypeError('a room needs a name');
    const known = this.#rooms.get(name);
    if (known?._isUnheard) return known.listen(handlers);
    if (known?._isRemoved) known.leave();
    else if (known) {
      const reason = `the room ${name} is joined already; leave it first`;
      throw new SwitchboardError('already_joined', reason);
    }
    const room = new Room(name, handlers, this.#link);
    this.#rooms.set(name, room);
    if (this.#conn?.entered) this.#join(this.#conn, room);
    return room;
  }

  /**
   * The personal room, `@name`, which every connection of the user joins at sign-in: its messages
   * are direct messages, with history and recovery. Its `name` is null while signed out, and
   * another user's room begins without a position. Leaving it only stops the handlers.
   * @param {RoomHandlers} [handlers]
   * @returns {Room}
   */
  personal(handlers = {}) {
    if (this.#personal) {
      const reason = 'the personal room has its handlers already; leave it first';
      throw new SwitchboardError('already_joined', reason);
    }
    this.#personal = new Room(null, handlers, this.#link);
    const conn = this.#conn;
    if (conn?.authReply) {
      this.#namePersonal(conn.authReply.room);
      // This room did not receive the messages since sign-in: recover from the position of then.
      const { epoch, offset } = conn.authReply;
      if (epoch !== undefined) this.#personal.position = { epoch, offset };
      this.#enterPersonal(conn);
    }
    return this.#personal;
  }

  /**
   * Publishes to a room, joined or not: `@bob` for a direct message. As {@link Room#publish}.
   * @param {string} name
   * @param {any} data
   * @param {{key?: string, others?: boolean, ephemeral?: boolean}} [options]
   * @returns {Promise<?import('./client/words.js').Position>}
   */
  async publish(name, data, options) {
    if (typeof name !== 'string' || !name) throw new TypeError('a room needs a name');
    let outlet = this.#rooms.get(name) ?? this.#outlets.get(name);
    if (!outlet) this.#outlets.set(name, (outlet = new Outlet(name, this.#link)));
    try {
      return await outlet.publish(data, options);
    } finally {
      const isIdle = outlet._queue.length === 0;
      if (isIdle && this.#outlets.get(name) === outlet) this.#outlets.delete(name);
    }
  }

  /**
   * Changes the user, on a new connection where the server requires one; without an argument, to
   * anonymous. Publishes that are in flight keep the old sender.
   * @param {Identity} [identity]
   */
  signIn({ user = null, info = null, token = null } = {}) {
    this.#wanted = { user, info, token };
    this.#settleIdentity();
  }

  /**
   * Changes the user name (null: anonymous), and nothing else of the identity.
   * @param {?string} user
   */
  setUser(user) {
    if (user !== this.#wanted.user) this.signIn({ ...this.#wanted, user });
  }

  /**
   * Signs in with another token of the same user, before the present one expires.
   * @param {Identity['token']} token
   */
  setToken(token) {
    const isSettled = this.#wanted === this.#identity;
    this.#identity = { ...this.#identity, token };
    this.#wanted = isSettled ? this.#identity : { ...this.#wanted, token };
    if (this.#conn?.open) this.#authenticate(this.#conn);
  }

  /** Connects at once when waiting or closed; when open, pings the server. */
  connect() {
    const conn = this.#conn;
    if (conn) return conn.heartbeat ? this.#probe(conn) : undefined;
    this.#clock.clearTimeout(this.#retry);
    this.#connect();
    this.#watchPage(true);
  }

  /** Closes the connection. Queued publishes are rejected; `connect()` opens a new one. */
  close() {
    const conn = this.#conn;
    this.#clock.clearTimeout(this.#retry);
    if (conn) this.#detach(conn).close(1000);
    if (conn || this.#status.state !== 'closed') this.#ended(1000, 'closed here');
  }

  #enter(state, more) {
    this.#status = { state, ...NO_DETAILS, ...more };
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
      open: false, // the welcome has come, so the limits are known
      entered: false, // joins are sent: auth is sent, or there is none to send
      auth: 'settled', // 'settled' | 'asked' | 'refused'
      fetching: null, // the call of the token function that is awaited
      as: null, // the identity that this connection has sent
      authReply: null, // the reply to it: the personal room, and the position in it
      refusal: null,
      pending: new Map(), // request id → the handlers of its reply
      timers: new Set(),
      pacer: null, // null until the welcome
      requests: 0,
      tries: 0,
      heartbeat: null, // ms; null until the welcome
      receivedAt: this.#clock.now(),
      pinged: null,
      watch: null,
      refresh: null, // the timer of the next token
      returnAt: null, // set by `bye`
    };
    this.#conn = conn;
    socket.onmessage = ({ data }) => this.#received(conn, data);
    socket.onclose = ({ code, reason }) => this.#lost(conn, code, reason);
    // A close always follows, with more details; outside browsers an unhandled error is fatal.
    socket.onerror = () => {};
    const onTimeout = () => this.#drop(conn, 'no welcome in time');
    conn.greeting = this.#later(conn, CONNECT_DEADLINE, onTimeout);
    this.#enter('connecting');
  }

  /** Sends nothing before the welcome: the limits are not known yet. */
  #opened(conn) {
    conn.open = true;
    const { user, token } = this.#identity;
    if (user == null && token == null) this.#enterRooms(conn);
    else this.#authenticate(conn);
  }

  /** Commands after `auth` need not wait for its reply: the server keeps their order. */
  #enterRooms(conn) {
    if (conn.entered) return;
    conn.entered = true;
    for (const room of [...this.#rooms.values()]) {
      if (room !== this.#personal && !room._isRemoved) this.#join(conn, room);
    }
    this.#pumpAll();
  }

  /** Drops the connection and its state; returns its socket, whose events are no longer handled. */
  #detach(conn) {
    this.#conn = null;
    const { socket, timers, pending } = conn;
    socket.onmessage = socket.onclose = null;
    for (const timer of timers) this.#clock.clearTimeout(timer);
    for (const { lost } of pending.values()) lost?.();
    conn.pacer?.stop();
    return socket;
  }

  #drop(conn, reason, delay) {
    conn.socket.onclose = null;
    conn.socket.close();
    this.#lost(conn, 1006, reason, delay);
  }

  #lost(conn, code, reason, delay) {
    const { returnAt } = conn;
    const culprit = code === TOO_LARGE ? this.#takeLargest(conn) : null;
    this.#detach(conn);
    if (isFinal(code) && !culprit) return this.#ended(code, reason);
    if (culprit) this.#attempt = Math.max(this.#attempt, TOO_LARGE_ATTEMPT);
    culprit?.done?.({ type: 'error', code: 'too_large', reason });
    if (this.#conn !== null) return; // a handler has connected again
    if (code === TOO_FAST) {
      this.#attempt = Math.max(this.#attempt, TOO_FAST_ATTEMPT + this.#tooFast++);
    }
    if (returnAt !== null) delay ??= Math.max(0, returnAt - this.#clock.now());
    delay ??= this.#jitter(this.#attempt++);
    this.#retry = this.#clock.setTimeout(() => this.#connect(), delay);
    this.#enter('waiting', { retryIn: delay, code, reason });
    for (const room of [...this.#rooms.values()]) room._disconnected();
  }

  /**
   * The server has ended the connection for a message that is too long, and has not answered it.
   * So the largest request in flight is too long; nothing of its size is sent again. It is the only
   * one that is not repeated: others may have been lost with the connection.
   */
  #takeLargest(conn) {
    let [largest, largestId] = [null, null];
    for (const [id, request] of conn.pending) {
      if (!largest || request.size() > largest.size()) [largest, largestId] = [request, id];
    }
    if (!largest) return null;
    conn.pending.delete(largestId);
    // With a shorter id the same request has fewer bytes.
    const most = largest.size() - String(largestId).length;
    this.#mostBytes = Math.min(this.#mostBytes, most);
    this.#limitMessages(this.#limits);
    return largest;
  }

  /** Takes the limits of a welcome; a proxy before the server may accept less. */
  #limitMessages({ message = Infinity, ...others }) {
    const most = Math.min(message, this.#mostBytes);
    this.#limits = most === Infinity ? others : { ...others, message: most };
  }

  #ended(code, reason) {
    this.#watchPage(false);
    this.#attempt = 0;
    this.#enter('closed', { code, reason });
    const text = reason || `the server closed the connection for good (${code})`;
    const error = new SwitchboardError('closed', text);
    for (const outlet of this.#allOutlets()) outlet._reject(error);
    for (const room of [...this.#rooms.values()]) room._disconnected();
  }

  /** Full jitter: clients that lost one node together reconnect spread out. */
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

  /** Sends a request, or answers it with an error here if the server would not accept it. */
  #request(conn, frame, { json, done, lost }) {
    const id = ++conn.requests;
    const text = encode(frame, id, json);
    const error = excess(this.#limits, frame, text);
    if (error) return done?.({ type: 'error', code: error.code, reason: error.message });
    const onTimeout = () => this.#drop(conn, 'no answer in time');
    const deadline = this.#later(conn, ANSWER_DEADLINE, onTimeout);
    conn.pacer.spend(costOf(frame));
    conn.pending.set(id, { done, lost, deadline, size: () => bytesOf(text) });
    conn.socket.send(text);
  }

  /** Throws if the server would not accept this publish, also while there is no connection. */
  #check(frame, json) {
    const error = excess(this.#limits, frame, encode(frame, 0, json));
    if (error) throw error;
  }

  /** A request that is not worth repeating on another connection. */
  #ask(frame, json) {
    const conn = this.#conn;
    if (!conn?.open) {
      const reason = 'there is no connection at the moment';
      return Promise.reject(new SwitchboardError('offline', reason));
    }
    const ended = 'the connection ended before the answer came';
    return new Promise((resolve, reject) => {
      const done = (answer) =>
        answer.type === 'error' ? reject(errorOf(answer)) : resolve(answer);
      const lost = () => reject(new SwitchboardError('closed', ended));
      const send = () => this.#request(conn, frame, { json, done, lost });
      if (frame.type !== 'history') return send();
      conn.pacer.add(HISTORY, costOf(frame), send, lost);
    });
  }

  // Frames from the server.

  #received(conn, text) {
    conn.receivedAt = this.#clock.now();
    conn.pinged = null;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      const error = new SwitchboardError('bad_frame', 'the server sent what is not JSON');
      return this.#emit('error', error);
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
        return room?._message(frame) ? this.#repair(conn, room) : undefined;
      case 'gap':
        return room?._gap(frame);
      case 'joined':
        return room?._memberJoined(frame);
      case 'left':
        return room?._memberLeft(frame);
      case 'members':
        return room?._changedMuch();
      case 'ok': // a position without a request: in the personal room, or where a backend put us
        return frame.user === undefined ? this.#broughtIn(frame) : this.#signedIn(conn, frame);
      case 'removed':
        return room && this.#removed(room, frame);
      case 'bye':
        return this.#draining(conn, frame);
      case 'error':
        return this.#emit('error', errorOf(frame));
    }
  }

  #welcomed(conn, { node = null, session = null, heartbeat, limits }) {
    this.#cancel(conn, conn.greeting);
    this.#limitMessages(limits ?? {});
    const later = (ms, run) => this.#later(conn, ms, run);
    conn.pacer = new Pacer(this.#limits.rate, this.#clock.now, later);
    this.#later(conn, STEADY_AFTER, () => (this.#attempt = 0));
    this.#later(conn, SLOW_AFTER, () => (this.#tooFast = 0));
    conn.heartbeat = (heartbeat > 0 ? heartbeat : 25) * 1000;
    this.#watch(conn);
    this.#opened(conn);
    if (this.#conn === conn) this.#enter('open', { node, session });
  }

  /**
   * The node drains: it serves until `retry` is over, then the client reconnects through the
   * balancer.
   */
  #draining(conn, { reason, retry }) {
    if (!Number.isFinite(retry)) return;
    conn.returnAt = this.#clock.now() + retry;
    this.#later(conn, retry, () => this.#drop(conn, reason));
  }

  /**
   * Browsers hide WebSocket pings from scripts, so an idle connection is tested with a ping of the
   * protocol.
   */
  #watch(conn) {
    const now = this.#clock.now();
    if (conn.pinged === null && now - conn.receivedAt >= conn.heartbeat) {
      conn.pinged = now;
      this.#request(conn, { type: 'ping' }, {});
    }
    const { pinged, receivedAt, heartbeat } = conn;
    const due = pinged === null ? receivedAt + heartbeat : pinged + PONG_DEADLINE;
    if (due <= now) return this.#drop(conn, 'the server is silent');
    conn.watch = this.#later(conn, due - now, () => this.#watch(conn));
  }

  #probe(conn) {
    conn.receivedAt = Math.min(conn.receivedAt, this.#clock.now() - conn.heartbeat);
    this.#cancel(conn, conn.watch);
    this.#watch(conn);
  }

  /**
   * When the network is back or the page is visible again, connect without waiting for the backoff.
   */
  #pageShown = () => {
    if (globalThis.document?.visibilityState !== 'hidden') this.connect();
  };

  /**
   * A browser may keep a hidden page with its sockets for going back: without a close it would stay
   * a member of its rooms.
   */
  #pageHidden = () => {
    if (this.#conn) this.#drop(this.#conn, 'the page was left', LONGEST_TIMER);
  };

  #watchPage(on) {
    const change = on ? 'addEventListener' : 'removeEventListener';
    globalThis[change]?.('online', this.#pageShown);
    globalThis[change]?.('pagehide', this.#pageHidden);
    globalThis[change]?.('pageshow', this.#pageShown);
    globalThis.document?.[change]?.('visibilitychange', this.#pageShown);
  }

  // Authentication.

  #authenticate(conn) {
    const { user, info, token } = this.#identity;
    if (user == null && token == null) return;
    conn.as = this.#identity;
    if (typeof token === 'function') return this.#fetchToken(conn, token);
    this.#sendAuth(conn, token == null ? { user, ...(info && { info }) } : { token });
  }

  /**
   * Calls a token function. Whatever it does instead of returning a token is reported and tried
   * again: a page lives longer than most faults of its backend.
   */
  #fetchToken(conn, source) {
    const fetching = (conn.fetching = {});
    const isCurrent = () =>
      this.#conn === conn && conn.fetching === fetching && this.#identity.token === source;
    const fail = (reason) => {
      if (!isCurrent()) return;
      conn.fetching = null; // a late token is not used
      this.#cancel(conn, timeout);
      this.#renewLater(conn, new SwitchboardError('no_token', reason));
    };
    const onTimeout = () => fail('the token function gave no token in time');
    const timeout = this.#later(conn, TOKEN_DEADLINE, onTimeout);
    Promise.resolve()
      .then(source)
      .then(
        (fetched) => {
          const token = typeof fetched === 'string' ? fetched.trim() : '';
          if (!isToken(token)) return fail('the token function gave something else than a token');
          this.#cancel(conn, timeout);
          if (isCurrent()) this.#sendAuth(conn, { token });
        },
        (error) => fail(error?.message || 'the token function failed'),
      );
  }

  /**
   * Calls the token function again after a pause; `error` says why. Until then a connection keeps
   * the identity that it has; without one, publishes wait.
   */
  #renewLater(conn, error) {
    const { as } = conn;
    conn.auth = conn.authReply ? 'settled' : 'asked';
    const again = () => this.#identity === as && this.#authenticate(conn);
    this.#later(conn, this.#jitter(conn.tries++), again);
    if (error) {
      this.#waitFor('token');
      this.#emit('error', error);
    }
    this.#pumpAll();
  }

  #waitFor(what) {
    if (this.#status.waitsFor === what) return;
    this.#status = { ...this.#status, waitsFor: what };
    this.#emit('state', this.status);
  }

  #sendAuth(conn, credentials) {
    conn.auth = 'asked';
    this.#request(conn, { type: 'auth', ...credentials }, {
      done: (answer) => {
        const isError = answer.type === 'error';
        const canRenew = typeof this.#identity.token === 'function';
        if (isError && (canRenew || PASSING.has(answer.code))) {
          const isUsual = PASSING.has(answer.code) || answer.code === 'expired';
          return this.#renewLater(conn, isUsual ? null : errorOf(answer));
        }
        conn.refusal = isError ? errorOf(answer) : null;
        conn.auth = conn.refusal ? 'refused' : 'settled';
        if (!conn.refusal) this.#signedIn(conn, answer);
        this.#pumpAll(); // rejects publishes under a refused name; they are not sent anonymously
        if (conn.refusal) this.#refused(conn);
      },
    });
    this.#enterRooms(conn);
  }

  #refused(conn) {
    // If a newer token is refused, the present one stays valid until it expires.
    if (!conn.authReply) this.#setUserName(null);
    this.#emit('error', conn.refusal);
  }

  #signedIn(conn, answer) {
    const { user = null, room, epoch, expires } = answer;
    conn.tries = 0;
    this.#waitFor(null);
    if (epoch !== undefined || !conn.authReply) conn.authReply = answer;
    this.#setUserName(user);
    if (this.#personal && room !== undefined) {
      this.#namePersonal(room);
      this.#enterPersonal(conn);
    }
    // What was refused before may be allowed now.
    for (const other of [...this.#rooms.values()]) {
      const isRefused = other.state === 'refused' && !other._isRemoved;
      if (isRefused && other !== this.#personal) this.#join(conn, other);
    }
    this.#cancel(conn, conn.refresh);
    if (typeof this.#identity.token !== 'function' || !Number.isFinite(expires)) return;
    const delay = Math.min(Math.max(expires * 1000 * REFRESH_AT, 1000), LONGEST_TIMER);
    conn.refresh = this.#later(conn, delay, () => this.#authenticate(conn));
  }

  #setUserName(user) {
    if (user === this.#user) return;
    this.#user = user;
    if (user === null && this.#personal) this.#namePersonal(null);
    this.#emit('user', user);
  }

  /** Keys are per publisher, so publishes in flight must be answered before the name may change. */
  #settleIdentity() {
    const [is, wanted] = [this.#identity, this.#wanted];
    const isInFlight = (outlet) => outlet._queue[0]?.firstSent != null;
    if (is === wanted || this.#allOutlets().some(isInFlight)) return;
    this.#identity = wanted;
    const conn = this.#conn;
    const isSame = is.user === wanted.user && is.token === wanted.token;
    if (!isSame && conn?.as) this.#setUserName(null);
    if (!conn?.open) return;
    // A session's name never changes: only an anonymous one can take a name, others reconnect.
    if (conn.as && conn.auth !== 'refused' && !isSame) return this.#drop(conn, 'another name', 0);
    conn.auth = 'settled';
    this.#authenticate(conn);
    this.#pumpAll();
  }

  // The personal room: `auth` joins it, and the reply has the position.

  #namePersonal(name) {
    const room = this.#personal;
    if (room.name === name) return;
    if (this.#rooms.get(room.name) === room) this.#rooms.delete(room.name);
    room._reject(new SwitchboardError('left', 'this was the personal room of another user'));
    room.name = name;
    room.position = null;
    room._forgotten = false;
    room._enter('waiting');
    if (name !== null && !this.#rooms.has(name)) this.#rooms.set(name, room);
  }

  #enterPersonal(conn) {
    const room = this.#personal;
    if (this.#rooms.get(room.name) !== room) {
      const reason = `${room.name} is joined by its name already`;
      return room._enter('refused', { error: new SwitchboardError('already_joined', reason) });
    }
    if (room.position) {
      if (room.state === 'waiting' || room.state === 'refused') this.#join(conn, room);
      return;
    }
    if (room.state !== 'joining') room._enter('joining');
    const { epoch, offset } = conn.authReply;
    if (epoch === undefined) return; // another `ok` follows
    room._joined({ epoch, offset }, null);
    this.#pump(room);
  }

  // Rooms.

  #join(conn, room) {
    room._enter('joining');
    const joining = (room._joining = {}); // another join replaces this one
    const isWanted = () => room._joining === joining && room.state === 'joining';
    conn.pacer.add(JOIN, costOf({ type: 'join' }), () => isWanted() && this.#sendJoin(conn, room));
  }

  #sendJoin(conn, room) {
    const since = room.position;
    this.#request(conn, { type: 'join', room: room.name, ...(since && { since }) }, {
      done: (answer) => {
        if (room.state === 'left') return;
        if (answer.type !== 'error') {
          // It was sent before the removal arrived.
          if (room._isRemoved) return this.#request(conn, { type: 'leave', room: room.name }, {});
          room._joined(answer, since);
          return this.#pump(room);
        }
        if (PASSING.has(answer.code)) {
          const retry = () => room.state === 'joining' && this.#join(conn, room);
          return this.#later(conn, this.#jitter(room._tries++), retry);
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

  /** A backend has made this connection a member of a room. */
  #broughtIn({ room: name, epoch, offset }) {
    if (typeof name !== 'string' || epoch === undefined) return;
    let room = this.#rooms.get(name);
    if (room?.state === 'joining' || room?.state === 'joined') return; // its own join is answered
    if (!room) {
      room = new Room(name, null, this.#link);
      this.#rooms.set(name, room);
    }
    room._isRemoved = false;
    room._enter('joining');
    room._joined({ epoch, offset }, room.position);
    this.#pump(room);
    this.#emit('room', room);
  }

  /**
   * The server has removed this connection from a room. A token with other rights may join it
   * again; if a backend did it, only the program's own `join` does.
   */
  #removed(room, { code, reason }) {
    room._isRemoved = code !== 'forbidden';
    if (room._isUnheard) this.#rooms.delete(room.name);
    room._enter('refused', { error: new SwitchboardError('removed', reason) });
  }

  /**
   * Joins again to read missing messages. If the same ones are missing again, reconnects instead.
   */
  #repair(conn, room) {
    if (room._hole === room.position.offset) return this.#drop(conn, `${room.name} has a hole`);
    room._hole = room.position.offset;
    this.#join(conn, room);
  }

  #leave(room) {
    if (this.#rooms.get(room.name) === room) this.#rooms.delete(room.name);
    if (room === this.#personal) this.#personal = null;
    else if (this.#conn?.open) this.#request(this.#conn, { type: 'leave', room: room.name }, {});
    room._enter('left');
    room._reject(new SwitchboardError('left', `you have left the room ${room.name}`));
    this.#settleIdentity();
  }

  /**
   * Reads the list of members, page after page. Events that arrive meanwhile are merged by version.
   */
  #readMembers(conn, room) {
    const { members } = room;
    const reading = members._begin();
    const isWanted = () =>
      this.#conn === conn && room.state === 'joined' && members._isReading(reading);
    const ask = () => {
      const frame = { room: room.name, ...members._question() };
      conn.pacer.add(LIST, costOf(frame), () => isWanted() && send(frame));
    };
    const send = (frame) => {
      this.#request(conn, frame, {
        done: (answer) => {
          conn.pacer.listDone();
          if (!isWanted()) return;
          if (answer.type === 'error' && PASSING.has(answer.code)) {
            this.#later(conn, this.#jitter(reading.tries++), () => isWanted() && ask());
          } else if (room._page(answer)) ask();
        },
      });
    };
    ask();
  }

  // Publishes: the first of each room's queue is in flight, or waits for a connection or a retry.

  #allOutlets() {
    return [...this.#rooms.values(), ...this.#outlets.values()];
  }

  #pumpAll() {
    for (const outlet of this.#allOutlets()) this.#pump(outlet);
  }

  #pump(outlet) {
    const conn = this.#conn;
    const entry = outlet._queue[0];
    if (!entry || !conn?.entered || conn.auth === 'asked' || entry.conn === conn) return;
    if (conn.auth === 'refused') {
      outlet._reject(conn.refusal);
      return this.#settleIdentity();
    }
    if (!outlet._isOpen) return;
    const now = this.#clock.now();
    if (entry.firstSent === null && this.#wanted !== this.#identity) return;
    if (entry.firstSent !== null && now - entry.firstSent > KEY_LIFE) {
      const reason = 'no answer for so long that a retry could publish it twice';
      return this.#settle(outlet, () => entry.reject(new SwitchboardError('unknown', reason)));
    }
    entry.conn = conn;
    entry.firstSent ??= now;
    this.#request(conn, entry.frame, {
      json: entry.json,
      done: (answer) => {
        if (outlet._queue[0] !== entry) return;
        if (answer.type !== 'error') {
          const { epoch, offset } = answer;
          return this.#settle(outlet, () => entry.resolve({ epoch, offset }));
        }
        if (!PASSING.has(answer.code)) {
          return this.#settle(outlet, () => entry.reject(errorOf(answer)));
        }
        this.#later(conn, this.#jitter(entry.tries++), () => {
          entry.conn = null;
          this.#pump(outlet);
        });
      },
    });
  }

  #settle(outlet, answer) {
    outlet._queue.shift();
    answer();
    this.#settleIdentity();
    this.#pump(outlet);
  }
}
