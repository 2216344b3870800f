// What the chat page says in words of its own, and who it believes to be typing: the parts of
// www/chat/ that know no element of the page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Typists, Writing } from '../../www/chat/typing.js';
import { Comings, enumerate } from '../../www/chat/words.js';
import { FakeClock } from './exchange.mjs';

test('names are enumerated up to a number', () => {
  const names = ['ada', 'bob', 'cy', 'dot', 'eve'];
  const said = names.map((_, n) => enumerate(names.slice(0, n + 1), 3));
  assert.deepEqual(said, ['ada', 'ada and bob', 'ada, bob and cy', 'ada, bob and 2 others', 'ada, bob and 3 others']);
  assert.equal(enumerate([], 3), '');
});

test('who came and went is one line, without those for whom nothing has changed', () => {
  const comings = new Comings();
  comings.add('ada', true);
  comings.add('bob', true);
  comings.add('cy', false);
  assert.equal(comings.words(), 'ada and bob joined · cy left');
  comings.add('ada', false);
  comings.add('cy', true);
  assert.equal(comings.words(), 'bob joined');
  const later = new Comings();
  later.add('bob', false);
  comings.merge(later);
  assert.equal(comings.words(), '');
});

/** Typists on a clock that the test moves. */
function heard() {
  const clock = new FakeClock();
  let changes = 0;
  const typists = new Typists(() => (changes += 1), clock);
  return { clock, typists, changes: () => changes };
}

test('whoever types is named for some seconds after the last word of it', () => {
  const { clock, typists, changes } = heard();
  typists.heard('ada', true);
  assert.equal(typists.words(), 'ada is typing…');
  clock.pass(5_000);
  typists.heard('ada', true);
  clock.pass(5_999);
  assert.equal(typists.words(), 'ada is typing…');
  assert.equal(changes(), 1);
  clock.pass(1);
  assert.equal(typists.words(), '');
  assert.equal(clock.waiting, 0);
});

test('several are named, those without a name as somebody, and a few of many', () => {
  const { typists } = heard();
  typists.heard(null, true);
  assert.equal(typists.words(), 'Somebody is typing…');
  typists.heard('ada', true);
  assert.equal(typists.words(), 'Somebody and ada are typing…');
  typists.heard('bob', true);
  typists.heard('cy', true);
  assert.equal(typists.words(), 'Somebody, ada and 2 others are typing…');
});

test('typing ends with the message, the word that it has ended, and the connection', () => {
  const { clock, typists } = heard();
  for (const user of ['ada', 'bob', 'cy']) typists.heard(user, true);
  typists.ended('ada');
  typists.heard('bob', false);
  assert.equal(typists.words(), 'cy is typing…');
  typists.clear();
  assert.equal(typists.words(), '');
  assert.equal(clock.waiting, 0);
});

test('a crowd that types does not grow the page', () => {
  const { clock, typists } = heard();
  for (let n = 0; n < 1000; n++) typists.heard(`user-${n}`, true);
  assert.equal(clock.waiting, 32);
});

test('our own typing is told every three seconds at most, and taken back when the box is empty', () => {
  const clock = new FakeClock();
  const told = [];
  const writing = new Writing((typing) => told.push(typing), clock.now);
  for (let n = 0; n < 60; n++) {
    writing.changed(false);
    clock.pass(100);
  }
  assert.deepEqual(told, [true, true]);
  writing.changed(true);
  writing.changed(true);
  assert.deepEqual(told, [true, true, false]);
});

test('what was sent, or is no longer believed, need not be taken back', () => {
  const clock = new FakeClock();
  const told = [];
  const writing = new Writing((typing) => told.push(typing), clock.now);
  writing.changed(false);
  writing.sent();
  writing.changed(true);
  writing.changed(false);
  clock.pass(6_000);
  writing.stop();
  assert.deepEqual(told, [true, true]);
});
