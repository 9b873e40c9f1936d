#!/usr/bin/env bash
# Orders one upgrade and waits for its outcome, with curl and jq over RabbitMQ's management API. For trying out and for scripts by hand:
# the API is no way to move many messages.
#
#     bash upgrade.sh CPE000001 https://files.example.com/fw-2.bin
set -euo pipefail

readonly API=${RABBITMQ_API:-http://guest:guest@127.0.0.1:15672/api} VHOST=${RABBITMQ_VHOST:-%2f}
job_id="example-$(date +%s)-$$"
queue="example.$job_id"

call() {
    local method=$1 path=$2 body=${3:-}
    curl --silent --show-error --fail-with-body --max-time 30 --request "$method" --header 'content-type: application/json' \
        ${body:+--data "$body"} "$API/$path"
}

# A queue of our own, bound before the request goes out. It goes when it was unused for ten minutes.
call PUT "queues/$VHOST/$queue" '{"durable": true, "arguments": {"x-expires": 600000}}' >/dev/null
trap 'call DELETE "queues/$VHOST/$queue" >/dev/null' EXIT
call POST "bindings/$VHOST/e/upgrade.results/q/$queue" '{"routing_key": "upgrade.#"}' >/dev/null

request=$(jq --null-input --arg job "$job_id" --arg cpe "$1" --arg url "$2" --arg now "$(date --utc +%Y-%m-%dT%H:%M:%SZ)" \
    '{job_id: $job, cpe_id: $cpe, firmware_url: $url, requested_at: $now}')
message=$(jq --null-input --arg payload "$request" '{routing_key: "request", payload: $payload, payload_encoding: "string",
    properties: {content_type: "application/json", delivery_mode: 2}}')
call POST "exchanges/$VHOST/upgrade.requests/publish" "$message" | jq --exit-status .routed >/dev/null || {
    echo "nobody takes requests here: is a worker's topology declared?" >&2
    exit 1
}
echo "ordered $job_id" >&2

while :; do
    events=$(call POST "queues/$VHOST/$queue/get" '{"count": 100, "ackmode": "ack_requeue_false", "encoding": "auto"}')
    outcome=$(jq --raw-output --arg job "$job_id" '.[].payload | fromjson | select(.data.job_id == $job and .data.outcome)
        | "\(.type) \(.data.reason) \(.data.message)"' <<<"$events")
    if [ -n "$outcome" ]; then
        echo "$outcome"
        [[ $outcome == upgrade.completed* ]]
        exit
    fi
    sleep 1
done
