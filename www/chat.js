/**
 * The chat page: what is said in the rooms one has joined, and the box to say something. All that concerns the
 * connection lives in `switchboard.js`; here is only what is seen. Text from others reaches the page as textContent.
 */

import { Switchboard, newKey } from './switchboard.js';

/** Messages one room keeps in the page, and waiting to be shown: more would slow a phone down. */
const KEEP = 500;
const PAGE = 50;
/** A tab that is not looked at gets no animation frames, so a timer stands in for them. */
const FRAME_AT_LATEST = 250;
/** Messages of one sender within this time stand together under one name. */
const TOGETHER = 5 * 60_000;
const NAME = /^[A-Za-z0-9_.:-][A-Za-z0-9_.:@-]*$/;
const LETTERS = 'letters and digits without accents, and _ . : @ - between them';
const WORDS = { connecting: 'Connecting…', open: 'Connected', waiting: 'Reconnecting…', closed: 'Disconnected' };

const $ = (id) => document.getElementById(id);
const body = document.body;
const log = $('log');
const box = $('message');
const phone = matchMedia('(max-width: 719px)');
const touch = matchMedia('(pointer: coarse)');
const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const wholeTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const dayName = new Intl.DateTimeFormat('en', { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeButton(className, text, onClick) {
  const button = make('button', className, text);
  button.type = 'button';
  button.addEventListener('click', onClick);
  return button;
}

/** Storage throws where cookies are blocked; then the page simply forgets. */
const storage = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(`switchboard.${key}`));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(`switchboard.${key}`, JSON.stringify(value));
    } catch {
      // Nothing to keep it in.
    }
  },
};

// The log.

const isMessage = (item) => item?.dataset.offset !== undefined;
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;

/** Whether the reader follows the end of the log. Known from scrolling, so that a change of size does not undo it. */
let following = true;
function toEnd() {
  log.scrollTop = log.scrollHeight;
  following = true;
  $('latest').hidden = true;
}

/** Changes the log without a screen reader reading it all out: pages of history, another room. */
let loudAgain;
function quietly(change) {
  log.setAttribute('aria-live', 'off');
  change();
  clearTimeout(loudAgain);
  loudAgain = setTimeout(() => log.setAttribute('aria-live', 'polite'), 500);
}

/** Anyone may publish anything: what has no text is shown as the JSON it is. */
function textOf(data) {
  if (typeof data === 'string') return data;
  return typeof data?.text === 'string' ? data.text : JSON.stringify(data);
}

function makeMessage({ epoch, offset, user, time, data }, own) {
  const item = make('li', own ? 'message own' : 'message');
  const when = new Date(Number(time));
  const known = !Number.isNaN(when.getTime());
  Object.assign(item.dataset, { epoch, offset, user: user ?? '', time, day: known ? when.toDateString() : '' });
  const stamp = make('time', '', known ? clockTime.format(when) : '');
  if (known) {
    stamp.dateTime = when.toISOString();
    stamp.title = wholeTime.format(when);
  }
  item.append(make('span', 'sender', user ?? 'anonymous'), stamp, make('span', 'text', textOf(data)));
  return item;
}

/** Sets a message in its surroundings: a line above where a day begins, no name where the sender goes on. */
function dress(item) {
  if (!isMessage(item)) return;
  if (item.previousElementSibling?.classList.contains('day')) item.previousElementSibling.remove();
  const above = item.previousElementSibling;
  let former = above;
  while (former && !isMessage(former)) former = former.previousElementSibling;
  const { day, user, time } = item.dataset;
  const newDay = day !== '' && former?.dataset.day !== day;
  if (newDay) item.before(make('li', 'day', dayName.format(new Date(Number(time)))));
  const goesOn = !newDay && isMessage(above) && above.dataset.user === user && time - above.dataset.time < TOGETHER;
  item.classList.toggle('follows', goesOn && above.classList.contains('own') === item.classList.contains('own'));
}

/** One room as the page knows it: its part of the log, what waits to be shown or sent, its draft. */
class Conversation {
  constructor(name) {
    this.name = name;
    this.messages = make('ol', 'messages');
    this.outgoing = make('ol', 'outgoing');
    this.outgoing.setAttribute('aria-live', 'off'); // read out when it comes back, or when it fails
    this.earlier = makeButton('quiet earlier', 'Load earlier messages', () => this.loadEarlier());
    this.earlier.hidden = true;
    this.arrived = []; // messages and notes not in the page yet
    this.sending = new Map(); // id → {item, state} of what this page sent and has not seen come back
    this.sent = new Map(); // id → the name this page sent it under, to know it even when anonymous or renamed
    this.newest = null; // the position of the newest message seen
    this.loaded = false;
    this.draft = '';
    this.unread = 0;
    this.scroll = null; // null: at the end
    this.tab = makeButton('', undefined, () => visit(this));
    this.room = board.join(name, {
      onMessage: (message) => this.receive(message),
      onGap: () => this.gap(),
      onState: ({ state, error }) => {
        if (state === 'joined' && !this.loaded) this.loadEarlier();
        if (state === 'refused') this.arrive({ note: `This room could not be joined: ${error.message}` });
      },
    });
  }

  receive(message) {
    if (message.offset === null) return;
    this.newest = { epoch: message.epoch, offset: message.offset };
    this.arrive(message);
    if (current === this && !document.hidden) return;
    this.unread += 1;
    showUnread();
  }

  arrive(entry) {
    this.arrived.push(entry);
    // What is left out here would push all older messages out of the page too, so no hole can be seen.
    if (this.arrived.length > 2 * KEEP) {
      this.arrived.splice(0, this.arrived.length - KEEP);
      this.showEarlier(true);
    }
    if (current === this) nextFrame(show);
  }

  /** Says so, and then shows what the room's log still holds of what was missed. */
  async gap() {
    const before = this.newest;
    this.arrive({ note: 'Some messages may be missing here.' });
    if (!this.loaded) return;
    try {
      const { epoch, messages } = await this.room.history({ limit: PAGE, before: this.room.position.offset + 1 });
      for (const message of messages) {
        if (before?.epoch !== epoch || message.offset > before.offset) this.arrive(message);
      }
    } catch {
      // The line in the log stays true.
    }
    for (const [id, { state }] of this.sending) if (state === 'sent') this.returned(id);
  }

  async loadEarlier() {
    this.show();
    const first = [...this.messages.children].find(isMessage)?.dataset;
    const before = first ? Number(first.offset) : this.room.position.offset + 1;
    this.loaded = true;
    this.messages.dataset.empty = 'Nothing has been said here yet.';
    if (before <= 1) return this.showEarlier(false);
    this.earlier.disabled = true;
    try {
      const page = await this.room.history({ limit: PAGE, before });
      // A log that was begun anew holds nothing that is older than what we show.
      const older = first && first.epoch !== page.epoch ? [] : page.messages;
      this.newest ??= older.length > 0 ? { epoch: page.epoch, offset: older.at(-1).offset } : null;
      this.prepend(older, page.more);
    } catch {
      if (!first) this.loaded = false; // the next join tries again
      this.showEarlier(Boolean(first));
    } finally {
      this.earlier.disabled = this.isFull();
    }
  }

  isFull() {
    return this.messages.childElementCount + PAGE > KEEP;
  }

  showEarlier(more) {
    this.earlier.hidden = !more;
    this.earlier.disabled = this.isFull();
    this.earlier.textContent = this.isFull() ? 'Only the newest messages are kept here' : 'Load earlier messages';
  }

  prepend(messages, more) {
    const change = () => {
      const next = this.messages.firstElementChild;
      const items = messages.map((message) => this.itemFor(message));
      this.messages.prepend(...items);
      for (const item of items) dress(item);
      // The old top may now continue the same day or sender.
      if (next) dress(next.classList.contains('day') ? next.nextElementSibling : next);
      this.showEarlier(more && messages.length > 0);
    };
    if (current === this) quietly(() => this.keepPlace(change));
    else change();
  }

  /** Moves what has arrived into the page; a part of the log that is not shown is changed just the same. */
  show() {
    const entries = this.arrived.splice(0);
    if (entries.length === 0) return;
    const change = () => {
      for (const entry of entries) {
        if (entry.note) this.messages.append(make('li', 'note', entry.note));
        else this.insert(entry);
      }
      this.trim();
    };
    if (current === this) this.keepPlace(change, () => ($('latest').hidden = false));
    else change();
  }

  /** Appends; after a gap's repair, in the order of offsets, and nothing twice. */
  insert(message) {
    let next = null;
    for (let item = this.messages.lastElementChild; item; item = item.previousElementSibling) {
      if (item.classList.contains('day')) continue;
      if (!isMessage(item) || item.dataset.epoch !== message.epoch || Number(item.dataset.offset) < message.offset) break;
      if (Number(item.dataset.offset) === message.offset) return;
      next = item;
    }
    const item = this.itemFor(message);
    this.messages.insertBefore(item, next);
    dress(item);
    if (next) dress(next);
  }

  itemFor(message) {
    const { user, data } = message;
    const id = data?.id;
    if (this.sending.has(id)) this.returned(id);
    // Others can copy an id, but not the name it was sent under.
    const own = this.sent.has(id) ? this.sent.get(id) === user : user !== null && user === me;
    return makeMessage(message, own);
  }

  trim() {
    if (this.messages.childElementCount <= KEEP) return;
    while (this.messages.childElementCount > KEEP) this.messages.firstElementChild.remove();
    dress(this.messages.firstElementChild);
    this.showEarlier(true);
  }

  /** Stays at the end, or else with what is being read while the page grows above or below it. */
  keepPlace(change, onBelow) {
    const anchor = this.messages.lastElementChild;
    const stood = anchor?.offsetTop;
    change();
    if (following) {
      toEnd();
    } else {
      if (anchor?.isConnected) log.scrollTop += anchor.offsetTop - stood;
      onBelow?.();
    }
  }

  send(text) {
    const id = newKey();
    const item = makeMessage({ user: me, time: Date.now(), data: text }, true);
    for (const key of ['epoch', 'offset']) delete item.dataset[key];
    item.append(make('span', 'fate'));
    this.sent.set(id, me);
    this.sending.set(id, { item, text });
    this.outgoing.append(item);
    this.publish(id);
    toEnd();
  }

  async publish(id) {
    const { text } = this.sending.get(id);
    this.fate(id, 'pending', 'Sending…');
    try {
      await this.room.publish({ text, id }, { key: id });
      this.fate(id, 'sent', 'Sent');
    } catch (error) {
      this.fate(id, 'failed', `Not sent: ${error.message}`);
    }
  }

  fate(id, state, words) {
    const sending = this.sending.get(id);
    if (!sending) return;
    const { item } = sending;
    sending.state = item.dataset.state = state;
    const fate = item.querySelector('.fate');
    fate.setAttribute('role', state === 'failed' ? 'alert' : 'none');
    fate.textContent = words;
    item.querySelector('.choices')?.remove();
    if (state !== 'failed') return;
    const choices = make('div', 'choices');
    choices.append(
      makeButton('', 'Try again', () => this.publish(id)),
      makeButton('quiet', 'Discard', () => this.returned(id)),
    );
    item.append(choices);
    if (current === this && following) toEnd();
  }

  /** The message has come back in the room's order: the one that stood for it goes. */
  returned(id) {
    this.sending.get(id)?.item.remove();
    this.sending.delete(id);
  }
}

let frame = 0;
let frameTimer = 0;
function nextFrame(run) {
  if (frameTimer) return;
  const once = () => {
    cancelAnimationFrame(frame);
    clearTimeout(frameTimer);
    frameTimer = 0;
    run();
  };
  frame = requestAnimationFrame(once);
  frameTimer = setTimeout(once, FRAME_AT_LATEST);
}

const show = () => current?.show();

// Rooms.

const conversations = new Map();
let current = null;

function join(name) {
  let conversation = conversations.get(name);
  if (!conversation) {
    conversation = new Conversation(name);
    conversations.set(name, conversation);
    const item = make('li');
    item.append(conversation.tab);
    $('rooms').append(item);
    storage.write('rooms', [...conversations.keys()]);
  }
  return conversation;
}

function select(conversation) {
  if (current) {
    current.draft = box.value;
    current.scroll = following ? null : log.scrollTop;
  }
  conversation?.show();
  current = conversation;
  body.classList.toggle('lone', !current);
  for (const control of [box, $('send')]) control.disabled = !current;
  $('leave').hidden = !current;
  $('title').textContent = current ? `# ${current.name}` : 'No room yet';
  box.value = current?.draft ?? '';
  fitBox();
  quietly(() => {
    if (!current) {
      log.replaceChildren(make('p', 'hint', 'Join a room to plug in. Whoever opens the same room, on any node, hears you.'));
      return toEnd();
    }
    const { earlier, messages, outgoing, scroll, unread } = current;
    log.replaceChildren(earlier, messages, outgoing);
    if (scroll === null) toEnd();
    else [log.scrollTop, following] = [scroll, false];
    $('latest').hidden = following || unread === 0;
    current.unread = 0;
  });
  history.replaceState(null, '', current ? `#${encodeURIComponent(current.name)}` : location.pathname + location.search);
  showUnread();
  openDrawer(!current && phone.matches);
}

/** Goes to a room because someone asked to, and so also to its message box; on a phone that would call the keyboard. */
function visit(conversation) {
  select(conversation);
  if (!touch.matches) box.focus();
}

function leave() {
  const { room, tab, name } = current;
  room.leave();
  tab.parentElement.remove();
  conversations.delete(name);
  storage.write('rooms', [...conversations.keys()]);
  current = null;
  select([...conversations.values()].at(-1) ?? null);
  (current ? log : $('room')).focus();
}

function showUnread() {
  let all = 0;
  for (const conversation of conversations.values()) {
    const { tab, name, unread } = conversation;
    all += unread;
    tab.replaceChildren(make('span', 'label', name));
    tab.setAttribute('aria-current', String(conversation === current));
    if (unread > 0) tab.append(unreadBadge(unread));
  }
  const elsewhere = all - (current?.unread ?? 0);
  $('elsewhere').hidden = elsewhere === 0;
  $('elsewhere').replaceChildren(...(elsewhere ? unreadBadge(elsewhere).childNodes : []));
  document.title = `${all ? `(${all}) ` : ''}${current ? `${current.name} · ` : ''}Switchboard`;
}

function unreadBadge(count) {
  const badge = make('span', 'unread', count > 99 ? '99+' : String(count));
  badge.append(make('span', 'unseen', ' unread'));
  return badge;
}

/** What a person typed as a name, or null after saying under the field what is wrong with it. */
function checked(field, most, what) {
  const value = field.value.trim().replace(/^#/, '');
  const wrong = value !== '' && (!NAME.test(value) || value.length > most);
  field.setAttribute('aria-invalid', String(wrong));
  $(`${field.id}-error`).textContent = wrong ? `A ${what} has up to ${most} characters: ${LETTERS}.` : '';
  return wrong ? null : value;
}

function joinFromHash() {
  let name = '';
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    // Not a name then.
  }
  if (!NAME.test(name) || name.length > 128) return false;
  select(join(name));
  return true;
}

// Who one is.

function takeName() {
  const name = checked($('name'), 64, 'name');
  if (name === null) return false;
  if ((name || null) === me) return true;
  me = name || null;
  storage.write('name', name);
  board.setUser(me);
  return true;
}

// The connection, in words.

let noticeTimer = null;
let hasBeenOpen = false;
function showStatus({ state, node, reason }) {
  hasBeenOpen ||= state === 'open';
  // Attempt after attempt stays one word, so that a screen reader says it once.
  const words = WORDS[state === 'connecting' && hasBeenOpen ? 'waiting' : state];
  $('state').dataset.state = state;
  if ($('state').textContent !== words) $('state').textContent = words;
  $('where').hidden = node === null;
  if (node !== null) $('node').textContent = node;
  if (state === 'open' || state === 'closed') {
    clearTimeout(noticeTimer);
    noticeTimer = null;
    return notice(state === 'open' ? '' : `The connection has ended${reason ? `: ${reason}` : ''}.`, 'Connect again');
  }
  // Most returns take less than this; nobody needs to read about them.
  noticeTimer ??= setTimeout(() => notice('No connection at the moment. What you write is sent when it is back.', 'Try now'), 1500);
}

function notice(text, action) {
  $('notice').hidden = text === '';
  $('notice-text').textContent = text;
  $('retry').hidden = !action;
  if (action) $('retry').textContent = action;
}

// The drawer, the box, the keyboard.

function openDrawer(open) {
  body.classList.toggle('drawer', open);
  $('backdrop').hidden = !open;
  $('menu').setAttribute('aria-expanded', String(open));
  $('main').inert = open && phone.matches;
  $('panel').inert = !open && phone.matches;
}

function fitBox() {
  box.style.height = 'auto';
  box.style.height = `${box.scrollHeight + 2}px`; // the borders
}

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
  if (!current || box.value.trim() === '') return;
  current.send(box.value);
  box.value = '';
  fitBox();
}

$('compose').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
  box.focus();
});
box.addEventListener('input', fitBox);
box.addEventListener('keydown', (event) => {
  // While an input method composes, Enter chooses a word; Safari says so only by the code 229.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
$('me').addEventListener('submit', (event) => {
  event.preventDefault();
  takeName();
});
$('name').addEventListener('change', takeName);
$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  const room = $('room');
  const name = checked(room, 128, 'room') ?? '';
  if (!takeName()) return $('name').focus();
  if (name === '') return room.focus();
  room.value = '';
  visit(join(name));
});
$('leave').addEventListener('click', leave);
$('retry').addEventListener('click', () => board.connect());
$('menu').addEventListener('click', () => {
  openDrawer(!body.classList.contains('drawer'));
  if (body.classList.contains('drawer')) $('panel').querySelector('[aria-current="true"]')?.focus();
});
$('backdrop').addEventListener('click', () => current && openDrawer(false));
$('skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash names a room
  (current ? box : $('room')).focus();
});
$('latest').addEventListener('click', () => {
  toEnd();
  if (!touch.matches) box.focus();
});
log.addEventListener('scroll', () => {
  following = isAtEnd();
  if (following) $('latest').hidden = true;
}, { passive: true });
new ResizeObserver(() => following && toEnd()).observe(log);
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !current || !body.classList.contains('drawer')) return;
  openDrawer(false);
  $('menu').focus();
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden || !current) return;
  current.unread = 0;
  showUnread();
});
addEventListener('hashchange', joinFromHash);
phone.addEventListener('change', () => openDrawer(!current && phone.matches));
globalThis.visualViewport?.addEventListener('resize', fitViewport);
globalThis.visualViewport?.addEventListener('scroll', fitViewport);

// Plug in: the address says more than what was kept, and is not kept itself.

const asked = new URLSearchParams(location.search).get('name');
$('name').value = asked ?? storage.read('name') ?? '';
let me = checked($('name'), 64, 'name') || null;
const board = new Switchboard(undefined, { user: me });
board.on('state', showStatus);
board.on('error', (error) => notice(error.message));
showStatus(board.status);

const kept = storage.read('rooms');
for (const name of Array.isArray(kept) ? kept : []) if (typeof name === 'string' && NAME.test(name)) join(name);
if (!joinFromHash()) select(conversations.values().next().value ?? null);
if (!current) $('room').value = 'lobby';
