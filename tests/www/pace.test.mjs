// Commands that are sent in bulk keep to the rate that the server announces, and neither publishes
// nor a rate of zero wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { costOf } from '../../www/client/pace.js';
import { exchange, outcome } from './exchange.mjs';

const RATE = 100;

/**
 * A server's token bucket at the end of the fake socket, which answers everything at once.
 * `debt` is by how many commands the client was ever ahead of its rate.
 */
function metered(rate, count, handlers = {}) {
  const at = exchange();
  const rooms = Array.from({ length: count }, (_, n) => at.board.join(`room.${n}`, handlers));
  at.socket.open({ limits: { message: 65_536, ...(rate !== undefined && { rate }) } });
  let [tokens, done] = [2 * RATE, 0];
  at.debt = 0;
  at.pass = (ms) => {
    for (let passed = 0; passed < ms; passed += 10) {
      tokens = Math.min(2 * RATE, tokens + RATE / 100);
      while (done < at.socket.sent.length) {
        const frame = at.socket.sent[done++];
        tokens -= costOf(frame);
        at.debt = Math.max(at.debt, -tokens);
        const { id, room, type } = frame;
        const page = type === 'members' && { version: 1, members: [{ user: 'ada' }], count: 1 };
        at.socket.push({ type: 'ok', id, room, epoch: 'e', offset: 0, ...page });
      }
      at.clock.pass(10);
    }
  };
  return Object.assign(at, { rooms });
}

const isWhole = ({ members }) => members.fresh && members.count === 1;

test('128 rooms with lists are whole within 20 s and never ahead of the rate', () => {
  const at = metered(RATE, 128, { onMembers: () => {} });
  at.pass(20_000);
  assert.equal(at.rooms.filter(isWhole).length, 128);
  assert.equal(at.debt, 0);
});

test('a thousand joins are sent at the rate', () => {
  const at = metered(RATE, 1000);
  at.pass(60_000);
  assert.ok(at.rooms.every(({ state }) => state === 'joined'));
  assert.equal(at.debt, 0);
});

test('logs are read at the rate, before lists', async () => {
  const at = metered(RATE, 60, { onMembers: () => {} });
  const pages = at.rooms.map((room) => room.history({ limit: 100 }));
  at.pass(20_000);
  assert.equal(at.debt, 0);
  assert.ok(at.rooms.every(isWhole));
  assert.equal((await Promise.all(pages)).length, 60);
  const types = at.socket.sent.map(({ type }) => type);
  assert.ok(types.lastIndexOf('history') < types.indexOf('members'), types.join(' '));
});

test('a log that waits for the rate is rejected if the connection ends', async () => {
  const at = metered(RATE, 60);
  at.pass(2000);
  const pages = Array.from({ length: 60 }, () => at.rooms[0].history());
  const outcomes = Promise.all(pages.map(outcome));
  assert.ok(at.socket.of('history').length < 60);
  at.socket.die();
  assert.deepEqual(new Set(await outcomes), new Set(['closed']));
});

test('publishes do not wait, and lists advance beside any number of them', () => {
  const at = metered(RATE, 20, { onMembers: () => {} });
  at.pass(2000);
  for (const room of at.rooms) room.refreshMembers();
  at.pass(1000);
  const before = at.socket.of('members').length;
  for (let n = 0; n < 100; n++) {
    // More than the rate.
    for (let k = 0; k < 20; k++) at.rooms[k].publish('x', { ephemeral: true });
    if (n === 0) at.rooms.forEach((room) => room.refreshMembers());
    at.pass(100);
  }
  assert.equal(at.socket.of('publish').length, 2000);
  assert.ok(at.socket.of('members').length >= before + 8);
});

test('a room that was left before its join was sent is not joined', () => {
  const at = metered(RATE, 100);
  const last = at.rooms.at(-1);
  last.leave();
  at.pass(10_000);
  assert.equal(at.socket.of('join').length, 99);
});

test('without a rate nothing waits, but few lists are read at once', () => {
  const at = metered(0, 500, { onMembers: () => {} });
  assert.equal(at.socket.of('join').length, 500);
  for (const { id, room } of at.socket.of('join')) {
    at.socket.push({ type: 'ok', id, room, epoch: 'e', offset: 0 });
  }
  assert.equal(at.socket.of('members').length, 8);
  at.pass(10);
  assert.ok(at.rooms.every(isWhole));
});

test('to a server that announces no rate all joins are sent at once', () => {
  const at = metered(undefined, 500);
  assert.equal(at.socket.of('join').length, 500);
});

test('the first page of a list is small, and the next ones fit what is left', () => {
  const at = metered(RATE, 0);
  at.board.join('lobby', { onMembers: () => {} });
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  const limits = () => at.socket.of('members').map(({ limit }) => limit);
  const page = (from, length) =>
    Array.from({ length }, (_, n) => ({ user: `u${String(from + n).padStart(4, '0')}` }));
  const answer = { version: 1, count: 700, more: true };
  at.socket.answer('members', { ...answer, members: page(0, 32) });
  at.socket.answer('members', { ...answer, members: page(32, 500) });
  assert.deepEqual(limits(), [32, 500, 168]);
});
