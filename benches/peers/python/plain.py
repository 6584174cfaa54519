"""Python as it is usually written: asyncio, and a commit a step, one after the other for each message."""

import asyncio
import hashlib
import json
import os
import secrets
import sqlite3
import sys
import time

import aio_pika
import aiohttp
import coincurve

SCHEMA = """
CREATE TABLE jobs (record_id TEXT PRIMARY KEY, type TEXT NOT NULL, raw TEXT NOT NULL, state TEXT NOT NULL,
  outcome TEXT, reject_reason TEXT, received_ms INTEGER NOT NULL);
CREATE TABLE attempts (nonce TEXT PRIMARY KEY, record_id TEXT NOT NULL REFERENCES jobs, body TEXT NOT NULL,
  signature TEXT NOT NULL, prepared_ms INTEGER NOT NULL, status INTEGER, response TEXT);
CREATE TABLE transfers (id INTEGER PRIMARY KEY, record_id TEXT NOT NULL REFERENCES jobs, phase TEXT NOT NULL,
  debit TEXT NOT NULL, credit TEXT NOT NULL, quantity INTEGER NOT NULL, UNIQUE (record_id, phase));
CREATE TABLE accounts (connection_id TEXT NOT NULL, currency TEXT NOT NULL, available INTEGER NOT NULL,
  held INTEGER NOT NULL, incoming INTEGER NOT NULL, PRIMARY KEY (connection_id, currency));
"""
RESPONSE_CHARS_KEPT = 2048
# By type and phase: debit, credit, and what available, held and incoming change by.
MOVEMENTS = {
    ("allocation", "pending"): ("oes", "incoming", 0, 0, 1),
    ("allocation", "posted"): ("incoming", "available", 1, 0, -1),
    ("deallocation", "pending"): ("available", "held", -1, 1, 0),
    ("deallocation", "posted"): ("held", "oes", 0, -1, 0),
}


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Book:
    def __init__(self):
        # Transactions are begun and ended by hand.
        self.db = sqlite3.connect(os.environ["BENCH_DB"], isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(SCHEMA)
        self.key = coincurve.PrivateKey(bytes.fromhex(os.environ["BENCH_KEY_HEX"]))
        self.connections, self.currencies = {}, {}
        with open(os.environ["BENCH_BOOK"], encoding="utf-8") as book:
            self.step(self.take_facts, [json.loads(line) for line in book])

    def step(self, work, *arguments):
        """One step, one commit."""
        self.db.execute("BEGIN IMMEDIATE")
        result = work(*arguments)
        self.db.execute("COMMIT")
        return result

    def take_facts(self, facts):
        for fact in facts:
            if fact["type"] == "connection.upserted":
                self.connections[fact["connectionId"]] = fact
            elif fact["type"] == "currency.configured":
                self.currencies[fact["currency"]] = fact
            else:
                row = (fact["connectionId"], fact["currency"], int(fact["delta"]))
                self.db.execute("INSERT INTO accounts VALUES (?, ?, ?, 0, 0)", row)

    def record(self, raw):
        job = json.loads(raw)
        job["recordId"] = job.get("allocationId") or job["deallocationId"]
        inserted = self.db.execute(
            "INSERT INTO jobs (record_id, type, raw, state, received_ms) VALUES (?, ?, ?, 'received', ?)"
            " ON CONFLICT DO NOTHING",
            (job["recordId"], job["type"], raw, int(time.time() * 1000)),
        )
        return job if inserted.rowcount == 1 else None

    def decide(self, job):
        reason = self.reject(job)
        job["outcome"], job["rejectReason"] = ("released" if reason else "cleared"), reason
        if not reason:
            self.book(job, "pending")
        self.moved(job, "decided")

    def reject(self, job):
        quantity, currency = int(job["amount"]["quantity"]), job["amount"]["currency"]
        if not self.connections.get(job["connectionId"], {}).get("active"):
            return "the connection is not active"
        if not self.currencies.get(currency, {}).get("enabled"):
            return "the currency is not enabled"
        if quantity > int(self.currencies[currency]["quantityMax"]):
            return "the quantity is too large"
        if job["type"] == "deallocation":
            (available,) = self.db.execute(
                "SELECT available FROM accounts WHERE connection_id = ? AND currency = ?",
                (job["connectionId"], currency),
            ).fetchone()
            if available < quantity:
                return "not enough is available"
        return None

    def book(self, job, phase):
        quantity = int(job["amount"]["quantity"])
        debit, credit, available, held, incoming = MOVEMENTS[job["type"], phase]
        self.db.execute(
            "INSERT INTO transfers (record_id, phase, debit, credit, quantity) VALUES (?, ?, ?, ?, ?)",
            (job["recordId"], phase, debit, credit, quantity),
        )
        self.db.execute(
            "UPDATE accounts SET available = available + ?, held = held + ?, incoming = incoming + ?"
            " WHERE connection_id = ? AND currency = ?",
            (available * quantity, held * quantity, incoming * quantity, job["connectionId"],
             job["amount"]["currency"]),
        )

    def moved(self, job, state):
        self.db.execute(
            "UPDATE jobs SET state = ?, outcome = ?, reject_reason = ? WHERE record_id = ?",
            (state, job["outcome"], job["rejectReason"], job["recordId"]),
        )

    def sign(self, job):
        own, partners = (f"{job['type']}Id", f"partners{job['type'].capitalize()}Id")
        nonce = secrets.token_hex(32)
        update = {"status": job["outcome"]}
        if job["rejectReason"]:
            update["rejectReason"] = job["rejectReason"]
        for name in (own, "amount", "clientId", "connectionId", "partnersClientId",
                     "partnersConnectionId", partners):
            update[name] = job[name]
        update["nonce"] = nonce
        payload = compact(update)
        signature = sign_message(payload.encode(), self.key)
        body = compact({**update, "payload": payload, "signature": signature})
        self.db.execute(
            "INSERT INTO attempts (nonce, record_id, body, signature, prepared_ms) VALUES (?, ?, ?, ?, ?)",
            (nonce, job["recordId"], body, signature, int(time.time() * 1000)),
        )
        self.moved(job, "sending")
        job["nonce"] = nonce
        return body

    def confirm(self, job, status, response):
        self.db.execute(
            "UPDATE attempts SET status = ?, response = ? WHERE nonce = ?",
            (status, response[:RESPONSE_CHARS_KEPT], job["nonce"]),
        )
        if job["outcome"] == "cleared":
            self.book(job, "posted")
        self.moved(job, "confirmed")

    def count_final(self):
        return self.db.execute(
            "SELECT count(*) FROM jobs JOIN attempts USING (record_id)"
            " WHERE state = 'confirmed' AND status = 200"
        ).fetchone()[0]


def sign_message(payload, key):
    size = len(payload)
    length = bytes([size]) if size < 0xFD else b"\xfd" + size.to_bytes(2, "little")
    message = b"\x18Bitcoin Signed Message:\n" + length + payload
    digest = hashlib.sha256(hashlib.sha256(message).digest()).digest()
    signature = key.sign_recoverable(digest, hasher=None)
    return (bytes([31 + signature[64]]) + signature[:64]).hex()


def echoes(job, status, text):
    if status != 200:
        return False
    echo = json.loads(text)
    return (
        (echo.get("allocationId") or echo.get("deallocationId")) == job["recordId"]
        and echo["amount"]["quantity"] == job["amount"]["quantity"]
        and echo["connectionId"] == job["connectionId"]
    )


async def main():
    book, jobs = Book(), int(os.environ["BENCH_JOBS"])
    slots = asyncio.Semaphore(int(os.environ["BENCH_IN_FLIGHT"]))
    base, final, finished = os.environ["BENCH_OES_URL"], 0, asyncio.Event()
    headers = {
        "Authorization": f"Bearer {os.environ['BENCH_TOKEN']}", "Content-Type": "application/json",
    }
    connector = aiohttp.TCPConnector(limit=int(os.environ["BENCH_IN_FLIGHT"]))
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        connection = await aio_pika.connect(os.environ["BENCH_AMQP_URL"])
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=int(os.environ["BENCH_PREFETCH"]))
        queue = await channel.get_queue(os.environ["BENCH_QUEUE"])

        async def take(message):
            nonlocal final
            job = book.step(book.record, message.body.decode())
            await message.ack()
            if job is None:
                return
            async with slots:
                book.step(book.decide, job)
                body = book.step(book.sign, job)
                async with http.put(f"{base}/{job['type']}s", data=body) as answer:
                    text = await answer.text()
                if not echoes(job, answer.status, text):
                    sys.exit(f"an odd answer: {answer.status} {text}")
                book.step(book.confirm, job, answer.status, text)
            final += 1
            if final == jobs:
                finished.set()

        await queue.consume(take)
        print("consuming", flush=True)
        await finished.wait()
        if book.count_final() != jobs:
            sys.exit(f"{book.count_final()} of {jobs} jobs are final")
        print("done", flush=True)
        # Whoever measures looks at what the process has used, and ends it.
        await asyncio.Event().wait()


asyncio.run(main())
