// The worker thread of best.mjs: a transaction for each batch that it is sent.
import { parentPort } from 'node:worker_threads';
import { Book } from './book.mjs';

const jobs = Number(process.env.BENCH_JOBS);
const book = new Book();
let final = 0;

const work = book.db.transaction(({ raws, ends }) => {
  for (const { job, status, text } of ends) book.confirm(job, status, text);
  const prepared = [];
  for (const raw of raws) {
    const job = book.record(raw);
    if (!job.isNew) continue;
    book.decide(job);
    prepared.push({ job, body: book.sign(job) });
  }
  return prepared;
});

parentPort.on('message', (batch) => {
  const prepared = work(batch);
  final += batch.ends.length;
  const count = final === jobs ? book.countFinal.get() : 0;
  parentPort.postMessage({ prepared, final: batch.ends.length, count });
});
