/**
 * The chat page: puts its parts together. All that concerns the connection lives in
 * `switchboard.js`; `chat/` has a file for each thing that is seen: the desk with its
 * conversations, in rooms and with persons, the log, the people, who is typing, who one is.
 */

import { Switchboard } from './switchboard.js';
import { desk, fitBox, cover, openDrawer, openPeople } from './chat/desk.js';
import { Mailbox, isDirect } from './chat/direct.js';
import { recall, refused, takeName, takeTokenFromAddress, watchIdentity } from './chat/identity.js';
import { log, toEnd } from './chat/log.js';
import { peopleChanged, showPeople } from './chat/people.js';
import { RoomConversation } from './chat/room.js';
import { $, checked, isRoom, isUser, notice, phone, setText, storage, touch } from './chat/view.js';

const WORDS = { connecting: 'Connecting…', open: 'Connected', waiting: 'Reconnecting…', closed: 'Disconnected' };

const body = document.body;
const box = $('message');

// Conversations.

const rooms = new Map();

function join(name) {
  let conversation = rooms.get(name);
  if (!conversation) {
    conversation = new RoomConversation(board, name, membersChanged);
    rooms.set(name, conversation);
    desk.add(conversation, $('rooms'));
    storage.write('rooms', [...rooms.keys()]);
  }
  return conversation;
}

function writeTo(user) {
  openPeople(false);
  if (desk.me !== null || board.user !== null) return desk.visit(mailbox.talk(user));
  const name = () => {
    if (phone.matches) openDrawer(true);
    $('name').focus();
  };
  notice('Give yourself a name first: a direct message says whom it is from.', 'Give a name', name);
  name();
}

function leave() {
  const { current } = desk;
  if (isDirect(current)) {
    mailbox.close(current);
  } else {
    current.room.leave();
    rooms.delete(current.name);
    storage.write('rooms', [...rooms.keys()]);
    desk.remove(current);
  }
  (desk.current ? log : $('room')).focus();
}

/** The address names the conversation: `#lobby`, or `#@bob`. */
function openFromHash() {
  takeTokenFromAddress();
  let name = '';
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    // Not a name then.
  }
  if (name.startsWith('@') && isUser(name.slice(1))) {
    desk.select(mailbox.talk(name.slice(1)));
    return true;
  }
  if (!isRoom(name)) return false;
  desk.select(join(name));
  return true;
}

desk.onChange((conversation) => {
  const isPersonal = isDirect(conversation);
  const hash = conversation && (isPersonal ? `@${conversation.name}` : conversation.name);
  setText($('title'), conversation ? `${isPersonal ? '' : '# '}${conversation.label}` : 'No room yet');
  setText($('subtitle'), isPersonal && !conversation.isReadOnly ? 'Only the two of you see this' : '');
  setText($('leave'), isPersonal ? 'Close' : 'Leave');
  box.placeholder = isPersonal && !conversation.isReadOnly ? `Write to ${conversation.label}` : 'Write a message';
  const hashed = hash ? `#${encodeURIComponent(hash).replace('%40', '@')}` : '';
  history.replaceState(null, '', location.pathname + location.search + hashed);
});

// The connection, in words.

const connect = () => board.connect();
let noticeTimer = null;
let hasBeenOpen = false;
function showStatus({ state, node, reason, code }) {
  hasBeenOpen ||= state === 'open';
  // Attempt after attempt stays one word, so that a screen reader says it once.
  const words = WORDS[state === 'connecting' && hasBeenOpen ? 'waiting' : state];
  $('state').dataset.state = state;
  setText($('state'), words);
  $('where').hidden = node === null;
  if (node !== null) $('node').textContent = node;
  if (state === 'open' || state === 'closed') {
    clearTimeout(noticeTimer);
    noticeTimer = null;
    if (state === 'open') return notice('');
    if (code === 3500) refused({ code: 'unauthorized', message: 'it was revoked' });
    return notice(`The connection has ended${reason ? `: ${reason}` : ''}.`, 'Connect again', connect);
  }
  // Most returns take less than this; nobody needs to read about them.
  noticeTimer ??= setTimeout(() => notice('No connection at the moment. What you write is sent when it is back.', 'Try now', connect), 1500);
}

function showError(error) {
  if (!refused(error)) return notice(error.message);
  notice('You are not signed in.', 'Sign in', () => {
    if (phone.matches) openDrawer(true);
    $('token').focus();
  });
}

// The box, the keyboard.

/** Where the on-screen keyboard lies over the page (iOS), the page shrinks to what is seen of it. */
function fitViewport() {
  const { height, offsetTop, scale } = visualViewport;
  if (scale > 1.01) return;
  const covered = innerHeight - height > 1;
  for (const [name, value] of [['--tall', height], ['--top', offsetTop]]) {
    if (covered) body.style.setProperty(name, `${value}px`);
    else body.style.removeProperty(name);
  }
}

function submit() {
  if (!desk.current || desk.current.isReadOnly || box.value.trim() === '') return;
  desk.current.send(box.value);
  box.value = '';
  fitBox();
}

$('compose').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
  box.focus();
});
box.addEventListener('input', () => {
  fitBox();
  desk.current?.writing.changed(box.value.trim() === '');
});
box.addEventListener('keydown', (event) => {
  // While an input method composes, Enter chooses a word; Safari says so only by the code 229.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  const room = $('room');
  const name = checked(room, 'room') ?? '';
  if (!takeName()) return $('name').focus();
  if (name === '') return room.focus();
  room.value = '';
  desk.visit(join(name));
});
$('leave').addEventListener('click', leave);
$('menu').addEventListener('click', () => {
  openDrawer(!body.classList.contains('drawer'));
  if (body.classList.contains('drawer')) $('panel').querySelector('[aria-current="true"]')?.focus();
});
$('backdrop').addEventListener('click', () => {
  openPeople(false);
  if (desk.current) openDrawer(false);
});
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash names a room
  (desk.current ? box : $('room')).focus();
});
$('latest').addEventListener('click', () => {
  toEnd();
  if (!touch.matches) box.focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !desk.current) return;
  const [drawer, people] = ['drawer', 'shows-people'].map((name) => body.classList.contains(name));
  if (!drawer && !people) return;
  openPeople(false);
  openDrawer(false);
  $(drawer ? 'menu' : 'who-is-here').focus();
});
addEventListener('hashchange', openFromHash);
phone.addEventListener('change', () => openDrawer(!desk.current && phone.matches));
globalThis.visualViewport?.addEventListener('resize', fitViewport);
globalThis.visualViewport?.addEventListener('scroll', fitViewport);

// Plug in: the address says more than what was kept, and is not kept itself.

const board = new Switchboard(undefined, recall());
const mailbox = new Mailbox(board, $('directs'));
const membersChanged = showPeople({ write: writeTo, unread: (user) => mailbox.talks.get(user)?.unread ?? 0 });
watchIdentity(board, () => {
  if (desk.me !== null) notice('');
  peopleChanged();
});
desk.onUnread(peopleChanged);
board.on('state', showStatus);
board.on('error', showError);
showStatus(board.status);

const kept = storage.read('rooms');
for (const name of Array.isArray(kept) ? kept : []) if (isRoom(name)) join(name);
if (!openFromHash()) desk.select(desk.all.values().next().value ?? null);
if (!desk.current) $('room').value = 'lobby';
cover();
