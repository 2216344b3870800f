// socket.io over WebSockets alone, with its own rooms and its own Redis adapter:
// socketio.cjs PORT [REDIS_PORT]
'use strict';

const { createServer } = require('node:http');
const Redis = require('ioredis');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');
const { message } = require('./native.cjs');

const [port, redis] = process.argv.slice(2).map(Number);

async function main() {
  const http = createServer();
  const io = new Server(http, { transports: ['websocket'], serveClient: false, perMessageDeflate: false });
  if (redis) {
    const subscription = new Redis(redis, '127.0.0.1');
    const publishes = new Redis(redis, '127.0.0.1', { enableAutoPipelining: true });
    io.adapter(createAdapter(publishes, subscription));
    // Behind the adapter's own subscriptions, on the same connection.
    await subscription.psubscribe('ready');
  }
  io.on('connection', (socket) => {
    socket.on('join', async (room, answer) => {
      await socket.join(room);
      answer('ok');
    });
    socket.on('publish', (room, data, answer) => {
      io.to(room).emit('message', message(room, data));
      answer('ok');
    });
  });
  http.listen({ host: '127.0.0.1', port, backlog: 4096 });
}

main();
