/**
 * Direct messages. Messages to Ada arrive in her personal room, `@ada`; a message to Bob goes to
 * `@bob`, and after its `ok` a copy with `to` goes to Ada's own room, so that all devices of both
 * show the same. The server sets the sender of each, so no other client can make such a copy.
 *
 *     ada ──{text, id}──────────▶ @bob   each device of Bob's
 *         └─ok─▶ {text, id, to} ─▶ @ada   each device of Ada's
 */

import { Conversation } from './conversation.js';
import { app } from './app.js';
import { personalRoom } from '../switchboard.js';
import { $, isUser, monogram, storage } from './view.js';

const PAGE = 100;
/**
 * The maximum number of open conversations. Beyond it the least recent ones without unread messages
 * are closed.
 */
const MOST = 100;
/** The sender of a message without a name: only a backend can publish one here. */
const SERVER = '$server';

class DirectConversation extends Conversation {
  constructor(mailbox, name) {
    super(name);
    this.mailbox = mailbox;
    this.isMuted = false; // publishing there is forbidden, so typing is not sent
    this.sign = monogram(name);
    this.newest = null; // the position of the newest message, in the user's own room
    this.isReadOnly = name === SERVER;
    const hint = `Only you and ${name} see what is written here.`;
    this.messages.dataset.empty = this.isReadOnly ? 'No messages are left here.' : hint;
  }

  get label() {
    return this.isReadOnly ? 'The server' : this.name;
  }

  receive(message) {
    this.newest = { epoch: message.epoch, offset: message.offset };
    super.receive(message);
    // An answer, from any device, means that the user has read.
    if (message.user === this.mailbox.user) this.seen();
  }

  seen() {
    if (this.unread === 0 && this.newest === null) return;
    super.seen();
    this.mailbox.wasRead(this);
    app.unreadChanged();
  }

  async deliver(data) {
    const { mailbox, name } = this;
    if (!mailbox.user) throw new Error('enter a name first: a direct message needs a sender.');
    await mailbox.board.publish(personalRoom(name), data, { key: data.id });
    mailbox.copy({ ...data, to: name }, this);
  }

  sendTyping(typing) {
    if (this.isMuted || !this.mailbox.user) return;
    const room = personalRoom(this.name);
    const sent = this.mailbox.board.publish(room, { typing }, { ephemeral: true });
    sent.catch(({ code }) => {
      if (code === 'forbidden') this.isMuted = true;
    });
  }

  loadEarlier() {
    return this.mailbox.loadEarlier();
  }

  showEarlier(more) {
    super.showEarlier(more, PAGE);
  }
}

/** The personal room, split into conversations, one per peer. */
export class Mailbox {
  /**
   * @param {import('../switchboard.js').Switchboard} board
   * @param {HTMLElement} list The element of the tabs.
   */
  constructor(board, list) {
    this.board = board;
    this.list = list;
    this.user = null; // its owner
    this.talks = new Map(); // peer → conversation
    this.read = {}; // peer → the position up to which all is read
    this.loaded = false;
    this.oldest = null; // the position of the oldest message that was loaded
    this.more = false; // whether there are older ones
    this.isAlone = false; // publishing in the own room is forbidden: no sync of other devices
    board.on('user', (user) => this.belongTo(user));
    this.room = board.personal({
      onMessage: (message) => this.receive(message),
      onGap: () => this.gap(),
      onState: ({ state }) => {
        if (state === 'joined' && !this.loaded) this.loadEarlier();
        if (state === 'waiting') for (const talk of this.talks.values()) talk.typists.clear();
      },
    });
  }

  belongTo(user) {
    if (user === this.user) return;
    const open = app.current instanceof DirectConversation ? app.current.name : null;
    // Conversations that were opened before the user was known stay.
    if (this.user !== null) for (const talk of [...this.talks.values()]) this.drop(talk);
    this.user = user;
    this.read = {};
    this.loaded = false;
    this.oldest = null;
    this.more = this.isAlone = false;
    if (user === null) return;
    this.read = storage.read(`read.${user}`) ?? {};
    const kept = storage.read(`directs.${user}`);
    for (const name of Array.isArray(kept) ? kept : []) {
      if (isUser(name) && name !== user) this.talk(name);
    }
    const own = this.talks.get(user);
    if (own) this.close(own); // no conversation with the user itself
    if (open && this.talks.has(open)) app.select(this.talks.get(open));
  }

  /** Returns the conversation with a peer, which is created if there was none. */
  talk(name) {
    let talk = this.talks.get(name);
    if (!talk) {
      this.makeRoom();
      talk = new DirectConversation(this, name);
      this.talks.set(name, talk);
      talk.showEarlier(this.more);
      app.add(talk, this.list);
      this.keep();
    }
    return talk;
  }

  close(talk) {
    this.drop(talk);
    this.keep();
  }

  drop(talk) {
    this.talks.delete(talk.name);
    app.remove(talk);
    $('directs-title').hidden = this.talks.size === 0;
  }

  makeRoom() {
    if (this.talks.size < MOST) return;
    const silent = [...this.talks.values()].filter((talk) => talk !== app.current);
    const age = ({ unread, newest }) => [unread > 0 ? 1 : 0, newest?.offset ?? 0];
    silent.sort((a, b) => age(a)[0] - age(b)[0] || age(a)[1] - age(b)[1]);
    this.close(silent[0]);
  }

  keep() {
    $('directs-title').hidden = this.talks.size === 0;
    if (this.user) storage.write(`directs.${this.user}`, [...this.talks.keys()].filter(isUser));
  }

  /** The peer of a message; null: the message is not from a chat page. */
  peer({ user, data }) {
    if (user === this.user) return isUser(data?.to) && data.to !== user ? data.to : null;
    return user ?? SERVER;
  }

  receive(message) {
    const { user, data, offset } = message;
    if (offset === null) return this.receiveEphemeral(user, data);
    const peer = this.peer(message);
    if (peer !== null) this.talk(peer).receive(message);
  }

  /** Handles ephemeral messages: typing, and what the user has read on another device. */
  receiveEphemeral(user, data) {
    if (user !== this.user) {
      return this.talks.get(user)?.typists.received(user, data?.typing === true);
    }
    const talk = this.talks.get(data?.read);
    if (!talk || talk.newest?.epoch !== data.epoch || talk.newest.offset > data.offset) return;
    talk.unread = 0;
    this.mark(talk);
    app.unreadChanged();
  }

  mark(talk) {
    this.read[talk.name] = talk.newest;
    if (this.user) storage.write(`read.${this.user}`, this.read);
  }

  wasRead(talk) {
    const { epoch, offset } = talk.newest ?? {};
    const known = this.read[talk.name];
    if (offset === undefined || (known?.epoch === epoch && known.offset >= offset)) return;
    this.mark(talk);
    if (this.isAlone) return;
    // If it fails, other devices are synced later.
    const sent = this.room.publish(
      { read: talk.name, epoch, offset },
      { ephemeral: true, others: true },
    );
    sent.catch(({ code }) => this.refusedCopy(code));
  }

  /** Publishes the user's own copy of a sent message. The message is sent also without it. */
  async copy(data, talk) {
    try {
      await this.room.publish(data, { key: data.id });
    } catch (error) {
      this.refusedCopy(error.code);
      talk.settle(data.id);
      if (talk.isAlone) return;
      talk.isAlone = true;
      const note = `Your other devices do not show what you write here: ${error.message}.`;
      talk.arrive({ note });
    }
  }

  /**
   * Publishing in the own room is forbidden: other devices are not synced until the next sign-in.
   */
  refusedCopy(code) {
    if (code === 'forbidden') this.isAlone = true;
  }

  async gap() {
    for (const talk of this.talks.values()) {
      talk.arrive({ note: 'Some messages may be missing here.' });
    }
    if (!this.loaded) return;
    try {
      const { messages } = await this.room.history({ limit: PAGE });
      for (const message of messages) {
        const peer = this.peer(message);
        if (peer === null) continue;
        const talk = this.talk(peer);
        const { newest } = talk;
        const isNew = newest?.epoch !== message.epoch || message.offset > newest.offset;
        if (isNew) talk.receive(message);
      }
    } catch {
      // The notes stay valid.
    }
  }

  async loadEarlier() {
    const { user } = this;
    const before = this.oldest ? this.oldest.offset : this.room.position.offset + 1;
    const isFirst = !this.loaded;
    this.loaded = true;
    if (before <= 1) return this.showMore(false);
    try {
      const { epoch, messages, more } = await this.room.history({ limit: PAGE, before });
      if (user !== this.user) return;
      const isSame = !this.oldest || this.oldest.epoch === epoch;
      if (!isSame || messages.length === 0) return this.showMore(false);
      this.oldest = { epoch, offset: messages[0].offset };
      this.distribute(messages, more, isFirst);
      this.showMore(more);
    } catch {
      if (isFirst) this.loaded = false; // the next join tries again
    }
  }

  distribute(messages, more, isFirst) {
    const byPeer = new Map();
    for (const message of messages) {
      const peer = this.peer(message);
      if (peer !== null) byPeer.set(peer, [...(byPeer.get(peer) ?? []), message]);
    }
    for (const [peer, list] of byPeer) {
      const talk = this.talk(peer);
      talk.show();
      talk.prepend(list, more);
      const { epoch, offset } = list.at(-1);
      talk.newest ??= { epoch, offset };
      if (!isFirst) continue;
      if (app.isSeen(talk)) talk.seen();
      else talk.unread += this.unreadOf(peer, list);
    }
    app.unreadChanged();
  }

  /** The number of messages after the last one that was read or sent. */
  unreadOf(peer, list) {
    const read = this.read[peer];
    const isNew = ({ epoch, offset }) => read?.epoch !== epoch || offset > read.offset;
    const answered = list.findLastIndex(({ user }) => user === this.user);
    return list.slice(answered + 1).filter(isNew).length;
  }

  showMore(more) {
    this.more = more;
    for (const talk of this.talks.values()) talk.showEarlier(more);
  }
}

export const isDirect = (conversation) => conversation instanceof DirectConversation;
