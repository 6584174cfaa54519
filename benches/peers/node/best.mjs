// Node.js at its best: SQLite and signing in a worker thread, and one commit for whatever has come while
// the last commit was under way.
import { Worker } from 'node:worker_threads';
import { echoes } from './book.mjs';
import { consume, done, inFlightMax, jobs, put } from './wire.mjs';

const BATCH_MAX = 256;

const writer = new Worker(new URL('./writer.mjs', import.meta.url));
const received = [];
const answered = [];
const toSend = [];
let channel;
let busy = false;
let inFlight = 0;
let final = 0;

function commit() {
  if (busy || (received.length === 0 && answered.length === 0)) return;
  busy = true;
  const messages = received.splice(0, BATCH_MAX);
  const ends = answered.splice(0, BATCH_MAX);
  writer.postMessage({
    raws: messages.map((message) => message.content.toString()),
    ends,
  });
  writer.once('message', ({ prepared, final: ended, count }) => {
    busy = false;
    // Everything up to the last of the batch is committed: deliveries come in order.
    if (messages.length > 0) channel.ack(messages[messages.length - 1], true);
    toSend.push(...prepared);
    final += ended;
    if (final === jobs) done(count);
    next();
    commit();
  });
}

async function send({ job, body }) {
  inFlight += 1;
  const { status, text } = await put(job.type, body);
  inFlight -= 1;
  if (!echoes(job, status, text)) throw new Error(`an odd answer: ${status} ${text}`);
  answered.push({ job, status, text });
  next();
  commit();
}

function next() {
  while (inFlight < inFlightMax && toSend.length > 0) send(toSend.shift());
}

await consume((delivering, message) => {
  channel = delivering;
  received.push(message);
  commit();
});
