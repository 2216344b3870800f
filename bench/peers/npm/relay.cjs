// Forwards messages between the nodes of a peer that has no Redis of its own: a PUBLISH, and one
// subscription to all rooms. It writes no log, and messages during an outage of Redis are lost.
// Without a port there is one node, and nothing is forwarded.
'use strict';

const Redis = require('ioredis');

const TOPIC = 'room:';

// Returns a function that publishes; `deliver` gets what any node has published. It may return a
// promise.
exports.relay = async (port, deliver) => {
  if (!port) return deliver;
  const subscription = new Redis(port, '127.0.0.1');
  const publishes = new Redis(port, '127.0.0.1', { enableAutoPipelining: true });
  subscription.on('pmessage', (_, topic, data) => deliver(topic.slice(TOPIC.length), data));
  await subscription.psubscribe(`${TOPIC}*`);
  return (room, data) => publishes.publish(TOPIC + room, data);
};
