/** What the page says in words of its own, free of its elements: lists of names, and who has come and gone. */

/** Names in a sentence: all of a few, and how many more. */
export function enumerate(names, most) {
  const shown = names.length > most ? names.slice(0, most - 1) : names;
  const others = names.length - shown.length;
  const parts = others > 0 ? [...shown, `${others} others`] : shown;
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}

/**
 * Who has come and gone between two messages, as one line. Whoever came and went meanwhile, or went
 * and came back, is not in it: nothing has changed.
 */
export class Comings {
  #changes = new Map(); // user → true: came, false: went

  add(user, came) {
    const former = this.#changes.get(user);
    if (former === undefined) this.#changes.set(user, came);
    else if (former !== came) this.#changes.delete(user);
  }

  /** Takes what came later into itself. */
  merge(later) {
    for (const [user, came] of later.#changes) this.add(user, came);
  }

  words() {
    const of = (which) => [...this.#changes].filter(([, came]) => came === which).map(([user]) => user);
    const [came, went] = [of(true), of(false)];
    const parts = [];
    if (came.length > 0) parts.push(`${enumerate(came, 5)} joined`);
    if (went.length > 0) parts.push(`${enumerate(went, 5)} left`);
    return parts.join(' · ');
  }
}
