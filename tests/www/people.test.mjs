// Who is here and who one is, as www/switchboard.js knows it: the list of members against seeded
// disorder, the personal room, and publishing to rooms one is not in.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Members } from '../../www/switchboard.js';
import { exchange, outcome } from './exchange.mjs';

/** A board in the lobby that keeps the list and notes what it is told. */
function watching(options) {
  const at = exchange(options);
  at.told = [];
  at.lists = 0;
  at.socket.open();
  at.room = at.board.join('lobby', {
    onMembers: () => (at.lists += 1),
    onJoined: ({ user }) => at.told.push(`+${user}`),
    onLeft: ({ user }) => at.told.push(`-${user}`),
  });
  at.socket.answer('join', { epoch: 'e', offset: 0 });
  /** Answers the newest question with a page. */
  at.page = (version, users, more = {}) => {
    const members = users.map((user) => (typeof user === 'string' ? { user, connections: 1 } : user));
    at.socket.answer('members', { version, members, count: members.length, anonymous: 0, more: false, ...more });
  };
  at.push = (type, user, version) => at.socket.push({ type, room: 'lobby', ...(user && { user }), version });
  at.names = () => at.room.members.list().map(({ user }) => user).join(' ');
  at.asked = () => at.socket.of('members').length;
  return at;
}

test('the list is asked for behind the join, in pages, and only where somebody wants it', () => {
  const at = watching();
  assert.deepEqual(at.socket.of('members').map(({ room, after }) => [room, after]), [['lobby', undefined]]);
  at.page(3, ['ada', 'bob'], { more: true, count: 3 });
  assert.equal(at.room.members.known, false);
  assert.equal(at.socket.of('members').at(-1).after, 'bob');
  at.page(3, [{ user: 'cy', connections: 2, info: { name: 'Cy' } }], { anonymous: 4, count: 3 });
  assert.equal(at.names(), 'ada bob cy');
  assert.deepEqual([at.room.members.count, at.room.members.anonymous, at.room.members.complete], [3, 4, true]);
  assert.deepEqual([at.room.members.get('cy').connections, at.room.members.get('cy').info], [2, { name: 'Cy' }]);
  assert.deepEqual(at.told, [], 'whoever was there before is no news');
  const other = exchange();
  other.joined();
  assert.equal(other.socket.of('members').length, 0);
});

test('what is pushed changes the list, once', () => {
  const at = watching();
  at.page(3, ['ada']);
  at.push('joined', 'bob', 4);
  at.push('joined', 'bob', 4);
  at.push('left', 'ada', 6);
  at.push('left', 'ada', 6);
  at.push('left', 'zoe', 7);
  assert.equal(at.names(), 'bob');
  assert.deepEqual(at.told, ['+bob', '-ada']);
});

test('of a user holds the higher version, whether push or page came first', () => {
  const at = watching();
  // Pushed while the list is on its way, and later than it.
  at.push('joined', 'bob', 12);
  at.push('left', 'ada', 11);
  at.push('joined', 'cy', 8);
  at.push('left', 'dot', 9);
  at.page(10, ['ada', 'dot', 'eve']);
  // `cy` had joined before the page and left again; `dot` had left and come back.
  assert.equal(at.names(), 'bob dot eve');
  // Older than the page that its name belongs to: in it already.
  at.push('left', 'eve', 10);
  at.push('joined', 'fay', 9);
  assert.equal(at.names(), 'bob dot eve');
  assert.deepEqual(at.told, []);
});

test('each name belongs to its own page', () => {
  const at = watching();
  at.page(5, ['ada', 'bob'], { more: true, count: 4 });
  at.push('left', 'ada', 6);
  at.push('joined', 'moe', 6);
  at.page(7, ['max', 'moe']);
  assert.equal(at.names(), 'bob max moe');
  at.push('joined', 'ann', 6);
  at.push('joined', 'zoe', 6);
  assert.equal(at.names(), 'ann bob max moe', 'news for the first page, known to the second');
});

test('after a return the list is read anew, and the difference told', () => {
  const at = watching();
  at.page(50, ['ada', 'bob']);
  at.push('joined', 'cy', 51);
  assert.equal(at.room.members.fresh, true);
  at.socket.die();
  assert.equal(at.room.members.fresh, false);
  assert.equal(at.names(), 'ada bob cy', 'the last that is known');
  at.clock.pass(20_000);
  at.socket.open();
  at.socket.answer('join', { epoch: 'e', offset: 0, recovered: true });
  // Its versions are lower: the store was emptied and has begun anew.
  at.page(2, ['ada', 'dot']);
  assert.equal(at.names(), 'ada dot');
  assert.deepEqual(at.told, ['+cy', '+dot', '-bob', '-cy']);
  at.push('joined', 'bob', 3);
  assert.equal(at.names(), 'ada bob dot');
});

test('where too much has changed the list is read anew, whatever is on its way', () => {
  const at = watching();
  at.page(50, ['ada', 'bob']);
  at.room.refreshMembers();
  const stale = at.socket.of('members').at(-1).id;
  at.push('members', null, 4);
  assert.equal(at.asked(), 3);
  at.socket.push({ type: 'ok', id: stale, room: 'lobby', version: 51, members: [{ user: 'eve', connections: 1 }], count: 1, more: false });
  assert.equal(at.names(), 'ada bob');
  at.push('joined', 'cy', 5);
  at.page(4, ['ada']);
  assert.equal(at.names(), 'ada cy');
  assert.deepEqual(at.told, ['+cy', '-bob']);
});

test('whoever was told to have come and is not on the list has gone, and the other way round', () => {
  const at = watching();
  at.page(1, ['ada']);
  at.room.refreshMembers();
  at.push('joined', 'bob', 2);
  at.push('left', 'bob', 4);
  at.push('left', 'ada', 5);
  at.page(3, ['ada', 'bob']);
  assert.equal(at.names(), '');
  assert.deepEqual(at.told, ['+bob', '-bob', '-ada']);
});

test('asked again, the list tells of devices and of rooms whose events are off', () => {
  const at = watching();
  at.page(0, ['ada']);
  at.room.refreshMembers();
  at.room.refreshMembers();
  assert.equal(at.asked(), 2, 'one question at a time');
  at.page(0, [{ user: 'ada', connections: 2 }, 'bob'], { anonymous: 3 });
  assert.equal(at.room.members.get('ada').connections, 2);
  assert.equal(at.room.members.anonymous, 3);
  assert.deepEqual(at.told, ['+bob']);
});

test('a list that may not be seen says why, one that is not to be had now is asked for again', () => {
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

test('of a very large room the first are listed and the rest counted', () => {
  const at = watching();
  const name = (n) => `user-${String(n).padStart(5, '0')}`;
  for (let n = 0; n < 2000; n += 500) {
    at.page(9, Array.from({ length: 500 }, (_, k) => name(n + k)), { more: true, count: 5000 });
  }
  const { members } = at.room;
  assert.deepEqual([members.list().length, members.count, members.complete, at.asked()], [2000, 5000, false, 4]);
  at.push('joined', 'zoe', 10);
  at.push('left', 'zed', 11);
  at.push('left', 'zac', 11);
  at.push('left', name(3), 12);
  assert.deepEqual([members.list().length, members.count], [1999, 4998]);
  // A server that repeats itself does not keep us asking.
  at.room.refreshMembers();
  const page = Array.from({ length: 500 }, (_, k) => name(k));
  for (let n = 0; n < 3; n++) at.page(13, page, { more: true, count: 5000 });
  assert.equal(members.known && !members._isReading(), true);
});

test('whatever the order of pages and pushes, the list ends as the server has it', () => {
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
    const told = new Set();
    const flying = []; // what is pushed and not heard yet, in order
    const change = () => {
      const user = users[random(users.length)];
      const connections = Math.max(0, (truth.get(user) ?? 0) + (random(2) ? 1 : -1));
      version += 1;
      const was = truth.get(user) ?? 0;
      truth.set(user, connections);
      if (!was && connections) flying.push({ type: 'joined', user, version });
      if (was && !connections) flying.push({ type: 'left', user, version });
    };
    const hear = () => {
      const push = flying.shift();
      if (!push) return;
      const isNews = push.type === 'joined' ? members._joined(push) : members._left(push);
      if (!isNews) return;
      assert.equal(told.has(push.user), push.type === 'left', `seed ${seed}: told in turn`);
      if (push.type === 'joined') told.add(push.user);
      else told.delete(push.user);
    };
    /** A page read from the store, which is ahead of what has been pushed. */
    const page = () => {
      const { after } = members._question();
      const here = users.filter((user) => truth.get(user) > 0 && (after === undefined || user > after));
      const shown = here.slice(0, 3);
      const isFirst = !members.known;
      const list = shown.map((user) => ({ user, connections: truth.get(user) }));
      const result = members._page({ version, members: list, count: 0, anonymous: 0, more: here.length > 3 });
      if (!result) return;
      for (const { user } of result.joined) assert.ok(!told.has(user) && told.add(user), `seed ${seed}: told twice`);
      for (const { user } of result.left) assert.ok(told.delete(user), `seed ${seed}: never told`);
      if (isFirst) for (const { user } of members) told.add(user);
    };
    const step = () => [change, hear, hear, () => (members._isReading() ? page() : random(3) || members._begin())][random(4)]();
    members._begin();
    for (let n = 0; n < 80; n++) step();
    while (flying.length > 0) hear();
    if (!members.known) members._begin();
    while (members._isReading()) page();
    const expected = users.filter((user) => truth.get(user) > 0).join('');
    assert.equal(members.list().map(({ user }) => user).join(''), expected, `seed ${seed}`);
    assert.equal([...told].sort().join(''), expected, `seed ${seed}: what was told`);
  }
});

test('info goes with the name, and a change of it alone on the same connection', () => {
  const at = exchange({ user: 'ada', info: { name: 'Ada' } });
  at.socket.open();
  assert.deepEqual(at.socket.of('auth')[0].info, { name: 'Ada' });
  at.socket.answer('auth', { user: 'ada' });
  at.board.signIn({ user: 'ada', info: { name: 'Ada L.' } });
  assert.equal(at.sockets.length, 1);
  assert.deepEqual(at.socket.of('auth')[1].info, { name: 'Ada L.' });
});

test('whoever signs in as another begins anew, and is told who that is', () => {
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
  assert.deepEqual(at.socket.sent, [], 'nobody has nothing to say of who it is');
  assert.deepEqual(names, ['ada', null, 'bob', null]);
  assert.equal(at.board.user, null);
});

test('a refused token leaves nobody signed in; one that would have followed another takes nothing away', () => {
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

/** A board that has signed in as Ada, whose room stands at p/7. */
function signedIn(options) {
  const at = exchange({ user: 'ada', ...options });
  at.personal = at.board.personal(at.handlers);
  at.place = { user: 'ada', room: '@ada', epoch: 'p', offset: 7 };
  at.direct = (offset) => ({ type: 'message', room: '@ada', offset, user: 'bob', time: 1, data: 'x' });
  at.socket.open();
  at.socket.answer('auth', at.place);
  return at;
}

test('the personal room begins where signing in says, without a join', () => {
  const at = signedIn();
  assert.equal(at.socket.of('join').length, 0);
  at.socket.push(at.direct(8));
  assert.deepEqual([at.personal.name, at.personal.state, at.seen], ['@ada', 'joined', [8]]);
});

test('after a return it is recovered from where one stood', () => {
  const at = signedIn();
  at.socket.push(at.direct(8));
  const socket = at.returns();
  assert.equal(socket.of('join').length, 0, 'not before it is known who asks');
  socket.answer('auth', { ...at.place, offset: 10 });
  assert.deepEqual(socket.of('join')[0].since, { epoch: 'p', offset: 8 });
  socket.push(at.direct(11)); // comes again behind the answer
  socket.answer('join', { epoch: 'p', offset: 8, top: 11, recovered: true });
  for (const offset of [9, 10, 11]) socket.push(at.direct(offset));
  assert.deepEqual(at.seen, [8, 9, 10, 11]);
});

test('a place that is told later is taken then', () => {
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

test('handlers that come late hear what came since signing in', () => {
  const at = exchange({ user: 'ada' });
  at.socket.open();
  at.socket.answer('auth', { user: 'ada', room: '@ada', epoch: 'p', offset: 7 });
  at.socket.push({ type: 'message', room: '@ada', offset: 8, user: 'bob', time: 1, data: 'x' });
  at.board.personal(at.handlers);
  assert.deepEqual(at.socket.of('join')[0].since, { epoch: 'p', offset: 7 });
});

test('another user has another room, and nobody has none', async () => {
  const at = signedIn();
  at.socket.push(at.direct(8));
  at.board.setUser('eve');
  at.clock.pass(0);
  assert.equal(at.personal.name, null);
  assert.equal(await outcome(at.personal.publish('x')), 'signed_out');
  at.socket.open();
  at.socket.answer('auth', { user: 'eve', room: '@eve', epoch: 'q', offset: 90 });
  at.socket.push({ type: 'message', room: '@eve', offset: 91, user: 'bob', time: 1, data: 'x' });
  assert.deepEqual([at.personal.name, at.personal.position, at.seen], ['@eve', { epoch: 'q', offset: 91 }, [8, 91]]);
  assert.equal(at.socket.of('join').length, 0);
});

test('the personal room is not left on the server, and can be taken up again', () => {
  const at = signedIn();
  at.personal.leave();
  at.socket.push(at.direct(8));
  assert.deepEqual([at.seen, at.socket.of('leave').length], [[], 0]);
  at.board.personal(at.handlers);
  assert.deepEqual(at.socket.of('join')[0].since, { epoch: 'p', offset: 7 });
});

test('a room one is not in can be published to, in order, once, and is forgotten', async () => {
  const at = signedIn();
  const sent = [1, 2].map((n) => at.board.publish('@bob', n, { key: `k${n}` }).catch(({ code }) => code));
  assert.deepEqual(at.socket.of('publish').map(({ room, key, data }) => [room, key, data]), [['@bob', 'k1', 1]]);
  const socket = at.returns();
  socket.answer('auth', at.place);
  assert.deepEqual(socket.of('publish').map(({ key }) => key), ['k1']);
  socket.answer('publish', { epoch: 'b', offset: 1 });
  socket.answer('publish', { type: 'error', code: 'forbidden', reason: 'no' });
  assert.deepEqual(await Promise.all(sent), [{ epoch: 'b', offset: 1 }, 'forbidden']);
  assert.equal(socket.of('join').length, 1, 'of the personal room alone');
});

test('what one said to the others comes back without its data, and is not told', () => {
  const at = exchange();
  at.joined();
  at.socket.push({ type: 'message', room: 'lobby', own: true });
  assert.deepEqual(at.seen, []);
});
