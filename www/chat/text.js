/** Texts of the page, without its elements: lists of names, and joins and leaves. */

/** Names in a sentence: all of a few, and how many more. */
export function enumerate(names, most) {
  const shown = names.length > most ? names.slice(0, most - 1) : names;
  const others = names.length - shown.length;
  const parts = others > 0 ? [...shown, `${others} others`] : shown;
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}

/**
 * The `sub` of a token; null if it has none. The token is not verified: it is
 * only shown to the user before it is used.
 */
export function userOf(token) {
  try {
    const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(claims), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === 'string' && sub !== '' ? sub.slice(0, 64) : null;
  } catch {
    return null;
  }
}

/**
 * Joins and leaves between two messages, as one line. A user that joined and left meanwhile, or
 * left and returned, is not in it: nothing has changed.
 */
export class MemberChanges {
  #changes = new Map(); // user → true: joined, false: left

  add(user, hasJoined) {
    const former = this.#changes.get(user);
    if (former === undefined) this.#changes.set(user, hasJoined);
    else if (former !== hasJoined) this.#changes.delete(user);
  }

  /** Adds later changes. */
  merge(later) {
    for (const [user, hasJoined] of later.#changes) this.add(user, hasJoined);
  }

  text() {
    const usersOf = (kind) =>
      [...this.#changes].filter(([, hasJoined]) => hasJoined === kind).map(([user]) => user);
    const [joined, left] = [usersOf(true), usersOf(false)];
    const parts = [];
    if (joined.length > 0) parts.push(`${enumerate(joined, 5)} joined`);
    if (left.length > 0) parts.push(`${enumerate(left, 5)} left`);
    return parts.join(' · ');
  }
}
