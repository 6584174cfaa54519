// Node.js as it is usually written: a commit a step, one after the other for each message.
import { Book, echoes } from './book.mjs';
import { consume, done, inFlightMax, jobs, put } from './wire.mjs';

const book = new Book();
const step = (work) => book.db.transaction(work)();
const waiting = [];
let inFlight = 0;
let final = 0;

async function send(job, body) {
  inFlight += 1;
  const { status, text } = await put(job.type, body);
  inFlight -= 1;
  if (!echoes(job, status, text)) throw new Error(`an odd answer: ${status} ${text}`);
  step(() => book.confirm(job, status, text));
  final += 1;
  if (final === jobs) done(book.countFinal.get());
  next();
}

function next() {
  while (inFlight < inFlightMax && waiting.length > 0) {
    const job = waiting.shift();
    step(() => book.decide(job));
    const body = step(() => book.sign(job));
    send(job, body);
  }
}

await consume((channel, message) => {
  const job = step(() => book.record(message.content.toString()));
  channel.ack(message);
  if (job.isNew) waiting.push(job);
  next();
});
