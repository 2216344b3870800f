/**
 * Who is in a room, over all nodes: a list that is read in pages and kept true by what is pushed
 * between them. Of each user holds whatever has the higher version, the page its name belongs to or
 * the last push, whichever came first. Plain logic: frames go in; who has come and gone by them
 * comes out.
 *
 *     unknown ──begin()──▶ reading ──last page──▶ fresh ──outdate()──▶ known, not fresh
 *                             ▲                     │                     │
 *                             └──────begin()────────┴─────────────────────┘
 */

/** Members asked for at a time; the server sends fewer if their infos are long. */
const PAGE = 500;
/** Users who are listed by name at most; of a larger room the rest is only counted. */
const MOST = 2000;

const NOBODY = Object.freeze({ joined: [], left: [] });

/** The list of a room's members. Made by a room that was joined with `onMembers`; read it whenever. */
export class Members {
  #here = new Map(); // user → {user, connections, info, version}
  #told = new Set(); // users who are here as far as was told by onJoined and onLeft
  #gone = new Map(); // user → version: who left while a list was being read
  #pages = []; // {to, version} of the last list that was read, in order; `to` null: all names above
  #reading = null; // {after, pages, tries} of the list that is being read
  #beyond = 0; // users who are only counted, and the version of that
  #counted = 0;

  /** Whether the list was ever read to its end. */
  known = false;
  /** Whether it is true now: it was read, and the connection on which changes are pushed has lasted since. */
  fresh = false;
  /** Connections that have not said who they are, when the list was last read. */
  anonymous = 0;
  /** Why the server does not tell who is here; null while it does. */
  error = null;

  /** How many users are here, listed or not. */
  get count() {
    return this.#here.size + this.#beyond;
  }

  /** Whether everyone is listed; of rooms beyond 2,000 users only the first by name are. */
  get complete() {
    return this.#beyond === 0;
  }

  /** @param {string} user @returns {import('./words.js').Member|undefined} */
  get(user) {
    return this.#here.get(user);
  }

  has(user) {
    return this.#here.has(user);
  }

  /** By name, as the server sorts. @returns {import('./words.js').Member[]} */
  list() {
    return [...this.#here.values()].sort((a, b) => (a.user < b.user ? -1 : 1));
  }

  [Symbol.iterator]() {
    return this.list()[Symbol.iterator]();
  }

  /** What was pushed no longer counts: another connection or other versions begin. */
  _outdate() {
    this.fresh = false;
    this.#reading = null;
    this.#pages = [];
    this.#gone.clear();
    this.#counted = 0;
    for (const member of this.#here.values()) member.version = -1;
  }

  /** Begins to read the list; a reading under way is given up. */
  _begin() {
    this.#reading = { after: undefined, pages: [], tries: 0 };
    return this.#reading;
  }

  _isReading(reading = this.#reading) {
    return reading !== null && this.#reading === reading;
  }

  /** The question that goes on with what is being read. */
  _question() {
    return { type: 'members', after: this.#reading.after, limit: PAGE };
  }

  /** Takes the next page; whoever has come and gone by the list when that was the last, else null. */
  _page({ version = 0, members = [], count = 0, anonymous = 0, more = false }) {
    const reading = this.#reading;
    const { after } = reading;
    const last = members.at(-1)?.user;
    const goesOn = more && last !== undefined && (after === undefined || last > after);
    const to = goesOn ? last : null;
    const listed = new Set(members.map(({ user }) => user));
    for (const { user, version: known } of [...this.#here.values()]) {
      const isCovered = (after === undefined || user > after) && (to === null || user <= to);
      if (isCovered && !listed.has(user) && known <= version) this.#here.delete(user);
    }
    for (const { user, connections = 1, info = null } of members) {
      if ((this.#gone.get(user) ?? -1) > version) continue;
      const known = this.#here.get(user)?.version ?? -1;
      this.#here.set(user, { user, connections, info, version: Math.max(version, known) });
    }
    reading.pages.push({ to, version });
    reading.after = last;
    this.anonymous = anonymous;
    return goesOn && this.#here.size < MOST ? null : this.#finish(to, version, count);
  }

  #finish(to, version, count) {
    this.#pages = this.#reading.pages;
    this.#reading = null;
    this.#gone.clear();
    if (to !== null) {
      for (const user of [...this.#here.keys()]) if (user > to) this.#here.delete(user);
      this.#pages.push({ to: null, version: Infinity }); // what is pushed of the names above is only counted
    }
    this.#beyond = to === null ? 0 : Math.max(1, count - this.#here.size);
    this.#counted = version;
    const told = this.#told;
    this.#told = new Set(this.#here.keys());
    const isNews = this.known && to === null;
    this.known = this.fresh = true;
    this.error = null;
    if (!isNews) return NOBODY;
    return {
      joined: [...this.#here.values()].filter(({ user }) => !told.has(user)),
      left: [...told].filter((user) => !this.#here.has(user)).map((user) => ({ user })),
    };
  }

  /** The server does not answer the question for the list. */
  _refused(error) {
    this.#reading = null;
    this.error = error;
  }

  /** A user's first connection came; whether that is news. */
  _joined({ user, info = null, version = 0 }) {
    if (version <= this.#floor(user)) return this.#count(user, version, 1);
    const known = this.#here.get(user);
    if (known && known.version >= version) return false;
    this.#gone.delete(user);
    this.#here.set(user, { user, connections: 1, info, version });
    if (!this.known || this.#told.has(user)) return false;
    this.#told.add(user);
    return true;
  }

  /** A user's last connection went; whether that is news. */
  _left({ user, version = 0 }) {
    if (version <= this.#floor(user)) return this.#count(user, version, -1);
    const known = this.#here.get(user);
    if (known && known.version >= version) return false;
    if (this.#reading) this.#gone.set(user, version);
    this.#here.delete(user);
    return this.#told.delete(user);
  }

  /** The version of the page that a name belongs to: what was pushed up to it is in it. */
  #floor(user) {
    const holds = ({ to }) => to === null || user <= to;
    return (this.#reading?.pages.find(holds) ?? this.#pages.find(holds))?.version ?? -1;
  }

  /** A push for somebody who is not listed for want of room, or which the list has already. */
  #count(user, version, by) {
    if (this.#floor(user) === Infinity && version > this.#counted) this.#beyond = Math.max(1, this.#beyond + by);
    return false;
  }
}
