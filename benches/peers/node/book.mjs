// The record of the Node.js peers: one SQLite file, the same durable rows a job as the design needs for
// its steps. What it leaves out beside settled stands in docs/PERFORMANCE.md.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import secp256k1 from 'secp256k1/bindings.js'; // the native one, or none

const SCHEMA = `
CREATE TABLE jobs (record_id TEXT PRIMARY KEY, type TEXT NOT NULL, raw TEXT NOT NULL, state TEXT NOT NULL,
  outcome TEXT, reject_reason TEXT, received_ms INTEGER NOT NULL);
CREATE TABLE attempts (nonce TEXT PRIMARY KEY, record_id TEXT NOT NULL REFERENCES jobs, body TEXT NOT NULL,
  signature TEXT NOT NULL, prepared_ms INTEGER NOT NULL, status INTEGER, response TEXT);
CREATE TABLE transfers (id INTEGER PRIMARY KEY, record_id TEXT NOT NULL REFERENCES jobs, phase TEXT NOT NULL,
  debit TEXT NOT NULL, credit TEXT NOT NULL, quantity INTEGER NOT NULL, UNIQUE (record_id, phase));
CREATE TABLE accounts (connection_id TEXT NOT NULL, currency TEXT NOT NULL, available INTEGER NOT NULL,
  held INTEGER NOT NULL, incoming INTEGER NOT NULL, PRIMARY KEY (connection_id, currency));
`;
const PREFIX = Buffer.from('\x18Bitcoin Signed Message:\n');
const RESPONSE_CHARS_KEPT = 2048;

export class Book {
  constructor() {
    const db = new Database(process.env.BENCH_DB);
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('foreign_keys = ON');
    db.exec(SCHEMA);
    this.db = db;
    this.key = Buffer.from(process.env.BENCH_KEY_HEX, 'hex');
    this.connections = new Map();
    this.currencies = new Map();
    this.insertJob = db.prepare(
      `INSERT INTO jobs (record_id, type, raw, state, received_ms) VALUES (?, ?, ?, 'received', ?)
       ON CONFLICT DO NOTHING`);
    this.findJob = db.prepare('SELECT state FROM jobs WHERE record_id = ?');
    this.decideJob = db.prepare(
      `UPDATE jobs SET state = ?, outcome = ?, reject_reason = ? WHERE record_id = ?`);
    this.endJob = db.prepare(
      `UPDATE jobs SET state = 'confirmed' WHERE record_id = ? AND state = 'sending'`);
    this.insertAttempt = db.prepare(
      `INSERT INTO attempts (nonce, record_id, body, signature, prepared_ms) VALUES (?, ?, ?, ?, ?)`);
    this.endAttempt = db.prepare('UPDATE attempts SET status = ?, response = ? WHERE nonce = ?');
    this.insertTransfer = db.prepare(
      `INSERT INTO transfers (record_id, phase, debit, credit, quantity) VALUES (?, ?, ?, ?, ?)`);
    this.available = db.prepare(
      'SELECT available FROM accounts WHERE connection_id = ? AND currency = ?').pluck();
    this.move = db.prepare(
      `UPDATE accounts SET available = available + ?, held = held + ?, incoming = incoming + ?
       WHERE connection_id = ? AND currency = ?`);
    this.countFinal = db.prepare(
      `SELECT count(*) FROM jobs JOIN attempts USING (record_id)
       WHERE state = 'confirmed' AND status = 200`).pluck();
    this.takeFacts(readFileSync(process.env.BENCH_BOOK, 'utf8'));
  }

  takeFacts(text) {
    const account = this.db.prepare('INSERT INTO accounts VALUES (?, ?, ?, 0, 0)');
    this.db.transaction(() => {
      for (const line of text.split('\n').filter(Boolean)) {
        const fact = JSON.parse(line);
        if (fact.type === 'connection.upserted') this.connections.set(fact.connectionId, fact);
        else if (fact.type === 'currency.configured') this.currencies.set(fact.currency, fact);
        else account.run(fact.connectionId, fact.currency, BigInt(fact.delta));
      }
    })();
  }

  // A job once, whatever the broker repeats.
  record(raw) {
    const job = JSON.parse(raw);
    job.recordId = job.allocationId ?? job.deallocationId;
    job.isNew = this.insertJob.run(job.recordId, job.type, raw, Date.now()).changes === 1;
    return job;
  }

  // Cleared or released, with the hold.
  decide(job) {
    const reason = this.reject(job);
    job.outcome = reason ? 'released' : 'cleared';
    job.rejectReason = reason;
    if (!reason) this.book(job, 'pending');
    this.decideJob.run('decided', job.outcome, reason, job.recordId);
  }

  reject(job) {
    const quantity = Number(job.amount.quantity);
    const connection = this.connections.get(job.connectionId);
    const currency = this.currencies.get(job.amount.currency);
    if (!connection?.active) return 'the connection is not active';
    if (!currency?.enabled) return 'the currency is not enabled';
    if (quantity > Number(currency.quantityMax)) return 'the quantity is too large';
    if (job.type === 'deallocation' && this.available.get(job.connectionId, job.amount.currency) < quantity) {
      return 'not enough is available';
    }
    return null;
  }

  book(job, phase) {
    const quantity = Number(job.amount.quantity);
    const [debit, credit, available, held, incoming] = job.type === 'allocation'
      ? (phase === 'pending' ? ['oes', 'incoming', 0, 0, 1] : ['incoming', 'available', 1, 0, -1])
      : (phase === 'pending' ? ['available', 'held', -1, 1, 0] : ['held', 'oes', 0, -1, 0]);
    this.insertTransfer.run(job.recordId, phase, debit, credit, quantity);
    this.move.run(available * quantity, held * quantity, incoming * quantity, job.connectionId,
      job.amount.currency);
  }

  // Payload, nonce and signature: the attempt on disk.
  sign(job) {
    const id = job.type === 'allocation' ? 'allocationId' : 'deallocationId';
    const partnersId = job.type === 'allocation' ? 'partnersAllocationId' : 'partnersDeallocationId';
    const nonce = randomBytes(32).toString('hex');
    const update = {
      status: job.outcome, ...(job.rejectReason ? { rejectReason: job.rejectReason } : {}),
      [id]: job[id], amount: { currency: job.amount.currency, quantity: job.amount.quantity },
      clientId: job.clientId, connectionId: job.connectionId, partnersClientId: job.partnersClientId,
      partnersConnectionId: job.partnersConnectionId, [partnersId]: job[partnersId], nonce,
    };
    const payload = JSON.stringify(update);
    const signature = signMessage(payload, this.key);
    const body = JSON.stringify({ ...update, payload, signature });
    this.insertAttempt.run(nonce, job.recordId, body, signature, Date.now());
    this.decideJob.run('sending', job.outcome, job.rejectReason, job.recordId);
    job.nonce = nonce;
    return body;
  }

  // The result, the closing movement, the end.
  confirm(job, status, response) {
    this.endAttempt.run(status, response.slice(0, RESPONSE_CHARS_KEPT), job.nonce);
    if (job.outcome === 'cleared') this.book(job, 'posted');
    if (this.endJob.run(job.recordId).changes !== 1) throw new Error(`job ${job.recordId} is not sending`);
  }
}

function compactSize(length) {
  return length < 0xfd ? Buffer.from([length]) : Buffer.from([0xfd, length & 0xff, length >> 8]);
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest();
}

function signMessage(payload, key) {
  const bytes = Buffer.from(payload);
  const digest = sha256(sha256(Buffer.concat([PREFIX, compactSize(bytes.length), bytes])));
  const { signature, recid } = secp256k1.ecdsaSign(digest, key);
  return Buffer.concat([Buffer.from([31 + recid]), signature]).toString('hex');
}

// Whether OES's echo is the record that was sent.
export function echoes(job, status, text) {
  if (status !== 200) return false;
  const echo = JSON.parse(text);
  return (echo.allocationId ?? echo.deallocationId) === job.recordId
    && echo.amount.quantity === job.amount.quantity && echo.connectionId === job.connectionId;
}
