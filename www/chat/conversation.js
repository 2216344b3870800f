/**
 * One conversation as the page knows it, in a room or with a person: its part of the log, what
 * waits to be shown or sent, its draft. Where its messages come from and go to is for the two
 * kinds, in `room.js` and `direct.js`.
 */

import { newKey } from '../switchboard.js';
import { desk } from './desk.js';
import { dress, following, isMessage, keepPlace, makeMessage, quietly, toEnd } from './log.js';
import { Typists, Writing } from './typing.js';
import { $, inNextFrame, make, makeButton } from './view.js';
import { Comings } from './words.js';

/** Messages one conversation keeps in the page, and waiting to be shown: more would slow a phone down. */
const KEEP = 500;

const showCurrent = inNextFrame(() => desk.current?.show());

export class Conversation {
  /** @param {string} name The room's, or the person's. */
  constructor(name) {
    this.name = name;
    this.messages = make('ol', 'messages');
    this.outgoing = make('ol', 'outgoing');
    this.outgoing.setAttribute('aria-live', 'off'); // read out when it comes back, or when it fails
    this.earlier = makeButton('quiet earlier', 'Load earlier messages', () => this.loadEarlier());
    this.earlier.hidden = true;
    this.arrived = []; // messages, notes and comings not in the page yet
    this.sending = new Map(); // id → {item, state} of what this page sent and has not seen come back
    this.sent = new Map(); // id → the name this page sent it under, to know it even when anonymous or renamed
    this.draft = '';
    this.isReadOnly = false;
    this.unread = 0;
    this.scroll = null; // null: at the end
    this.tab = makeButton('', undefined, () => desk.visit(this));
    this.typists = new Typists(() => desk.current === this && desk.typingChanged());
    this.writing = new Writing((isTyping) => this.tellTyping(isTyping));
  }

  // What the two kinds do differently.

  /** What it is called, in the list and above the log. */
  get label() {
    return this.name;
  }

  /** Sends a message; resolves when it is safe. @param {{text: string, id: string}} data */
  deliver() {}

  /** Tells the others, without promise, that one is writing or no longer is. */
  tellTyping() {}

  loadEarlier() {}

  /** It was seen up to its newest message. */
  seen() {
    this.unread = 0;
  }

  // What comes.

  receive(message) {
    this.typists.ended(message.user);
    this.arrive(message);
    if (desk.isSeen(this)) return this.seen();
    this.unread += 1;
    desk.unreadChanged();
  }

  arrive(entry) {
    const last = this.arrived.at(-1);
    if (last instanceof Comings && entry instanceof Comings) last.merge(entry);
    else this.arrived.push(entry);
    // What is left out here would push all older messages out of the page too, so no hole can be
    // seen.
    if (this.arrived.length > 2 * KEEP) {
      this.arrived.splice(0, this.arrived.length - KEEP);
      this.showEarlier(true);
    }
    if (desk.current === this) showCurrent();
  }

  /** Moves what has arrived into the page; a part of the log that is not shown is changed just the same. */
  show() {
    const entries = this.arrived.splice(0);
    if (entries.length === 0) return;
    const change = () => {
      for (const entry of entries) {
        if (entry instanceof Comings) this.append(entry);
        else if (entry.note) this.messages.append(make('li', 'note', entry.note));
        else this.insert(entry);
      }
      this.trim();
    };
    if (desk.current === this) {
      const isQuiet = entries.every((entry) => entry instanceof Comings);
      keepPlace(this.messages.lastElementChild, change, () => isQuiet || ($('latest').hidden = false));
    } else change();
  }

  /** Whoever came and went since the last message stands in one line, which is not read out. */
  append(comings) {
    const last = this.messages.lastElementChild;
    const line = last?.comings ? last : make('li', 'note comings');
    if (line === last) line.comings.merge(comings);
    else line.comings = comings;
    line.setAttribute('aria-live', 'off');
    line.textContent = line.comings.words();
    if (line.textContent === '') line.remove();
    else if (line !== last) this.messages.append(line);
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
    const own = (user !== null && user === desk.me) || (this.sent.has(id) && this.sent.get(id) === user);
    return makeMessage(message, own);
  }

  // Older messages.

  get first() {
    return [...this.messages.children].find(isMessage)?.dataset;
  }

  prepend(messages, more) {
    const change = () => {
      const next = this.messages.firstElementChild;
      const items = messages.map((message) => this.itemFor(message));
      this.messages.prepend(...items);
      for (const item of items) dress(item);
      // The old top may now continue the same day or sender.
      if (next) dress(next.classList.contains('day') ? next.nextElementSibling : next);
      this.showEarlier(more);
    };
    if (desk.current === this) quietly(() => keepPlace(this.messages.lastElementChild, change));
    else change();
  }

  /** Whether another page of this size would be more than is kept. */
  isFull(page = 0) {
    return this.messages.childElementCount + page > KEEP;
  }

  showEarlier(more, page) {
    const isFull = this.isFull(page);
    this.earlier.hidden = !more;
    this.earlier.disabled = isFull;
    this.earlier.textContent = isFull ? 'Only the newest messages are kept here' : 'Load earlier messages';
  }

  trim() {
    if (!this.isFull()) return;
    while (this.isFull()) this.messages.firstElementChild.remove();
    dress(this.messages.firstElementChild);
    this.showEarlier(true);
  }

  // What goes.

  send(text) {
    const id = newKey();
    const item = makeMessage({ user: desk.me, time: Date.now(), data: text }, true);
    item.append(make('span', 'fate'));
    this.sent.set(id, desk.me);
    this.sending.set(id, { item, text });
    this.outgoing.append(item);
    this.writing.sent();
    this.publish(id);
    toEnd();
  }

  async publish(id) {
    const { text } = this.sending.get(id);
    this.fate(id, 'pending', 'Sending…');
    try {
      await this.deliver({ text, id });
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
    if (desk.current === this && following) toEnd();
  }

  /** The message has come back in its order: the one that stood for it goes. */
  returned(id) {
    this.sending.get(id)?.item.remove();
    this.sending.delete(id);
  }

  /** It is safe, and will not come back: the one that stands for it becomes part of the log where it is. */
  settle(id) {
    const sending = this.sending.get(id);
    if (!sending) return;
    this.sending.delete(id);
    delete sending.item.dataset.state;
    sending.item.querySelector('.fate').remove();
    this.show();
    this.messages.append(sending.item);
  }
}
