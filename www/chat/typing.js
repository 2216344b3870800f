/**
 * Typing indicators, sent as ephemeral messages. A client that types sends one at an interval; a
 * receiver shows it for a little longer than that, so that it expires by itself however the sender
 * disconnected. Nothing here depends on elements of the page.
 */

import { enumerate } from './text.js';

/** The interval at which typing is sent again, in ms. */
const INTERVAL = 3_000;
/** How long it is shown: two intervals, so that one message may be lost. */
const EXPIRY = 2 * INTERVAL;
/** The maximum number of users shown as typing at once. */
const MOST = 32;

/** The other users that type in one conversation. */
export class Typists {
  #ends = new Map(); // user ('' for an anonymous one) → timer
  #onChange;
  #clock;

  constructor(onChange, clock = globalThis) {
    this.#onChange = onChange;
    this.#clock = clock;
  }

  received(user, isTyping) {
    const key = user ?? '';
    const isNew = !this.#ends.has(key);
    if (!isTyping) return this.#end(key);
    if (isNew && this.#ends.size >= MOST) return;
    this.#clock.clearTimeout(this.#ends.get(key));
    this.#ends.set(key, this.#clock.setTimeout(() => this.#end(key), EXPIRY));
    if (isNew) this.#onChange();
  }

  /** The user's message has arrived, or the user has left. */
  ended(user) {
    this.#end(user ?? '');
  }

  clear() {
    for (const key of [...this.#ends.keys()]) this.#end(key);
  }

  text() {
    const names = [...this.#ends.keys()].map((name) => name || 'someone');
    if (names.length === 0) return '';
    const text = `${enumerate(names, 3)} ${names.length === 1 ? 'is' : 'are'} typing…`;
    return names[0] === 'someone' ? `S${text.slice(1)}` : text;
  }

  #end(key) {
    this.#clock.clearTimeout(this.#ends.get(key));
    if (this.#ends.delete(key)) this.#onChange();
  }
}

/**
 * The user's own typing in one conversation: `notify` is called with true every few seconds, and
 * with false at its end.
 */
export class Writing {
  #notify;
  #now;
  #last = null; // when it was last sent; null: never, or withdrawn

  constructor(notify, now = () => performance.now()) {
    this.#notify = notify;
    this.#now = now;
  }

  /** The message box has changed. */
  changed(isEmpty) {
    if (isEmpty) return this.stop();
    const now = this.#now();
    if (this.#last !== null && now - this.#last < INTERVAL) return;
    this.#last = now;
    this.#notify(true);
  }

  /** The box was emptied: ends the indicator of the others before it expires. */
  stop() {
    if (this.#last !== null && this.#now() - this.#last < EXPIRY) this.#notify(false);
    this.#last = null;
  }

  /** The message was sent: its arrival ends the indicator. */
  sent() {
    this.#last = null;
  }
}
