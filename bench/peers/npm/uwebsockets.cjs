// uWebSockets.js with its own topics: uwebsockets.cjs PORT [REDIS_PORT]
'use strict';

const uws = require('@trufflesuite/uws-js-unofficial');
const { WELCOME, ok, message } = require('./native.cjs');
const { relay } = require('./relay.cjs');

const [port, redis] = process.argv.slice(2).map(Number);

async function main() {
  if (process.env.UWS_USE_FALLBACK || !uws._cfg) throw new Error('this is not uWebSockets.js but its fallback');
  const app = uws.App();
  const publish = await relay(redis, (room, data) => {
    app.publish(room, JSON.stringify(message(room, data)));
  });
  app.ws('/ws', {
    compression: uws.DISABLED,
    idleTimeout: 120,
    // As much as a node's outbox holds.
    maxBackpressure: 1 << 20,
    open: (socket) => socket.send(WELCOME),
    message: (socket, bytes) => {
      const { type, id, room, data } = JSON.parse(Buffer.from(bytes));
      const answer = () => socket.getUserData().gone || socket.send(ok(id, room));
      if (type === 'join') {
        socket.subscribe(room);
        answer();
      } else {
        const sent = publish(room, data);
        if (sent) sent.then(answer);
        else answer();
      }
    },
    close: (socket) => {
      socket.getUserData().gone = true;
    },
  });
  app.listen('127.0.0.1', port, (listening) => {
    if (!listening) process.exit(1);
  });
}

main();
