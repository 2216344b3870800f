/**
 * The members of the selected room: each user once, on any number of devices, and the number of
 * anonymous connections. A user's row is a button that opens a conversation with the user.
 */

import { app, cover, openPeople } from './app.js';
import { $, inNextFrame, make, monogram, narrow, setText, unreadBadge } from './view.js';

/** The maximum number of users shown: a longer list is not readable. */
const MOST = 200;
/**
 * The interval, in ms, at which what is not pushed (devices, anonymous connections) is read again
 * while the page is visible.
 */
const REFRESH = 10_000;
/**
 * A larger room has a larger reply, and changes matter less: it is read only every `SELDOM`th time.
 */
const LARGE = 50;
const SELDOM = 12;

const list = $('people-list');
const rows = new Map(); // user → {item, look}
let onWrite = () => {};
let unreadFrom = () => 0;

/** The list shows the members of this conversation's room, if that is one. */
const members = () => app.current?.room?.members ?? null;

/** The display name of a user, if it has one, else the user name. */
function nameOf({ user, info }) {
  const name = typeof info?.name === 'string' ? info.name.trim() : '';
  return name !== '' ? name.slice(0, 64) : user;
}

function makeRow(member, unread) {
  const { user, connections } = member;
  const isMe = user === app.me;
  const [name, label] = [nameOf(member), make('span', 'label')];
  const devices = connections > 1 ? `${connections} devices` : '';
  const details = [name === user ? '' : user, devices].filter(Boolean);
  label.append(make('bdi', 'name', name));
  if (details.length > 0) {
    label.append(make('span', 'unseen', ', '), make('span', 'details', details.join(' · ')));
  }
  const row = make(isMe ? 'div' : 'button', 'person');
  row.append(monogram(user), label);
  if (isMe) row.append(make('span', 'tag', 'you'));
  else {
    row.type = 'button';
    row.title = `Write to ${user}`;
    row.addEventListener('click', () => onWrite(user));
    if (unread > 0) row.append(unreadBadge(unread));
  }
  return row;
}

/** Keeps the elements of users that stay, so that the keyboard focus stays too. */
function render() {
  const here = members();
  const isShown = here !== null;
  document.body.classList.toggle('has-people', isShown);
  if (!isShown) return openPeople(false);
  const others = (member) => member.user !== app.me;
  const all = here.list();
  const shown = [...all.filter((member) => !others(member)), ...all.filter(others)].slice(0, MOST);
  const names = new Set(shown.map(({ user }) => user));
  for (const [user, { item }] of rows) {
    if (names.has(user)) continue;
    item.remove();
    rows.delete(user);
  }
  shown.forEach((member, index) => {
    const { user } = member;
    const unread = unreadFrom(user);
    const look = JSON.stringify([nameOf(member), member.connections, unread, user === app.me]);
    const row = rows.get(user) ?? { item: make('li'), look: null };
    rows.set(user, row);
    if (row.look !== look) {
      const hadFocus = row.item.contains(document.activeElement);
      row.item.replaceChildren(makeRow(member, unread));
      if (hadFocus) row.item.firstElementChild.focus();
      row.look = look;
    }
    const present = list.children[index] ?? null;
    if (present !== row.item) list.insertBefore(row.item, present);
  });
  const total = here.count + here.anonymous;
  setText($('who-is-here'), here.known ? `${total} here` : 'Who is here');
  setText($('people-count'), here.known ? String(total) : '');
  setText($('people-rest'), rest(here, here.count - shown.length));
  list.classList.toggle('stale', !here.fresh);
}

function rest(here, more) {
  if (here.error) return `The members cannot be listed: ${here.error.message}.`;
  if (!here.known) return 'Reading the members…';
  const parts = [];
  if (more > 0) parts.push(`${more.toLocaleString('en')} more`);
  if (here.anonymous > 0) parts.push(`${here.anonymous.toLocaleString('en')} without a name`);
  return parts.length > 0 ? `and ${parts.join(', ')}` : '';
}

const renderSoon = inNextFrame(render);

const refresh = () => !document.hidden && app.current?.room?.refreshMembers?.();

let round = 0;
function refreshNowAndThen() {
  round = (round + 1) % SELDOM;
  if (round === 0 || members()?.count <= LARGE) refresh();
}

/**
 * @param {{write: (user: string) => void, unread: (user: string) => number}} actions What a user's
 * row does and shows.
 * @returns {(conversation: object) => void} To be called when the members of a
 * conversation's room have changed.
 */
export function showPeople({ write, unread }) {
  onWrite = write;
  unreadFrom = unread;
  app.onChange(() => {
    render();
    refresh();
  });
  setInterval(refreshNowAndThen, REFRESH);
  document.addEventListener('visibilitychange', refresh);
  $('who-is-here').addEventListener('click', () => {
    openPeople(true);
    refresh();
    $('people').focus();
  });
  $('people-close').addEventListener('click', () => {
    openPeople(false);
    $('who-is-here').focus();
  });
  narrow.addEventListener('change', cover);
  return (conversation) => conversation === app.current && renderSoon();
}

/** To be called when unread messages or the identity have changed. */
export const peopleChanged = renderSoon;
