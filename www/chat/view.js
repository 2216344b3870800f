/**
 * What all parts of the page share: elements, names, times, and storage. Text from other users
 * reaches the page only as textContent.
 */

export const $ = (id) => document.getElementById(id);
export const phone = matchMedia('(max-width: 719px)');
/** Where the list of members has no column of its own. */
export const narrow = matchMedia('(max-width: 1079px)');
export const touch = matchMedia('(pointer: coarse)');

/** Printable ASCII without blanks and { } * " \; it begins with neither @ nor $. */
const ROOM = /^(?!\.{1,2}$)[!#%-)+-?A-[\]-z|~][!#-)+-[\]-z|~]{0,254}$/;
/** No control characters, also those that turn the direction of text. */
const USER = /^[^\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$/u;
const RULES = {
  room: 'letters without accents, digits and signs but { } * " \\, no blanks',
  user: 'any letters, digits and signs',
};
/** The longest name, in bytes of UTF-8. */
const NAME_BYTES = 255;
/** Colours of monograms; chat.css has as many. */
const HUES = 8;

export const isRoom = (name) => typeof name === 'string' && ROOM.test(name);
export const isUser = (name) =>
  typeof name === 'string' &&
  USER.test(name) &&
  name.isWellFormed?.() !== false &&
  new TextEncoder().encode(name).length <= NAME_BYTES;

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function makeButton(className, text, onClick) {
  const button = make('button', className, text);
  button.type = 'button';
  button.addEventListener('click', onClick);
  return button;
}

/**
 * A user's sign: the first letter on a colour that is the same everywhere. It adds nothing to the
 * name.
 */
export function monogram(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) % 9973;
  const sign = make('span', `monogram hue-${sum % HUES}`, [...name][0]?.toUpperCase() ?? '?');
  sign.setAttribute('aria-hidden', 'true');
  return sign;
}

export function unreadBadge(count) {
  const badge = make('span', 'unread', count > 99 ? '99+' : String(count));
  badge.append(make('span', 'unseen', ' unread'));
  return badge;
}

/** Changes the text only where it differs, so that a screen reader reads nothing twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Returns the name in a field, or null after showing the error under it. */
export function checked(field, what) {
  const value = field.value.trim().replace(/^#/, '');
  const isRight = what === 'room' ? isRoom : isUser;
  const wrong = value !== '' && !isRight(value);
  const rules = what === 'room' ? RULES.room : RULES.user;
  showFieldError(field, wrong ? `A ${what} has up to ${NAME_BYTES} bytes: ${rules}.` : '');
  return wrong ? null : value;
}

/** Shows the error of a field under it; empty text removes it. */
export function showFieldError(field, text) {
  field.setAttribute('aria-invalid', String(text !== ''));
  $(`${field.id}-error`).textContent = text;
}

const keeper = (store) => ({
  read(key) {
    try {
      return JSON.parse(store().getItem(`switchboard.${key}`));
    } catch {
      return null; // storage is blocked, or the value is not ours
    }
  },
  write(key, value) {
    try {
      if (value === null) store().removeItem(`switchboard.${key}`);
      else store().setItem(`switchboard.${key}`, JSON.stringify(value));
    } catch {
      // Storage is blocked: the page keeps nothing.
    }
  },
});

/** Storage of the browser, and of this tab alone, over a reload. */
export const storage = keeper(() => localStorage);
export const tabStorage = keeper(() => sessionStorage);

/** A hidden tab gets no animation frames, so a timer replaces them. */
const FRAME_AT_LATEST = 250;
/** Makes a function that runs once in the next frame, however often it is called until then. */
export function inNextFrame(run) {
  let [frame, timer] = [0, 0];
  const once = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    timer = 0;
    run();
  };
  return () => {
    if (timer) return;
    frame = requestAnimationFrame(once);
    timer = setTimeout(once, FRAME_AT_LATEST);
  };
}

let act = () => {};

/** Shows a text above the log, with a button for an action; empty text removes it. */
export function showBanner(text, action, run = () => {}) {
  act = run;
  $('banner').hidden = text === '';
  setText($('banner-text'), text);
  $('act').hidden = !action;
  if (action) $('act').textContent = action;
}

$('act').addEventListener('click', () => act());
