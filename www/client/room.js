/**
 * A room of a client: the position, by which messages are delivered in order and once, the list of
 * members, and the queued publishes. It has no connection; the `Switchboard` gives it a link for
 * requests.
 */

import { Members } from './members.js';
import { SwitchboardError, call, errorOf, newKey } from './words.js';

/** The publishes to a room, in order; only the first may be in flight. */
export class Outlet {
  /** @param {string} name @param {object} link Calls into the `Switchboard`. */
  constructor(name, link) {
    this.name = name;
    this._link = link;
    this._queue = [];
  }

  /**
   * Publishes to the room, after earlier publishes. Retried with the same key until it is
   * answered, over any number of connections, so it is in the log exactly once. An `ephemeral`
   * publish (typing …) is sent at most once and has no position.
   * @param {any} data Any JSON value. It is encoded now; later changes have no effect.
   * @param {{key?: string, others?: boolean, ephemeral?: boolean}} [options] `others`: do not
   * deliver it to this session.
   * @returns {Promise<?import('./words.js').Position>} Rejects with a {@link SwitchboardError}.
   */
  async publish(data, { key = newKey(), others = false, ephemeral = false } = {}) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new TypeError('data must be a JSON value');
    this._check();
    const flags = others ? { others } : {};
    if (ephemeral) {
      await this._link.ask({ type: 'publish', room: this.name, ephemeral, ...flags }, json);
      return null;
    }
    const frame = { type: 'publish', room: this.name, key, ...flags };
    this._link.check(frame, json);
    if (this._queue.length >= this._link.queue) {
      const reason = `${this.name} has ${this._queue.length} unanswered publishes`;
      throw new SwitchboardError('queue_full', `${reason}; wait for one to be answered`);
    }
    return new Promise((resolve, reject) => {
      this._queue.push({ frame, json, resolve, reject, conn: null, firstSent: null, tries: 0 });
      this._link.pump(this);
    });
  }

  _check() {}

  /** Whether publishes may be sent. */
  get _isOpen() {
    return true;
  }

  _reject(error) {
    for (const entry of this._queue.splice(0)) entry.reject(error);
  }
}

/**
 * A joined room. Created by `Switchboard.join` and `Switchboard.personal`; fields and methods that
 * begin with `_` are internal to the module.
 *
 *     waiting ──connection──▶ joining ──ok──▶ joined ──hole──▶ joining …
 *        ▲                       └──error──▶ refused            (any of them ──leave()──▶ left)
 *        │                                    (joined ──removed──▶ refused, until joined anew)
 *        └───────── connection lost ─────────────┘
 */
export class Room extends Outlet {
  constructor(name, handlers, link) {
    super(name, link);
    /** @type {import('./words.js').RoomState} */
    this.state = 'waiting';
    /** @type {?import('./words.js').Position} Null until the first join is answered. */
    this.position = null;
    /** @type {?Members} Null unless joined with `onMembers`. */
    this.members = handlers?.onMembers ? new Members() : null;
    this._handlers = handlers ?? {};
    this._isUnheard = handlers === null; // a backend's room that has no handlers yet
    this._isRemoved = false; // by a backend: it is not joined again by itself
    this._hasMissed = false; // messages that arrived before the handlers
    this._joining = null; // the join that waits to be sent, or was sent last
    this._tries = 0; // consecutive joins with a temporary error
    this._forgotten = false; // the server no longer has our position: the next join is a gap
    this._hole = null; // the offset after which messages were last missing
  }

  /**
   * Sets the handlers of a room that a backend has brought the user into; messages since then are
   * delivered, too.
   * @param {import('./words.js').RoomHandlers} handlers
   * @returns {Room}
   */
  listen(handlers) {
    this._handlers = handlers;
    this._isUnheard = false;
    this.members = handlers.onMembers ? new Members() : null;
    if (this.state !== 'joined') return this;
    if (this._hasMissed) this._link.recover(this);
    else if (this.members) this._link.readMembers(this);
    this._hasMissed = false;
    return this;
  }

  /**
   * One page of the room's log, ascending by offset.
   * @param {{before?: number, limit?: number}} [page] The `limit` messages just before the offset
   * `before`.
   * @returns {Promise<{epoch: string, messages: import('./words.js').Message[], more: boolean}>}
   */
  async history({ before, limit } = {}) {
    const request = { type: 'history', room: this.name, limit, before };
    const { epoch, messages = [], more = false } = await this._link.ask(request);
    return { epoch, messages: messages.map((message) => this._seen(message, epoch)), more };
  }

  /**
   * Reads the list of members again; then `onMembers` is called. Joins and leaves are pushed; this
   * is for what is not: the number of connections of each user and of anonymous ones, and
   * everything in rooms whose events are off.
   */
  refreshMembers() {
    const isJoined = this.members && this.state === 'joined';
    if (isJoined && !this.members._isReading()) this._link.readMembers(this);
  }

  /** Leaves the room. Queued publishes are rejected with the code `left`. */
  leave() {
    if (this.state !== 'left') this._link.leave(this);
  }

  _check() {
    if (this.state === 'left') {
      throw new SwitchboardError('left', `you have left the room ${this.name}`);
    }
    if (this.name === null) {
      const reason = 'sign in first: without a name there is no personal room';
      throw new SwitchboardError('signed_out', reason);
    }
  }

  /**
   * Without a position a client would miss its own messages: a join takes longer than a publish.
   */
  get _isOpen() {
    return this.position !== null || this.state === 'refused';
  }

  _enter(state, more) {
    this.state = state;
    if (state !== 'joined' && state !== 'joining' && this.members) {
      this.members._outdate();
      this._membersChanged();
    }
    call(this._handlers.onState, { state, ...more });
  }

  _disconnected() {
    if (!this._isRemoved) this._enter('waiting');
  }

  _seen({ offset = null, user = null, time, data }, epoch) {
    return { room: this.name, epoch, offset, user, time, data };
  }

  _joined({ epoch, offset, top, recovered }, since) {
    this._tries = 0;
    const whole = !this._forgotten && (!since || recovered === true);
    // A position below the requested one would deliver old messages again, so the higher one holds.
    const isSame = since && whole && since.epoch === epoch;
    const start = isSame ? Math.max(offset, since.offset) : offset;
    this.position = { epoch, offset: start };
    this._forgotten = false;
    if (!whole) call(this._handlers.onGap, { ...this.position });
    if (this.state !== 'joining') return;
    this._enter('joined', { recovered: since ? whole : undefined, top });
    // The handler may have left again.
    if (this.members && this.state === 'joined') this._link.readMembers(this);
  }

  /**
   * Handles a pushed message; returns true if messages before it are missing, so that a join is
   * needed.
   */
  _message(message) {
    if (message.offset == null) {
      // A publish with `others` comes back without its data.
      if (!message.own) call(this._handlers.onMessage, this._seen(message, null));
      return false;
    }
    // While a join is in flight its reply sets the position; earlier messages come again after it.
    if (this.state !== 'joined' || message.offset <= this.position.offset) return false;
    if (this._isUnheard) {
      this._hasMissed = true;
      return false;
    }
    if (message.offset > this.position.offset + 1) return true;
    this.position = { epoch: this.position.epoch, offset: message.offset };
    this._hole = null;
    if (!message.own) call(this._handlers.onMessage, this._seen(message, this.position.epoch));
    return false;
  }

  _gap({ epoch, offset }) {
    if (this.state !== 'joined') return;
    if (this._isUnheard) return; // recovering from the former position reports it
    this.position = { epoch, offset };
    call(this._handlers.onGap, { epoch, offset });
  }

  // Members.

  _memberJoined(frame) {
    const member = { user: frame.user, info: frame.info ?? null, version: frame.version };
    if (!this.members || this.members._joined(frame)) call(this._handlers.onJoined, member);
    this._membersChanged();
  }

  _memberLeft(frame) {
    const member = { user: frame.user, version: frame.version };
    if (!this.members || this.members._left(frame)) call(this._handlers.onLeft, member);
    this._membersChanged();
  }

  /** More has changed than the server sends one by one, or versions start again. */
  _changedMuch() {
    if (!this.members) return;
    this.members._outdate();
    if (this.state === 'joined') this._link.readMembers(this);
  }

  /** Handles a page of members; returns whether to request the next one. */
  _page(answer) {
    if (answer.type === 'error') {
      this.members._refused(errorOf(answer));
      this._membersChanged();
      return false;
    }
    const change = this.members._page(answer);
    if (!change) return true;
    for (const { user, info, version } of change.joined) {
      call(this._handlers.onJoined, { user, info, version });
    }
    for (const { user } of change.left) call(this._handlers.onLeft, { user });
    this._membersChanged();
    return false;
  }

  _membersChanged() {
    if (this.members) call(this._handlers.onMembers, this.members);
  }
}
