// The rules of www/switchboard.js, against a fake server. Run with
// `node --test tests/www/*.test.mjs`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newKey, personalRoom } from '../../www/switchboard.js';
import { stopwatch } from '../../www/client/words.js';
import { exchange, outcome, settled } from './exchange.mjs';

test('time never goes back when the clock is set, and includes suspended time', () => {
  let [steady, wall] = [50, 1_000_000];
  const now = stopwatch(() => steady, () => wall);
  const after = (bySteady, byWall) => {
    [steady, wall] = [steady + bySteady, wall + byWall];
    return now();
  };
  assert.equal(after(10, 10), 10);
  assert.equal(after(5, -3_600_000), 15, 'set back by an hour');
  assert.equal(after(5, 5), 20);
  assert.equal(after(0, 600_000), 600_020, 'asleep');
  assert.equal(after(0, -1), 600_020);
});

test('a silent connection is detected although the clock was set back', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let [steady, wall] = [0, 1_000_000_000];
  t.mock.method(performance, 'now', () => steady);
  t.mock.method(Date, 'now', () => wall);
  const at = exchange({ clock: undefined });
  at.socket.open({ heartbeat: 25 });
  [steady, wall] = [25_000, wall + 25_000 - 3_600_000];
  t.mock.timers.tick(25_000);
  assert.equal(at.socket.sent.at(-1)?.type, 'ping');
  at.board.close();
});

test('a key is not used after its life although the clock was set back', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let [steady, wall] = [0, 1_000_000_000];
  t.mock.method(performance, 'now', () => steady);
  t.mock.method(Date, 'now', () => wall);
  const at = exchange({ clock: undefined });
  const room = at.joined();
  const sent = room.publish('a');
  at.socket.die();
  [steady, wall] = [280_000, wall - 3_600_000];
  at.board.connect();
  at.socket.open();
  assert.equal(await outcome(sent), 'unknown');
  assert.equal(at.socket.of('publish').length, 0);
  at.board.close();
});

test('timeouts pass while the clock is set back again and again', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let [steady, wall] = [0, 1_000_000_000];
  t.mock.method(performance, 'now', () => steady);
  t.mock.method(Date, 'now', () => wall);
  const at = exchange({ clock: undefined });
  at.socket.open({ heartbeat: 25 });
  for (let n = 0; n < 35; n++) {
    [steady, wall] = [steady + 1000, wall - 60_000];
    t.mock.timers.tick(1000);
  }
  assert.equal(at.board.status.state, 'waiting', 'a dead connection is seen after 35 s');
  at.board.close();
});

test('auth is sent first, then joins without since, without waiting for replies', () => {
  const at = exchange({ user: 'ada' });
  at.board.join('lobby');
  at.board.join('den');
  at.socket.open();
  assert.deepEqual(at.socket.sent, [
    { type: 'auth', id: 1, user: 'ada' },
    { type: 'join', id: 2, room: 'lobby' },
    { type: 'join', id: 3, room: 'den' },
  ]);
});

test('state events have the node and session of the welcome', () => {
  const at = exchange();
  assert.equal(at.board.status.state, 'connecting');
  at.socket.open({ node: 'b', session: 's9' });
  assert.deepEqual(at.states, ['open']);
  assert.equal(at.board.status.node, 'b');
  assert.equal(at.board.status.session, 's9');
});

test('messages are delivered in order and duplicates are dropped', () => {
  const at = exchange();
  const room = at.joined();
  for (const offset of [42, 42, 41, 43, 7]) at.socket.push(at.message(offset));
  assert.deepEqual(at.seen, [42, 43]);
  assert.deepEqual(room.position, { epoch: 'e', offset: 43 });
});

test('own messages move the position without being delivered', () => {
  const at = exchange();
  at.joined();
  at.socket.push({ type: 'message', room: 'lobby', offset: 42, own: true });
  at.socket.push(at.message(43));
  assert.deepEqual(at.seen, [43]);
});

test('ephemeral messages are delivered and move nothing', () => {
  const at = exchange();
  const room = at.joined();
  at.socket.push({ type: 'message', room: 'lobby', user: 'bob', time: 1, data: 'typing' });
  assert.deepEqual(at.seen, ['typing']);
  assert.equal(room.position.offset, 41);
});

test('no message after a gap is delivered until the room is joined again', () => {
  const at = exchange();
  at.joined();
  at.socket.push(at.message(44));
  assert.deepEqual(at.socket.of('join').at(-1).since, { epoch: 'e', offset: 41 });
  at.socket.push(at.message(45));
  at.socket.push(at.message(42)); // comes again after the answer
  assert.equal(at.socket.of('join').length, 2);
  at.socket.answer('join', { epoch: 'e', offset: 41, top: 45, recovered: true });
  for (const offset of [42, 43, 44, 45]) at.socket.push(at.message(offset));
  assert.deepEqual(at.seen, [42, 43, 44, 45]);
});

test('a gap that remains after a new join drops the connection', () => {
  const at = exchange();
  at.joined();
  at.socket.push(at.message(44));
  at.socket.answer('join', { epoch: 'e', offset: 41, recovered: true });
  at.socket.push(at.message(44));
  assert.ok(at.socket.closed);
  assert.equal(at.board.status.state, 'waiting');
});

test('gap moves the position and is reported once', () => {
  const at = exchange();
  const room = at.joined();
  at.socket.push({ type: 'gap', room: 'lobby', epoch: 'f', offset: 0 });
  at.socket.push(at.message(1));
  assert.deepEqual(at.seen, ['gap f 0', 1]);
  assert.deepEqual(room.position, { epoch: 'f', offset: 1 });
});

test('every room rejoins with its own since', () => {
  const at = exchange();
  at.joined();
  at.board.join('den');
  at.socket.answer('join', { epoch: 'd', offset: 7 });
  at.socket.push(at.message(42));
  const socket = at.returns();
  assert.deepEqual(socket.of('join').map(({ room, since }) => [room, since]), [
    ['lobby', { epoch: 'e', offset: 42 }],
    ['den', { epoch: 'd', offset: 7 }],
  ]);
});

test('missed messages arrive once after a reconnect', () => {
  const at = exchange();
  at.joined();
  const socket = at.returns();
  socket.answer('join', { epoch: 'e', offset: 41, top: 43, recovered: true });
  for (const offset of [42, 43, 44]) socket.push(at.message(offset));
  assert.deepEqual(at.seen, [42, 43, 44]);
});

test('a position that could not be recovered is one gap', () => {
  const at = exchange();
  const room = at.joined();
  const socket = at.returns();
  socket.answer('join', { epoch: 'f', offset: 9, recovered: false });
  socket.push(at.message(10));
  assert.deepEqual(at.seen, ['gap f 9', 10]);
  assert.equal(room.state, 'joined');
});

test('the error unrecoverable is a join without since, and one gap', () => {
  const at = exchange();
  at.joined();
  const socket = at.returns();
  socket.answer('join', { type: 'error', code: 'unrecoverable' });
  assert.equal(socket.of('join').at(-1).since, undefined);
  socket.answer('join', { epoch: 'f', offset: 9 });
  assert.deepEqual(at.seen, ['gap f 9']);
});

test('the first join of a room is never a gap', () => {
  const at = exchange();
  at.joined();
  assert.deepEqual(at.seen, []);
});

test('a join that is unavailable is tried again, one that is forbidden is refused', () => {
  const at = exchange();
  at.socket.open();
  const changes = [];
  const room = at.board.join('lobby', {
    onState: ({ state, error }) => changes.push(error?.code ?? state),
  });
  at.socket.answer('join', { type: 'error', code: 'unavailable' });
  assert.equal(room.state, 'joining');
  at.clock.pass(500);
  assert.equal(at.socket.of('join').length, 2);
  at.socket.answer('join', { type: 'error', code: 'forbidden', reason: 'not you' });
  assert.deepEqual(changes, ['joining', 'joining', 'forbidden']);
  assert.equal(room.state, 'refused');
});

test('leaving sends a leave, and a late reply to the join is ignored', () => {
  const at = exchange();
  at.socket.open();
  const room = at.board.join('lobby', at.handlers);
  room.leave();
  assert.equal(at.socket.of('leave')[0].room, 'lobby');
  at.socket.answer('join', { epoch: 'e', offset: 41 });
  at.socket.push(at.message(42));
  assert.equal(room.state, 'left');
  assert.deepEqual(at.seen, []);
});

test('publish resolves with its position and moves nothing', async () => {
  const at = exchange();
  const room = at.joined();
  const done = room.publish({ text: 'hi' }, { key: 'k1' });
  assert.deepEqual(at.socket.of('publish'), [
    { type: 'publish', id: 2, room: 'lobby', key: 'k1', data: { text: 'hi' } },
  ]);
  at.socket.answer('publish', { epoch: 'e', offset: 50 });
  assert.deepEqual(await outcome(done), { epoch: 'e', offset: 50 });
  assert.equal(room.position.offset, 41);
});

test('one publish per room is in flight, in order, and rooms are independent', async () => {
  const at = exchange();
  const lobby = at.joined();
  const den = at.board.join('den');
  at.socket.answer('join', { room: 'den', epoch: 'e', offset: 0 });
  for (const data of [1, 2, 3]) lobby.publish(data);
  den.publish(9);
  assert.deepEqual(at.socket.of('publish').map(({ data }) => data), [1, 9]);
  const first = at.socket.of('publish')[0];
  at.socket.push({ type: 'ok', id: first.id, epoch: 'e', offset: 42 });
  assert.deepEqual(at.socket.of('publish').map(({ data }) => data), [1, 9, 2]);
});

test('a publish waits until its room is joined or refused, to receive its message', async () => {
  const at = exchange();
  at.socket.open();
  const room = at.board.join('lobby');
  room.publish('a');
  assert.equal(at.socket.of('publish').length, 0);
  at.socket.answer('join', { epoch: 'e', offset: 7 });
  assert.equal(at.socket.of('publish').length, 1);
  const den = at.board.join('den');
  den.publish('b');
  at.socket.answer('join', { type: 'error', code: 'forbidden', reason: 'no' });
  assert.equal(at.socket.of('publish').length, 2);
});

test('an unanswered publish is sent again with its key, before later ones', async () => {
  const at = exchange();
  const room = at.joined();
  const done = [room.publish('a', { key: 'ka' }), room.publish('b', { key: 'kb' })];
  let socket = at.returns();
  socket = at.returns();
  assert.deepEqual(socket.of('publish').map(({ key, data }) => [key, data]), [['ka', 'a']]);
  socket.answer('publish', { epoch: 'e', offset: 42 });
  assert.deepEqual(socket.of('publish').map(({ key }) => key), ['ka', 'kb']);
  socket.answer('publish', { epoch: 'e', offset: 43 });
  assert.deepEqual(await outcome(Promise.all(done)), [
    { epoch: 'e', offset: 42 },
    { epoch: 'e', offset: 43 },
  ]);
});

for (const code of ['unknown', 'unavailable', 'rate']) {
  test(`the answer ${code} is retried with the same key after a pause`, async () => {
    const at = exchange();
    const room = at.joined();
    const done = room.publish('a', { key: 'ka' });
    room.publish('b', { key: 'kb' });
    at.socket.answer('publish', { type: 'error', code });
    assert.equal(at.socket.of('publish').length, 1);
    at.clock.pass(250);
    assert.deepEqual(at.socket.of('publish').map(({ key }) => key), ['ka', 'ka']);
    at.socket.answer('publish', { epoch: 'e', offset: 42 });
    assert.equal((await outcome(done)).offset, 42);
  });
}

test('a retry that waits is sent at once on a new connection, and only there', () => {
  const at = exchange();
  const room = at.joined();
  room.publish('a', { key: 'ka' });
  at.socket.answer('publish', { type: 'error', code: 'unavailable' });
  const socket = at.returns();
  at.clock.pass(9_000);
  assert.deepEqual(socket.of('publish').map(({ key }) => key), ['ka']);
});

test('any other error rejects with its code, and the next publish is sent', async () => {
  const at = exchange();
  const room = at.joined();
  const refused = room.publish('a');
  room.publish('b');
  at.socket.answer('publish', { type: 'error', code: 'too_large', reason: 'at most 64 KiB' });
  assert.equal(await outcome(refused), 'too_large');
  assert.equal(at.socket.of('publish').length, 2);
});

test('a publish older than its key is rejected rather than duplicated', async () => {
  const at = exchange();
  const room = at.joined();
  const sent = room.publish('a');
  const unsent = room.publish('b');
  at.socket.die();
  at.clock.pass(280_000);
  at.board.connect();
  at.socket.open();
  assert.equal(await outcome(sent), 'unknown');
  assert.deepEqual(at.socket.of('publish').map(({ data }) => data), ['b']);
  assert.equal(await outcome(unsent), 'pending');
});

test('a publish to a full queue is rejected', async () => {
  const at = exchange({ queue: 2 });
  const room = at.joined();
  room.publish(1);
  room.publish(2);
  assert.equal(await outcome(room.publish(3)), 'queue_full');
});

test('data that JSON cannot represent are rejected at once', async () => {
  const room = exchange().joined();
  await assert.rejects(room.publish(undefined), TypeError);
});

test('ephemeral publishes have no key and are never repeated', async () => {
  const at = exchange();
  const room = at.joined();
  const done = room.publish('typing', { ephemeral: true });
  assert.deepEqual(at.socket.of('publish')[0], {
    type: 'publish',
    id: 2,
    room: 'lobby',
    ephemeral: true,
    data: 'typing',
  });
  at.socket.die();
  assert.equal(await outcome(done), 'closed');
  assert.equal(await outcome(room.publish('typing', { ephemeral: true })), 'offline');
});

test('history answers a page, and rejects when the connection dies', async () => {
  const at = exchange();
  const room = at.joined();
  const page = room.history({ before: 42, limit: 2 });
  assert.deepEqual(at.socket.of('history')[0], {
    type: 'history',
    id: 2,
    room: 'lobby',
    limit: 2,
    before: 42,
  });
  at.socket.answer('history', {
    epoch: 'e',
    messages: [{ offset: 41, time: 5, data: 'x' }],
    more: true,
  });
  assert.deepEqual(await outcome(page), {
    epoch: 'e',
    more: true,
    messages: [{ room: 'lobby', epoch: 'e', offset: 41, user: null, time: 5, data: 'x' }],
  });
  const lost = room.history();
  at.socket.die();
  assert.equal(await outcome(lost), 'closed');
});

test('leaving rejects what is queued', async () => {
  const at = exchange();
  const room = at.joined();
  const done = room.publish('a');
  room.leave();
  assert.equal(await outcome(done), 'left');
  assert.equal(await outcome(room.publish('b')), 'left');
});

for (const [code, final] of [
  [1000, 0],
  [1006, 0],
  [1012, 0],
  [3000, 0],
  [3499, 0],
  [3500, 1],
  [3999, 1],
  [4000, 0],
  [4499, 0],
  [4500, 1],
  [4999, 1],
]) {
  test(`close code ${code} ${final ? 'is final' : 'is followed by a return'}`, async () => {
    const at = exchange();
    const room = at.joined();
    const done = room.publish('a');
    at.socket.die(code, 'because');
    at.clock.pass(60_000);
    assert.equal(at.sockets.length > 1, !final);
    if (!final) return;
    assert.equal(await outcome(done), 'closed');
    const { state, reason } = at.board.status;
    assert.deepEqual([state, reason], ['closed', 'because']);
    at.board.connect();
    assert.equal(at.sockets.length, 2);
  });
}

test('retries wait a random part of half a second, doubling up to 20 s', () => {
  const at = exchange({ random: () => 0.999999 });
  const waits = [];
  at.board.on(
    'state',
    ({ state, retryIn }) => state === 'waiting' && waits.push(Math.round(retryIn)),
  );
  for (let n = 0; n < 8; n++) {
    at.socket.die();
    at.clock.pass(at.board.status.retryIn);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
});

test('a client that was too fast reconnects more slowly', () => {
  const at = exchange();
  at.socket.open().die(3004, 'more slowly');
  assert.equal(at.board.status.retryIn, 4_000);
});

test('a client that is too fast again and again reconnects ever more slowly', () => {
  const at = exchange();
  const waits = [];
  const tooFast = (seconds) => {
    at.socket.open();
    for (let n = 0; n < seconds; n++) {
      at.clock.pass(1000);
      at.socket.push({ type: 'pong' });
    }
    at.socket.die(3004);
    waits.push(at.board.status.retryIn);
    at.clock.pass(at.board.status.retryIn);
  };
  for (const seconds of [12, 12, 12, 61]) tooFast(seconds);
  assert.deepEqual(waits, [4_000, 8_000, 10_000, 4_000]);
});

test('the backoff starts anew only after a connection that held', () => {
  const at = exchange();
  const wait = () => at.board.status.retryIn;
  for (const expected of [250, 500]) {
    at.socket.open().die();
    assert.equal(wait(), expected);
    at.clock.pass(expected);
  }
  at.socket.open();
  at.clock.pass(5_000);
  at.socket.die();
  assert.equal(wait(), 250);
});

test('a connection that is not welcomed in 10 s is given up', () => {
  const at = exchange();
  at.clock.pass(9_999);
  assert.equal(at.board.status.state, 'connecting');
  at.clock.pass(1);
  assert.equal(at.board.status.state, 'waiting');
  assert.ok(at.sockets[0].closed);
});

test('after a bye the client waits for the given time, then reconnects', () => {
  const at = exchange();
  at.joined();
  at.socket.push({ type: 'bye', reason: 'draining', retry: 1840 });
  at.socket.push(at.message(42));
  at.clock.pass(1000);
  assert.equal(at.board.status.state, 'open');
  at.socket.die(1001);
  assert.equal(at.board.status.retryIn, 840);
  at.clock.pass(840);
  assert.deepEqual(at.socket.open().of('join')[0].since, { epoch: 'e', offset: 42 });
});

test('after a bye the client reconnects even if the node never closes', () => {
  const at = exchange();
  at.joined();
  at.socket.push({ type: 'bye', reason: 'draining', retry: 500 });
  at.clock.pass(500);
  assert.equal(at.sockets.length, 2);
  assert.ok(at.sockets[0].closed);
});

test('a silent server is pinged after its heartbeat, and dropped 10 s later', () => {
  const at = exchange();
  at.socket.open();
  at.clock.pass(24_000);
  at.socket.push({ type: 'joined', room: 'x', user: 'y' });
  at.clock.pass(24_999);
  assert.equal(at.socket.of('ping').length, 0);
  at.clock.pass(1);
  assert.equal(at.socket.of('ping').length, 1);
  at.clock.pass(9_999);
  assert.equal(at.board.status.state, 'open');
  at.clock.pass(1);
  assert.equal(at.board.status.state, 'waiting');
});

test('a pong keeps the connection', () => {
  const at = exchange();
  at.socket.open();
  for (let n = 1; n <= 4; n++) {
    at.clock.pass(25_000);
    assert.equal(at.socket.of('ping').length, n);
    at.clock.pass(5_000);
    at.socket.push({ type: 'pong', id: at.socket.of('ping').at(-1).id });
  }
  assert.equal(at.board.status.state, 'open');
});

test('connect() retries at once, and pings an open connection', () => {
  const at = exchange();
  at.socket.open();
  at.socket.die();
  at.board.connect();
  assert.equal(at.sockets.length, 2);
  at.clock.pass(9_000);
  assert.equal(at.sockets.length, 2);
  at.socket.open();
  at.board.connect();
  assert.equal(at.socket.of('ping').length, 1);
});

test('an online event ends the backoff, and is ignored after close()', () => {
  const events = new EventTarget();
  globalThis.addEventListener = (...listener) => events.addEventListener(...listener);
  globalThis.removeEventListener = (...listener) => events.removeEventListener(...listener);
  try {
    const at = exchange();
    at.socket.die();
    events.dispatchEvent(new Event('online'));
    assert.equal(at.sockets.length, 2);
    assert.equal(at.board.status.state, 'connecting');
    at.board.close();
    events.dispatchEvent(new Event('online'));
    assert.equal(at.sockets.length, 2);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test('pagehide closes the connection at once, and pageshow reopens it', () => {
  const events = new EventTarget();
  globalThis.addEventListener = (...listener) => events.addEventListener(...listener);
  globalThis.removeEventListener = (...listener) => events.removeEventListener(...listener);
  try {
    const at = exchange();
    const room = at.joined();
    events.dispatchEvent(new Event('pagehide'));
    assert.equal(at.sockets[0].closed, true);
    at.clock.pass(3_600_000);
    assert.deepEqual([at.sockets.length, room.state], [1, 'waiting']);
    events.dispatchEvent(new Event('pageshow'));
    assert.deepEqual(at.socket.open().of('join')[0].since, { epoch: 'e', offset: 41 });
    at.board.close();
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test('a request that is never answered ends the connection, not the queue', () => {
  const at = exchange();
  const room = at.joined();
  room.publish('a', { key: 'ka' });
  for (let n = 0; n < 3; n++) {
    at.clock.pass(10_000);
    at.socket.push({ type: 'joined', room: 'x', user: 'y' }); // alive, but mute on the publish
  }
  assert.equal(at.sockets[0].closed, true);
  at.clock.pass(20_000);
  assert.deepEqual(at.socket.open().of('publish').map(({ key }) => key), ['ka']);
});

test('publishes wait for the answer to auth, and fail with it', async () => {
  const at = exchange({ token: 'old' });
  at.socket.open();
  const room = at.board.join('lobby');
  const done = room.publish('a');
  assert.equal(at.socket.of('publish').length, 0);
  at.socket.answer('auth', { type: 'error', code: 'unauthorized', reason: 'expired' });
  assert.deepEqual(at.errors, ['unauthorized']);
  assert.equal(await outcome(done), 'unauthorized');
  at.board.setToken('new');
  room.publish('b');
  assert.equal(at.socket.of('auth').at(-1).token, 'new');
  at.socket.answer('auth', { user: 'ada' });
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  assert.equal(at.socket.of('publish').length, 1);
});

test('a token function is called for each connection, and rooms wait for it', async () => {
  const tokens = [];
  const at = exchange({ token: () => new Promise((resolve) => tokens.push(resolve)) });
  at.board.join('lobby', at.handlers);
  at.socket.open();
  await settled();
  assert.deepEqual(at.socket.sent, [], 'nothing is sent before the token is known');
  at.board.join('den');
  tokens[0]('first');
  await settled();
  assert.deepEqual(
    at.socket.sent.map(({ type, token, room }) => token ?? room ?? type),
    ['first', 'lobby', 'den'],
  );
  const again = at.returns();
  await settled();
  at.board.close();
  tokens[1]('late');
  await settled();
  assert.equal(again.sent.length, 0, 'a token for a connection that is over is not used');
});

test('a token is renewed before it expires, at once after, and later without one', async () => {
  const tokens = ['a', 'b', 'c', 'd'];
  let broken = false;
  const token = async () => {
    if (broken) throw new Error('the issuer is down');
    return tokens.shift();
  };
  const at = exchange({ token });
  const shown = () => at.socket.of('auth').map((auth) => auth.token).join('');
  /** Advances the clock in small steps, in which the server answers pings. */
  const pass = async (seconds) => {
    for (let n = 0; n < seconds; n++) {
      at.clock.pass(1000);
      at.socket.push({ type: 'pong' });
      await settled();
    }
  };
  at.socket.open();
  await settled();
  at.socket.answer('auth', { user: 'ada', expires: 100 });
  await pass(89);
  assert.equal(shown(), 'a');
  await pass(1);
  assert.equal(shown(), 'ab');
  at.socket.answer('auth', { type: 'error', code: 'expired', reason: 'too late' });
  await pass(1);
  assert.equal(shown(), 'abc');
  at.socket.answer('auth', { user: 'ada', expires: 10 });
  broken = true;
  await pass(9);
  assert.deepEqual(at.errors, ['no_token']);
  broken = false;
  await pass(1);
  assert.equal(shown(), 'abcd');
  assert.equal(at.sockets.length, 1);
});

test('a room that removed the client is refused, and joined again with a new token', () => {
  const at = exchange({ token: 'first' });
  const room = at.joined();
  at.socket.answer('auth', { user: 'ada' });
  at.socket.push({
    type: 'removed',
    code: 'forbidden',
    room: 'lobby',
    reason: 'your token does not let you join this room',
  });
  assert.equal(room.state, 'refused');
  at.board.setToken('second');
  at.socket.answer('auth', { user: 'ada' });
  assert.deepEqual(at.socket.of('join').at(-1).since, { epoch: 'e', offset: 41 });
  at.socket.answer('join', { epoch: 'e', offset: 41, recovered: true });
  assert.equal(room.state, 'joined');
});

test('a first name is sent on the same connection, another one on a new connection', () => {
  const at = exchange();
  at.joined();
  at.board.setUser('ada');
  at.socket.answer('auth', { user: 'ada' });
  assert.equal(at.sockets.length, 1);
  at.board.setUser('eve');
  at.clock.pass(0);
  assert.equal(at.sockets.length, 2);
  const [auth, join] = at.socket.open().sent;
  assert.equal(auth.user, 'eve');
  assert.deepEqual(join.since, { epoch: 'e', offset: 41 });
});

test('a publish in flight is answered under the name it was sent with', async () => {
  const at = exchange({ user: 'ada' });
  at.socket.open();
  at.socket.answer('auth', { user: 'ada' });
  const room = at.board.join('lobby');
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  room.publish('a', { key: 'ka' });
  at.board.setUser('eve');
  room.publish('b', { key: 'kb' });
  const again = at.returns();
  assert.equal(again.of('auth')[0].user, 'ada');
  again.answer('auth', { user: 'ada' });
  again.answer('publish', { epoch: 'e', offset: 1 });
  assert.deepEqual(again.of('publish').map(({ key }) => key), ['ka']);
  at.clock.pass(0);
  at.socket.open().answer('auth', { user: 'eve' });
  assert.deepEqual(at.socket.of('publish').map(({ key }) => key), ['kb']);
});

test('close() ends everything: no timer is left and the old socket is ignored', async () => {
  const at = exchange();
  const room = at.joined();
  const done = room.publish('a');
  at.board.close();
  assert.equal(at.socket.closeCode, 1000);
  assert.equal(await outcome(done), 'closed');
  at.socket.push(at.message(42));
  at.socket.die();
  assert.deepEqual(at.seen, []);
  assert.equal(at.clock.waiting, 0);
  assert.equal(at.board.status.state, 'closed');
});

test('joined and left are delivered, unknown frames are ignored', () => {
  const at = exchange();
  at.socket.open();
  const came = [];
  at.board.join('lobby', {
    onJoined: ({ user }) => came.push(`+${user}`),
    onLeft: ({ user }) => came.push(`-${user}`),
  });
  at.socket.push({ type: 'joined', room: 'lobby', user: 'ada', version: 1 });
  at.socket.push({ type: 'left', room: 'lobby', user: 'ada', version: 2 });
  for (const frame of [
    null,
    7,
    [],
    {},
    { type: 'novel' },
    { type: 'message', room: 'elsewhere', offset: 1 },
  ])
    at.socket.push(frame);
  at.socket.onmessage({ data: '{' });
  at.socket.push({ type: 'error', code: 'bad_request', reason: 'no such type' });
  assert.deepEqual(came, ['+ada', '-ada']);
  assert.deepEqual(at.errors, ['bad_frame', 'bad_request']);
});

test('keys are fresh and short enough for the server, with or without randomUUID', () => {
  const { crypto } = globalThis;
  const keys = [newKey(), newKey()];
  Object.defineProperty(globalThis, 'crypto', {
    value: { getRandomValues: (bytes) => crypto.getRandomValues(bytes) },
    configurable: true,
  });
  try {
    keys.push(newKey(), newKey());
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
  }
  assert.equal(new Set(keys).size, 4);
  Object.defineProperty(globalThis, 'crypto', {
    value: { randomUUID: () => '00000000-0000-4000-8000-000000000000' },
    configurable: true,
  });
  try {
    assert.notEqual(newKey(), newKey(), 'also if the generator repeats itself');
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
  }
  for (const key of keys) assert.match(key, /^[0-9a-f-]{32,64}$/);
});

test('the personal room of a user is named as the server names it', () => {
  for (const [user, room] of [
    ['Ada_1.b:c-d', '@Ada_1.b:c-d'],
    ['auth0|5f7c8ec7', '@auth0%7C5f7c8ec7'],
    ['ada@example.com', '@ada%40example.com'],
    ["O'Neil (100%)!~*", '@O%27Neil%20%28100%25%29%21%7E%2A'],
    ['%3A%7C', '@%253A%257C'],
    ['é愛😀', '@%C3%A9%E6%84%9B%F0%9F%98%80'],
  ]) {
    assert.equal(personalRoom(user), room);
  }
});
