/**
 * The log on the page: messages as elements, their days and senders, and the reader's position
 * while it grows above and below.
 */

import { $, make } from './view.js';

/** Messages of one sender within this time are grouped under one name. */
const TOGETHER = 5 * 60_000;

const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const wholeTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const dayName = new Intl.DateTimeFormat('en', {
  weekday: 'long',
  day: 'numeric',
  month: 'long',
  year: 'numeric',
});

export const log = $('log');

/** Whether the reader follows the end of the log. Set by scrolling, so that a resize keeps it. */
export let following = true;

const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;

export function toEnd() {
  log.scrollTop = log.scrollHeight;
  following = true;
  $('latest').hidden = true;
}

/** Shows the log at the position where it was last read: `scroll`, or the end if that is null. */
export function showFrom(scroll) {
  if (scroll === null) return toEnd();
  log.scrollTop = scroll;
  following = false;
}

/**
 * Changes the log without a screen reader reading it all out: pages of history, another
 * conversation.
 */
let loudAgain;
export function quietly(change) {
  log.setAttribute('aria-live', 'off');
  change();
  clearTimeout(loudAgain);
  loudAgain = setTimeout(() => log.setAttribute('aria-live', 'polite'), 500);
}

/** Keeps the end, or else the message that is being read, in place while the page grows. */
export function keepPlace(anchor, change, onBelow) {
  const stood = anchor?.offsetTop;
  change();
  if (following) {
    toEnd();
  } else {
    if (anchor?.isConnected) log.scrollTop += anchor.offsetTop - stood;
    onBelow?.();
  }
}

log.addEventListener('scroll', () => {
  following = isAtEnd();
  if (following) $('latest').hidden = true;
}, { passive: true });
new ResizeObserver(() => following && toEnd()).observe(log);

export const isMessage = (item) => item?.dataset.offset !== undefined;

/** Any client may publish any data: what has no text is shown as JSON. */
function textOf(data) {
  if (typeof data === 'string') return data;
  return typeof data?.text === 'string' ? data.text : JSON.stringify(data);
}

export function makeMessage({ epoch, offset, user, time, data }, own) {
  const item = make('li', own ? 'message own' : 'message');
  const when = new Date(Number(time));
  const known = !Number.isNaN(when.getTime());
  Object.assign(item.dataset, { user: user ?? '', time, day: known ? when.toDateString() : '' });
  if (epoch !== undefined) Object.assign(item.dataset, { epoch, offset });
  const stamp = make('time', '', known ? clockTime.format(when) : '');
  if (known) {
    stamp.dateTime = when.toISOString();
    stamp.title = wholeTime.format(when);
  }
  const sender = make('span', 'sender', user ?? 'anonymous');
  item.append(sender, stamp, make('span', 'text', textOf(data)));
  return item;
}

/**
 * Adapts a message to the ones before it: a line above where a day begins, no name if the sender is
 * the same.
 */
export function dress(item) {
  if (!isMessage(item)) return;
  if (item.previousElementSibling?.classList.contains('day')) item.previousElementSibling.remove();
  const above = item.previousElementSibling;
  let former = above;
  while (former && !isMessage(former)) former = former.previousElementSibling;
  const { day, user, time } = item.dataset;
  const newDay = day !== '' && former?.dataset.day !== day;
  if (newDay) item.before(make('li', 'day', dayName.format(new Date(Number(time)))));
  const isGrouped =
    !newDay &&
    isMessage(above) &&
    above.dataset.user === user &&
    time - above.dataset.time < TOGETHER &&
    above.classList.contains('own') === item.classList.contains('own');
  item.classList.toggle('follows', isGrouped);
}
