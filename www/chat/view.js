/**
 * What every part of the page is made with: elements, names, times, and what the browser keeps for
 * us. Text from others reaches the page as textContent and in no other way.
 */

export const $ = (id) => document.getElementById(id);
export const phone = matchMedia('(max-width: 719px)');
/** Where the list of people has no place of its own. */
export const narrow = matchMedia('(max-width: 1079px)');
export const touch = matchMedia('(pointer: coarse)');

const NAME = /^[A-Za-z0-9_.:-][A-Za-z0-9_.:@-]*$/;
const USER = /^[A-Za-z0-9_.:-]{1,64}$/;
const LETTERS = 'letters and digits without accents, and _ . : - between them';
/** Colours of monograms; chat.css has as many. */
const HUES = 8;

export const isRoom = (name) => typeof name === 'string' && NAME.test(name) && name.length <= 128;
export const isUser = (name) => typeof name === 'string' && USER.test(name);

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

/** A user's sign: the first letter on a colour that is the same everywhere. Says nothing that the name does not. */
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

/** Changes the text only where it differs, so that a screen reader says nothing twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What a person typed as a name, or null after saying under the field what is wrong with it. */
export function checked(field, what) {
  const value = field.value.trim().replace(/^#/, '');
  const [isRight, most] = what === 'room' ? [isRoom, 128] : [isUser, 64];
  const wrong = value !== '' && !isRight(value);
  complain(field, wrong ? `A ${what} has up to ${most} characters: ${LETTERS}.` : '');
  return wrong ? null : value;
}

/** Says under a field what is wrong with it; nothing, if nothing is. */
export function complain(field, words) {
  field.setAttribute('aria-invalid', String(words !== ''));
  $(`${field.id}-error`).textContent = words;
}

const keeper = (store) => ({
  read(key) {
    try {
      return JSON.parse(store().getItem(`switchboard.${key}`));
    } catch {
      return null; // cookies are blocked, or somebody else wrote there
    }
  },
  write(key, value) {
    try {
      if (value === null) store().removeItem(`switchboard.${key}`);
      else store().setItem(`switchboard.${key}`, JSON.stringify(value));
    } catch {
      // Then the page simply forgets.
    }
  },
});

/** What this browser remembers, and what this tab alone does, over a reload. */
export const storage = keeper(() => localStorage);
export const tabStorage = keeper(() => sessionStorage);

/** A tab that is not looked at gets no animation frames, so a timer stands in for them. */
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

/** Says something above the log, with a button for what can be done about it; nothing takes it away. */
export function notice(text, action, run = () => {}) {
  act = run;
  $('notice').hidden = text === '';
  setText($('notice-text'), text);
  $('act').hidden = !action;
  if (action) $('act').textContent = action;
}

$('act').addEventListener('click', () => act());
