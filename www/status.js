/**
 * The status page: joins `$nodes` and draws what the nodes report. What is known of them lives in
 * `nodes.js`, all that concerns the connection in `switchboard.js`; here is only what is seen. Text
 * from others reaches the page as textContent.
 */

import { Nodes, bytes, count, highest, milliseconds, path, seconds, totals } from './nodes.js';
import { Switchboard } from './switchboard.js';

const ROOM = '$nodes';
/** ms between two looks at how things stand. */
const LOOK = 500;
/** ms for which a line says that its node has begun anew. */
const RESTARTED_FOR = 120_000;
const PLOT = { width: 96, height: 24 };
const SVG = 'http://www.w3.org/2000/svg';
const KEPT = 'switchboard.status.token';

const WORDS = { connecting: 'Connecting…', open: 'Connected', waiting: 'Reconnecting…', closed: 'Disconnected' };
const STATES = {
  ready: 'Ready',
  no_broker: 'No Redis',
  behind: 'Catching up',
  unreadable: 'Must be upgraded',
  draining: 'Stopping',
  gone: 'Gone',
  stopped: 'Stopped',
  silent: 'No news',
};
const NEWS = { gone: 'is gone', stopped: 'has stopped', back: 'is back', restarted: 'was restarted' };

/** The columns after node and state. A plot's scale goes at least up to `least`, so that nothing is not drawn as much. */
const COLUMNS = [
  { name: 'connections', title: 'Connections', write: count, least: 10 },
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

// The table. On a phone its rows are cards, for which CSS takes the display of a table away: the
// roles keep it one.

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
    plot?.setAttribute('d', path(line.points, column.name, { ...PLOT, now, most: scales[column.name] }));
  }
  return row.element;
}

function sinceWhen({ state, silence, restarted }) {
  if (['gone', 'stopped', 'silent'].includes(state)) return `last seen ${seconds(silence / 1000)} ago`;
  return restarted !== null && restarted < RESTARTED_FOR ? `restarted ${seconds(restarted / 1000)} ago` : '';
}

function showLines(lines, now) {
  const scales = Object.fromEntries(PLOTTED.map(({ name, least }) => [name, highest(lines, name, least)]));
  const elements = lines.map((line) => showRow(line, scales, now));
  const shown = [...$('lines').children];
  if (elements.length !== shown.length || elements.some((element, index) => element !== shown[index])) {
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
  write($('total-connections'), count(all.connections));
  write($('total-in'), count(all.messages_in_per_s));
  write($('total-out'), count(all.messages_out_per_s));
  write($('total-delivery'), milliseconds(all.delivery_p99_ms));
  write($('total-memory'), bytes(all.resident_bytes));
  document.title = lines.length === 0 ? 'Nodes · Switchboard' : `${ready} nodes · Switchboard`;
}

const nodes = new Nodes();

function look() {
  const now = performance.now();
  const { lines, news, isSilent } = nodes.look(now);
  showLines(lines, now);
  showTotals(lines);
  if (news.length > 0) write($('news'), `${news.map(({ node, what }) => `${node} ${NEWS[what]}`).join('. ')}.`);
  const { state, node } = board.status;
  // The one that this page hangs on is there, so it is the way between the nodes that is not.
  if (isSilent && state === 'open') notice(`No reports come, not even of ${node}, which this page is connected to: the nodes seem not to reach Redis.`);
  else if (state !== 'open' && lines.length > 0) notice('No connection at the moment: nothing is known of the nodes.');
  else notice('');
}

function notice(text) {
  $('notice').hidden = text === '';
  write($('notice'), text);
}

// The connection, and the right to read.

let board = null;
let refused = null; // why the token was refused, if it was

function connect(token) {
  const former = board;
  const mine = new Switchboard(undefined, { token });
  board = mine; // from here on nothing counts that the former says
  former?.close();
  nodes.deafen();
  refused = null;
  mine.on('state', (status) => board === mine && showStatus(status));
  mine.on('error', (error) => {
    if (board === mine) refused = error;
  });
  mine.join(ROOM, {
    onMessage: ({ data }) => nodes.hear(data, performance.now()),
    onState: ({ state, error }) => {
      if (board !== mine) return;
      if (state === 'joined') {
        refused = null;
        nodes.listen(performance.now());
      } else nodes.deafen();
      if (state === 'joined' || state === 'refused') showDoor(error);
    },
  });
  showStatus(mine.status);
}

function showStatus({ state, node, reason }) {
  $('state').dataset.state = state;
  write($('state'), WORDS[state]);
  $('where').hidden = node === null;
  if (node !== null) write($('node'), node);
  if (state === 'closed' && reason) showDoor(new Error(reason));
}

/** Asks for a token when the room is refused; shows the cluster when it is not. */
function showDoor(error) {
  const was = $('door').hidden;
  $('door').hidden = !error;
  $('cluster').hidden = Boolean(error);
  if (error) write($('refusal'), (refused ?? error).message);
  if (error && was) $('token').focus();
}

/** Kept for this tab alone, so that a reload need not ask; where storage is blocked, not at all. */
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
      // Nothing to keep it in.
    }
  },
};

/** A token behind the `#` of the address, which is taken out of it at once: addresses are copied, kept and looked at. */
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
setInterval(look, LOOK);
