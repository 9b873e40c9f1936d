"""Runs docker-compose.yml without containers: composition.py PROGRAM CONFIG FOLDER; CONFIG is what `docker compose config` makes of it.

With a fourth word, a device, it stops once that one device is upgraded, and looks at nothing else.

Each service is a process in a file system of its own: the composition's mounts and secrets stand where a container would see them, and
nothing else of it does. All share one network, which is apart from the machine's, with the services' names in /etc/hosts. Users,
read-only roots, health checks and the order of starts are those of the composition. Different from containers:

- RabbitMQ and Prometheus are Debian's, and Grafana is not run;
- both workers are given an address each to listen on, and Prometheus is told these instead of asking the engine's name server;
- what lasts minutes lasts seconds (FASTER), so that a fleet ends within about a minute.

Must run as root in a mount, network and process namespace of its own: tests/checks/composition.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

PROGRAM = Path(sys.argv[1]).resolve()
# What the image does without a command.
BY_DEFAULT = json.loads(re.findall(r"^CMD (.*)$", Path("Dockerfile").read_text(), re.MULTILINE)[-1])
WITHIN = 180
ADDRESSES = {"rabbitmq": "127.0.0.2", "simulator": "127.0.0.3", "prometheus": "127.0.0.4"}
WORKERS = ["127.0.0.11", "127.0.0.12"]
# Devices live a hundred times faster instead of ten times.
FASTER = {
    "NBI_UPGRADE_JOB__TIMEOUT": "60s",
    "NBI_UPGRADE_AWAIT_RESULT__INITIAL": "1s",
    "NBI_UPGRADE_AWAIT_RESULT__MAX": "3s",
    "NBI_UPGRADE_CONNECTION_REQUEST__RESEND_INTERVAL": "9s",
}
# Folders of the machine that a service's own take the place of.
OVERLAID = {"program": ["/run", "/usr/local/bin"], "rabbitmq": ["/run", "/etc/rabbitmq"], "prometheus": ["/run", "/etc/prometheus"]}


def fail(text):
    sys.exit(f"composition: {text}")


class Service:
    def __init__(self, name, described, folder, number=None):
        self.name, self.described, self.number = name, described, number
        self.kind = name if name in OVERLAID else "program"
        self.folder = folder / (name if number is None else f"{name}-{number}")
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.process = None
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin", "HOME": "/run"}
        self.environment |= {key: str(value) for key, value in (described.get("environment") or {}).items()}

    def mounts(self):
        """What a container would have mounted, as pairs of source and target."""
        for volume in self.described.get("volumes", []):
            if volume["type"] == "bind":
                yield Path(volume["source"]), volume["target"]
        for secret in self.described.get("secrets", []):
            target = secret.get("target") or secret["source"]
            yield Path(SECRETS[secret["source"]]["file"]), target if target.startswith("/") else f"/run/secrets/{target}"

    def inside(self, command, user):
        """The words that run a command where the service lives."""
        lines = ["set -e", f"mount --bind {HOSTS} /etc/hosts"]
        lines += [f"mount -t tmpfs -o mode=755 none {folder}" for folder in OVERLAID[self.kind]]
        pairs = [*self.mounts()]
        if self.kind == "program":
            pairs.append((PROGRAM, "/usr/local/bin/nbi-upgrade"))
        for source, target in pairs:
            if not source.exists():
                fail(f"{self.name}: {source} is not there")
            make = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p {os.path.dirname(target)}; touch {target}"
            lines.append(f"{make}; mount --bind {source} {target}")
        if (self.folder / "data").exists():
            # Stands for the named volume: a mount of its own, which stays writable where the root does not.
            lines.append(f"mount --bind {self.folder}/data {self.folder}/data")
        if self.described.get("read_only"):
            lines += ["mount --rbind / /mnt", "mount -o remount,bind,ro /mnt", "cd /mnt", "exec chroot --userspec=%s /mnt \"$@\"" % user]
        else:
            lines.append(f"exec setpriv --reuid={user.split(':')[0]} --regid={user.split(':')[1]} --clear-groups \"$@\"")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh", *command]

    def run(self, command, user, **more):
        return subprocess.Popen(self.inside(command, user), env=self.environment, stdin=subprocess.DEVNULL, **more)

    def start(self):
        self.process = self.run(self.command(), self.user(), stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def user(self):
        return {"rabbitmq": "rabbitmq:rabbitmq", "prometheus": "nobody:nogroup", "program": "65532:65532"}[self.kind]

    def command(self):
        if self.kind == "rabbitmq":
            return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
        if self.kind == "prometheus":
            return ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        return ["/usr/local/bin/nbi-upgrade", *(self.described["command"] or BY_DEFAULT)]

    def healthy(self):
        test = self.described["healthcheck"]["test"]
        if test[0] != "CMD":
            fail(f"{self.name}: a health check without a shell begins with CMD")
        asked = self.run(test[1:], self.user(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return asked.wait() == 0

    def tail(self):
        return f"--- {self.folder.name}\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


def until(what, look, services):
    end = time.monotonic() + WITHIN
    while not (found := look()):
        for service in services:
            if service.process and service.process.poll() not in (None, 0):
                fail(f"{service.name} ended with {service.process.returncode}\n{service.tail()}")
        if time.monotonic() > end:
            fail(f"waited {WITHIN} s for: {what}\n" + "\n".join(one.tail() for one in services if one.process))
        time.sleep(0.3)
    return found


def prepare_rabbitmq(service, folder):
    """Debian's broker, told by its environment where to keep what it writes; what it reads is the composition's."""
    os.chmod(folder, 0o755)
    data = service.folder / "data"
    data.mkdir()
    subprocess.run(["chown", "-R", "rabbitmq:rabbitmq", service.folder], check=True)
    (service.folder / "env.conf").write_text("")
    service.environment |= {
        "HOME": str(data),
        # Before Debian's wrappers, which change the user and with it the cookie.
        "PATH": "/usr/lib/rabbitmq/bin:" + service.environment["PATH"],
        "RABBITMQ_NODENAME": "composition@localhost",
        "RABBITMQ_MNESIA_BASE": str(data),
        "RABBITMQ_LOG_BASE": str(data),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(service.folder / "env.conf"),
        "RABBITMQ_PID_FILE": str(data / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(service.folder / "plugins"),
        "RUNNING_UNDER_SYSTEMD": "true",
        "ERL_CRASH_DUMP": str(data / "erl_crash.dump"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
    }
    (service.folder / "plugins").write_text("[].\n")


def prepare_prometheus(service):
    """The composition's folder, with the one part exchanged that needs an engine's name server."""
    source = next(Path(volume["source"]) for volume in service.described["volumes"] if volume["type"] == "bind")
    copy = service.folder / "etc"
    subprocess.run(["cp", "-r", source, copy], check=True)
    text = (copy / "prometheus.yml").read_text()
    asked = "    dns_sd_configs:\n      - names: [worker]\n        type: A\n        port: 9464\n"
    told = "    static_configs:\n      - targets: [%s]\n" % ", ".join(f'"{address}:9464"' for address in WORKERS)
    if text.count(asked) != 1:
        fail("prometheus.yml finds the workers in another way than this check knows")
    (copy / "prometheus.yml").write_text(text.replace(asked, told))
    for volume in service.described["volumes"]:
        if volume["type"] == "bind":
            volume["source"] = str(copy)
    (service.folder / "data").mkdir()
    os.chmod(service.folder / "data", 0o777)


def ask(path):
    with urllib.request.urlopen(f"http://{ADDRESSES['prometheus']}:9090/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def value(query):
    result = ask("query?query=" + urllib.parse.quote(query))["result"]
    return float(result[0]["value"][1]) if result else None


def main():
    global SECRETS, HOSTS
    composition, folder = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    described, SECRETS = composition["services"], composition["secrets"]
    HOSTS = folder / "hosts"
    HOSTS.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    # Nothing is published to others than this machine.
    for name, service in described.items():
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                fail(f"{name} publishes {port} on more than loopback")
        for key in service.get("environment") or {}:
            if key.upper().endswith(("PASSWORD", "SECRET", "__URL")) and "NBI__URL" not in key:
                fail(f"{name}: {key} shows a secret; give a file")

    # Grafana does not run here; what it is given must at least be there, where it is told to look.
    given = {volume["target"]: Path(volume["source"]) for volume in described["grafana"]["volumes"] if volume["type"] == "bind"}
    told = {name: given[f"/etc/grafana/provisioning/{name}/nbi-upgrade.yml"].read_text() for name in ("datasources", "dashboards")}
    host = re.search(r"url: http://([a-z]+):9090$", told["datasources"], re.MULTILINE)
    if not host or host.group(1) not in described:
        fail("Grafana's datasource is not one of the services")
    folder_of_dashboards = re.search(r"path: (\S+)$", told["dashboards"], re.MULTILINE).group(1)
    dashboards = list(given[folder_of_dashboards].glob("*.json"))
    if not dashboards or not all(json.loads(one.read_text())["panels"] for one in dashboards):
        fail("Grafana gets no dashboards")

    running = {}

    def started(name):
        """Starts what a service needs, to the state in which it needs it, and then the service."""
        if name in running:
            return
        one = described[name]
        for other, wanted in (one.get("depends_on") or {}).items():
            started(other)
            for service in running[other]:
                if wanted["condition"] == "service_completed_successfully":
                    until(f"the end of {other}", lambda: service.process.poll() == 0, running[other])
                elif wanted["condition"] == "service_healthy":
                    until(f"{other} to be healthy", service.healthy, running[other])
                else:
                    fail(f"{name} does not wait for {other} to work")
        running[name] = []
        replicas = (one.get("deploy") or {}).get("replicas", 1)
        for number in range(replicas):
            service = Service(name, one, folder, number if replicas > 1 else None)
            if name == "rabbitmq":
                prepare_rabbitmq(service, folder)
            elif name == "prometheus":
                prepare_prometheus(service)
            elif name == "worker":
                service.environment |= FASTER
                service.environment["NBI_UPGRADE_HTTP__LISTEN"] = f"{WORKERS[number]}:9464"
                service.environment["NBI_UPGRADE_INSTANCE__NAME"] = f"worker-{number + 1}"
            elif name == "simulator":
                scale = one["command"].index("--time-scale") + 1
                one["command"][scale] = "0.01"
            service.start()
            running[name].append(service)
        print(f"started {name}", flush=True)

    if len(sys.argv) > 4:
        arguments = ["submit", "--cpe-id", sys.argv[4], "--firmware-url", "https://files.example/fw-2.bin"]
        described["load"]["command"] = [*arguments, "--wait", "--wait-timeout", "2m"]
        started("load")
        (load,) = running["load"]
        until(f"{sys.argv[4]} to be upgraded", lambda: load.process.poll() == 0, running["load"])
        stranger = Service("stranger", described["load"], folder)
        for key in ("CERT", "KEY"):
            del stranger.environment[f"NBI_UPGRADE_AMQP__CLIENT_{key}_FILE"]
        stranger.start()
        if stranger.process.wait(timeout=WITHIN) != 1 or "failed to connect to amqps:" not in stranger.log.read_text():
            fail(f"without a certificate: {stranger.process.returncode}\n{stranger.tail()}")
        print(f"{sys.argv[4]} is upgraded; without a certificate nobody is let in")
        return

    started("load")
    started("prometheus")
    (prometheus,) = running["prometheus"]
    everyone = [service for services in running.values() for service in services]
    (load,) = running["load"]
    fleet = sum(1 for _ in open(next(source for source, target in load.mounts() if target.endswith(".jsonl"))))
    # Some devices of a mixed fleet fail, and then the command says so by its status.
    end = time.monotonic() + WITHIN
    while load.process.poll() is None:
        if time.monotonic() > end:
            fail("the fleet does not end\n" + "\n".join(one.tail() for one in everyone))
        time.sleep(0.3)
    if load.process.returncode not in (0, 1):
        fail(f"load ended with {load.process.returncode}\n{load.tail()}")

    until("Prometheus to be healthy", prometheus.healthy, running["prometheus"])
    until("both workers in Prometheus", lambda: value('count(up{job="nbi-upgrade"} == 1)') == len(WORKERS), [])
    finished = "sum(nbi_upgrade_jobs_finished_total)"
    until(f"{fleet} outcomes in Prometheus", lambda: value(finished) == fleet, [])
    completed = value('sum(nbi_upgrade_jobs_finished_total{outcome="completed"})')
    if completed < 0.8 * fleet:
        fail(f"only {completed:.0f} of {fleet} devices completed\n{load.tail()}")
    if not all(value(f'sum(nbi_upgrade_jobs_finished_total{{instance="{one}:9464"}})') for one in WORKERS):
        fail("a worker did nothing")
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    wanted = any(Path(volume["source"]).joinpath("rules.yml").exists() for volume in described["prometheus"]["volumes"] if volume["type"] == "bind")
    if wanted != bool(rules) or any(rule["health"] == "err" for rule in rules):
        fail(f"rules: {rules}")
    summary = json.load(urllib.request.urlopen(f"http://{ADDRESSES['simulator']}:8080/sim/summary", timeout=10))
    if summary["armed_rules"] or summary["devices_flashed_twice"]:
        fail(f"left behind: {summary}")
    for service in running["worker"]:
        service.process.terminate()
    for service in running["worker"]:
        if service.process.wait(timeout=60) != 0:
            fail(f"a worker ended with {service.process.returncode} after SIGTERM\n{service.tail()}")
    print(f"{fleet} devices: {completed:.0f} completed, the rest failed as this fleet does; {len(rules)} rules loaded")


if __name__ == "__main__":
    main()
