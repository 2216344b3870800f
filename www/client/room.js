/**
 * A room as its client stands in it: the position that makes messages come in order and once, the
 * list of who is here, and the publishes that wait their turn. It does not know the connection; the
 * board gives it a link to ask by.
 */

import { Members } from './members.js';
import { SwitchboardError, call, errorOf, newKey } from './words.js';

/** The way out to a room: publishes in order, of which only the first may be on its way. */
export class Outlet {
  /** @param {string} name @param {object} link What the board does for its rooms. */
  constructor(name, link) {
    this.name = name;
    this._link = link;
    this._queue = [];
  }

  /**
   * Publishes to the room, after what was published before. Retried with the same key until it is
   * answered, over any number of connections, so it is in the log exactly once. An `ephemeral`
   * publish (typing …) is sent at most once and has no position. @param {any} data Anything JSON
   * can say. It is encoded now; later changes do not count. @param {{key?: string, others?:
   * boolean, ephemeral?: boolean}} [options] `others`: do not send it back to me. @returns
   * {Promise<?import('./words.js').Position>} Rejects with a {@link SwitchboardError}.
   */
  async publish(data, { key = newKey(), others = false, ephemeral = false } = {}) {
    const json = JSON.stringify(data);
    if (json === undefined) throw new TypeError('data must be something JSON can say');
    this._check();
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

  _check() {}

  /** Whether publishes may go out. */
  get _isOpen() {
    return true;
  }

  _reject(error) {
    for (const entry of this._queue.splice(0)) entry.reject(error);
  }
}

/**
 * A room one has joined. Made by `Switchboard.join` and `Switchboard.personal`; fields and methods
 * that begin with `_` belong to those.
 *
 *     waiting ──connection──▶ joining ──ok──▶ joined ──hole──▶ joining …
 *        ▲                       └──error──▶ refused            (any of them ──leave()──▶ left)
 *        └───────── connection lost ─────────────┘
 */
export class Room extends Outlet {
  constructor(name, handlers, link) {
    super(name, link);
    /** @type {import('./words.js').RoomState} */ this.state = 'waiting';
    /** @type {?import('./words.js').Position} Where one stands; null until the first join is answered. */ this.position = null;
    /** @type {?Members} Who is here; null unless joined with `onMembers`. */ this.members = handlers.onMembers ? new Members() : null;
    this._handlers = handlers;
    this._tries = 0; // joins in a row that were answered "not now"
    this._forgotten = false; // the server gave up our position: the next join's answer is a gap
    this._hole = null; // the offset at which a hole was last met
  }

  /**
   * One page of the room's log, ascending by offset. @param {{before?: number, limit?: number}}
   * [page] The `limit` messages that come just before the offset `before`. @returns
   * {Promise<{epoch: string, messages: import('./words.js').Message[], more: boolean}>}
   */
  async history({ before, limit } = {}) {
    const { epoch, messages = [], more = false } = await this._link.ask({ type: 'history', room: this.name, limit, before });
    return { epoch, messages: messages.map((message) => this._seen(message, epoch)), more };
  }

  /**
   * Reads anew who is here; `onMembers` tells when that is known. Not needed to know who comes and
   * goes, but for what is not pushed: how many connections each user has, how many are anonymous,
   * and everything in rooms whose events are off.
   */
  refreshMembers() {
    if (this.members && this.state === 'joined' && !this.members._isReading()) this._link.readMembers(this);
  }

  /** Leaves the room. Publishes still queued are rejected with the code `left`. */
  leave() {
    if (this.state !== 'left') this._link.leave(this);
  }

  _check() {
    if (this.state === 'left') throw new SwitchboardError('left', `you have left the room ${this.name}`);
    if (this.name === null) throw new SwitchboardError('signed_out', 'sign in first: without a name there is no personal room');
  }

  /** Whoever stands nowhere yet would not hear its own words: a join takes longer than a publish. */
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

  _seen({ offset = null, user = null, time, data }, epoch) {
    return { room: this.name, epoch, offset, user, time, data };
  }

  _joined({ epoch, offset, top, recovered }, since) {
    this._tries = 0;
    const whole = !this._forgotten && (!since || recovered === true);
    // Standing lower than we said would show us old messages again, so our own position keeps the
    // upper hand.
    const stands = since && whole && since.epoch === epoch ? Math.max(offset, since.offset) : offset;
    this.position = { epoch, offset: stands };
    this._forgotten = false;
    if (!whole) call(this._handlers.onGap, { ...this.position });
    if (this.state !== 'joining') return;
    this._enter('joined', { recovered: since ? whole : undefined, top });
    // The handler may have left again.
    if (this.members && this.state === 'joined') this._link.readMembers(this);
  }

  /** Takes a pushed message; true if it lies behind a hole, so that the room must be joined anew. */
  _message(message) {
    if (message.offset == null) {
      // What one said to the others only comes back without its data.
      if (!message.own) call(this._handlers.onMessage, this._seen(message, null));
      return false;
    }
    // While a join is on its way only its answer tells where we stand; what comes before it comes
    // again after it.
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

  // Who is here.

  _came(frame) {
    const member = { user: frame.user, info: frame.info ?? null, version: frame.version };
    if (!this.members || this.members._joined(frame)) call(this._handlers.onJoined, member);
    this._membersChanged();
  }

  _went(frame) {
    const member = { user: frame.user, version: frame.version };
    if (!this.members || this.members._left(frame)) call(this._handlers.onLeft, member);
    this._membersChanged();
  }

  /** More has changed than the server tells one by one, or its versions have begun anew. */
  _changedMuch() {
    if (!this.members) return;
    this.members._outdate();
    if (this.state === 'joined') this._link.readMembers(this);
  }

  /** An answer to the question for the list; whether to go on asking. */
  _page(answer) {
    if (answer.type === 'error') {
      this.members._refused(errorOf(answer));
      this._membersChanged();
      return false;
    }
    const change = this.members._page(answer);
    if (!change) return true;
    for (const { user, info, version } of change.joined) call(this._handlers.onJoined, { user, info, version });
    for (const { user } of change.left) call(this._handlers.onLeft, { user });
    this._membersChanged();
    return false;
  }

  _membersChanged() {
    if (this.members) call(this._handlers.onMembers, this.members);
  }
}
