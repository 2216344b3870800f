// ws, with a set of sockets for each room: ws.cjs PORT [REDIS_PORT]
'use strict';

const { WebSocketServer } = require('ws');
const { WELCOME, ok, message } = require('./native.cjs');
const { relay } = require('./relay.cjs');

const [port, redis] = process.argv.slice(2).map(Number);
const rooms = new Map();

// Encoded once; ws makes the frame for each socket.
function deliver(name, data) {
  const bytes = Buffer.from(JSON.stringify(message(name, data)));
  for (const member of rooms.get(name) ?? []) member.send(bytes, { binary: false });
}

async function main() {
  const publish = await relay(redis, deliver);
  const server = new WebSocketServer({
    host: '127.0.0.1', port, path: '/ws', backlog: 4096, perMessageDeflate: false, clientTracking: false,
  });
  server.on('connection', (socket) => {
    const joined = [];
    socket.on('message', (bytes) => {
      const { type, id, room, data } = JSON.parse(bytes);
      const answer = () => socket.send(ok(id, room));
      if (type === 'join') {
        if (!rooms.has(room)) rooms.set(room, new Set());
        rooms.get(room).add(socket);
        joined.push(room);
        answer();
      } else {
        const sent = publish(room, data);
        if (sent) sent.then(answer);
        else answer();
      }
    });
    socket.on('close', () => joined.forEach((room) => rooms.get(room).delete(socket)));
    socket.on('error', () => {});
    socket.send(WELCOME);
  });
}

main();
