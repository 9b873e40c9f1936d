"""Orders one upgrade and waits for its outcome, with aio-pika. The outcome also comes straight to the queue named by reply_to.

    pip install aio-pika
    python3 upgrade_aio_pika.py CPE000001 https://files.example.com/fw-2.bin
"""

import asyncio
import json
import os
import sys
import uuid
from datetime import datetime, timezone

import aio_pika


async def main(cpe_id: str, firmware_url: str) -> int:
    job_id = f"example-{uuid.uuid4()}"
    connection = await aio_pika.connect_robust(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"))
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        # Only final events come here, and only those of jobs that named this queue: nothing to filter.
        replies = await channel.declare_queue(exclusive=True)
        requests = await channel.get_exchange("upgrade.requests", ensure=False)
        request = {
            "job_id": job_id,
            "cpe_id": cpe_id,
            "firmware_url": firmware_url,
            "requested_at": datetime.now(timezone.utc).isoformat(),
            "context": {"ordered_by": "an example"},
        }
        message = aio_pika.Message(
            json.dumps(request).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            reply_to=replies.name,
            correlation_id=job_id,
        )
        await requests.publish(message, routing_key="request", mandatory=True)
        print(f"ordered {job_id}", file=sys.stderr)
        async with replies.iterator(no_ack=True) as events:
            async for reply in events:
                event = json.loads(reply.body)
                data = event["data"]
                assert reply.correlation_id == job_id
                # What could not be read comes back in no event.
                assert event["type"] == "upgrade.rejected" or data["context"] == request["context"]
                print(event["type"], data["reason"], data["message"])
                return 0 if data["outcome"] == "completed" else 1
    return 1


sys.exit(asyncio.run(main(*sys.argv[1:3])))
