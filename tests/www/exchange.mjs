// A fake server for the SDK tests: a WebSocket whose other end is the test, and a clock that the
// test advances.

import assert from 'node:assert/strict';
import { Switchboard } from '../../www/switchboard.js';

/** Time that stands still until `pass` is called; timers run in the order they are due. */
export class FakeClock {
  #now = 1_000_000;
  #timers = new Map();
  #last = 0;
  now = () => this.#now;
  setTimeout = (run, ms) => {
    this.#timers.set(++this.#last, { run, due: this.#now + ms });
    return this.#last;
  };
  clearTimeout = (timer) => this.#timers.delete(timer);
  pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      const [next] = [...this.#timers]
        .filter(([, { due }]) => due <= end)
        .sort(([, a], [, b]) => a.due - b.due);
      if (!next) break;
      this.#timers.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].due);
      next[1].run();
    }
    this.#now = end;
  }
  get waiting() {
    return this.#timers.size;
  }
}

/** A server seen from its sockets: `sockets` holds every connection made, `socket` the newest. */
export function exchange(options = {}) {
  const clock = new FakeClock();
  const sockets = [];
  class FakeWebSocket {
    sent = [];
    closed = false;
    constructor(url) {
      this.url = url;
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close(code) {
      this.closed = true;
      this.closeCode = code;
    }
    open(welcome = {}) {
      this.push({
        type: 'welcome',
        session: 's',
        node: 'a',
        user: null,
        heartbeat: 25,
        ...welcome,
      });
      return this;
    }
    push(frame) {
      this.onmessage?.({ data: JSON.stringify(frame) });
    }
    /** Answers the newest request of this type that was sent. */
    answer(type, fields) {
      const request = this.sent.findLast((frame) => frame.type === type);
      assert.ok(request, `no ${type} among ${JSON.stringify(this.sent)}`);
      this.push({ type: 'ok', id: request.id, room: request.room, ...fields });
    }
    die(code = 1006, reason = '') {
      this.onclose?.({ code, reason });
    }
    of(type) {
      return this.sent.filter((frame) => frame.type === type);
    }
  }
  const board = new Switchboard('ws://test/ws', {
    WebSocket: FakeWebSocket,
    clock,
    random: () => 0.5,
    ...options,
  });
  const states = [];
  const errors = [];
  board.on('state', ({ state }) => states.push(state));
  board.on('error', ({ code }) => errors.push(code));
  const seen = [];
  const handlers = {
    onMessage: ({ offset, data }) => seen.push(offset === null ? data : offset),
    onGap: ({ epoch, offset }) => seen.push(`gap ${epoch} ${offset}`),
  };
  const message = (offset, more) => ({
    type: 'message',
    room: 'lobby',
    offset,
    user: 'bob',
    time: 1,
    data: 'x',
    ...more,
  });
  return {
    board, clock, sockets, states, errors, seen, handlers, message,
    get socket() {
      return sockets.at(-1);
    },
    /** A connected client in the lobby at position e/41. */
    joined() {
      this.socket.open();
      const room = board.join('lobby', handlers);
      this.socket.answer('join', { epoch: 'e', offset: 41 });
      return room;
    },
    /** Drops the connection and opens the next one. */
    returns() {
      this.socket.die();
      clock.pass(20_000);
      this.socket.open();
      return this.socket;
    },
  };
}

/** The result of a promise after the microtasks have run. */
export async function outcome(promise) {
  let result = 'pending';
  promise.then((value) => (result = value), (error) => (result = error.code));
  await new Promise(setImmediate);
  return result;
}

/** Resolves after the microtasks have run. */
export const settled = () => new Promise(setImmediate);
