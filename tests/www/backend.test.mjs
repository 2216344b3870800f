// What a backend does to a client: it removes it from a room, which the client does not undo, and
// brings it into a room, whose messages it receives.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchange, outcome } from './exchange.mjs';

const removed = { type: 'removed', room: 'lobby', code: 'removed', reason: 'by the operator' };
const broughtIn = { type: 'ok', room: 'hall', epoch: 'h', offset: 7 };
const said = (offset, data = offset) => ({ type: 'message', room: 'hall', offset, time: 1, data });

/** Drops the connection and opens the next one as soon as the client makes it. */
function back(at) {
  at.socket.die();
  at.clock.pass(at.board.status.retryIn);
  return at.socket.open();
}

/** A client that records the rooms that it is brought into. */
function brought(options, handlers) {
  const at = exchange(options);
  at.rooms = [];
  at.came = [];
  at.handlers = {
    onMessage: ({ data }) => at.came.push(data),
    onGap: ({ offset }) => at.came.push(`gap ${offset}`),
    onState: ({ state }) => at.came.push(state),
  };
  at.board.on('room', (room) => {
    at.rooms.push(room.name);
    if (handlers) room.listen(at.handlers);
  });
  at.socket.open();
  return at;
}

for (const code of ['removed', undefined]) {
  test(`a removal with the code ${code} is not undone by a reconnect`, () => {
    const at = exchange({ token: 'first' });
    const room = at.joined();
    at.socket.answer('auth', { user: 'ada' });
    at.socket.push({ ...removed, code });
    assert.equal(room.state, 'refused');
    for (let n = 0; n < 3; n++) {
      const socket = back(at);
      socket.answer('auth', { user: 'ada' });
      assert.deepEqual(socket.of('join'), []);
      assert.equal(room.state, 'refused');
    }
    at.board.setToken('second');
    at.socket.answer('auth', { user: 'ada' });
    assert.deepEqual(at.socket.of('join'), []);
    at.socket.push(at.message(42));
    assert.deepEqual(at.seen, []);
  });
}

test('a renewed token does not undo a removal', async () => {
  const at = exchange({ token: () => 'good' });
  at.socket.open();
  at.board.join('lobby');
  await new Promise(setImmediate);
  at.socket.answer('auth', { user: 'ada', expires: 10 });
  at.socket.answer('join', { epoch: 'e', offset: 41 });
  at.socket.push(removed);
  const before = at.socket.of('join').length;
  at.clock.pass(9000);
  await new Promise(setImmediate);
  at.socket.answer('auth', { user: 'ada', expires: 10 });
  assert.equal(at.socket.of('auth').length, 2);
  assert.equal(at.socket.of('join').length, before);
});

test('a join that crosses a removal is undone', () => {
  const at = exchange();
  at.joined();
  at.socket.push(at.message(44)); // a hole: it joins again
  at.socket.push(removed);
  at.socket.answer('join', { epoch: 'e', offset: 41, recovered: true });
  assert.equal(at.socket.of('leave').at(-1)?.room, 'lobby');
});

test('the program may join a room again from which it was removed, without its past', () => {
  const at = exchange();
  const room = at.joined();
  at.socket.push(removed);
  const again = at.board.join('lobby', at.handlers);
  assert.equal(room.state, 'left');
  assert.equal(at.socket.of('join').at(-1).since, undefined);
  at.socket.answer('join', { epoch: 'e', offset: 50 });
  assert.equal(again.state, 'joined');
  assert.deepEqual(at.seen, []);
});

test('a room that a backend brings the client into is an event, and usable', async () => {
  const at = brought({}, true);
  at.socket.push(broughtIn);
  assert.deepEqual(at.rooms, ['hall']);
  at.socket.push(said(8));
  at.socket.push(said(9));
  assert.deepEqual(at.came, [8, 9]);
  at.came.length = 0;
  const socket = back(at);
  assert.deepEqual(socket.of('join').map(({ room, since }) => [room, since]), [
    ['hall', { epoch: 'h', offset: 9 }],
  ]);
  socket.answer('join', { epoch: 'h', offset: 9, recovered: true });
  socket.push(said(10));
  assert.deepEqual(at.came, ['waiting', 'joining', 'joined', 10]);
});

test('messages before the handlers of such a room are delivered once it has some', async () => {
  for (const listen of [
    (at) => at.board.join('hall', at.handlers),
    (at, room) => room.listen(at.handlers),
  ]) {
    const at = brought({}, false);
    let room = null;
    at.board.on('room', (made) => (room = made));
    at.socket.push(broughtIn);
    at.socket.push(said(8));
    at.socket.push(said(9));
    assert.equal(listen(at, room), room);
    assert.deepEqual(at.socket.of('join').at(-1).since, { epoch: 'h', offset: 7 });
    at.socket.answer('join', { epoch: 'h', offset: 7, recovered: true });
    for (const offset of [8, 9, 10]) at.socket.push(said(offset));
    assert.deepEqual(at.came, ['joining', 'joined', 8, 9, 10]);
    const done = room.publish('x');
    at.socket.answer('publish', { epoch: 'h', offset: 11 });
    assert.deepEqual(await outcome(done), { epoch: 'h', offset: 11 });
  }
});

test('such a room keeps a list of members if its handlers want one', () => {
  const at = brought({}, false);
  let lists = 0;
  at.board.on('room', (room) => room.listen({ onMembers: () => (lists += 1) }));
  at.socket.push(broughtIn);
  at.socket.answer('members', { version: 1, members: [{ user: 'ada' }], count: 1 });
  assert.equal(lists, 1);
});

test('a client that is brought back continues, and reports the gap', () => {
  const at = brought({}, false);
  const seen = [];
  at.board.join('hall', {
    onMessage: ({ offset }) => seen.push(offset),
    onGap: ({ offset }) => seen.push(`gap ${offset}`),
  });
  at.socket.answer('join', { epoch: 'h', offset: 3 });
  at.socket.push({ ...removed, room: 'hall' });
  at.socket.push(said(4));
  at.socket.push(broughtIn);
  at.socket.push(said(8));
  assert.deepEqual(seen, ['gap 7', 8]);
  assert.deepEqual(at.rooms, ['hall']);
  assert.equal(back(at).of('join').length, 1);
});

test('a removal from such a room without handlers forgets it', () => {
  const at = brought({}, false);
  at.socket.push(broughtIn);
  at.socket.push({ ...removed, room: 'hall' });
  assert.deepEqual(back(at).of('join'), []);
  at.board.join('hall', at.handlers);
  assert.equal(at.socket.of('join').at(-1).since, undefined);
});

test('an ok of the personal room is no bring-in', () => {
  const at = brought({ user: 'ada' }, false);
  at.socket.answer('auth', { user: 'ada', room: '@ada' });
  at.socket.push({ type: 'ok', user: 'ada', room: '@ada', epoch: 'p', offset: 1 });
  assert.deepEqual(at.rooms, []);
});
