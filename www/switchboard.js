/**
 * The client of Switchboard's native protocol: one WebSocket that returns by itself, rooms that
 * stay joined over reconnects, and publishes that arrive exactly once. It needs no build step and
 * no package; it runs in browsers and in any runtime with a global `WebSocket` (or one handed in as
 * an option). This file is the board: the connection, who one is, and what is asked; `client/` has
 * the room, its list of members, and the types.
 *
 * What it promises to `onMessage`: a room's messages in offset order, none twice, none missing;
 * where the server can no longer supply some, `onGap` is called instead of a silence. And to
 * `onMembers`: after every reconnect, change of node and fault the list comes to be who is there.
 *
 * @example
 * const board = new Switchboard('wss://chat.example/ws', { user: 'ada', info: { name: 'Ada' } });
 * const room = board.join('lobby', {
 *   onMessage: ({ user, data }) => console.log(user, data),
 *   onMembers: (members) => console.log(members.count, members.list().map(({ user }) => user)),
 * }); await room.publish({ text: 'hello' }); await room.publish({ typing: true }, { ephemeral:
 * true, others: true }); // not kept, at most once
 *
 * @example <caption>Direct messages: each connection of Ada's hears her personal room, and nobody
 * else does.</caption> board.personal({ onMessage: ({ user, data }) => console.log('to me alone,
 * from', user, data) }); await board.publish('@bob', { text: 'psst' });
 *
 * @typedef {import('./client/words.js').Identity} Identity
 * @typedef {import('./client/words.js').Status} Status
 * @typedef {import('./client/words.js').Clock} Clock
 * @typedef {import('./client/words.js').RoomHandlers} RoomHandlers
 * @typedef {object} Settings
 * @property {number} [queue] Publishes one room may hold unanswered; 100 unless told.
 * @property {typeof WebSocket} [WebSocket]
 * @property {Clock} [clock]
 * @property {() => number} [random] From 0 up to 1, for jitter.
 * @typedef {Identity & Settings} Options
 */

import { Outlet, Room } from './client/room.js';
import { PASSING, SwitchboardError, call, errorOf, newKey, stopwatch } from './client/words.js';

export { Members } from './client/members.js';
export { Room, SwitchboardError, newKey };

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

/** We sent more than our rate allows, all the time. */
const TOO_FAST = 3004;
/** Where the backoff begins then: up to eight seconds. */
const TOO_FAST_ATTEMPT = 4;
const isFinal = (code) => (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);

/** One client of Switchboard. It connects when made and returns by itself until it is closed. */
export class Switchboard {
  #url;
  #WebSocket;
  #clock;
  #random;
  #identity; // who our publishes are from
  #wanted; // who one wants to be; another object while publishes of the former are unanswered
  #user = null; // the name the server knows us by
  #rooms = new Map();
  #outlets = new Map(); // ways out to rooms that are only written to, while something waits in them
  #personal = null;
  #link = {
    queue: 0,
    ask: (frame, json) => this.#ask(frame, json),
    pump: (way) => this.#pump(way),
    leave: (room) => this.#leave(room),
    readMembers: (room) => this.#conn?.open && this.#readMembers(this.#conn, room),
  };
  #listeners = new Map();
  #conn = null; // the current socket and all that ends with it
  #attempt = 0; // connections in a row that were not steady
  #retry = null;
  #status = { state: 'closed', node: null, session: null, retryIn: null, code: null, reason: null };

  /**
   * @param {?(string|URL)} [url] Unless given: `/ws` on the page's own host.
   * @param {Options} [options]
   */
  constructor(url, { user = null, info = null, token = null, queue = 100, WebSocket = globalThis.WebSocket, clock, random = Math.random } = {}) {
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

  /** The name the server knows us by, also while the connection is away; null: none, or not yet. */
  get user() {
    return this.#user;
  }

  /**
   * Listens for 'state' ({@link Status}), 'user' (the name the server now knows us by, or null) or
   * 'error' ({@link SwitchboardError}: a refused sign-in, or an error that answers nothing we
   * asked). @param {'state'|'user'|'error'} event @param {(what: any) => void} listener @returns
   * {() => void} Stops listening.
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
    const room = new Room(name, handlers, this.#link);
    this.#rooms.set(name, room);
    if (this.#conn?.entered) this.#join(this.#conn, room);
    return room;
  }

  /**
   * The room of one's own, `@name`, in which every connection of the user is from the start: what
   * others publish there are direct messages, with history and recovery. Its `name` is null while
   * one is signed out, and another user's room begins without a position. It can be left only in
   * the sense that nothing is heard of it any more. @param {RoomHandlers} [handlers] @returns
   * {Room}
   */
  personal(handlers = {}) {
    if (this.#personal) throw new SwitchboardError('already_joined', 'the personal room has its handlers already; leave it first');
    this.#personal = new Room(null, handlers, this.#link);
    const conn = this.#conn;
    if (conn?.place) {
      this.#namePersonal(conn.place.room);
      // What was said since signing in was not heard by this room: it comes back from where one
      // stood then.
      if (conn.place.epoch !== undefined) this.#personal.position = { epoch: conn.place.epoch, offset: conn.place.offset };
      this.#enterPersonal(conn);
    }
    return this.#personal;
  }

  /**
   * Publishes to a room, joined or not: `@bob` for a direct message. Everything {@link
   * Room#publish} says holds. @param {string} name @param {any} data @param {{key?: string,
   * others?: boolean, ephemeral?: boolean}} [options] @returns
   * {Promise<?import('./client/words.js').Position>}
   */
  async publish(name, data, options) {
    if (typeof name !== 'string' || !name) throw new TypeError('a room needs a name');
    let way = this.#rooms.get(name) ?? this.#outlets.get(name);
    if (!way) this.#outlets.set(name, (way = new Outlet(name, this.#link)));
    try {
      return await way.publish(data, options);
    } finally {
      if (way._queue.length === 0 && this.#outlets.get(name) === way) this.#outlets.delete(name);
    }
  }

  /**
   * Becomes somebody else, on a new connection where the server asks for one, or nobody (without an
   * argument). What was published before and is on its way is still from who one was. @param
   * {Identity} [identity]
   */
  signIn({ user = null, info = null, token = null } = {}) {
    this.#wanted = { user, info, token };
    this.#settleIdentity();
  }

  /**
   * Changes the name one goes by (null: anonymous), and nothing else of who one is.
   * @param {?string} user
   */
  setUser(user) {
    if (user !== this.#wanted.user) this.signIn({ ...this.#wanted, user });
  }

  /**
   * Signs in with another token of the same user, before the former ends.
   * @param {Identity['token']} token
   */
  setToken(token) {
    const isSettled = this.#wanted === this.#identity;
    this.#identity = { ...this.#identity, token };
    this.#wanted = isSettled ? this.#identity : { ...this.#wanted, token };
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
      as: null, // who this connection has signed in as, or tried to
      place: null, // the answer to that: the personal room, and where one stood in it
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
    const { user, token } = this.#identity;
    if (user == null && token == null) this.#enterRooms(conn);
    else this.#authenticate(conn);
  }

  /** A command after the one that says who we are need not wait for its answer: the server keeps their order. */
  #enterRooms(conn) {
    if (conn.entered) return;
    conn.entered = true;
    for (const room of [...this.#rooms.values()]) if (room !== this.#personal) this.#join(conn, room);
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
    for (const way of this.#ways()) way._reject(error);
    for (const room of [...this.#rooms.values()]) room._enter('waiting');
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
        return room?._came(frame);
      case 'left':
        return room?._went(frame);
      case 'members':
        return room?._changedMuch();
      case 'ok': // where one stands in the personal room, if that took long to learn
        return frame.user === undefined ? undefined : this.#signedIn(conn, frame);
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

  /** A browser may keep a page that was left, sockets and all, for whoever goes back: it would be a ghost in its rooms. */
  #putAway = () => {
    if (this.#conn) this.#drop(this.#conn, 'the page was left', LONGEST_TIMER);
  };

  #watchPage(on) {
    const change = on ? 'addEventListener' : 'removeEventListener';
    globalThis[change]?.('online', this.#woken);
    globalThis[change]?.('pagehide', this.#putAway);
    globalThis[change]?.('pageshow', this.#woken);
    globalThis.document?.[change]?.('visibilitychange', this.#woken);
  }

  // Who we are.

  #authenticate(conn) {
    const { user, info, token } = this.#identity;
    if (user == null && token == null) return;
    conn.as = this.#identity;
    if (typeof token !== 'function') return this.#show(conn, token == null ? { user, ...(info && { info }) } : { token });
    const isHere = () => this.#conn === conn && this.#identity.token === token;
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
        const again = PASSING.has(answer.code) || (answer.code === 'expired' && typeof this.#identity.token === 'function');
        if (answer.type === 'error' && again) {
          return this.#later(conn, this.#jitter(conn.tries++), () => this.#authenticate(conn));
        }
        conn.refusal = answer.type === 'error' ? errorOf(answer) : null;
        conn.auth = conn.refusal ? 'refused' : 'settled';
        if (!conn.refusal) this.#signedIn(conn, answer);
        this.#pumpAll(); // what was to be said under a refused name is not said, not even without one
        if (conn.refusal) this.#refused(conn);
      },
    });
    this.#enterRooms(conn);
  }

  #refused(conn) {
    // A newer token that was refused takes nothing away from the former, as long as that lasts.
    if (!conn.place) this.#is(null);
    this.#emit('error', conn.refusal);
  }

  #signedIn(conn, answer) {
    const { user = null, room, epoch, expires } = answer;
    conn.tries = 0;
    if (epoch !== undefined || !conn.place) conn.place = answer;
    this.#is(user);
    if (this.#personal && room !== undefined) {
      this.#namePersonal(room);
      this.#enterPersonal(conn);
    }
    // What was refused before may be allowed now.
    for (const other of [...this.#rooms.values()]) {
      if (other.state === 'refused' && other !== this.#personal) this.#join(conn, other);
    }
    this.#cancel(conn, conn.refresh);
    if (typeof this.#identity.token !== 'function' || !Number.isFinite(expires)) return;
    const delay = Math.min(Math.max(expires * 1000 * REFRESH_AT, 1000), LONGEST_TIMER);
    conn.refresh = this.#later(conn, delay, () => this.#authenticate(conn));
  }

  #is(user) {
    if (user === this.#user) return;
    this.#user = user;
    if (user === null && this.#personal) this.#namePersonal(null);
    this.#emit('user', user);
  }

  /** Keys count per publisher, so a publish on its way must be answered before the name may change. */
  #settleIdentity() {
    const [is, wanted] = [this.#identity, this.#wanted];
    if (is === wanted || this.#ways().some((way) => way._queue[0]?.firstSent != null)) return;
    this.#identity = wanted;
    const conn = this.#conn;
    const isSame = is.user === wanted.user && is.token === wanted.token;
    if (!isSame && conn?.as) this.#is(null);
    if (!conn?.open) return;
    // A session's name never changes: only one without a name can take one, any other begins anew.
    if (conn.as && conn.auth !== 'refused' && !isSame) return this.#drop(conn, 'another name', 0);
    conn.auth = 'settled';
    this.#authenticate(conn);
    this.#pumpAll();
  }

  // The personal room: signing in joins it, and its answer says where one stands.

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
      return room._enter('refused', { error: new SwitchboardError('already_joined', `${room.name} is joined by its name already`) });
    }
    if (room.position) return room.state === 'waiting' || room.state === 'refused' ? this.#join(conn, room) : undefined;
    if (room.state !== 'joining') room._enter('joining');
    const { epoch, offset } = conn.place;
    if (epoch === undefined) return; // it will be told
    room._joined({ epoch, offset }, null);
    this.#pump(room);
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
    if (this.#rooms.get(room.name) === room) this.#rooms.delete(room.name);
    if (room === this.#personal) this.#personal = null;
    else if (this.#conn?.open) this.#request(this.#conn, { type: 'leave', room: room.name }, {});
    room._enter('left');
    room._reject(new SwitchboardError('left', `you have left the room ${room.name}`));
    this.#settleIdentity();
  }

  /** Reads the list of members, page after page. What is pushed meanwhile finds its place in it by version. */
  #readMembers(conn, room) {
    const { members } = room;
    const reading = members._begin();
    const isWanted = () => this.#conn === conn && room.state === 'joined' && members._isReading(reading);
    const ask = () => {
      this.#request(conn, { room: room.name, ...members._question() }, {
        done: (answer) => {
          if (!isWanted()) return;
          if (answer.type === 'error' && PASSING.has(answer.code)) {
            this.#later(conn, this.#jitter(reading.tries++), () => isWanted() && ask());
          } else if (room._page(answer)) ask();
        },
      });
    };
    ask();
  }

  // Publishes: the first of each room's queue is on its way, or waits for a connection or its next
  // try.

  #ways() {
    return [...this.#rooms.values(), ...this.#outlets.values()];
  }

  #pumpAll() {
    for (const way of this.#ways()) this.#pump(way);
  }

  #pump(way) {
    const conn = this.#conn;
    const entry = way._queue[0];
    if (!entry || !conn?.entered || conn.auth === 'asked' || entry.conn === conn) return;
    if (conn.auth === 'refused') {
      way._reject(conn.refusal);
      return this.#settleIdentity();
    }
    if (!way._isOpen) return;
    const now = this.#clock.now();
    if (entry.firstSent === null && this.#wanted !== this.#identity) return;
    if (entry.firstSent !== null && now - entry.firstSent > KEY_LIFE) {
      const reason = 'no answer for so long that a retry could publish it twice';
      return this.#settle(way, () => entry.reject(new SwitchboardError('unknown', reason)));
    }
    entry.conn = conn;
    entry.firstSent ??= now;
    this.#request(conn, entry.frame, {
      json: entry.json,
      done: (answer) => {
        if (way._queue[0] !== entry) return;
        if (answer.type !== 'error') {
          return this.#settle(way, () => entry.resolve({ epoch: answer.epoch, offset: answer.offset }));
        }
        if (!PASSING.has(answer.code)) return this.#settle(way, () => entry.reject(errorOf(answer)));
        this.#later(conn, this.#jitter(entry.tries++), () => {
          entry.conn = null;
          this.#pump(way);
        });
      },
    });
  }

  #settle(way, answer) {
    way._queue.shift();
    answer();
    this.#settleIdentity();
    this.#pump(way);
  }
}
