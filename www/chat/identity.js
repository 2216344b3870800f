/**
 * Who one is: a name, where the server believes it, or a token. A token may come with the address,
 * as `#token=…`, which browsers do not send to anybody; it is taken out of the address at once and
 * stays in this tab.
 */

import { desk } from './desk.js';
import { $, checked, complain, monogram, storage, tabStorage } from './view.js';

const BELIEVES_TOKENS = 'This server lets people in by token: paste yours here, or open the link that has it.';

let board = null;
let token = null;
let name = null;
let refusedName = null; // asking for it again is useless
let onChange = () => {};

/** What the address and the browser know of who one is; for the board that is made with it. */
export function recall() {
  const fromAddress = tokenFromAddress();
  if (fromAddress) tabStorage.write('token', fromAddress);
  const kept = fromAddress ?? tabStorage.read('token');
  token = typeof kept === 'string' ? kept : null;
  $('name').value = new URLSearchParams(location.search).get('name') ?? storage.read('name') ?? '';
  name = checked($('name'), 'name') || null;
  desk.me = token ? null : name;
  return token ? { token } : { user: name };
}

/** The token in the address, which goes from there; the room's name stays. */
function tokenFromAddress() {
  const parts = location.hash.slice(1).split('&');
  const found = parts.find((part) => part.startsWith('token='));
  if (found === undefined) return null;
  const rest = parts.filter((part) => part !== found && part !== '').join('&');
  history.replaceState(null, '', `${location.pathname}${location.search}${rest && `#${rest}`}`);
  try {
    return decodeURIComponent(found.slice('token='.length)).trim() || null;
  } catch {
    return null; // cut off in the middle
  }
}

/** A link with a token was opened in a page that is open already. */
export function takeTokenFromAddress() {
  const found = tokenFromAddress();
  if (found) signInWith(found);
}

function signInWith(shown) {
  token = shown;
  tabStorage.write('token', token);
  complain($('token'), '');
  $('token').value = '';
  refusedName = null;
  desk.me = token ? null : name;
  board.signIn(token ? { token } : { user: name });
  if (board.status.state === 'closed') board.connect();
  show();
}

/** Takes the name in the field; false if it is none. */
export function takeName() {
  const typed = checked($('name'), 'name');
  if (typed === null) return false;
  const isNew = (typed || null) !== name;
  name = typed || null;
  if (isNew) storage.write('name', typed);
  if (token !== null || name === desk.me || name === refusedName) return true;
  desk.me = name;
  board.signIn({ user: name });
  onChange();
  return true;
}

/** What to do when the server does not believe who one says one is; true if the error was about that. */
export function refused(error) {
  if (!['unauthorized', 'expired', 'no_token'].includes(error.code)) return false;
  const isName = token === null;
  if (isName) refusedName = name;
  const field = $('token');
  desk.me = null;
  // Without an identity, rooms that are for everyone still can be used.
  token = null;
  tabStorage.write('token', null);
  board.signIn();
  show();
  $('token-box').open = true;
  const advice = error.code === 'expired' ? 'Get a new one and paste it here.' : 'Paste another one, or sign in by name above.';
  complain(field, isName ? BELIEVES_TOKENS : `Your token was refused: ${error.message}. ${advice}`);
  onChange();
  return true;
}

function show() {
  const isSignedIn = token !== null;
  $('signed-in').hidden = !isSignedIn;
  $('me').hidden = $('token-box').hidden = isSignedIn;
  const user = board.user;
  $('who').replaceChildren(...(user ? [monogram(user), user] : ['…']));
}

/** @param {import('../switchboard.js').Switchboard} made @param {() => void} changed Called when one is somebody else. */
export function watchIdentity(made, changed) {
  board = made;
  onChange = changed;
  board.on('user', (user) => {
    if (user !== null || token !== null) desk.me = user;
    show();
    onChange();
  });
  $('me').addEventListener('submit', (event) => {
    event.preventDefault();
    takeName();
  });
  $('name').addEventListener('change', takeName);
  $('sign-in').addEventListener('submit', (event) => {
    event.preventDefault();
    const shown = $('token').value.trim();
    if (shown === '') return complain($('token'), 'Paste a token first.');
    signInWith(shown);
    $('sign-out').focus();
  });
  $('sign-out').addEventListener('click', () => {
    signInWith(null);
    $('name').focus();
  });
  show();
}
