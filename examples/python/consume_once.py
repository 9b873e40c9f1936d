"""Reads events for good, and takes each into account once: an event may come twice, and then has the same id.

    pip install pika
    python3 consume_once.py                  follows the events, in a durable queue of its own
    python3 consume_once.py --history        reads everything that the history still holds, then ends

The books are an SQLite file, `outcomes.db`: the id of the event and its effect are written in one transaction, and only then the message is
acknowledged. Killed in between, the event comes again and finds its own id there.
"""

import json
import os
import sqlite3
import sys

import pika

QUEUE = "example.outcomes"
HISTORY = "upgrade.events"

books = sqlite3.connect(os.environ.get("BOOKS", "outcomes.db"), isolation_level=None)
books.execute("PRAGMA synchronous = FULL")
books.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
books.execute("CREATE TABLE IF NOT EXISTS outcomes (outcome TEXT, reason TEXT, jobs INTEGER, PRIMARY KEY (outcome, reason))")


def take(event: dict) -> bool:
    """Writes the event into the books; False if it stands there already."""
    books.execute("BEGIN IMMEDIATE")
    is_new = books.execute("INSERT OR IGNORE INTO seen VALUES (?)", (event["id"],)).rowcount == 1
    outcome, reason = event["data"].get("outcome"), event["data"].get("reason")
    if is_new and outcome:
        # Here stands what must happen once: a bill, a ticket, a counter.
        books.execute(
            "INSERT INTO outcomes VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1", (outcome, reason)
        )
    books.execute("COMMIT")
    return is_new


connection = pika.BlockingConnection(pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")))
channel = connection.channel()
channel.basic_qos(prefetch_count=100)
if "--history" in sys.argv:
    # A stream: reading takes nothing away. Quiet for three seconds counts as its end.
    queue, quiet, arguments = HISTORY, 3, {"x-stream-offset": "first"}
else:
    queue, quiet, arguments = QUEUE, None, None
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, exchange="upgrade.results", routing_key="upgrade.#")
    print(f"following {queue}", file=sys.stderr)

for method, _, body in channel.consume(queue, inactivity_timeout=quiet, arguments=arguments):
    if method is None:
        break
    event = json.loads(body)
    print("new   " if take(event) else "repeat", event["id"], event["type"], event["data"].get("job_id"), flush=True)
    channel.basic_ack(method.delivery_tag)

for outcome, reason, jobs in books.execute("SELECT * FROM outcomes ORDER BY outcome, reason"):
    print(f"{jobs} {outcome}/{reason}")
connection.close()
