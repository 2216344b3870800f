/**
 * The chat page: connects its parts. The connection is in `switchboard.js`; `chat/` has a file for
 * each part of the page: the list of conversations (rooms and direct messages), the log, the
 * members, typing, and the identity.
 */

import { Switchboard } from './switchboard.js';
import { app, fitBox, cover, openDrawer, openPeople } from './chat/app.js';
import { Mailbox, isDirect } from './chat/direct.js';
import { recall, refused, takeName, takeTokenFromAddress, watchIdentity } from './chat/identity.js';
import { log, toEnd } from './chat/log.js';
import { peopleChanged, showPeople } from './chat/people.js';
import { RoomConversation } from './chat/room.js';
import { $, checked, isRoom, isUser, phone, setText } from './chat/view.js';
import { showBanner, storage, touch } from './chat/view.js';

const STATES = {
  connecting: 'Connecting…',
  open: 'Connected',
  waiting: 'Reconnecting…',
  closed: 'Disconnected',
};

const body = document.body;
const box = $('message');

// Conversations.

const rooms = new Map();

function join(name) {
  let conversation = rooms.get(name);
  if (!conversation) {
    conversation = new RoomConversation(board, name, membersChanged);
    rooms.set(name, conversation);
    app.add(conversation, $('rooms'));
    storage.write('rooms', [...rooms.keys()]);
  }
  return conversation;
}

function writeTo(user) {
  openPeople(false);
  if (app.me !== null || board.user !== null) return app.visit(mailbox.talk(user));
  const name = () => {
    if (phone.matches) openDrawer(true);
    $('name').focus();
  };
  showBanner('Enter a name first: a direct message needs a sender.', 'Enter a name', name);
  name();
}

function leave() {
  const { current } = app;
  if (isDirect(current)) {
    mailbox.close(current);
  } else {
    current.room.leave();
    rooms.delete(current.name);
    storage.write('rooms', [...rooms.keys()]);
    app.remove(current);
  }
  (app.current ? log : $('room')).focus();
}

/** The address names the conversation: `#lobby`, or `#@bob`. */
function openFromHash() {
  takeTokenFromAddress();
  let name = '';
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    // Not a name.
  }
  if (name.startsWith('@') && isUser(name.slice(1))) {
    app.select(mailbox.talk(name.slice(1)));
    return true;
  }
  if (!isRoom(name)) return false;
  app.select(join(name));
  return true;
}

app.onChange((conversation) => {
  const isPersonal = isDirect(conversation);
  const hash = conversation && (isPersonal ? `@${conversation.name}` : conversation.name);
  const isWritable = isPersonal && !conversation.isReadOnly;
  const title = conversation && `${isPersonal ? '' : '# '}${conversation.label}`;
  setText($('title'), title ?? 'No room yet');
  setText($('subtitle'), isWritable ? 'Only the two of you see this' : '');
  setText($('leave'), isPersonal ? 'Close' : 'Leave');
  box.placeholder = isWritable ? `Write to ${conversation.label}` : 'Write a message';
  const hashed = hash ? `#${encodeURIComponent(hash).replace('%40', '@')}` : '';
  history.replaceState(null, '', location.pathname + location.search + hashed);
});

// The connection state.

const connect = () => board.connect();
let bannerTimer = null;
let hasBeenOpen = false;
function showStatus({ state, node, reason, code }) {
  hasBeenOpen ||= state === 'open';
  // Repeated attempts keep one text, so that a screen reader reads it once.
  const text = STATES[state === 'connecting' && hasBeenOpen ? 'waiting' : state];
  $('state').dataset.state = state;
  setText($('state'), text);
  $('where').hidden = node === null;
  if (node !== null) $('node').textContent = node;
  if (state === 'open' || state === 'closed') {
    clearTimeout(bannerTimer);
    bannerTimer = null;
    if (state === 'open') return showBanner('');
    if (code === 3500) refused({ code: 'unauthorized', message: 'it was revoked' });
    const why = reason ? `: ${reason}` : '';
    return showBanner(`The connection has ended${why}.`, 'Connect again', connect);
  }
  // Most reconnects take less time than this and need no banner.
  bannerTimer ??= setTimeout(() => {
    const text = 'No connection at the moment. What you write is sent when it is back.';
    showBanner(text, 'Try now', connect);
  }, 1500);
}

function showError(error) {
  if (!refused(error)) return showBanner(error.message);
  showBanner('You are not signed in.', 'Sign in', () => {
    if (phone.matches) openDrawer(true);
    $('token').focus();
  });
}

// The box, the keyboard.

/** Where the on-screen keyboard covers the page (iOS), the page shrinks to its visible part. */
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
  if (!app.current || app.current.isReadOnly || box.value.trim() === '') return;
  app.current.send(box.value);
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
  app.current?.writing.changed(box.value.trim() === '');
});
box.addEventListener('keydown', (event) => {
  // While an input method composes, Enter selects a candidate; Safari reports that only by code
  // 229.
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
  app.visit(join(name));
});
$('leave').addEventListener('click', leave);
$('menu').addEventListener('click', () => {
  openDrawer(!body.classList.contains('drawer'));
  if (body.classList.contains('drawer')) $('panel').querySelector('[aria-current="true"]')?.focus();
});
$('backdrop').addEventListener('click', () => {
  openPeople(false);
  if (app.current) openDrawer(false);
});
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash names a room
  (app.current ? box : $('room')).focus();
});
$('latest').addEventListener('click', () => {
  toEnd();
  if (!touch.matches) box.focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !app.current) return;
  const [drawer, people] = ['drawer', 'shows-people'].map((name) => body.classList.contains(name));
  if (!drawer && !people) return;
  openPeople(false);
  openDrawer(false);
  $(drawer ? 'menu' : 'who-is-here').focus();
});
addEventListener('hashchange', openFromHash);
phone.addEventListener('change', () => openDrawer(!app.current && phone.matches));
globalThis.visualViewport?.addEventListener('resize', fitViewport);
globalThis.visualViewport?.addEventListener('scroll', fitViewport);

// Start: the address takes precedence over storage, and is not stored.

const board = new Switchboard(undefined, recall());
const mailbox = new Mailbox(board, $('directs'));
const membersChanged = showPeople({
  write: writeTo,
  unread: (user) => mailbox.talks.get(user)?.unread ?? 0,
});
watchIdentity(board, () => {
  if (app.me !== null) showBanner('');
  peopleChanged();
});
app.onUnread(peopleChanged);
board.on('state', showStatus);
board.on('error', showError);
// A backend has brought the user into a room.
board.on('room', ({ name }) => {
  const conversation = join(name);
  if (!conversation.loaded) conversation.loadEarlier();
});
showStatus(board.status);

const kept = storage.read('rooms');
for (const name of Array.isArray(kept) ? kept : []) if (isRoom(name)) join(name);
if (!openFromHash()) app.select(app.all.values().next().value ?? null);
if (!app.current) $('room').value = 'lobby';
cover();
