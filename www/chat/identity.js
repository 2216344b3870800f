/**
 * The identity: a name, where the server is open, or a token. A token may come with the address, as
 * `#token=…`, which browsers do not send to the server; it is removed from the address at once and
 * kept in this tab. Anybody can make such a link, so it replaces an identity only if the user
 * agrees.
 */

import { app } from './app.js';
import { userOf } from './text.js';
import { $, checked, monogram, showFieldError, storage, tabStorage } from './view.js';

const NEEDS_TOKEN =
  'This server lets people in by token: paste yours here, or open the link that has it.';

let board = null;
let token = null;
let name = null;
let refusedName = null; // not requested again
let offered = null; // a token from the address, until the user has decided
let onChange = () => {};

/** Reads the identity from the address and storage; returns it as options of `Switchboard`. */
export function recall() {
  const fromAddress = tokenFromAddress();
  const kept = tabStorage.read('token');
  token = typeof kept === 'string' ? kept : null;
  $('name').value = new URLSearchParams(location.search).get('name') ?? storage.read('name') ?? '';
  name = checked($('name'), 'name') || null;
  if (fromAddress && token === null && name === null) {
    token = fromAddress;
    tabStorage.write('token', token);
  } else if (fromAddress !== token) {
    offered = fromAddress;
  }
  app.me = token ? null : name;
  return token ? { token } : { user: name };
}

/** Returns the token in the address and removes it from there; the room's name stays. */
function tokenFromAddress() {
  const parts = location.hash.slice(1).split('&');
  const found = parts.find((part) => part.startsWith('token='));
  if (found === undefined) return null;
  const rest = parts.filter((part) => part !== found && part !== '').join('&');
  history.replaceState(null, '', `${location.pathname}${location.search}${rest && `#${rest}`}`);
  try {
    return decodeURIComponent(found.slice('token='.length)).trim() || null;
  } catch {
    return null; // truncated
  }
}

/**
 * Signs in with a token from a link that was opened in the open page, or asks first if that would
 * replace somebody.
 */
export function takeTokenFromAddress() {
  const found = tokenFromAddress();
  if (!found || found === token) return;
  if (token === null && name === null) return signInWith(found);
  offered = found;
  askToReplace();
}

/** Asks whether the offered token replaces the present identity. */
function askToReplace() {
  const present = token === null ? name : (board.user ?? userOf(token));
  const other = userOf(offered);
  const who = present ? `You are signed in as ${present}` : 'You are signed in';
  const whom = other ? ` as ${other}` : ' as somebody else';
  $('replace-text').textContent =
    `${who}. The link that you have opened signs you in${whom}. Go on only if you trust it.`;
  $('replace-keep').textContent = present ? `Stay ${present}` : 'Stay signed in';
  $('replace-take').textContent = other ? `Become ${other}` : 'Use the link';
  const dialog = $('replace');
  if (!dialog.open) dialog.showModal(); // Escape closes it, which keeps the identity
}

function watchReplace() {
  const dialog = $('replace');
  $('replace-keep').addEventListener('click', () => dialog.close());
  $('replace-take').addEventListener('click', () => {
    const taken = offered;
    dialog.close();
    if (taken !== null) signInWith(taken);
  });
  dialog.addEventListener('close', () => (offered = null));
  if (offered !== null) askToReplace();
}

function signInWith(shown) {
  token = shown;
  tabStorage.write('token', token);
  showFieldError($('token'), '');
  $('token').value = '';
  refusedName = null;
  app.me = token ? null : name;
  board.signIn(token ? { token } : { user: name });
  if (board.status.state === 'closed') board.connect();
  show();
}

/** Uses the name in the field; returns false if it is invalid. */
export function takeName() {
  const typed = checked($('name'), 'name');
  if (typed === null) return false;
  const isNew = (typed || null) !== name;
  name = typed || null;
  if (isNew) storage.write('name', typed);
  if (token !== null || name === app.me || name === refusedName) return true;
  app.me = name;
  board.signIn({ user: name });
  onChange();
  return true;
}

/** Handles a refused identity; returns true if the error is one. */
export function refused(error) {
  if (!['unauthorized', 'expired', 'no_token', 'too_large'].includes(error.code)) return false;
  const isName = token === null;
  if (isName) refusedName = name;
  const field = $('token');
  app.me = null;
  // Public rooms can be used without an identity.
  token = null;
  tabStorage.write('token', null);
  board.signIn();
  show();
  $('token-box').open = true;
  const renew = 'Get a new one and paste it here.';
  const advice = error.code === 'expired' ? renew : 'Paste another one, or sign in by name above.';
  const why = `Your token was refused: ${error.message}. ${advice}`;
  showFieldError(field, isName ? NEEDS_TOKEN : why);
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

/**
 * @param {import('../switchboard.js').Switchboard} made
 * @param {() => void} changed Called when the user changes.
 */
export function watchIdentity(made, changed) {
  board = made;
  onChange = changed;
  board.on('user', (user) => {
    if (user !== null || token !== null) app.me = user;
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
    if (shown === '') return showFieldError($('token'), 'Paste a token first.');
    signInWith(shown);
    $('sign-out').focus();
  });
  $('sign-out').addEventListener('click', () => {
    signInWith(null);
    $('name').focus();
  });
  watchReplace();
  show();
}
