// The texts of the chat page and its list of typing users: the parts of www/chat/ that use no
// element of the page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Typists, Writing } from '../../www/chat/typing.js';
import { MemberChanges, enumerate, userOf } from '../../www/chat/text.js';
import { FakeClock } from './exchange.mjs';

test('names are enumerated up to a number', () => {
  const names = ['ada', 'bob', 'cy', 'dot', 'eve'];
  const texts = names.map((_, n) => enumerate(names.slice(0, n + 1), 3));
  assert.deepEqual(texts, [
    'ada',
    'ada and bob',
    'ada, bob and cy',
    'ada, bob and 2 others',
    'ada, bob and 3 others',
  ]);
  assert.equal(enumerate([], 3), '');
});

test('the user of a token is shown if the token names one', () => {
  const token = (claims) =>
    `x.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.signature`;
  assert.equal(userOf(token({ sub: 'ada' })), 'ada');
  assert.equal(userOf(token({ sub: 'Ada~??ä>' })), 'Ada~??ä>');
  const others = [token({}), token({ sub: 7 }), token({ sub: '' }), token(null), 'x', '', '..'];
  for (const other of others) assert.equal(userOf(other), null, other);
});

test('joins and leaves make one line, without users whose presence did not change', () => {
  const changes = new MemberChanges();
  changes.add('ada', true);
  changes.add('bob', true);
  changes.add('cy', false);
  assert.equal(changes.text(), 'ada and bob joined · cy left');
  changes.add('ada', false);
  changes.add('cy', true);
  assert.equal(changes.text(), 'bob joined');
  const later = new MemberChanges();
  later.add('bob', false);
  changes.merge(later);
  assert.equal(changes.text(), '');
});

/** Typists on a clock that the test moves. */
function setUp() {
  const clock = new FakeClock();
  let changes = 0;
  const typists = new Typists(() => (changes += 1), clock);
  return { clock, typists, changes: () => changes };
}

test('a typing user is shown for some seconds after the last event', () => {
  const { clock, typists, changes } = setUp();
  typists.received('ada', true);
  assert.equal(typists.text(), 'ada is typing…');
  clock.pass(5_000);
  typists.received('ada', true);
  clock.pass(5_999);
  assert.equal(typists.text(), 'ada is typing…');
  assert.equal(changes(), 1);
  clock.pass(1);
  assert.equal(typists.text(), '');
  assert.equal(clock.waiting, 0);
});

test('several typing users are named, an anonymous one and a few of many', () => {
  const { typists } = setUp();
  typists.received(null, true);
  assert.equal(typists.text(), 'Someone is typing…');
  typists.received('ada', true);
  assert.equal(typists.text(), 'Someone and ada are typing…');
  typists.received('bob', true);
  typists.received('cy', true);
  assert.equal(typists.text(), 'Someone, ada and 2 others are typing…');
});

test('typing ends with a message, a typing event, or the connection', () => {
  const { clock, typists } = setUp();
  for (const user of ['ada', 'bob', 'cy']) typists.received(user, true);
  typists.ended('ada');
  typists.received('bob', false);
  assert.equal(typists.text(), 'cy is typing…');
  typists.clear();
  assert.equal(typists.text(), '');
  assert.equal(clock.waiting, 0);
});

test('the number of typing users is bounded', () => {
  const { clock, typists } = setUp();
  for (let n = 0; n < 1000; n++) typists.received(`user-${n}`, true);
  assert.equal(clock.waiting, 32);
});

test('own typing is published every three seconds at most, and revoked for an empty box', () => {
  const clock = new FakeClock();
  const sent = [];
  const writing = new Writing((typing) => sent.push(typing), clock.now);
  for (let n = 0; n < 60; n++) {
    writing.changed(false);
    clock.pass(100);
  }
  assert.deepEqual(sent, [true, true]);
  writing.changed(true);
  writing.changed(true);
  assert.deepEqual(sent, [true, true, false]);
});

test('typing is not revoked after a message is sent or after it has expired', () => {
  const clock = new FakeClock();
  const sent = [];
  const writing = new Writing((typing) => sent.push(typing), clock.now);
  writing.changed(false);
  writing.sent();
  writing.changed(true);
  writing.changed(false);
  clock.pass(6_000);
  writing.stop();
  assert.deepEqual(sent, [true, true]);
});
