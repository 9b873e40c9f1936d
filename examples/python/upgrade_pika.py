"""Orders one upgrade and waits for its outcome, with pika. Exit status 0: the device was upgraded.

    pip install pika
    python3 upgrade_pika.py CPE000001 https://files.example.com/fw-2.bin
"""

import json
import os
import sys
import uuid
from datetime import datetime, timezone

import pika

cpe_id, firmware_url = sys.argv[1:3]
# Your own order number is better: the same id sent again is the same job, and upgrades the device once.
job_id = f"example-{uuid.uuid4()}"

connection = pika.BlockingConnection(pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")))
channel = connection.channel()
# From here on a publish that the broker did not take, or could not route, is an exception.
channel.confirm_delivery()

# A queue of our own, bound before the request goes out: so no event is missed.
queue = channel.queue_declare(queue="", exclusive=True).method.queue
channel.queue_bind(queue, exchange="upgrade.results", routing_key="upgrade.#")

request = {
    "job_id": job_id,
    "cpe_id": cpe_id,
    "firmware_url": firmware_url,
    "requested_at": datetime.now(timezone.utc).isoformat(),
}
channel.basic_publish(
    exchange="upgrade.requests",
    routing_key="request",
    body=json.dumps(request).encode(),
    properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
    mandatory=True,
)
print(f"ordered {job_id}", file=sys.stderr)

FINAL = {"upgrade.completed", "upgrade.failed", "upgrade.cancelled", "upgrade.rejected"}
for method, _, body in channel.consume(queue, auto_ack=True):
    event = json.loads(body)
    data = event["data"]
    if data.get("job_id") != job_id:
        continue
    told = [data.get("stage"), data.get("reason"), data.get("message")]
    print(event["type"], *(text for text in told if text))
    for error in data.get("errors", []):
        print(f"  {error['field']}: {error['message']}")
    if event["type"] in FINAL:
        connection.close()
        sys.exit(0 if data["outcome"] == "completed" else 1)
