// Node.js with ws: echo, and /broadcast/<room> with one room, whose messages are written together every so many ms where
// that is asked for: frames made once, and one write for each subscriber.
const { WebSocketServer, WebSocket, Sender } = require('ws');
const tick = Number(process.argv[1] ?? 0);
let waiting = [];
const flush = (server) => {
  const joined = Buffer.concat(waiting);
  waiting = [];
  for (const client of server.clients) if (client.readyState === WebSocket.OPEN) client._socket.write(joined);
};
const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false, backlog: 65535 });
server.on('connection', (socket, request) => {
  if (request.url.startsWith('/broadcast/'))
    socket.on('message', (data, binary) => {
      if (tick) {
        if (!waiting.length) setTimeout(flush, tick, server);
        waiting.push(...Sender.frame(data, { fin: true, rsv1: false, opcode: binary ? 2 : 1, mask: false }));
      } else for (const client of server.clients)
        if (client.readyState === WebSocket.OPEN) client.send(data, { binary });
    });
  else socket.on('message', (data, binary) => socket.send(data, { binary }));
});
server.on('listening', () => console.log(`ws://127.0.0.1:${server.address().port}/echo`));
