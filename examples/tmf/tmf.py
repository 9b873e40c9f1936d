"""Words of TM Forum's service ordering (TMF641) and event management (TMF688) to and from those of nbi-upgrade.

    python3 tmf.py requests <service-order.json    one request a line for each item of the order
    python3 tmf.py events   <events.jsonl          one TMF688 event a line for each event
"""

import json
import sys

STATES = {
    "upgrade.accepted": "acknowledged",
    "upgrade.progress": "inProgress",
    "upgrade.completed": "completed",
    "upgrade.failed": "failed",
    "upgrade.cancelled": "cancelled",
    "upgrade.rejected": "rejected",
}


def requests(order: dict):
    for item in order["serviceOrderItem"]:
        wanted = {one["name"]: one["value"] for one in item["service"]["serviceCharacteristic"]}
        request = {
            # An order sent again makes the same ids, so nothing is upgraded twice.
            "job_id": f"{order['id']}:{item['id']}",
            "cpe_id": wanted["cpeId"],
            "firmware_url": wanted["firmwareUrl"],
            "requested_at": order["orderDate"],
            "not_before": order.get("requestedStartDate"),
            "deadline": order.get("requestedCompletionDate"),
            "context": {"serviceOrder": order["id"], "serviceOrderItem": item["id"]},
        }
        yield {name: value for name, value in request.items() if value is not None}


def event(source: dict) -> dict:
    data = source["data"]
    # A request that was rejected may have had no context; its job id is made of the same two.
    order, _, item = data.get("job_id", "").partition(":")
    context = data.get("context") or {"serviceOrder": order, "serviceOrderItem": item}
    state = STATES[source["type"]]
    item = {"id": context["serviceOrderItem"], "state": state}
    if data.get("outcome") in ("failed", "rejected"):
        item["errorMessage"] = [{"code": data["reason"], "reason": data["message"], "message": one["message"]}
                                for one in data.get("errors", [])] or [{"code": data["reason"], "reason": data["message"]}]
    return {
        "eventId": source["id"],
        "eventTime": source["time"],
        "eventType": "ServiceOrderItemStateChangeEvent",
        "correlationId": data.get("job_id"),
        "domain": "firmware",
        "title": f"{source['type']} {data.get('reason', '')}".strip(),
        "description": data.get("message", ""),
        "source": {"id": source["source"], "@type": "EntityRef"},
        "event": {"serviceOrder": {"id": context["serviceOrder"], "serviceOrderItem": [item]}},
        "@type": "ServiceOrderItemStateChangeEvent",
    }


def main() -> None:
    if sys.argv[1:] == ["requests"]:
        for request in requests(json.load(sys.stdin)):
            print(json.dumps(request))
    elif sys.argv[1:] == ["events"]:
        for line in sys.stdin:
            print(json.dumps(event(json.loads(line))))
    else:
        sys.exit(__doc__)


main()
