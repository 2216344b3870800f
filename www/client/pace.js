/**
 * Spaces the commands of one connection that a client sends in bulk (joins, pages of logs and of
 * members) to the rate at which the server reads it. A client that sent them all at once would be
 * read more slowly and, after some time over its rate, disconnected, and would begin again.
 *
 * It is a token bucket like the server's (docs/limits.md, "How rates work"), a little slower, into
 * which every command counts. Logic without I/O: time and timers come as arguments.
 */

/** The kinds of commands that wait, by precedence. */
export const JOIN = 0;
export const HISTORY = 1;
export const LIST = 2;

/** The part of the server's rate that is used: clocks differ, and timers are late. */
const SHARE = 0.9;
/** A server lets a session send the commands of two seconds at once. */
const BURST_SECONDS = 2;
/** The default of `commands-per-second`, for servers that do not announce it. */
const USUAL_RATE = 100;
/** Lists of members that are read at once: the answers of all of them fill the socket. */
const MOST_LISTS = 8;
/** ms; a program that publishes at its whole rate delays the other commands, but only so long. */
const LONGEST_WAIT = 1000;

/** What a command costs at the server. */
export function costOf({ type, limit }) {
  if (type === 'history') return 4 + Math.ceil((limit ?? 50) / 16);
  if (type === 'members') return 4 + Math.ceil((limit ?? 100) / 16);
  return type === 'join' || type === 'auth' ? 4 : 1;
}

export class Pacer {
  #rate; // commands per ms; 0: no limit
  #isKnown;
  #now;
  #later;
  #tokens;
  #countedAt;
  #waiting = [[], [], []]; // {cost, run, lost} by kind
  #lists = 0; // in flight
  #headSince = null; // since when the first has waited for tokens
  #hasTimer = false;

  /**
   * @param {number|undefined} rate Commands per second, 0: any number, undefined: not announced.
   * @param {() => number} now ms
   * @param {(ms: number, run: () => void) => void} later
   */
  constructor(rate, now, later) {
    this.#isKnown = rate !== undefined;
    this.#rate = ((rate ?? USUAL_RATE) * SHARE) / 1000;
    this.#now = now;
    this.#later = later;
    this.#tokens = this.#most;
    this.#countedAt = now();
  }

  get #most() {
    return this.#rate * 1000 * BURST_SECONDS;
  }

  /** A command was sent. */
  spend(cost) {
    this.#refill();
    this.#tokens = Math.max(this.#tokens - cost, -this.#most);
  }

  /**
   * Calls `run`, which sends a command of this cost, as soon as the rate allows; `lost` if the
   * connection ends before. `run` returns false if it has nothing to send any more.
   */
  add(kind, cost, run, lost) {
    // Where the rate is not known, joins are not delayed: the server may have none.
    if (kind === JOIN && !this.#isKnown) return void run();
    this.#waiting[kind].push({ cost, run, lost });
    this.#drain();
  }

  /** A list was answered. */
  listDone() {
    this.#lists -= 1;
    this.#drain();
  }

  stop() {
    for (const { lost } of this.#waiting.splice(0, 3, [], [], []).flat()) lost?.();
  }

  #refill() {
    const now = this.#now();
    this.#tokens = Math.min(this.#most, this.#tokens + (now - this.#countedAt) * this.#rate);
    this.#countedAt = now;
  }

  #drain() {
    for (;;) {
      const isNext = (queue, kind) =>
        queue.length > 0 && (kind !== LIST || this.#lists < MOST_LISTS);
      const kind = this.#waiting.findIndex(isNext);
      if (kind === -1) return;
      const wait = this.#wait(this.#waiting[kind][0].cost);
      if (wait > 0) return this.#wake(wait);
      this.#headSince = null;
      const { run } = this.#waiting[kind].shift();
      if (run() !== false && kind === LIST) this.#lists += 1;
    }
  }

  /** ms until a command of this cost may be sent. */
  #wait(cost) {
    if (this.#rate === 0) return 0;
    this.#refill();
    const missing = Math.min(cost, this.#most) - this.#tokens;
    if (missing <= 0) return 0;
    const now = this.#now();
    this.#headSince ??= now;
    return Math.min(missing / this.#rate, this.#headSince + LONGEST_WAIT - now);
  }

  #wake(wait) {
    if (this.#hasTimer) return;
    this.#hasTimer = true;
    this.#later(Math.ceil(wait), () => {
      this.#hasTimer = false;
      this.#drain();
    });
  }
}
