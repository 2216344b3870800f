/**
 * Direct messages. All that others write to one comes by one's personal room, `@ada`; what one
 * writes to Bob goes to `@bob`, and when it is safe there, a copy with `to` goes to one's own room,
 * so that all devices of both show the same. The server says whom each is from, so nobody else can
 * make such a copy.
 *
 *     ada ──{text, id}──────────▶ @bob   each device of Bob's
 *         └─ok─▶ {text, id, to} ─▶ @ada   each device of Ada's
 */

import { Conversation } from './conversation.js';
import { desk } from './desk.js';
import { $, isUser, monogram, storage } from './view.js';

const PAGE = 100;
/** Conversations that are kept open at most. Of more, the ones that were silent longest go, unless unread. */
const MOST = 100;
/** Who a message without a name is from: only a backend can write one here. */
const SERVER = '$server';

class DirectConversation extends Conversation {
  constructor(mailbox, name) {
    super(name);
    this.mailbox = mailbox;
    this.isMuted = false; // one may not write there, so nobody is told that one is typing
    this.sign = monogram(name);
    this.newest = null; // the position of the newest message, in one's own room
    this.isReadOnly = name === SERVER;
    this.messages.dataset.empty = this.isReadOnly ? 'Nothing is here any more.' : `Only you and ${name} see what is written here.`;
  }

  get label() {
    return this.isReadOnly ? 'The server' : this.name;
  }

  receive(message) {
    this.newest = { epoch: message.epoch, offset: message.offset };
    super.receive(message);
    // Whoever has answered, on whichever device, has read.
    if (message.user === this.mailbox.user) this.seen();
  }

  seen() {
    if (this.unread === 0 && this.newest === null) return;
    super.seen();
    this.mailbox.wasRead(this);
    desk.unreadChanged();
  }

  async deliver(data) {
    const { mailbox, name } = this;
    if (!mailbox.user) throw new Error('give yourself a name first: a direct message says whom it is from.');
    await mailbox.board.publish(`@${name}`, data, { key: data.id });
    mailbox.copy({ ...data, to: name }, this);
  }

  tellTyping(typing) {
    if (this.isMuted || !this.mailbox.user) return;
    this.mailbox.board.publish(`@${this.name}`, { typing }, { ephemeral: true }).catch(({ code }) => {
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

/** One's personal room, as the conversations with those who wrote and were written to. */
export class Mailbox {
  /** @param {import('../switchboard.js').Switchboard} board @param {HTMLElement} list Where the tabs stand. */
  constructor(board, list) {
    this.board = board;
    this.list = list;
    this.user = null; // whose it is
    this.talks = new Map(); // person → conversation
    this.read = {}; // person → the position up to which all is read
    this.loaded = false;
    this.oldest = null; // the position of the oldest message that was loaded
    this.more = false; // whether there are older ones
    this.isAlone = false; // the server does not let us tell our other devices anything
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
    const open = desk.current instanceof DirectConversation ? desk.current.name : null;
    // What was addressed before it was known who one is stays.
    if (this.user !== null) for (const talk of [...this.talks.values()]) this.drop(talk);
    this.user = user;
    this.read = {};
    this.loaded = false;
    this.oldest = null;
    this.more = this.isAlone = false;
    if (user === null) return;
    this.read = storage.read(`read.${user}`) ?? {};
    const kept = storage.read(`directs.${user}`);
    for (const name of Array.isArray(kept) ? kept : []) if (isUser(name) && name !== user) this.talk(name);
    const own = this.talks.get(user);
    if (own) this.close(own); // nobody writes to oneself
    if (open && this.talks.has(open)) desk.select(this.talks.get(open));
  }

  /** The conversation with a person, which begins now if there was none. */
  talk(name) {
    let talk = this.talks.get(name);
    if (!talk) {
      this.makeRoom();
      talk = new DirectConversation(this, name);
      this.talks.set(name, talk);
      talk.showEarlier(this.more);
      desk.add(talk, this.list);
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
    desk.remove(talk);
    $('directs-title').hidden = this.talks.size === 0;
  }

  makeRoom() {
    if (this.talks.size < MOST) return;
    const silent = [...this.talks.values()].filter((talk) => talk !== desk.current);
    const age = ({ unread, newest }) => [unread > 0 ? 1 : 0, newest?.offset ?? 0];
    silent.sort((a, b) => age(a)[0] - age(b)[0] || age(a)[1] - age(b)[1]);
    this.close(silent[0]);
  }

  keep() {
    $('directs-title').hidden = this.talks.size === 0;
    if (this.user) storage.write(`directs.${this.user}`, [...this.talks.keys()].filter(isUser));
  }

  /** With whom a message was exchanged; null: it is none of the page's. */
  peer({ user, data }) {
    if (user === this.user) return isUser(data?.to) && data.to !== user ? data.to : null;
    return user ?? SERVER;
  }

  receive(message) {
    const { user, data, offset } = message;
    if (offset === null) return this.hear(user, data);
    const peer = this.peer(message);
    if (peer !== null) this.talk(peer).receive(message);
  }

  /** What is not kept: who is typing, and what one has read on another device. */
  hear(user, data) {
    if (user !== this.user) return this.talks.get(user)?.typists.heard(user, data?.typing === true);
    const talk = this.talks.get(data?.read);
    if (!talk || talk.newest?.epoch !== data.epoch || talk.newest.offset > data.offset) return;
    talk.unread = 0;
    this.mark(talk);
    desk.unreadChanged();
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
    const said = { read: talk.name, epoch, offset };
    if (this.isAlone) return;
    this.room.publish(said, { ephemeral: true, others: true }).catch(({ code }) => this.refusedCopy(code)); // other devices learn it later
  }

  /** One's own copy of what was sent. Without it the message is sent all the same. */
  async copy(data, talk) {
    try {
      await this.room.publish(data, { key: data.id });
    } catch (error) {
      this.refusedCopy(error.code);
      talk.settle(data.id);
      if (talk.isAlone) return;
      talk.isAlone = true;
      talk.arrive({ note: `Your other devices do not show what you write here: ${error.message}.` });
    }
  }

  /** One may not write in one's own room: other devices hear nothing of this one, until somebody signs in anew. */
  refusedCopy(code) {
    if (code === 'forbidden') this.isAlone = true;
  }

  async gap() {
    for (const talk of this.talks.values()) talk.arrive({ note: 'Some messages may be missing here.' });
    if (!this.loaded) return;
    try {
      const { messages } = await this.room.history({ limit: PAGE });
      for (const message of messages) {
        const peer = this.peer(message);
        if (peer === null) continue;
        const talk = this.talk(peer);
        if (talk.newest?.epoch !== message.epoch || message.offset > talk.newest.offset) talk.receive(message);
      }
    } catch {
      // The lines stay true.
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
      if (desk.isSeen(talk)) talk.seen();
      else talk.unread += this.unreadOf(peer, list);
    }
    desk.unreadChanged();
  }

  /** How many of the messages came after what was read, or written, last. */
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
