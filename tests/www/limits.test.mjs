// What the client module rejects by itself: requests that exceed the limits of the welcome.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchange, outcome } from './exchange.mjs';

const limits = {
  message: 1024, room: 128, user: 64, key: 64, token: 200, info: 100, rooms: 128, rate: 100,
};

/** A client in the lobby of a server that announces its limits. */
function limited(options) {
  const at = exchange(options);
  at.socket.open({ limits });
  at.room = at.board.join('lobby', at.handlers);
  at.socket.answer('join', { epoch: 'e', offset: 41 });
  return at;
}

test('a publish over the limit is rejected here, and the next one is sent', async () => {
  const at = limited();
  const long = 'x'.repeat(1024);
  assert.equal(await outcome(at.room.publish(long)), 'too_large');
  assert.equal(await outcome(at.room.publish(long, { ephemeral: true })), 'too_large');
  assert.equal(await outcome(at.board.publish('@bob', long)), 'too_large');
  at.room.publish('short');
  assert.deepEqual(at.socket.of('publish').map(({ data }) => data), ['short']);
  assert.equal(at.sockets.length, 1);
});

test('the limit is on the bytes of the whole message', async () => {
  const at = limited();
  const bytes = (text) => Buffer.byteLength(text);
  const frame = (data) =>
    JSON.stringify({ type: 'publish', id: 2, room: 'lobby', key: 'k', data });
  const fits = 'x'.repeat(1024 - bytes(frame('')));
  assert.equal(bytes(frame(fits)), 1024);
  assert.equal(await outcome(at.room.publish(`${fits}x`, { key: 'k' })), 'too_large');
  assert.equal(await outcome(at.room.publish('ä'.repeat(500), { key: 'k' })), 'too_large');
  at.room.publish(fits, { key: 'k' });
  assert.equal(at.socket.of('publish').length, 1);
});

test('a publish that was queued before the limits were known is rejected, not sent', async () => {
  const at = exchange();
  const room = at.board.join('lobby');
  const long = room.publish('x'.repeat(2000));
  room.publish('short');
  at.socket.open({ limits });
  at.socket.answer('join', { epoch: 'e', offset: 41 });
  assert.equal(await outcome(long), 'too_large');
  assert.deepEqual(at.socket.of('publish').map(({ data }) => data), ['short']);
});

test('a publish that waits while the limit sinks is rejected on the next node', async () => {
  const at = limited();
  const done = at.room.publish('x'.repeat(800));
  at.socket.die();
  at.clock.pass(20_000);
  at.socket.open({ limits: { ...limits, message: 512 } });
  at.socket.answer('join', { epoch: 'e', offset: 41, recovered: true });
  assert.equal(await outcome(done), 'too_large');
  assert.equal(at.socket.of('publish').length, 0);
});

test('a key over the limit is rejected', async () => {
  const at = limited();
  assert.equal(await outcome(at.room.publish('x', { key: 'k'.repeat(65) })), 'too_large');
});

test('a room name over the limit is refused without a join, also after a reconnect', async () => {
  const at = limited();
  const changes = [];
  const name = 'r'.repeat(129);
  const room = at.board.join(name, {
    onState: ({ state, error }) => changes.push(error?.code ?? state),
  });
  assert.equal(room.state, 'refused');
  assert.deepEqual(changes, ['joining', 'too_large']);
  assert.equal(await outcome(room.publish('x')), 'too_large');
  assert.equal(await outcome(room.history()), 'too_large');
  at.socket.die();
  at.clock.pass(20_000);
  at.socket.open({ limits });
  assert.deepEqual(at.socket.of('join').map(({ room }) => room), ['lobby']);
});

for (const [what, identity] of [
  ['token', { token: 't'.repeat(201) }],
  ['info', { user: 'ada', info: { avatar: 'a'.repeat(100) } }],
  ['name', { user: 'u'.repeat(65) }],
  ['token over the limit of messages', { token: 't'.repeat(2000) }],
]) {
  test(`a sign-in with a long ${what} is refused here, and rooms are joined`, async () => {
    const at = exchange(identity);
    const room = at.board.join('lobby', at.handlers);
    const done = room.publish('x');
    at.socket.open({ limits });
    assert.deepEqual(at.errors, ['too_large']);
    assert.deepEqual(at.socket.sent.map(({ type }) => type), ['join']);
    assert.equal(await outcome(done), 'too_large');
    assert.equal(at.board.status.state, 'open');
    at.board.signIn({ user: 'bob' });
    assert.equal(at.socket.of('auth').at(-1).user, 'bob');
  });
}

test('a server that announces no limits receives everything', async () => {
  const at = exchange({ token: 't'.repeat(5000) });
  at.socket.open();
  at.socket.answer('auth', { user: 'ada' });
  const room = at.board.join('r'.repeat(500));
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  room.publish('x'.repeat(100_000));
  assert.deepEqual(at.socket.sent.map(({ type }) => type), ['auth', 'join', 'publish']);
});
