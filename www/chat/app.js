/**
 * The state of the chat page: its conversations, the selected one, and how much is unread in the
 * others. It does not depend on the kind of a conversation; listeners are called when the selected
 * one changes.
 */

import { following, log, quietly, showFrom, toEnd } from './log.js';
import { $, make, narrow, phone, setText, touch, unreadBadge } from './view.js';

const body = document.body;
const box = $('message');
const listeners = [];
const unreadListeners = [];

export const app = {
  /** The user's own name, if known; null: none. */
  me: null,
  /** The selected conversation. */
  current: null,
  /** All conversations, in the order of the page. */
  all: new Set(),

  /** Calls `listener` with the current conversation when another one is selected. */
  onChange(listener) {
    listeners.push(listener);
  },

  /** Calls `listener` when a number of unread messages changes. */
  onUnread(listener) {
    unreadListeners.push(listener);
  },

  typingChanged() {
    setText($('typing'), app.current?.typists.text() ?? '');
  },

  isSeen: (conversation) => app.current === conversation && !document.hidden,

  add(conversation, list) {
    app.all.add(conversation);
    const item = make('li');
    item.append(conversation.tab);
    list.append(item);
    app.unreadChanged();
  },

  remove(conversation) {
    app.all.delete(conversation);
    conversation.tab.parentElement.remove();
    conversation.typists.clear();
    if (app.current !== conversation) return app.unreadChanged();
    app.current = null;
    app.select([...app.all].at(-1) ?? null);
  },

  select(conversation) {
    const former = app.current;
    if (former) {
      former.draft = box.value;
      former.scroll = following ? null : log.scrollTop;
      former.writing.stop();
    }
    conversation?.show();
    app.current = conversation;
    body.classList.toggle('lone', !conversation);
    for (const control of [box, $('send')]) {
      control.disabled = !conversation || conversation.isReadOnly;
    }
    $('leave').hidden = !conversation;
    box.value = conversation?.draft ?? '';
    fitBox();
    quietly(() => {
      if (!conversation) {
        const hint = 'Join a room to begin. Its members, on any node, see your messages.';
        log.replaceChildren(make('p', 'hint', hint));
        return toEnd();
      }
      const { earlier, messages, outgoing, scroll, unread } = conversation;
      log.replaceChildren(earlier, messages, outgoing);
      showFrom(scroll);
      $('latest').hidden = following || unread === 0;
      conversation.seen();
    });
    for (const listener of listeners) listener(conversation);
    app.typingChanged();
    app.unreadChanged();
    openDrawer(!conversation && phone.matches);
  },

  /**
   * Selects a conversation on the user's request, and focuses its message box; on a phone that
   * would open the keyboard.
   */
  visit(conversation) {
    app.select(conversation);
    if (!touch.matches) box.focus();
  },

  unreadChanged() {
    let all = 0;
    for (const conversation of app.all) {
      const { tab, unread } = conversation;
      all += unread;
      const sign = conversation.sign ? [conversation.sign] : [];
      tab.replaceChildren(...sign, make('span', 'label', conversation.label));
      tab.setAttribute('aria-current', String(conversation === app.current));
      if (unread > 0) tab.append(unreadBadge(unread));
    }
    const elsewhere = all - (app.current?.unread ?? 0);
    $('elsewhere').hidden = elsewhere === 0;
    $('elsewhere').replaceChildren(...(elsewhere ? unreadBadge(elsewhere).childNodes : []));
    const label = app.current ? `${app.current.label} · ` : '';
    document.title = `${all ? `(${all}) ` : ''}${label}Switchboard`;
    for (const listener of unreadListeners) listener();
  },
};

/** Opens and closes the list of conversations, which on a phone covers the page. */
export function openDrawer(open) {
  body.classList.toggle('drawer', open);
  if (open) body.classList.remove('shows-people');
  cover();
}

/** Opens and closes the list of members, which covers the page unless that is wide. */
export function openPeople(open) {
  body.classList.toggle('shows-people', open);
  if (open) body.classList.remove('drawer');
  cover();
}

/** Makes the page under a drawer inert. */
export function cover() {
  const isOpen = (name) => body.classList.contains(name);
  const drawer = isOpen('drawer') && phone.matches;
  const people = isOpen('shows-people') && narrow.matches;
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
  if (document.hidden || !app.current) return;
  app.current.seen();
  app.unreadChanged();
});
