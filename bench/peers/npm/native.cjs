// The protocol of a node's clients, for the peers without a protocol of their own: they receive the
// same commands, and send frames of the same length.
'use strict';

exports.WELCOME = JSON.stringify({
  type: 'welcome', session: '0123456789abcdef-00001', node: 'bench', user: null, heartbeat: 25,
});

exports.ok = (id, room) =>
  JSON.stringify({ type: 'ok', id, room, epoch: '0123456789abc', offset: offsets.get(room) ?? 0 });

// Each room's newest message, by its number.
const offsets = new Map();

exports.message = (room, data) => {
  const offset = (offsets.get(room) ?? 0) + 1;
  offsets.set(room, offset);
  return { type: 'message', room, offset, time: Date.now(), data };
};
