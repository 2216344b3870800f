/** A conversation in a room: its messages, who is in it, who comes and goes, and the page of its log one may go back to. */

import { Conversation } from './conversation.js';
import { desk } from './desk.js';
import { Comings } from './words.js';

const PAGE = 50;
/** Of a larger room nobody wants to know who is typing, and telling it would cost each member. */
const SMALL = 100;

export class RoomConversation extends Conversation {
  /** @param {import('../switchboard.js').Switchboard} board @param {string} name @param {(room: RoomConversation) => void} onMembers */
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
        if (state === 'refused') this.arrive({ note: `This room could not be joined: ${error.message}` });
      },
      onMembers: () => onMembers(this),
      onJoined: ({ user }) => this.came(user, true),
      onLeft: ({ user }) => this.came(user, false),
    });
  }

  receive(message) {
    if (message.offset === null) return this.hear(message);
    this.newest = { epoch: message.epoch, offset: message.offset };
    super.receive(message);
  }

  /** What is not kept: who is typing. One's own other devices are no news. */
  hear({ user, data }) {
    if (user === null || user !== desk.me) this.typists.heard(user, data?.typing === true);
  }

  came(user, came) {
    if (!came) this.typists.ended(user);
    if (user === desk.me) return;
    const comings = new Comings();
    comings.add(user, came);
    this.arrive(comings);
  }

  deliver(data) {
    return this.room.publish(data, { key: data.id });
  }

  tellTyping(typing) {
    const { state, members } = this.room;
    if (!this.mayType || state !== 'joined' || members.count + members.anonymous > SMALL) return;
    this.room.publish({ typing }, { ephemeral: true, others: true }).catch(({ code }) => {
      if (code === 'forbidden') this.mayType = false;
    });
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
    const { first } = this;
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
