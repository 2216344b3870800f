// The rules of www/nodes.js: which nodes are live, gone, stopped or restarted, and the format of
// metrics. Time is an argument. Run with `node --test tests/www/*.test.mjs`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FORGET_AFTER,
  GONE_AFTER,
  Nodes,
  SPAN,
  bytes,
  count,
  highest,
  milliseconds,
  path,
  seconds,
  totals,
} from '../../www/nodes.js';

const report = (node, incarnation, more = {}) => ({
  node,
  incarnation,
  version: '1.0.0',
  state: 'ready',
  uptime_s: 60,
  connections: 3,
  sessions: 2,
  rooms: 1,
  messages_in_per_s: 1,
  messages_out_per_s: 10,
  delivery_p99_ms: 0.5,
  redis_round_trip_ms: 0.3,
  resident_bytes: 1 << 20,
  ...more,
});

/** Nodes that report every second, from `from` to `to`. Returns the news, read twice a second. */
function live(nodes, reports, from, to) {
  const news = [];
  for (let now = from; now <= to; now += 500) {
    if (now % 1000 === 0)
      for (const one of reports) nodes.receive(typeof one === 'function' ? one(now) : one, now);
    news.push(...nodes.update(now).news);
  }
  return news;
}

function listening() {
  const nodes = new Nodes();
  nodes.resume(0);
  return nodes;
}

const states = (nodes, now) => nodes.update(now).lines.map(({ node, state }) => `${node} ${state}`);

test('each run that reports has a line, sorted by name, with its metrics', () => {
  const nodes = listening();
  for (const name of ['n10', 'n2', 'n1']) assert(nodes.receive(report(name, name), 0));
  const { lines, news, isSilent } = nodes.update(100);
  assert.deepEqual(lines.map(({ node }) => node), ['n1', 'n2', 'n10']);
  assert.deepEqual([news, isSilent], [[], false]);
  const [{ figures, version, silence, restarted }] = lines;
  assert.deepEqual(
    [figures.connections, figures.delivery_p99_ms, version, silence, restarted],
    [3, 0.5, '1.0.0', 100, null],
  );
});

test('an invalid report is ignored, and an invalid number is unknown', () => {
  const nodes = listening();
  for (const wrong of [
    null,
    7,
    'x',
    [],
    {},
    { node: 'a' },
    { node: '', incarnation: 'x' },
    { node: 1, incarnation: 2 },
  ]) {
    assert.equal(nodes.receive(wrong, 0), false, JSON.stringify(wrong));
  }
  nodes.receive(
    {
      node: 'a',
      incarnation: 'x',
      connections: '7',
      rooms: -1,
      resident_bytes: null,
      messages_in_per_s: Infinity,
    },
    0,
  );
  const [{ figures, state }] = nodes.update(0).lines;
  assert.equal(state, 'ready');
  assert.deepEqual(new Set(Object.values(figures)), new Set([null]));
});

test('a silent node is gone within three seconds, and removed after five minutes', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 10_000);
  const news = live(nodes, [report('a', '1')], 10_500, 13_000);
  assert.deepEqual(news, [{ node: 'b', what: 'gone' }]);
  const [, b] = nodes.update(13_000).lines;
  assert.deepEqual([b.state, b.silence, b.figures.connections], ['gone', 3000, null]);
  assert(b.points.length > 10, 'its history is still drawn');
  live(nodes, [report('a', '1')], 13_500, 10_000 + FORGET_AFTER);
  assert.deepEqual(states(nodes, 10_000 + FORGET_AFTER), ['a ready', 'b gone']);
  assert.deepEqual(states(nodes, 10_001 + FORGET_AFTER), ['a ready']);
});

test('a node that reports again is back, and a draining node has stopped', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 5000);
  live(nodes, [report('a', '1')], 5500, 9000);
  assert.deepEqual(live(nodes, [report('a', '1'), report('b', '2')], 9500, 11_000), [
    { node: 'b', what: 'back' },
  ]);
  live(nodes, [report('a', '1'), report('b', '2', { state: 'draining' })], 11_500, 13_000);
  assert.deepEqual(states(nodes, 13_000), ['a ready', 'b draining']);
  assert.deepEqual(live(nodes, [report('a', '1')], 13_500, 17_000), [
    { node: 'b', what: 'stopped' },
  ]);
  assert.deepEqual(states(nodes, 17_000), ['a ready', 'b stopped']);
});

test('a new run replaces the one that is gone, and keeps its history', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 10_000);
  const begun = (now) => report('b', '3', { uptime_s: Math.floor((now - 11_500) / 1000) });
  const news = live(nodes, [report('a', '1'), begun], 13_000, 16_000);
  assert.deepEqual(news, [{ node: 'b', what: 'gone' }, { node: 'b', what: 'restarted' }]);
  const { lines } = nodes.update(16_000);
  assert.deepEqual(lines.map(({ incarnation }) => incarnation), ['1', '3']);
  assert(Math.abs(lines[1].restarted - 4500) <= 1000, `${lines[1].restarted} ms ago`);
  assert.equal(lines[1].points[0].at, 0);
});

test('a second node of the same label is not taken for a new run', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('a', '2')], 0, 10_000);
  assert.deepEqual(states(nodes, 10_000), ['a ready', 'a ready']);
  live(nodes, [report('a', '2', { uptime_s: 70 })], 10_500, 14_000);
  assert.deepEqual(states(nodes, 14_000), ['a gone', 'a ready']);
});

test('no node is gone while the page itself is disconnected', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 5000);
  nodes.pause();
  assert.deepEqual(live(nodes, [], 5500, 60_000), []);
  assert.deepEqual(states(nodes, 60_000), ['a ready', 'b ready']);
  assert.equal(
    nodes.update(60_000).lines[0].figures.connections,
    null,
    'but their metrics are unknown',
  );
  nodes.resume(60_000);
  const news = live(nodes, [report('a', '1')], 60_000, 63_000);
  assert.deepEqual(news, [{ node: 'b', what: 'gone' }]);
});

test('a page that slept waits for reports before a node is gone', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 5000);
  assert.deepEqual(states(nodes, 500_000), ['a ready', 'b ready']);
  assert.deepEqual(live(nodes, [report('a', '1')], 500_500, 503_500), [
    { node: 'b', what: 'gone' },
  ]);
});

test('without reports of any node the page reports silence and no node is gone', () => {
  const nodes = listening();
  live(nodes, [report('a', '1'), report('b', '2')], 0, 5000);
  assert.deepEqual(live(nodes, [], 5500, 60_000), []);
  const { isSilent, lines } = nodes.update(60_000);
  assert.deepEqual([isSilent, lines[0].state, lines[0].figures.rooms], [true, 'silent', null]);
  assert.deepEqual(live(nodes, [report('a', '1'), report('b', '2')], 61_000, 61_000), []);
  assert.deepEqual(states(nodes, 61_000), ['a ready', 'b ready']);
  assert.equal(new Nodes().update(0).isSilent, false);
});

test('the totals are the sum over live nodes, and the highest of their delays', () => {
  const nodes = listening();
  live(nodes, [report('c', '3')], 0, 0);
  live(
    nodes,
    [
      report('a', '1', { delivery_p99_ms: null, resident_bytes: null }),
      report('b', '2', { redis_round_trip_ms: 4, state: 'draining' }),
    ],
    1000,
    5000,
  );
  const all = totals(nodes.update(5000).lines);
  assert.deepEqual([all.nodes, all.ready], [2, 1]);
  assert.deepEqual(
    [
      all.connections,
      all.sessions,
      all.messages_out_per_s,
      all.delivery_p99_ms,
      all.redis_round_trip_ms,
      all.resident_bytes,
    ],
    [6, 4, 20, 0.5, 4, 1 << 20],
  );
  assert.equal(totals([]).connections, null);
});

test('only the last minute is kept', () => {
  const nodes = listening();
  live(nodes, [report('a', '1')], 0, 300_000);
  const [{ points }] = nodes.update(300_000).lines;
  assert.equal(points.length, SPAN / 1000 + 1);
});

test('metrics are short, and an unknown one is a dash', () => {
  const table = [
    [
      count,
      [
        [null, '–'],
        [0, '0'],
        [0.25, '0.3'],
        [7, '7'],
        [42.4, '42'],
        [1234, '1,234'],
        [9999, '9,999'],
        [9999.7, '10k'],
        [56_700, '56.7k'],
        [999_400, '999k'],
        [999_600, '1M'],
        [1_250_000, '1.3M'],
        [23_000_000, '23M'],
      ],
    ],
    [
      milliseconds,
      [
        [null, '–'],
        [0, '0 ms'],
        [0.004, '< 0.01 ms'],
        [0.104, '0.1 ms'],
        [0.42, '0.42 ms'],
        [3.25, '3.3 ms'],
        [41.6, '42 ms'],
        [999.6, '1 s'],
        [2500, '2.5 s'],
      ],
    ],
    [
      bytes,
      [
        [null, '–'],
        [5 << 20, '5 MiB'],
        [300 << 20, '300 MiB'],
        [1.5 * 2 ** 30, '1.5 GiB'],
      ],
    ],
    [
      seconds,
      [
        [null, '–'],
        [0, '0 s'],
        [59.9, '59 s'],
        [60, '1 min'],
        [7500, '2 h 5 min'],
        [90_000, '1 d 1 h'],
      ],
    ],
  ];
  for (const [write, rows] of table)
    for (const [value, text] of rows) assert.equal(write(value), text, `${write.name}(${value})`);
});

test('a plot has a gap where values are unknown', () => {
  const figures = (value) => ({ connections: value });
  const points = [
    [0, 0],
    [1000, 10],
    [2000, null],
    [3000, 5],
    [4000, 20],
    [GONE_AFTER + 4001, 5],
  ].map(([at, value]) => ({ at, figures: figures(value) }));
  const frame = { now: SPAN, width: 60, height: 10, most: 10 };
  assert.equal(path(points, 'connections', frame), 'M0.0 10.0L1.0 0.0M3.0 5.0L4.0 0.0M6.5 5.0');
  assert.equal(path([], 'connections', frame), '');
  assert.equal(highest([{ points }], 'connections', 7), 20);
  assert.equal(highest([], 'connections', 7), 7);
});
