/**
 * The status page: joins `$nodes` and draws the reports of the nodes. Their state is in `nodes.js`,
 * the connection in `switchboard.js`; this file has only the page. Text from reports reaches the
 * page only as textContent.
 */

import { Nodes, bytes, count, highest, milliseconds, path, seconds, totals } from './nodes.js';
import { Switchboard } from './switchboard.js';

const ROOM = '$nodes';
/** ms between two updates of the page. */
const UPDATE_EVERY = 500;
/** ms for which a row shows that its node was restarted. */
const RESTARTED_FOR = 120_000;
const PLOT = { width: 96, height: 24 };
const SVG = 'http://www.w3.org/2000/svg';
const KEPT = 'switchboard.status.token';

const CONNECTION_STATES = {
  connecting: 'Connecting…',
  open: 'Connected',
  waiting: 'Reconnecting…',
  closed: 'Disconnected',
};
const STATES = {
  ready: 'Ready',
  no_broker: 'No Redis',
  stalled: 'No reads',
  unusable: 'Redis unusable',
  behind: 'Catching up',
  unreadable: 'Must be upgraded',
  draining: 'Stopping',
  gone: 'Gone',
  stopped: 'Stopped',
  silent: 'No news',
};
const NEWS = {
  gone: 'is gone',
  stopped: 'has stopped',
  back: 'is back',
  restarted: 'was restarted',
};

/**
 * The columns after node and state. A plot's scale goes at least up to `least`, so that small
 * values look small.
 */
const COLUMNS = [
  { name: 'sessions', title: 'Clients', write: count, least: 10 },
  { name: 'messages_in_per_s', title: 'In per second', write: count, least: 10 },
  { name: 'messages_out_per_s', title: 'Out per second', write: count, least: 10 },
  { name: 'delivery_p99_ms', title: 'Delivery p99', write: milliseconds, least: 1 },
  { name: 'redis_round_trip_ms', title: 'Redis', write: milliseconds },
  { name: 'rooms', title: 'Rooms', write: count },
  { name: 'resident_bytes', title: 'Memory', write: bytes },
  { name: 'uptime_s', title: 'Up for', write: seconds },
];
const PLOTTED = COLUMNS.filter(({ least }) => least !== undefined);

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// The table. On a phone CSS displays its rows as cards, so the roles keep it a table.

const rows = new Map(); // incarnation → the parts of its row

function makeRow() {
  const name = make('b');
  const version = make('small');
  const state = make('span', { class: 'state' });
  const since = make('small');
  const element = make('tr', { role: 'row' });
  element.append(
    make('th', { role: 'rowheader', scope: 'row' }, name, version),
    make('td', { role: 'cell', class: 'how' }, state, since),
  );
  const cells = COLUMNS.map((column) => {
    const value = make('span', { class: 'value' });
    const cell = make('td', { role: 'cell', 'data-title': column.title }, value);
    const plot = column.least === undefined ? null : makePlot(cell);
    element.append(cell);
    return { column, value, plot };
  });
  return { element, name, version, state, since, cells };
}

function makePlot(cell) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 -2 ${PLOT.width} ${PLOT.height + 3}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS(SVG, 'path');
  svg.append(line);
  cell.append(svg);
  return line;
}

function showRow(line, scales, now) {
  const row = rows.get(line.incarnation) ?? makeRow();
  rows.set(line.incarnation, row);
  write(row.name, line.node);
  write(row.version, line.version === null ? '' : `v${line.version}`);
  row.element.dataset.state = line.state;
  row.element.title = `Incarnation ${line.incarnation}`;
  write(row.state, STATES[line.state] ?? line.state);
  write(row.since, sinceWhen(line));
  for (const { column, value, plot } of row.cells) {
    write(value, column.write(line.figures[column.name]));
    const frame = { ...PLOT, now, most: scales[column.name] };
    plot?.setAttribute('d', path(line.points, column.name, frame));
  }
  return row.element;
}

function sinceWhen({ state, silence, restarted }) {
  if (['gone', 'stopped', 'silent'].includes(state)) {
    return `last seen ${seconds(silence / 1000)} ago`;
  }
  const isRecent = restarted !== null && restarted < RESTARTED_FOR;
  return isRecent ? `restarted ${seconds(restarted / 1000)} ago` : '';
}

function showLines(lines, now) {
  const scales = Object.fromEntries(
    PLOTTED.map(({ name, least }) => [name, highest(lines, name, least)]),
  );
  const elements = lines.map((line) => showRow(line, scales, now));
  const shown = [...$('lines').children];
  const isMoved = (element, index) => element !== shown[index];
  if (elements.length !== shown.length || elements.some(isMoved)) {
    $('lines').replaceChildren(...elements);
  }
  const known = new Set(lines.map(({ incarnation }) => incarnation));
  for (const incarnation of rows.keys()) if (!known.has(incarnation)) rows.delete(incarnation);
  $('waiting').hidden = lines.length > 0;
}

function showTotals(lines) {
  const all = totals(lines);
  const ready = lines.length === 0 ? '–' : `${all.ready} of ${lines.length}`;
  write($('total-nodes'), ready);
  write($('total-clients'), count(all.sessions));
  write($('total-in'), count(all.messages_in_per_s));
  write($('total-out'), count(all.messages_out_per_s));
  write($('total-delivery'), milliseconds(all.delivery_p99_ms));
  write($('total-memory'), bytes(all.resident_bytes));
  document.title = lines.length === 0 ? 'Nodes · Switchboard' : `${ready} nodes · Switchboard`;
}

const nodes = new Nodes();

function update() {
  const now = performance.now();
  const { lines, news, isSilent } = nodes.update(now);
  showLines(lines, now);
  showTotals(lines);
  if (news.length > 0) {
    const sentences = news.map(({ node, what }) => `${node} ${NEWS[what]}.`);
    write($('news'), sentences.join(' '));
  }
  const { state, node } = board.status;
  // The node of this page is up, so the connection between the nodes is broken.
  if (isSilent && state === 'open') {
    const text = `No reports arrive, not even from ${node}, to which this page is connected`;
    showBanner(`${text}: the nodes seem not to reach Redis.`);
  } else if (state !== 'open' && lines.length > 0) {
    showBanner('No connection at the moment: the state of the nodes is not known.');
  } else showBanner('');
}

function showBanner(text) {
  $('banner').hidden = text === '';
  write($('banner'), text);
}

// The connection, and the right to read.

let board = null;
let refused = null; // why the token was refused, if it was

function connect(token) {
  const former = board;
  const mine = new Switchboard(undefined, { token });
  board = mine; // events of the former one are ignored from now on
  former?.close();
  nodes.pause();
  refused = null;
  mine.on('state', (status) => board === mine && showStatus(status));
  mine.on('error', (error) => {
    if (board === mine) refused = error;
  });
  mine.join(ROOM, {
    onMessage: ({ data }) => nodes.receive(data, performance.now()),
    onState: ({ state, error }) => {
      if (board !== mine) return;
      if (state === 'joined') {
        refused = null;
        nodes.resume(performance.now());
      } else nodes.pause();
      if (state === 'joined' || state === 'refused') showTokenForm(error);
    },
  });
  showStatus(mine.status);
}

function showStatus({ state, node, reason }) {
  $('state').dataset.state = state;
  write($('state'), CONNECTION_STATES[state]);
  $('where').hidden = node === null;
  if (node !== null) write($('node'), node);
  if (state === 'closed' && reason) showTokenForm(new Error(reason));
}

/** Shows the token form when the room is refused, else the cluster. */
function showTokenForm(error) {
  const was = $('door').hidden;
  $('door').hidden = !error;
  $('cluster').hidden = Boolean(error);
  if (error) write($('refusal'), (refused ?? error).message);
  if (error && was) $('token').focus();
}

/**
 * The token, kept for this tab alone so that it survives a reload; where storage is blocked, not at
 * all.
 */
const kept = {
  read() {
    try {
      return sessionStorage.getItem(KEPT);
    } catch {
      return null;
    }
  },
  write(token) {
    try {
      sessionStorage.setItem(KEPT, token);
    } catch {
      // Storage is blocked.
    }
  },
};

/**
 * Returns a token after the `#` of the address, and removes it at once: addresses are copied,
 * stored and visible.
 */
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token === null) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return token.trim();
}

function use(token) {
  kept.write(token);
  connect(token);
}

$('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = $('token').value.trim();
  $('token').value = '';
  if (token !== '') use(token);
});
addEventListener('hashchange', () => {
  const token = takeToken();
  if (token) use(token);
});

const given = takeToken();
if (given) use(given);
else connect(kept.read());
setInterval(update, UPDATE_EVERY);
