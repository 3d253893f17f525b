// Node.js with ws: URL, clients, interval in ms (0: idle), connects per second. A timer for each connection. Prints a
// JSON object when it is told to end: messages sent, µs from send to reply, µs by which timers were late.
const WebSocket = require('ws');
const [url, clients, interval, rate] = [process.argv[1], ...process.argv.slice(2).map(Number)];
const replies = new Uint32Array(100_000), late = new Uint32Array(100_000); // 10 µs each
const count = (histogram, ms) => histogram[Math.min(99_999, Math.max(0, Math.floor(ms * 100)))]++;
const quantile = (histogram, q) => {
  let rank = Math.max(1, Math.ceil(q * histogram.reduce((sum, n) => sum + n, 0)));
  return histogram.findIndex((n) => (rank -= n) <= 0) * 10 + 5;
};
let sent = 0;
for (let i = 0; i < clients; i++) setTimeout(() => {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  socket.on('error', () => {});
  if (!interval) return;
  const awaited = new Map();
  let sequence = 0;
  socket.on('open', () => setTimeout(() => {
    let due = performance.now();
    setInterval(() => {
      const now = performance.now();
      due += interval;
      count(late, now - due);
      if (now - due > interval) due = now; // Node's interval timers do not make up for lost time
      awaited.set(++sequence, now);
      socket.send(`${i} ${sequence} `.padEnd(64, 'x'));
      sent++;
    }, interval);
  }, Math.random() * interval));
  socket.on('message', (data) => {
    const text = data.toString();
    const key = Number(text.slice(text.indexOf(' ') + 1, text.indexOf(' ', text.indexOf(' ') + 1)));
    const began = awaited.get(key);
    if (began === undefined) return;
    awaited.delete(key);
    count(replies, performance.now() - began);
  });
}, (i * 1000) / rate);
process.on('SIGUSR2', () => { replies.fill(0); late.fill(0); sent = 0; });
process.on('SIGTERM', () => {
  const both = (histogram) => ({ p50: quantile(histogram, 0.5), p99: quantile(histogram, 0.99) });
  console.log(JSON.stringify({ sent, reply_us: both(replies), late_us: both(late) }));
  process.exit(0);
});
