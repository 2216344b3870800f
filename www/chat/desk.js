/**
 * The desk: which conversations there are, which one is looked at, and how much is unread in the
 * others. It knows no conversation from inside; what changes with the one that is looked at is told
 * to those who listen.
 */

import { following, log, quietly, showFrom, toEnd } from './log.js';
import { $, make, narrow, phone, setText, touch, unreadBadge } from './view.js';

const body = document.body;
const box = $('message');
const listeners = [];
const unreadListeners = [];

export const desk = {
  /** What one is called, as far as is known; null: nothing. */
  me: null,
  /** The conversation that is looked at. */
  current: null,
  /** All of them, in the order of the page. */
  all: new Set(),

  /** Calls `listener` with the current conversation whenever it is another one. */
  onChange(listener) {
    listeners.push(listener);
  },

  /** Calls `listener` when something has been read, or came and was not. */
  onUnread(listener) {
    unreadListeners.push(listener);
  },

  typingChanged() {
    setText($('typing'), desk.current?.typists.words() ?? '');
  },

  isSeen: (conversation) => desk.current === conversation && !document.hidden,

  add(conversation, list) {
    desk.all.add(conversation);
    const item = make('li');
    item.append(conversation.tab);
    list.append(item);
    desk.unreadChanged();
  },

  remove(conversation) {
    desk.all.delete(conversation);
    conversation.tab.parentElement.remove();
    conversation.typists.clear();
    if (desk.current !== conversation) return desk.unreadChanged();
    desk.current = null;
    desk.select([...desk.all].at(-1) ?? null);
  },

  select(conversation) {
    const former = desk.current;
    if (former) {
      former.draft = box.value;
      former.scroll = following ? null : log.scrollTop;
      former.writing.stop();
    }
    conversation?.show();
    desk.current = conversation;
    body.classList.toggle('lone', !conversation);
    for (const control of [box, $('send')]) control.disabled = !conversation || conversation.isReadOnly;
    $('leave').hidden = !conversation;
    box.value = conversation?.draft ?? '';
    fitBox();
    quietly(() => {
      if (!conversation) {
        log.replaceChildren(make('p', 'hint', 'Join a room to plug in. Whoever opens the same room, on any node, hears you.'));
        return toEnd();
      }
      const { earlier, messages, outgoing, scroll, unread } = conversation;
      log.replaceChildren(earlier, messages, outgoing);
      showFrom(scroll);
      $('latest').hidden = following || unread === 0;
      conversation.seen();
    });
    for (const listener of listeners) listener(conversation);
    desk.typingChanged();
    desk.unreadChanged();
    openDrawer(!conversation && phone.matches);
  },

  /** Goes to a conversation because someone asked to, and so also to its message box; on a phone that would call the keyboard. */
  visit(conversation) {
    desk.select(conversation);
    if (!touch.matches) box.focus();
  },

  unreadChanged() {
    let all = 0;
    for (const conversation of desk.all) {
      const { tab, unread } = conversation;
      all += unread;
      tab.replaceChildren(...(conversation.sign ? [conversation.sign] : []), make('span', 'label', conversation.label));
      tab.setAttribute('aria-current', String(conversation === desk.current));
      if (unread > 0) tab.append(unreadBadge(unread));
    }
    const elsewhere = all - (desk.current?.unread ?? 0);
    $('elsewhere').hidden = elsewhere === 0;
    $('elsewhere').replaceChildren(...(elsewhere ? unreadBadge(elsewhere).childNodes : []));
    document.title = `${all ? `(${all}) ` : ''}${desk.current ? `${desk.current.label} · ` : ''}Switchboard`;
    for (const listener of unreadListeners) listener();
  },
};

/** Opens and closes the list of conversations, which on a phone lies over the page. */
export function openDrawer(open) {
  body.classList.toggle('drawer', open);
  if (open) body.classList.remove('shows-people');
  cover();
}

/** Opens and closes the list of people, which lies over the page unless that is wide. */
export function openPeople(open) {
  body.classList.toggle('shows-people', open);
  if (open) body.classList.remove('drawer');
  cover();
}

/** What lies under a drawer cannot be reached. */
export function cover() {
  const isOpen = (name) => body.classList.contains(name);
  const [drawer, people] = [isOpen('drawer') && phone.matches, isOpen('shows-people') && narrow.matches];
  $('menu').setAttribute('aria-expanded', String(isOpen('drawer')));
  $('who-is-here').setAttribute('aria-expanded', String(isOpen('shows-people')));
  $('backdrop').hidden = !drawer && !people;
  $('main').inert = drawer || people;
  $('panel').inert = (phone.matches && !drawer) || people;
}

export function fitBox() {
  box.style.height = 'auto';
  box.style.height = `${box.scrollHeight + 2}px`; // the borders
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden || !desk.current) return;
  desk.current.seen();
  desk.unreadChanged();
});
