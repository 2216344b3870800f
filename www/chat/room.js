/**
 * A conversation in a room: its messages, its members, joins and leaves, and older pages of its
 * log.
 */

import { Conversation } from './conversation.js';
import { app } from './app.js';
import { MemberChanges } from './text.js';

const PAGE = 50;
/** In a larger room typing is not sent: the cost for each member exceeds the use. */
const SMALL = 100;

export class RoomConversation extends Conversation {
  /**
   * @param {import('../switchboard.js').Switchboard} board
   * @param {string} name
   * @param {(room: RoomConversation) => void} onMembers
   */
  constructor(board, name, onMembers) {
    super(name);
    this.newest = null; // the position of the newest message seen
    this.loaded = false;
    this.mayType = true;
    this.room = board.join(name, {
      onMessage: (message) => this.receive(message),
      onGap: () => this.gap(),
      onState: ({ state, error }) => {
        this.mayType = true;
        if (state === 'joined' && !this.loaded) this.loadEarlier();
        if (state === 'waiting') this.typists.clear();
        if (state === 'refused') {
          const what = error.code === 'removed' ? 'You are no longer in' : 'You could not join';
          this.arrive({ note: `${what} this room: ${error.message}` });
        }
      },
      onMembers: () => onMembers(this),
      onJoined: ({ user }) => this.memberChanged(user, true),
      onLeft: ({ user }) => this.memberChanged(user, false),
    });
  }

  receive(message) {
    if (message.offset === null) return this.receiveEphemeral(message);
    this.newest = { epoch: message.epoch, offset: message.offset };
    super.receive(message);
  }

  /** Handles ephemeral messages: typing, except on the user's own other devices. */
  receiveEphemeral({ user, data }) {
    if (user === null || user !== app.me) this.typists.received(user, data?.typing === true);
  }

  memberChanged(user, hasJoined) {
    if (!hasJoined) this.typists.ended(user);
    if (user === app.me) return;
    const changes = new MemberChanges();
    changes.add(user, hasJoined);
    this.arrive(changes);
  }

  deliver(data) {
    return this.room.publish(data, { key: data.id });
  }

  sendTyping(typing) {
    const { state, members } = this.room;
    if (!this.mayType || state !== 'joined' || members.count + members.anonymous > SMALL) return;
    this.room.publish({ typing }, { ephemeral: true, others: true }).catch(({ code }) => {
      if (code === 'forbidden') this.mayType = false;
    });
  }

  /** Shows a note, and then the missed messages that are still in the room's log. */
  async gap() {
    const before = this.newest;
    this.arrive({ note: 'Some messages may be missing here.' });
    if (!this.loaded) return;
    try {
      const end = this.room.position.offset + 1;
      const { epoch, messages } = await this.room.history({ limit: PAGE, before: end });
      for (const message of messages) {
        if (before?.epoch !== epoch || message.offset > before.offset) this.arrive(message);
      }
    } catch {
      // The note in the log stays valid.
    }
    for (const [id, { state }] of this.sending) if (state === 'sent') this.returned(id);
  }

  async loadEarlier() {
    this.show();
    const { first } = this;
    const before = first ? Number(first.offset) : this.room.position.offset + 1;
    this.loaded = true;
    this.messages.dataset.empty = 'No messages here yet.';
    if (before <= 1) return this.showEarlier(false);
    this.earlier.disabled = true;
    try {
      const page = await this.room.history({ limit: PAGE, before });
      // A log of another epoch has no messages older than the shown ones.
      const older = first && first.epoch !== page.epoch ? [] : page.messages;
      this.newest ??= older.length > 0 ? { epoch: page.epoch, offset: older.at(-1).offset } : null;
      this.prepend(older, page.more && older.length > 0);
    } catch {
      if (!first) this.loaded = false; // the next join tries again
      this.showEarlier(Boolean(first));
    } finally {
      this.earlier.disabled = this.isFull(PAGE);
    }
  }

  showEarlier(more) {
    super.showEarlier(more, PAGE);
  }
}
