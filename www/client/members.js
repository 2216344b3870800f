/**
 * The members of a room over all nodes: a list that is read in pages and updated by pushed events.
 * For each user the higher version holds: that of the page which covers the name, or that of the
 * last push, in any order of arrival. Logic without I/O: frames go in, joins and leaves come out.
 *
 *     unknown ──begin()──▶ reading ──last page──▶ fresh ──outdate()──▶ known, not fresh
 *                             ▲                     │                     │
 *                             └──────begin()────────┴─────────────────────┘
 */

/**
 * Members requested with the first page, and the most with later ones: a page costs as many
 * commands as it may have members, and most rooms are small. The server sends fewer if their infos
 * are long.
 */
const FIRST_PAGE = 32;
const PAGE = 500;
/** The maximum number of listed users; in a larger room the rest is only counted. */
const MOST = 2000;

const NO_CHANGES = Object.freeze({ joined: [], left: [] });

/** The list of a room's members, created by a room that was joined with `onMembers`. */
export class Members {
  #entries = new Map(); // user → {user, connections, info, version}
  #reported = new Set(); // users that are present according to onJoined and onLeft
  #gone = new Map(); // user → version: users that left while the list was being read
  #pages = []; // {to, version} of the last list, in order; `to` null: all names above
  #reading = null; // {after, left, listed, pages, tries} of the list that is being read
  #beyond = 0; // users that are only counted, and the version of that count
  #counted = 0;

  /** Whether the list was ever read completely. */
  known = false;
  /**
   * Whether it is valid now: it was read, and the connection that pushes changes is the same since.
   */
  fresh = false;
  /** Anonymous connections when the list was last read. */
  anonymous = 0;
  /** Why the server refuses the list; null while it does not. */
  error = null;

  /** The number of users, listed or not. */
  get count() {
    return this.#entries.size + this.#beyond;
  }

  /** Whether all users are listed; in rooms beyond 2,000 users only the first by name are. */
  get complete() {
    return this.#beyond === 0;
  }

  /** @param {string} user @returns {import('./words.js').Member|undefined} */
  get(user) {
    return this.#entries.get(user);
  }

  has(user) {
    return this.#entries.has(user);
  }

  /** By name, as the server sorts. @returns {import('./words.js').Member[]} */
  list() {
    return [...this.#entries.values()].sort((a, b) => (a.user < b.user ? -1 : 1));
  }

  [Symbol.iterator]() {
    return this.list()[Symbol.iterator]();
  }

  /** Discards pushed versions: another connection or other versions begin. */
  _outdate() {
    this.fresh = false;
    this.#reading = null;
    this.#pages = [];
    this.#gone.clear();
    this.#counted = 0;
    for (const member of this.#entries.values()) member.version = -1;
  }

  /** Begins to read the list; a read in progress is cancelled. */
  _begin() {
    this.#reading = { after: undefined, left: 0, listed: 0, pages: [], tries: 0 };
    return this.#reading;
  }

  _isReading(reading = this.#reading) {
    return reading !== null && this.#reading === reading;
  }

  /** The request for the next page. */
  _question() {
    const { after, left } = this.#reading;
    const limit = after === undefined ? FIRST_PAGE : Math.min(Math.max(left, FIRST_PAGE), PAGE);
    return { type: 'members', after, limit };
  }

  /** Adds the next page; returns joins and leaves if that was the last, else null. */
  _page({ version = 0, members = [], count = 0, anonymous = 0, more = false }) {
    const reading = this.#reading;
    const { after } = reading;
    const last = members.at(-1)?.user;
    const goesOn = more && last !== undefined && (after === undefined || last > after);
    const to = goesOn ? last : null;
    const listed = new Set(members.map(({ user }) => user));
    for (const { user, version: known } of [...this.#entries.values()]) {
      const isCovered = (after === undefined || user > after) && (to === null || user <= to);
      if (isCovered && !listed.has(user) && known <= version) this.#entries.delete(user);
    }
    for (const { user, connections = 1, info = null } of members) {
      if ((this.#gone.get(user) ?? -1) > version) continue;
      const known = this.#entries.get(user)?.version ?? -1;
      this.#entries.set(user, { user, connections, info, version: Math.max(version, known) });
    }
    reading.pages.push({ to, version });
    reading.after = last;
    reading.listed += members.length;
    reading.left = count - reading.listed;
    this.anonymous = anonymous;
    return goesOn && this.#entries.size < MOST ? null : this.#finish(to, version, count);
  }

  #finish(to, version, count) {
    this.#pages = this.#reading.pages;
    this.#reading = null;
    this.#gone.clear();
    if (to !== null) {
      for (const user of [...this.#entries.keys()]) if (user > to) this.#entries.delete(user);
      // Pushes for the names above are only counted.
      this.#pages.push({ to: null, version: Infinity });
    }
    this.#beyond = to === null ? 0 : Math.max(1, count - this.#entries.size);
    this.#counted = version;
    const reported = this.#reported;
    this.#reported = new Set(this.#entries.keys());
    const isNews = this.known && to === null;
    this.known = this.fresh = true;
    this.error = null;
    if (!isNews) return NO_CHANGES;
    return {
      joined: [...this.#entries.values()].filter(({ user }) => !reported.has(user)),
      left: [...reported].filter((user) => !this.#entries.has(user)).map((user) => ({ user })),
    };
  }

  /** The server refused the list. */
  _refused(error) {
    this.#reading = null;
    this.error = error;
  }

  /** A user's first connection joined; returns whether that is a change. */
  _joined({ user, info = null, version = 0 }) {
    if (version <= this.#pageVersion(user)) return this.#count(user, version, 1);
    const known = this.#entries.get(user);
    if (known && known.version >= version) return false;
    this.#gone.delete(user);
    this.#entries.set(user, { user, connections: 1, info, version });
    if (!this.known || this.#reported.has(user)) return false;
    this.#reported.add(user);
    return true;
  }

  /** A user's last connection left; returns whether that is a change. */
  _left({ user, version = 0 }) {
    if (version <= this.#pageVersion(user)) return this.#count(user, version, -1);
    const known = this.#entries.get(user);
    if (known && known.version >= version) return false;
    if (this.#reading) this.#gone.set(user, version);
    this.#entries.delete(user);
    return this.#reported.delete(user);
  }

  /** The version of the page that covers a name: it includes all pushes up to it. */
  #pageVersion(user) {
    const holds = ({ to }) => to === null || user <= to;
    return (this.#reading?.pages.find(holds) ?? this.#pages.find(holds))?.version ?? -1;
  }

  /** A push for a user beyond the listed ones, or one that the list includes already. */
  #count(user, version, by) {
    if (this.#pageVersion(user) === Infinity && version > this.#counted) {
      this.#beyond = Math.max(1, this.#beyond + by);
    }
    return false;
  }
}
