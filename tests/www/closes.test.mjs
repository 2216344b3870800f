// Close codes that do not invite the client back: what was in flight is rejected and not repeated,
// and no fault makes the client connect for ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchange, outcome } from './exchange.mjs';

const HOUR = 3_600_000;

/**
 * Serves each new connection as a server without limits in its welcome, which ends it with 1009
 * for a message above `most` bytes and answers all others.
 */
function serve(at, most) {
  const seen = new Set();
  return () => {
    for (let n = 0; n < 200; n++) {
      const { socket } = at;
      if (!seen.has(socket)) {
        seen.add(socket);
        socket.done = 0;
        socket.open();
      }
      while (socket.done < socket.sent.length) {
        const frame = socket.sent[socket.done++];
        if (Buffer.byteLength(JSON.stringify(frame)) > most) {
          socket.die(1009, 'the message is longer than this server accepts');
          break;
        }
        const { id, room } = frame;
        if (frame.type === 'auth') socket.push({ type: 'ok', id, user: 'ada', room: '@ada' });
        else if (frame.type === 'ping') socket.push({ type: 'pong', id });
        else socket.push({ type: 'ok', id, room, epoch: 'e', offset: 0, recovered: true });
      }
      at.clock.pass(1000);
    }
  };
}

for (const code of [1002, 1003, 1007, 1008, 1010, 3500, 4500]) {
  test(`everything in flight is rejected at ${code} and nothing is repeated`, async () => {
    const at = exchange();
    const room = at.joined();
    const done = [room.publish('a'), room.publish('b'), room.history(), at.board.publish('x', 1)];
    const outcomes = Promise.all(done.map(outcome));
    at.socket.die(code, 'because');
    assert.deepEqual(await outcomes, ['closed', 'closed', 'closed', 'closed']);
    at.clock.pass(HOUR);
    assert.equal(at.sockets.length, 1);
    assert.deepEqual([at.board.status.state, at.board.status.code], ['closed', code]);
    at.board.connect();
    at.socket.open();
    assert.deepEqual(at.socket.sent.map(({ type }) => type), ['join']);
  });
}

test('a publish that the server finds too long is rejected and never repeated', async () => {
  const at = exchange();
  const play = serve(at, 1000);
  const room = at.board.join('lobby', at.handlers);
  play();
  const long = room.publish('x'.repeat(2000));
  const [after, other] = [room.publish('after'), at.board.publish('den', 'other')];
  play();
  assert.equal(await outcome(long), 'too_large');
  assert.deepEqual(await outcome(after), { epoch: 'e', offset: 0 });
  assert.deepEqual(await outcome(other), { epoch: 'e', offset: 0 }, 'other rooms go on');
  assert.equal(at.sockets.length, 2);
  assert.equal(room.state, 'joined');
  assert.equal(await outcome(room.publish('y'.repeat(2000))), 'too_large', 'known from now on');
  play();
  assert.equal(at.sockets.length, 2);
});

test('other requests of that length are rejected likewise', async () => {
  for (const [what, publish] of [
    ['direct', (board) => board.publish('@bob', 'x'.repeat(2000))],
    ['ephemeral', (board) => board.publish('den', 'x'.repeat(2000), { ephemeral: true })],
    ['room', (board) => board.join('r'.repeat(2000)).publish('x')],
  ]) {
    const at = exchange();
    const play = serve(at, 1000);
    const room = at.board.join('lobby', at.handlers);
    play();
    const done = publish(at.board);
    play();
    assert.equal(await outcome(done), 'too_large', what);
    play();
    assert.equal(at.sockets.length, 2, what);
    assert.equal(room.state, 'joined', what);
  }
});

for (const [what, identity] of [
  ['info', { user: 'ada', info: { avatar: 'x'.repeat(2000) } }],
  ['token', { token: 'x'.repeat(2000) }],
]) {
  test(`a sign-in with a long ${what} is refused and never repeated`, async () => {
    const at = exchange(identity);
    const play = serve(at, 1000);
    const room = at.board.join('lobby', at.handlers);
    play();
    play();
    assert.equal(at.sockets.length, 2);
    assert.equal(at.errors[0], 'too_large');
    assert.equal(room.state, 'joined');
    assert.equal(await outcome(room.publish('x')), 'too_large', 'not anonymously');
  });
}

test('the next connection after 1009 waits longer than usual', async () => {
  const at = exchange();
  const room = at.joined();
  const long = room.publish('x'.repeat(2000));
  at.socket.die(1009);
  assert.equal(at.board.status.retryIn, 1000);
  assert.equal(await outcome(long), 'too_large');
});

test('1009 with nothing in flight ends the client', () => {
  const at = exchange();
  at.joined();
  at.socket.die(1009);
  at.clock.pass(HOUR);
  assert.equal(at.sockets.length, 1);
  assert.equal(at.board.status.state, 'closed');
});
