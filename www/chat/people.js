/**
 * Who is in the room one looks at: everyone once, however many devices they are on, and those
 * without a name as a number. A person is a button that leads to a conversation with them.
 */

import { cover, desk, openPeople } from './desk.js';
import { $, inNextFrame, make, monogram, narrow, setText, unreadBadge } from './view.js';

/** Persons that are shown at once. Of more, nobody reads the list. */
const MOST = 200;
/** What is not pushed (devices, those without a name) is asked for again so often, in ms, while somebody looks. */
const REFRESH = 10_000;
/** A larger room answers with more, and changes matter less: it is asked only each so-manieth time. */
const LARGE = 50;
const SELDOM = 12;

const list = $('people-list');
const rows = new Map(); // user → {item, look}
let onWrite = () => {};
let unreadFrom = () => 0;

/** The list shows the members of this conversation's room, if that is one. */
const members = () => desk.current?.room?.members ?? null;

/** What one is called by those who gave themselves another name than the one they sign in with. */
const nameOf = ({ user, info }) => (typeof info?.name === 'string' && info.name.trim() !== '' ? info.name.trim().slice(0, 64) : user);

function makeRow(member, unread) {
  const { user, connections } = member;
  const isMe = user === desk.me;
  const [name, label] = [nameOf(member), make('span', 'label')];
  const details = [name === user ? '' : user, connections > 1 ? `${connections} devices` : ''].filter(Boolean);
  label.append(make('bdi', 'name', name));
  if (details.length > 0) label.append(make('span', 'unseen', ', '), make('span', 'details', details.join(' · ')));
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

/** Keeps the elements of those who stay, so that whoever is on one with the keyboard stays there too. */
function render() {
  const here = members();
  const isShown = here !== null;
  document.body.classList.toggle('has-people', isShown);
  if (!isShown) return openPeople(false);
  const others = (member) => member.user !== desk.me;
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
    const look = JSON.stringify([nameOf(member), member.connections, unread, user === desk.me]);
    const row = rows.get(user) ?? { item: make('li'), look: null };
    rows.set(user, row);
    if (row.look !== look) {
      const hadFocus = row.item.contains(document.activeElement);
      row.item.replaceChildren(makeRow(member, unread));
      if (hadFocus) row.item.firstElementChild.focus();
      row.look = look;
    }
    if (list.children[index] !== row.item) list.insertBefore(row.item, list.children[index] ?? null);
  });
  const total = here.count + here.anonymous;
  setText($('who-is-here'), here.known ? `${total} here` : 'Who is here');
  setText($('people-count'), here.known ? String(total) : '');
  setText($('people-rest'), rest(here, here.count - shown.length));
  list.classList.toggle('stale', !here.fresh);
}

function rest(here, more) {
  if (here.error) return `You cannot see who is here: ${here.error.message}.`;
  if (!here.known) return 'Looking who is here…';
  const parts = [];
  if (more > 0) parts.push(`${more.toLocaleString('en')} more`);
  if (here.anonymous > 0) parts.push(`${here.anonymous.toLocaleString('en')} without a name`);
  return parts.length > 0 ? `and ${parts.join(', ')}` : '';
}

const renderSoon = inNextFrame(render);

const refresh = () => !document.hidden && desk.current?.room?.refreshMembers?.();

let round = 0;
function refreshNowAndThen() {
  round = (round + 1) % SELDOM;
  if (round === 0 || members()?.count <= LARGE) refresh();
}

/**
 * @param {{write: (user: string) => void, unread: (user: string) => number}} actions What a
 * person's row does and shows. @returns {(conversation: object) => void} To be called when the
 * members of a conversation's room have changed.
 */
export function showPeople({ write, unread }) {
  onWrite = write;
  unreadFrom = unread;
  desk.onChange(() => {
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
  return (conversation) => conversation === desk.current && renderSoon();
}

/** What is unread, or who one is, has changed. */
export const peopleChanged = renderSoon;
