// The client module against a real node: clients that keep the list of members of many rooms.
// `tests/client_module.rs` runs it:
//
//     node --experimental-websocket many_rooms.mjs URL ROOMS HISTORY TOKEN…
//
// One client for each token joins ROOMS rooms with `onMembers`, and with HISTORY above 0 reads that
// many messages of each. When all lists have all users, or a connection ends, or after a minute, it
// prints one line of JSON.

import { Switchboard } from '../../www/switchboard.js';

const [url, count, history, ...tokens] = process.argv.slice(2);
const rooms = Array.from({ length: Number(count) }, (_, n) => `room.${n}`);
const begun = performance.now();
const ended = [];
const errors = [];
let pages = 0;

const clients = tokens.map((token) => {
  const board = new Switchboard(url, { token });
  const check = () => isWhole() && report();
  board.on('error', ({ code, message }) => errors.push(`${code}: ${message}`));
  board.on('state', ({ state, code, reason }) => {
    if (state !== 'waiting' && state !== 'closed') return;
    ended.push(`${code} ${reason}`);
    report();
  });
  return rooms.map((name) => {
    const read = async () => {
      try {
        await room.history({ limit: Number(history) });
        pages += 1;
      } catch (error) {
        errors.push(`history: ${error.code}`);
      }
      check();
    };
    const onState = ({ state, error }) => {
      if (error) errors.push(`${name}: ${error.code}`);
      if (state === 'joined' && history > 0) read();
    };
    const room = board.join(name, { onMembers: check, onState });
    return room;
  });
});

const all = clients.flat();
const hasAll = ({ members }) => members.fresh && members.count === tokens.length;
const isWhole = () => all.every(hasAll) && (history <= 0 || pages === all.length);

function report() {
  const seconds = Math.round((performance.now() - begun) / 100) / 10;
  const lists = all.filter(hasAll).length;
  console.log(JSON.stringify({ whole: isWhole(), lists, pages, ended, errors, seconds }));
  process.exit(0);
}

setTimeout(report, 60_000);
