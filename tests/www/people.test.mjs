// Presence and identity in www/switchboard.js: the member list under seeded reordering, the
// personal room, and publishing to rooms that are not joined.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Members } from '../../www/switchboard.js';
import { exchange, outcome } from './exchange.mjs';

/** A client in the lobby that keeps the member list and records joins and leaves. */
function watching(options) {
  const at = exchange(options);
  at.changes = [];
  at.lists = 0;
  at.socket.open();
  at.room = at.board.join('lobby', {
    onMembers: () => (at.lists += 1),
    onJoined: ({ user }) => at.changes.push(`+${user}`),
    onLeft: ({ user }) => at.changes.push(`-${user}`),
  });
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  /** Answers the newest members query with a page. */
  at.page = (version, users, more = {}) => {
    const members = users.map((user) =>
      typeof user === 'string' ? { user, connections: 1 } : user,
    );
    at.socket.answer('members', {
      version,
      members,
      count: members.length,
      anonymous: 0,
      more: false,
      ...more,
    });
  };
  at.push = (type, user, version) =>
    at.socket.push({ type, room: 'lobby', ...(user && { user }), version });
  at.names = () =>
    at.room.members
      .list()
      .map(({ user }) => user)
      .join(' ');
  at.asked = () => at.socket.of('members').length;
  return at;
}

test('the member list is queried after the join, in pages, and only with a handler for it', () => {
  const at = watching();
  assert.deepEqual(
    at.socket.of('members').map(({ room, after }) => [room, after]),
    [['lobby', undefined]],
  );
  at.page(3, ['ada', 'bob'], { more: true, count: 3 });
  assert.equal(at.room.members.known, false);
  assert.equal(at.socket.of('members').at(-1).after, 'bob');
  at.page(3, [{ user: 'cy', connections: 2, info: { name: 'Cy' } }], { anonymous: 4, count: 3 });
  assert.equal(at.names(), 'ada bob cy');
  assert.deepEqual(
    [at.room.members.count, at.room.members.anonymous, at.room.members.complete],
    [3, 4, true],
  );
  assert.deepEqual(
    [at.room.members.get('cy').connections, at.room.members.get('cy').info],
    [2, { name: 'Cy' }],
  );
  assert.deepEqual(at.changes, [], 'members from before the join cause no event');
  const other = exchange();
  other.joined();
  assert.equal(other.socket.of('members').length, 0);
});

test('a push changes the list once', () => {
  const at = watching();
  at.page(3, ['ada']);
  at.push('joined', 'bob', 4);
  at.push('joined', 'bob', 4);
  at.push('left', 'ada', 6);
  at.push('left', 'ada', 6);
  at.push('left', 'zoe', 7);
  assert.equal(at.names(), 'bob');
  assert.deepEqual(at.changes, ['+bob', '-ada']);
});

test('the higher version of a user wins, whether push or page arrives first', () => {
  const at = watching();
  // Pushed while the page is in flight, with a higher version.
  at.push('joined', 'bob', 12);
  at.push('left', 'ada', 11);
  at.push('joined', 'cy', 8);
  at.push('left', 'dot', 9);
  at.page(10, ['ada', 'dot', 'eve']);
  // `cy` had joined before the page and left again; `dot` had left and come back.
  assert.equal(at.names(), 'bob dot eve');
  // Older than the page of that name, which already contains it.
  at.push('left', 'eve', 10);
  at.push('joined', 'fay', 9);
  assert.equal(at.names(), 'bob dot eve');
  assert.deepEqual(at.changes, []);
});

test('the version of a name is that of its own page', () => {
  const at = watching();
  at.page(5, ['ada', 'bob'], { more: true, count: 4 });
  at.push('left', 'ada', 6);
  at.push('joined', 'moe', 6);
  at.page(7, ['max', 'moe']);
  assert.equal(at.names(), 'bob max moe');
  at.push('joined', 'ann', 6);
  at.push('joined', 'zoe', 6);
  assert.equal(at.names(), 'ann bob max moe', 'newer than the first page, contained in the second');
});

test('after a reconnect the list is read again, and the difference is reported', () => {
  const at = watching();
  at.page(50, ['ada', 'bob']);
  at.push('joined', 'cy', 51);
  assert.equal(at.room.members.fresh, true);
  at.socket.die();
  assert.equal(at.room.members.fresh, false);
  assert.equal(at.names(), 'ada bob cy', 'the last known list');
  at.clock.pass(20_000);
  at.socket.open();
  at.socket.answer('join', { epoch: 'e', offset: 0, recovered: true });
  // The versions are lower, because the store was emptied.
  at.page(2, ['ada', 'dot']);
  assert.equal(at.names(), 'ada dot');
  assert.deepEqual(at.changes, ['+cy', '+dot', '-bob', '-cy']);
  at.push('joined', 'bob', 3);
  assert.equal(at.names(), 'ada bob dot');
});

test('a members push makes the client read the list again and ignore a page in flight', () => {
  const at = watching();
  at.page(50, ['ada', 'bob']);
  at.room.refreshMembers();
  const stale = at.socket.of('members').at(-1).id;
  at.push('members', null, 4);
  assert.equal(at.asked(), 3);
  at.socket.push({
    type: 'ok',
    id: stale,
    room: 'lobby',
    version: 51,
    members: [{ user: 'eve', connections: 1 }],
    count: 1,
    more: false,
  });
  assert.equal(at.names(), 'ada bob');
  at.push('joined', 'cy', 5);
  at.page(4, ['ada']);
  assert.equal(at.names(), 'ada cy');
  assert.deepEqual(at.changes, ['+cy', '-bob']);
});

test('changes after the page and members missing from it are reported', () => {
  const at = watching();
  at.page(1, ['ada']);
  at.room.refreshMembers();
  at.push('joined', 'bob', 2);
  at.push('left', 'bob', 4);
  at.push('left', 'ada', 5);
  at.page(3, ['ada', 'bob']);
  assert.equal(at.names(), '');
  assert.deepEqual(at.changes, ['+bob', '-bob', '-ada']);
});

test('a refreshed list shows devices, and members of rooms without events', () => {
  const at = watching();
  at.page(0, ['ada']);
  at.room.refreshMembers();
  at.room.refreshMembers();
  assert.equal(at.asked(), 2, 'one query at a time');
  at.page(0, [{ user: 'ada', connections: 2 }, 'bob'], { anonymous: 3 });
  assert.equal(at.room.members.get('ada').connections, 2);
  assert.equal(at.room.members.anonymous, 3);
  assert.deepEqual(at.changes, ['+bob']);
});

test('a forbidden list gives the reason, an unavailable one is queried again', () => {
  const at = watching();
  at.socket.answer('members', { type: 'error', code: 'unavailable', reason: 'later' });
  at.clock.pass(500);
  assert.equal(at.asked(), 2);
  at.socket.answer('members', { type: 'error', code: 'forbidden', reason: 'not for you' });
  assert.equal(at.room.members.error.message, 'not for you');
  assert.equal(at.lists, 1);
  at.room.refreshMembers();
  at.page(1, ['ada']);
  assert.equal(at.room.members.error, null);
});

test('a very large room lists the first members and counts the rest', () => {
  const at = watching();
  const name = (n) => `user-${String(n).padStart(5, '0')}`;
  for (let n = 0; n < 2000; n += 500) {
    at.page(9, Array.from({ length: 500 }, (_, k) => name(n + k)), { more: true, count: 5000 });
  }
  const { members } = at.room;
  assert.deepEqual(
    [members.list().length, members.count, members.complete, at.asked()],
    [2000, 5000, false, 4],
  );
  at.push('joined', 'zoe', 10);
  at.push('left', 'zed', 11);
  at.push('left', 'zac', 11);
  at.push('left', name(3), 12);
  assert.deepEqual([members.list().length, members.count], [1999, 4998]);
  // A server that repeats a page does not cause endless queries.
  at.room.refreshMembers();
  const page = Array.from({ length: 500 }, (_, k) => name(k));
  for (let n = 0; n < 3; n++) at.page(13, page, { more: true, count: 5000 });
  assert.equal(members.known && !members._isReading(), true);
});

test('the list converges to that of the server for any order of pages and pushes', () => {
  for (let seed = 1; seed <= 300; seed++) {
    let state = seed * 2654435761;
    const random = (below) => {
      state = (state * 1664525 + 1013904223) % 4294967296;
      return Math.floor((state / 4294967296) * below);
    };
    const users = 'abcdefgh'.split('');
    const truth = new Map();
    let version = 0;
    const members = new Members();
    const notified = new Set();
    const flying = []; // pushes in flight, in order
    const change = () => {
      const user = users[random(users.length)];
      const connections = Math.max(0, (truth.get(user) ?? 0) + (random(2) ? 1 : -1));
      version += 1;
      const was = truth.get(user) ?? 0;
      truth.set(user, connections);
      if (!was && connections) flying.push({ type: 'joined', user, version });
      if (was && !connections) flying.push({ type: 'left', user, version });
    };
    const receive = () => {
      const push = flying.shift();
      if (!push) return;
      const isNews = push.type === 'joined' ? members._joined(push) : members._left(push);
      if (!isNews) return;
      assert.equal(
        notified.has(push.user),
        push.type === 'left',
        `seed ${seed}: joins and leaves alternate`,
      );
      if (push.type === 'joined') notified.add(push.user);
      else notified.delete(push.user);
    };
    /** A page read from the store, which is ahead of the pushes. */
    const page = () => {
      const { after } = members._question();
      const here = users.filter(
        (user) => truth.get(user) > 0 && (after === undefined || user > after),
      );
      const shown = here.slice(0, 3);
      const isFirst = !members.known;
      const list = shown.map((user) => ({ user, connections: truth.get(user) }));
      const result = members._page({
        version,
        members: list,
        count: 0,
        anonymous: 0,
        more: here.length > 3,
      });
      if (!result) return;
      for (const { user } of result.joined)
        assert.ok(!notified.has(user) && notified.add(user), `seed ${seed}: joined twice`);
      for (const { user } of result.left)
        assert.ok(notified.delete(user), `seed ${seed}: never joined`);
      if (isFirst) for (const { user } of members) notified.add(user);
    };
    const step = () =>
      [
        change,
        receive,
        receive,
        () => (members._isReading() ? page() : random(3) || members._begin()),
      ][random(4)]();
    members._begin();
    for (let n = 0; n < 80; n++) step();
    while (flying.length > 0) receive();
    if (!members.known) members._begin();
    while (members._isReading()) page();
    const expected = users.filter((user) => truth.get(user) > 0).join('');
    assert.equal(members.list().map(({ user }) => user).join(''), expected, `seed ${seed}`);
    assert.equal([...notified].sort().join(''), expected, `seed ${seed}: the reported members`);
  }
});

test('info is sent with the name, and a change of info uses the same connection', () => {
  const at = exchange({ user: 'ada', info: { name: 'Ada' } });
  at.socket.open();
  assert.deepEqual(at.socket.of('auth')[0].info, { name: 'Ada' });
  at.socket.answer('auth', { user: 'ada' });
  at.board.signIn({ user: 'ada', info: { name: 'Ada L.' } });
  assert.equal(at.sockets.length, 1);
  assert.deepEqual(at.socket.of('auth')[1].info, { name: 'Ada L.' });
});

test('signing in as another user opens a new connection and emits the user', () => {
  const at = exchange({ token: 'hers' });
  const names = [];
  at.board.on('user', (user) => names.push(user));
  at.socket.open();
  at.socket.answer('auth', { user: 'ada' });
  at.board.signIn({ token: 'his' });
  at.clock.pass(0);
  at.socket.open();
  assert.equal(at.socket.of('auth')[0].token, 'his');
  at.socket.answer('auth', { user: 'bob' });
  at.board.signIn();
  at.clock.pass(0);
  at.socket.open();
  assert.deepEqual(at.socket.sent, [], 'an anonymous client sends no auth');
  assert.deepEqual(names, ['ada', null, 'bob', null]);
  assert.equal(at.board.user, null);
});

test('a refused token at connect signs the user out, and a refused renewal does not', () => {
  const at = exchange({ token: 'good' });
  at.socket.open();
  at.socket.answer('auth', { user: 'ada' });
  at.board.setToken('bad');
  at.socket.answer('auth', { type: 'error', code: 'unauthorized', reason: 'no' });
  assert.equal(at.board.user, 'ada');
  const again = at.returns();
  again.answer('auth', { type: 'error', code: 'unauthorized', reason: 'no' });
  assert.equal(at.board.user, null);
});

/** A client that has signed in as Ada, with her personal room at p/7. */
function signedIn(options) {
  const at = exchange({ user: 'ada', ...options });
  at.personal = at.board.personal(at.handlers);
  at.place = { user: 'ada', room: '@ada', epoch: 'p', offset: 7 };
  at.direct = (offset) => ({
    type: 'message',
    room: '@ada',
    offset,
    user: 'bob',
    time: 1,
    data: 'x',
  });
  at.socket.open();
  at.socket.answer('auth', at.place);
  return at;
}

test('the personal room begins at the position of the auth reply, without a join', () => {
  const at = signedIn();
  assert.equal(at.socket.of('join').length, 0);
  at.socket.push(at.direct(8));
  assert.deepEqual([at.personal.name, at.personal.state, at.seen], ['@ada', 'joined', [8]]);
});

test('the personal room is recovered from its position after a reconnect', () => {
  const at = signedIn();
  at.socket.push(at.direct(8));
  const socket = at.returns();
  assert.equal(socket.of('join').length, 0, 'not before the auth reply');
  socket.answer('auth', { ...at.place, offset: 10 });
  assert.deepEqual(socket.of('join')[0].since, { epoch: 'p', offset: 8 });
  socket.push(at.direct(11)); // arrives again after the reply
  socket.answer('join', { epoch: 'p', offset: 8, top: 11, recovered: true });
  for (const offset of [9, 10, 11]) socket.push(at.direct(offset));
  assert.deepEqual(at.seen, [8, 9, 10, 11]);
});

test('a position that arrives after the auth reply is used', () => {
  const at = exchange({ user: 'ada' });
  const personal = at.board.personal(at.handlers);
  at.socket.open();
  at.socket.answer('auth', { user: 'ada', room: '@ada' });
  assert.equal(personal.state, 'joining');
  at.socket.push({ type: 'ok', user: 'ada', room: '@ada', epoch: 'p', offset: 7 });
  at.socket.push({ type: 'message', room: '@ada', offset: 8, user: 'bob', time: 1, data: 'x' });
  assert.deepEqual([personal.state, at.seen], ['joined', [8]]);
});

test('a newer token of the same user leaves the room as it is', () => {
  const at = signedIn({ user: null, token: 'one' });
  at.socket.push(at.direct(8));
  at.board.setToken('two');
  at.socket.answer('auth', { user: 'ada', room: '@ada', expires: 60 });
  at.socket.push(at.direct(9));
  assert.deepEqual([at.seen, at.socket.of('join').length], [[8, 9], 0]);
});

test('handlers registered late receive messages from the sign-in on', () => {
  const at = exchange({ user: 'ada' });
  at.socket.open();
  at.socket.answer('auth', { user: 'ada', room: '@ada', epoch: 'p', offset: 7 });
  at.socket.push({ type: 'message', room: '@ada', offset: 8, user: 'bob', time: 1, data: 'x' });
  at.board.personal(at.handlers);
  assert.deepEqual(at.socket.of('join')[0].since, { epoch: 'p', offset: 7 });
});

test('another user has another personal room, and an anonymous client has none', async () => {
  const at = signedIn();
  at.socket.push(at.direct(8));
  at.board.setUser('eve');
  at.clock.pass(0);
  assert.equal(at.personal.name, null);
  assert.equal(await outcome(at.personal.publish('x')), 'signed_out');
  at.socket.open();
  at.socket.answer('auth', { user: 'eve', room: '@eve', epoch: 'q', offset: 90 });
  at.socket.push({ type: 'message', room: '@eve', offset: 91, user: 'bob', time: 1, data: 'x' });
  assert.deepEqual(
    [at.personal.name, at.personal.position, at.seen],
    ['@eve', { epoch: 'q', offset: 91 }, [8, 91]],
  );
  assert.equal(at.socket.of('join').length, 0);
});

test('leaving the personal room sends no leave, and it can be joined again', () => {
  const at = signedIn();
  at.personal.leave();
  at.socket.push(at.direct(8));
  assert.deepEqual([at.seen, at.socket.of('leave').length], [[], 0]);
  at.board.personal(at.handlers);
  assert.deepEqual(at.socket.of('join')[0].since, { epoch: 'p', offset: 7 });
});

test('publishes to a room that is not joined are sent once, in order, without state', async () => {
  const at = signedIn();
  const sent = [1, 2].map((n) =>
    at.board.publish('@bob', n, { key: `k${n}` }).catch(({ code }) => code),
  );
  assert.deepEqual(
    at.socket.of('publish').map(({ room, key, data }) => [room, key, data]),
    [['@bob', 'k1', 1]],
  );
  const socket = at.returns();
  socket.answer('auth', at.place);
  assert.deepEqual(socket.of('publish').map(({ key }) => key), ['k1']);
  socket.answer('publish', { epoch: 'b', offset: 1 });
  socket.answer('publish', { type: 'error', code: 'forbidden', reason: 'no' });
  assert.deepEqual(await Promise.all(sent), [{ epoch: 'b', offset: 1 }, 'forbidden']);
  assert.equal(socket.of('join').length, 1, 'of the personal room only');
});

test('an own message without data is not delivered', () => {
  const at = exchange();
  at.joined();
  at.socket.push({ type: 'message', room: 'lobby', own: true });
  assert.deepEqual(at.seen, []);
});
