// A token function that fails in any way is called again with growing pauses, reported, and never
// the end: the client recovers once it returns a good token.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchange, outcome, settled } from './exchange.mjs';

const PAGE = '<!doctype html>\n<title>502 Bad Gateway</title>';

/** What a broken token function does. */
const FAULTS = {
  'throws': () => {
    throw new Error('down');
  },
  'rejects': () => Promise.reject(new Error('down')),
  'rejects with nothing': () => Promise.reject(),
  'never settles': () => new Promise(() => {}),
  'returns an error page': async () => PAGE,
  'returns null': async () => null,
  'returns undefined': () => undefined,
  'returns an empty string': () => '',
  'returns blanks': () => ' \n',
  'returns a number': () => 7,
  'returns an object': () => ({ token: 'x' }),
  'returns a very long text': () => 'x'.repeat(5000),
  'returns a token that the server refuses': () => 'bad',
};

/**
 * Advances the clock second by second; the server accepts the token `good`, refuses others, and
 * lets signed-in clients join.
 */
async function pass(at, seconds) {
  const answered = (at.answered ??= new Set());
  for (let n = 0; n < seconds; n++) {
    await settled();
    for (const frame of at.socket.sent) {
      if (answered.has(frame)) continue;
      answered.add(frame);
      const { type, id, room, token } = frame;
      if (type === 'auth') at.isIn ||= token === 'good';
      const isGood = type === 'auth' ? token === 'good' : at.isIn;
      if (!isGood) at.socket.push({ type: 'error', id, code: 'unauthorized', reason: 'no' });
      else if (type === 'auth') at.socket.push({ ...WELCOME_ADA, id });
      else if (type !== 'publish') at.socket.push({ type: 'ok', id, room, epoch: 'e', offset: 0 });
    }
    at.socket.push({ type: 'pong' });
    at.clock.pass(1000);
  }
}

const WELCOME_ADA = { type: 'ok', user: 'ada', room: '@ada', epoch: 'p', offset: 0 };
const limits = { message: 65_536, token: 4096 };

for (const [what, fault] of Object.entries(FAULTS)) {
  test(`a token function that ${what} is called again until it is good`, async () => {
    let [isBroken, calls] = [true, 0];
    const at = exchange({
      token: () => {
        calls += 1;
        return isBroken ? fault() : 'good';
      },
    });
    const waits = [];
    at.board.on('state', ({ state, waitsFor }) => waits.push(`${state} ${waitsFor}`));
    const room = at.board.join('lobby', at.handlers);
    const done = room.publish('x');
    at.socket.open({ limits });
    await pass(at, 120);
    assert.ok(calls >= 4 && calls <= 20, `${calls} calls in two minutes`);
    assert.equal(at.errors.length > 2, true, `${at.errors}`);
    assert.deepEqual(waits, ['open null', 'open token'], 'the state says what it waits for');
    assert.equal(await outcome(done), 'pending');
    isBroken = false;
    await pass(at, 31);
    assert.equal(at.board.user, 'ada');
    assert.equal(at.board.status.waitsFor, null);
    assert.equal(room.state, 'joined');
    at.socket.answer('publish', { epoch: 'e', offset: 1 });
    assert.deepEqual(await outcome(done), { epoch: 'e', offset: 1 });
    assert.equal(at.sockets.length, 1);
  });

  test(`a renewal whose function ${what} keeps the session and is tried again`, async () => {
    let isBroken = false;
    const at = exchange({ token: () => (isBroken ? fault() : 'good') });
    at.socket.open({ limits });
    await settled();
    at.answered = new Set(at.socket.sent);
    at.isIn = true;
    at.socket.answer('auth', { ...WELCOME_ADA, expires: 10 });
    isBroken = true;
    await pass(at, 60);
    assert.ok(at.errors.length > 1, `${at.errors}`);
    assert.equal(at.board.user, 'ada');
    const done = at.board.publish('den', 'x');
    at.socket.answer('publish', { epoch: 'e', offset: 1 });
    assert.deepEqual(await outcome(done), { epoch: 'e', offset: 1 });
    isBroken = false;
    await pass(at, 31);
    assert.equal(at.socket.of('auth').at(-1).token, 'good');
    assert.equal(at.board.status.waitsFor, null);
  });
}

test('a token that comes after the timeout is not used', async () => {
  const tokens = [];
  const at = exchange({ token: () => new Promise((resolve) => tokens.push(resolve)) });
  at.socket.open();
  await settled();
  at.clock.pass(10_000);
  assert.deepEqual(at.errors, ['no_token']);
  at.clock.pass(250);
  await settled();
  tokens[0]('late');
  tokens[1]('good');
  await settled();
  assert.deepEqual(at.socket.of('auth').map(({ token }) => token), ['good']);
});

test('blanks around a token are removed', async () => {
  const at = exchange({ token: async () => ' good\r\n' });
  at.socket.open();
  await settled();
  assert.equal(at.socket.of('auth')[0].token, 'good');
});

test('a new identity ends the retries of the old one', async () => {
  const at = exchange({ token: () => null });
  at.socket.open();
  await settled();
  at.board.setToken('good');
  at.socket.answer('auth', { user: 'ada' });
  at.clock.pass(20_000);
  await settled();
  assert.deepEqual(at.socket.of('auth').map(({ token }) => token), ['good']);
  assert.equal(at.board.status.waitsFor, null);
});
