/**
 * One conversation of the page, in a room or with a user: its part of the log, what waits to be
 * shown or sent, its draft. The source and the target of its messages are in the two kinds, in
 * `room.js` and `direct.js`.
 */

import { newKey } from '../switchboard.js';
import { app } from './app.js';
import { dress, following, isMessage, keepPlace, makeMessage, quietly, toEnd } from './log.js';
import { Typists, Writing } from './typing.js';
import { $, inNextFrame, make, makeButton } from './view.js';
import { MemberChanges } from './text.js';

/**
 * The messages that a conversation keeps in the page, and waiting to be shown: more would slow a
 * phone down.
 */
const KEEP = 500;

const showCurrent = inNextFrame(() => app.current?.show());

export class Conversation {
  /** @param {string} name The name of the room or the user. */
  constructor(name) {
    this.name = name;
    this.messages = make('ol', 'messages');
    this.outgoing = make('ol', 'outgoing');
    // Screen readers read a message when it is received, or when it fails.
    this.outgoing.setAttribute('aria-live', 'off');
    this.earlier = makeButton('quiet earlier', 'Load earlier messages', () => this.loadEarlier());
    this.earlier.hidden = true;
    this.arrived = []; // messages, notes and member changes not in the page yet
    this.sending = new Map(); // id → {item, state} of sent messages that are not received yet
    // id → the name under which this page sent it, to detect own messages after a renaming
    this.sent = new Map();
    this.draft = '';
    this.isReadOnly = false;
    this.unread = 0;
    this.scroll = null; // null: at the end
    this.tab = makeButton('', undefined, () => app.visit(this));
    this.typists = new Typists(() => app.current === this && app.typingChanged());
    this.writing = new Writing((isTyping) => this.sendTyping(isTyping));
  }

  // What the two kinds override.

  /** Its name, in the list and above the log. */
  get label() {
    return this.name;
  }

  /** Sends a message; resolves when it is published. @param {{text: string, id: string}} data */
  deliver() {}

  /** Notifies the others, at most once, that the user is typing or has stopped. */
  sendTyping() {}

  loadEarlier() {}

  /** Marks it as read up to its newest message. */
  seen() {
    this.unread = 0;
  }

  // Received messages.

  receive(message) {
    this.typists.ended(message.user);
    this.arrive(message);
    if (app.isSeen(this)) return this.seen();
    this.unread += 1;
    app.unreadChanged();
  }

  arrive(entry) {
    const last = this.arrived.at(-1);
    if (last instanceof MemberChanges && entry instanceof MemberChanges) last.merge(entry);
    else this.arrived.push(entry);
    // What is dropped here would push all older messages out of the page too, so no gap is visible.
    if (this.arrived.length > 2 * KEEP) {
      this.arrived.splice(0, this.arrived.length - KEEP);
      this.showEarlier(true);
    }
    if (app.current === this) showCurrent();
  }

  /** Moves what has arrived into the page, also into a part of the log that is not shown. */
  show() {
    const entries = this.arrived.splice(0);
    if (entries.length === 0) return;
    const change = () => {
      for (const entry of entries) {
        if (entry instanceof MemberChanges) this.append(entry);
        else if (entry.note) this.messages.append(make('li', 'note', entry.note));
        else this.insert(entry);
      }
      this.trim();
    };
    if (app.current === this) {
      const isQuiet = entries.every((entry) => entry instanceof MemberChanges);
      const onBelow = () => isQuiet || ($('latest').hidden = false);
      keepPlace(this.messages.lastElementChild, change, onBelow);
    } else change();
  }

  /** Joins and leaves since the last message are one line, which screen readers do not read. */
  append(changes) {
    const last = this.messages.lastElementChild;
    const line = last?.changes ? last : make('li', 'note comings');
    if (line === last) line.changes.merge(changes);
    else line.changes = changes;
    line.setAttribute('aria-live', 'off');
    line.textContent = line.changes.text();
    if (line.textContent === '') line.remove();
    else if (line !== last) this.messages.append(line);
  }

  /** Appends a message; after a gap, in the order of offsets, and none twice. */
  insert(message) {
    let next = null;
    for (let item = this.messages.lastElementChild; item; item = item.previousElementSibling) {
      if (item.classList.contains('day')) continue;
      const offset = Number(item.dataset.offset);
      if (!isMessage(item) || item.dataset.epoch !== message.epoch) break;
      if (offset < message.offset) break;
      if (offset === message.offset) return;
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
    // Others can copy an id, but not the name of its sender.
    const isSent = this.sent.has(id) && this.sent.get(id) === user;
    const own = (user !== null && user === app.me) || isSent;
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
      // The former first message may now continue the same day or sender.
      if (next) dress(next.classList.contains('day') ? next.nextElementSibling : next);
      this.showEarlier(more);
    };
    if (app.current === this) quietly(() => keepPlace(this.messages.lastElementChild, change));
    else change();
  }

  /** Whether another page of this size would exceed what is kept. */
  isFull(page = 0) {
    return this.messages.childElementCount + page > KEEP;
  }

  showEarlier(more, page) {
    const isFull = this.isFull(page);
    this.earlier.hidden = !more;
    this.earlier.disabled = isFull;
    const full = 'Only the newest messages are kept here';
    this.earlier.textContent = isFull ? full : 'Load earlier messages';
  }

  trim() {
    if (!this.isFull()) return;
    while (this.isFull()) this.messages.firstElementChild.remove();
    dress(this.messages.firstElementChild);
    this.showEarlier(true);
  }

  // Sent messages.

  send(text) {
    const id = newKey();
    const item = makeMessage({ user: app.me, time: Date.now(), data: text }, true);
    item.append(make('span', 'fate'));
    this.sent.set(id, app.me);
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

  fate(id, state, text) {
    const sending = this.sending.get(id);
    if (!sending) return;
    const { item } = sending;
    sending.state = item.dataset.state = state;
    const fate = item.querySelector('.fate');
    fate.setAttribute('role', state === 'failed' ? 'alert' : 'none');
    fate.textContent = text;
    item.querySelector('.choices')?.remove();
    if (state !== 'failed') return;
    const choices = make('div', 'choices');
    choices.append(
      makeButton('', 'Try again', () => this.publish(id)),
      makeButton('quiet', 'Discard', () => this.returned(id)),
    );
    item.append(choices);
    if (app.current === this && following) toEnd();
  }

  /** The message was received in its order: removes its placeholder. */
  returned(id) {
    this.sending.get(id)?.item.remove();
    this.sending.delete(id);
  }

  /**
   * The message is published, and will not be received: its placeholder becomes part of the log.
   */
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
