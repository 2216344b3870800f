/**
 * Who is writing at the moment, told by messages that nobody keeps. Whoever writes says so now and
 * then; whoever hears it believes it for a little longer than that, so that it ends by itself,
 * however the writer went away. No element of the page is known here.
 */

import { enumerate } from './words.js';

/** How often it is said again while somebody writes, in ms. */
const PULSE = 3_000;
/** How long it is believed: two pulses, so that one may be lost. */
const LASTS = 2 * PULSE;
/** Persons whose writing is followed at once; nobody reads more names. */
const MOST = 32;

/** Those others who are writing in one conversation. */
export class Typists {
  #ends = new Map(); // user ('' for one without a name) → timer
  #onChange;
  #clock;

  constructor(onChange, clock = globalThis) {
    this.#onChange = onChange;
    this.#clock = clock;
  }

  heard(user, isTyping) {
    const key = user ?? '';
    const isNew = !this.#ends.has(key);
    if (!isTyping) return this.#end(key);
    if (isNew && this.#ends.size >= MOST) return;
    this.#clock.clearTimeout(this.#ends.get(key));
    this.#ends.set(key, this.#clock.setTimeout(() => this.#end(key), LASTS));
    if (isNew) this.#onChange();
  }

  /** What somebody wrote is here, or they have left. */
  ended(user) {
    this.#end(user ?? '');
  }

  clear() {
    for (const key of [...this.#ends.keys()]) this.#end(key);
  }

  words() {
    const names = [...this.#ends.keys()].map((name) => name || 'somebody');
    if (names.length === 0) return '';
    const text = `${enumerate(names, 3)} ${names.length === 1 ? 'is' : 'are'} typing…`;
    return names[0] === 'somebody' ? `S${text.slice(1)}` : text;
  }

  #end(key) {
    this.#clock.clearTimeout(this.#ends.get(key));
    if (this.#ends.delete(key)) this.#onChange();
  }
}

/** Our own writing in one conversation: `tell` is called with true every few seconds, and with false at its end. */
export class Writing {
  #tell;
  #now;
  #last = null; // when it was said; null: it was taken back, or never said

  constructor(tell, now = () => performance.now()) {
    this.#tell = tell;
    this.#now = now;
  }

  /** The box has changed. */
  changed(isEmpty) {
    if (isEmpty) return this.stop();
    const now = this.#now();
    if (this.#last !== null && now - this.#last < PULSE) return;
    this.#last = now;
    this.#tell(true);
  }

  /** What was written is gone, and others need not wait until they no longer believe it. */
  stop() {
    if (this.#last !== null && this.#now() - this.#last < LASTS) this.#tell(false);
    this.#last = null;
  }

  /** It was sent: the message itself is the end. */
  sent() {
    this.#last = null;
  }
}
