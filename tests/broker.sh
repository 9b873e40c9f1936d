# shellcheck shell=bash
# A private RabbitMQ with its management API, for checks: sourced after tests/install.sh. Nothing of this machine's own broker is touched.

readonly BROKER_SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server
BROKER_PROCESSES=()

# free_ports N: prints N ports of the loopback interface that nobody listens on now.
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))
PYTHON
}

# start_broker FOLDER: starts a node that keeps its data in the folder; sets AMQP_PORT and MANAGEMENT_PORT. Call stop_broker at the end.
start_broker() {
    local folder=$1 distribution mapper tries
    [ -x "$BROKER_SERVER" ] || install_packages rabbitmq-server
    read -r AMQP_PORT MANAGEMENT_PORT distribution mapper < <(free_ports 4)
    mkdir -p "$folder"
    echo '[rabbitmq_management].' >"$folder/enabled_plugins"
    echo 'NODE_IP_ADDRESS=127.0.0.1' >"$folder/env.conf"
    cat >"$folder/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $MANAGEMENT_PORT
disk_free_limit.absolute = 50MB
CONF
    local -a settings=(
        HOME="$folder" ERL_EPMD_PORT="$mapper" ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP="$folder/erl_crash.dump"
        # Makes the script become the Erlang process, so that ending it ends the broker.
        RUNNING_UNDER_SYSTEMD=true
        RABBITMQ_NODENAME="check-$$-$mapper@localhost" RABBITMQ_NODE_PORT="$AMQP_PORT" RABBITMQ_DIST_PORT="$distribution"
        RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log" RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf"
        RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins" RABBITMQ_PID_FILE="$folder/rabbitmq.pid"
        RABBITMQ_CONF_ENV_FILE="$folder/env.conf" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-setcookie check +S 2:2 +sbwt none"
    )
    env "${settings[@]}" epmd -address 127.0.0.1 -port "$mapper" >"$folder/epmd.log" 2>&1 &
    BROKER_PROCESSES+=($!)
    env "${settings[@]}" "$BROKER_SERVER" >"$folder/stdout" 2>&1 &
    BROKER_PROCESSES+=($!)
    for ((tries = 0; tries < 600; tries++)); do
        if curl --silent --fail --user guest:guest --output /dev/null "http://127.0.0.1:$MANAGEMENT_PORT/api/overview"; then
            return
        fi
        sleep 0.2
    done
    say "RabbitMQ did not start:"
    cat "$folder/stdout" >&2
    exit 1
}

stop_broker() {
    if [ "${#BROKER_PROCESSES[@]}" -gt 0 ]; then
        kill -9 "${BROKER_PROCESSES[@]}" 2>/dev/null || true
        wait "${BROKER_PROCESSES[@]}" 2>/dev/null || true
        BROKER_PROCESSES=()
    fi
}
