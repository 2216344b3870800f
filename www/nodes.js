/**
 * The state of the nodes according to their reports in the room `$nodes`: which are alive, gone,
 * stopped or restarted, and their figures over the last minute. Nothing here depends on a page or a
 * clock: `now` (ms, never going back) is an argument. `docs/nodes.md` describes the reports.
 */

/** ms; reports come every second, so two are missing by then. */
export const GONE_AFTER = 2_500;
/** ms; how long the row of a node that has gone is kept. */
export const FORGET_AFTER = 300_000;
/** ms; how far back the plots go. */
export const SPAN = 60_000;
/** ms; a longer interval between two updates means that the page was suspended. */
const ASLEEP = 3_000;
/**
 * ms by which the start of a node may appear to precede the end of the run that it replaces:
 * uptimes are whole seconds.
 */
const BLUR = 1_500;

/**
 * @typedef {'connections'|'sessions'|'rooms'|'messages_in_per_s'|'messages_out_per_s'
 * |'delivery_p99_ms'|'redis_round_trip_ms'|'resident_bytes'|'uptime_s'} FigureName
 * @typedef {Record<FigureName, ?number>} Figures Null: not known.
 * @typedef {object} Line One run of a node.
 * @property {string} node Its label.
 * @property {string} incarnation
 * @property {?string} version
 * @property {string} state As reported, or `gone`, `stopped` (gone after it reported `draining`),
 * `silent` (no reports of any node).
 * @property {number} silence ms since its last report.
 * @property {Figures} figures Of the last report; all null while reports are missing.
 * @property {?number} restarted ms since it began, if it replaced another run.
 * @property {{at: number, figures: Figures}[]} points Of the last minute, the oldest first.
 * @typedef {{node: string, what: 'gone'|'stopped'|'back'|'restarted'}} News
 */

const FIGURES = [
  'connections',
  'sessions',
  'rooms',
  'messages_in_per_s',
  'messages_out_per_s',
  'delivery_p99_ms',
  'redis_round_trip_ms',
  'resident_bytes',
  'uptime_s',
];

/** @param {object} [report] @returns {Figures} */
function figuresOf(report) {
  const known = (value) => (Number.isFinite(value) && value >= 0 ? value : null);
  return Object.fromEntries(FIGURES.map((name) => [name, known(report?.[name])]));
}

const isName = (value) => typeof value === 'string' && value !== '';

/** The runs of all nodes. */
export class Nodes {
  #runs = new Map(); // incarnation → its state
  #since = null; // when reports could first be received; null while they cannot
  #updated = null;

  /** Reports can be received from now on. */
  resume(now) {
    this.#since = this.#updated = now;
  }

  /** No reports can be received: missing ones do not mean that a node is gone. */
  pause() {
    this.#since = null;
  }

  /**
   * Adds a report.
   * @returns {boolean} Whether it is valid.
   */
  receive(report, now) {
    if (!isName(report?.node) || !isName(report.incarnation)) return false;
    const run = this.#runs.get(report.incarnation) ?? { points: [], gone: false, restarted: null };
    run.node = report.node;
    run.version = isName(report.version) ? report.version : null;
    run.state = isName(report.state) ? report.state : 'ready';
    run.figures = figuresOf(report);
    run.receivedAt = now;
    run.points = run.points.filter(({ at }) => now - at <= SPAN);
    run.points.push({ at: now, figures: run.figures });
    this.#runs.set(report.incarnation, run);
    return true;
  }

  /**
   * The present state.
   * @returns {{lines: Line[], news: News[], isSilent: boolean}} `isSilent`: no report of any node
   * arrives, although they could be received.
   */
  update(now) {
    if (this.#since !== null && now - this.#updated > ASLEEP) this.#since = now;
    this.#updated = now;
    const isMissed = (run) => now - Math.max(run.receivedAt, this.#since) > GONE_AFTER;
    const runs = [...this.#runs.values()];
    const isSilent = this.#since !== null && runs.length > 0 && runs.every(isMissed);
    const news = [];
    if (this.#since !== null && !isSilent) {
      for (const run of runs) this.#detect(run, isMissed(run), news);
      this.#replace(news);
      for (const [incarnation, run] of this.#runs) {
        if (run.gone && now - run.receivedAt > FORGET_AFTER) this.#runs.delete(incarnation);
      }
    }
    const lines = [...this.#runs].map(([incarnation, run]) =>
      this.#line(incarnation, run, isSilent, now),
    );
    const byName = (a, b) => a.node.localeCompare(b.node, 'en', { numeric: true });
    const order = (a, b) => byName(a, b) || b.silence - a.silence;
    return { lines: lines.sort(order), news, isSilent };
  }

  #detect(run, gone, news) {
    if (run.gone === gone) return;
    run.gone = gone;
    const what = gone ? (run.state === 'draining' ? 'stopped' : 'gone') : 'back';
    news.push({ node: run.node, what });
  }

  /** A run that began after another of the same label had ended replaces it. */
  #replace(news) {
    for (const [incarnation, old] of this.#runs) {
      if (!old.gone) continue;
      const began = (run) => run.receivedAt - (run.figures.uptime_s ?? 0) * 1000;
      const successor = [...this.#runs.values()].find(
        (run) => !run.gone && run.node === old.node && began(run) > old.receivedAt - BLUR,
      );
      if (!successor) continue;
      successor.restarted = began(successor);
      successor.points = [...old.points, ...successor.points];
      this.#runs.delete(incarnation);
      news.push({ node: successor.node, what: 'restarted' });
    }
  }

  #line(incarnation, run, isSilent, now) {
    const { node, version, gone, restarted, receivedAt } = run;
    const isKnown = !gone && !isSilent && this.#since !== null;
    let { state } = run;
    if (gone) state = state === 'draining' ? 'stopped' : 'gone';
    else if (isSilent) state = 'silent';
    return {
      node,
      incarnation,
      version,
      state,
      silence: now - receivedAt,
      figures: isKnown ? run.figures : figuresOf(),
      restarted: restarted === null ? null : Math.max(0, now - restarted),
      points: run.points.filter(({ at }) => now - at <= SPAN),
    };
  }
}

/**
 * The cluster as a whole. Sums are of known figures; delays are the worst of any node. Null: not
 * known.
 * @param {Line[]} lines
 * @returns {Figures & {nodes: number, ready: number}} `nodes`: those that have not gone.
 */
export function totals(lines) {
  const alive = lines.filter(({ state }) => state !== 'gone' && state !== 'stopped');
  const of = (name, together) => {
    const known = alive.map(({ figures }) => figures[name]).filter((value) => value !== null);
    return known.length === 0 ? null : known.reduce(together);
  };
  const add = (a, b) => a + b;
  const worst = (a, b) => Math.max(a, b);
  const combined = (name) => of(name, name.endsWith('_ms') ? worst : add);
  return {
    nodes: alive.length,
    ready: alive.filter(({ state }) => state === 'ready').length,
    ...Object.fromEntries(FIGURES.map((name) => [name, combined(name)])),
  };
}

// Formatting of figures. An unknown one is a dash.

const UNKNOWN = '–';

function digits(value, most) {
  return value.toLocaleString('en', { maximumFractionDigits: most });
}

/** About three digits: 7, 42, 1,234, 56.7k, 1.2M. */
export function count(value) {
  if (value === null) return UNKNOWN;
  if (value >= 999_500) return `${digits(value / 1e6, value < 9.95e6 ? 1 : 0)}M`;
  if (value >= 9_999.5) return `${digits(value / 1e3, value < 99_950 ? 1 : 0)}k`;
  return digits(value, value < 9.95 ? 1 : 0);
}

export function milliseconds(value) {
  if (value === null) return UNKNOWN;
  if (value >= 999.5) return `${digits(value / 1000, 1)} s`;
  if (value > 0 && value < 0.005) return '< 0.01 ms';
  return `${digits(value, value < 0.995 ? 2 : value < 9.95 ? 1 : 0)} ms`;
}

export function bytes(value) {
  if (value === null) return UNKNOWN;
  const unit = value >= 2 ** 30 ? ['GiB', 2 ** 30] : ['MiB', 2 ** 20];
  const amount = value / unit[1];
  return `${digits(amount, amount < 9.95 ? 1 : 0)} ${unit[0]}`;
}

/** The two largest units: 5 s, 3 min, 2 h 5 min, 4 d 1 h. */
export function seconds(value) {
  if (value === null) return UNKNOWN;
  const whole = Math.floor(value);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/**
 * The curve of a figure over the last minute, as the `d` of an SVG path. It is interrupted where
 * the figure was not known or no report arrived.
 * @param {Line['points']} points
 * @param {FigureName} name
 * @param {{now: number, width: number, height: number, most: number}} frame `most`: the value at
 * the upper edge.
 */
export function path(points, name, { now, width, height, most }) {
  let d = '';
  let last = null;
  for (const { at, figures } of points) {
    const value = figures[name];
    if (value !== null) {
      const x = width * (1 - (now - at) / SPAN);
      const y = height * (1 - Math.min(1, value / most));
      d += `${last === null || at - last > GONE_AFTER ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    last = value === null ? null : at;
  }
  return d;
}

/**
 * The highest value of a figure in all rows, so that the plots of a column can be compared. Never
 * below `least`.
 */
export function highest(lines, name, least) {
  const values = lines.flatMap(({ points }) => points.map(({ figures }) => figures[name] ?? 0));
  return Math.max(least, ...values);
}
