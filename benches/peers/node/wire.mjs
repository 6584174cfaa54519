// The broker and the server, the same for both Node.js peers.
import amqp from 'amqplib';
import { Pool } from 'undici';

export const jobs = Number(process.env.BENCH_JOBS);
export const inFlightMax = Number(process.env.BENCH_IN_FLIGHT);

// Deliveries may come before the answer to the request for them.
export async function consume(take) {
  const connection = await amqp.connect(process.env.BENCH_AMQP_URL);
  const channel = await connection.createChannel();
  await channel.prefetch(Number(process.env.BENCH_PREFETCH));
  await channel.consume(process.env.BENCH_QUEUE, (message) => take(channel, message));
  console.log('consuming');
}

const base = new URL(process.env.BENCH_OES_URL);
const pool = new Pool(base.origin, { connections: inFlightMax, pipelining: 1 });
const headers = {
  authorization: `Bearer ${process.env.BENCH_TOKEN}`, 'content-type': 'application/json',
};

export async function put(type, body) {
  const answer = await pool.request({ path: `${base.pathname}/${type}s`, method: 'PUT', headers, body });
  return { status: answer.statusCode, text: await answer.body.text() };
}

// Whoever measures looks at what the process has used, and ends it.
export function done(final) {
  if (final !== jobs) throw new Error(`${final} of ${jobs} jobs are final`);
  console.log('done');
}
