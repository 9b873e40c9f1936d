"""What tests/checks/helm looks at in rendered manifests.

helm.py split FILE FOLDER   one file for each object that Kubernetes itself knows; prints their names
helm.py pods FILE           complains about pods that could do more than they need, and about times that do not fit together
helm.py names FILE          complains about objects that have the name of another, or one that Kubernetes refuses
helm.py config FILE         prints the worker's configuration
"""

import re
import sys
from pathlib import Path

import yaml

# Groups of operators; tests/checks/helm-crds.mjs has their schemas.
CUSTOM = ("monitoring.coreos.com/", "keda.sh/")


def documents(path):
    return [one for one in yaml.safe_load_all(Path(path).read_text()) if one]


def pods(path):
    complaints, places = [], []
    for one in documents(path):
        template = one.get("spec", {}).get("template") if one["kind"] in ("Deployment", "Job") else None
        if not template:
            continue
        name, pod = f'{one["kind"]} {one["metadata"]["name"]}', template["spec"]

        def wants(what, is_so):
            if not is_so:
                complaints.append(f"{name}: {what}")

        security = pod.get("securityContext", {})
        wants("runAsNonRoot", security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0)
        wants("seccompProfile", security.get("seccompProfile", {}).get("type") == "RuntimeDefault")
        wants("no token of Kubernetes", pod.get("automountServiceAccountToken") is False)
        for host in ("hostNetwork", "hostPID", "hostIPC"):
            wants(f"no {host}", not pod.get(host))
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            wants("readOnlyRootFilesystem", own.get("readOnlyRootFilesystem") is True)
            wants("allowPrivilegeEscalation off", own.get("allowPrivilegeEscalation") is False)
            wants("no capability", own.get("capabilities") == {"drop": ["ALL"]})
            wants("not privileged", not own.get("privileged"))
            wants("a memory limit", "memory" in container.get("resources", {}).get("limits", {}))
            wants("a fixed image", not container["image"].endswith(":latest") and re.search("[:@]", container["image"]))
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            wants("every volume mounted, read-only", mounted == {volume["name"] for volume in pod["volumes"]}
                  and all(mount.get("readOnly") for mount in container["volumeMounts"]))
        # The user who declares has a Secret of its own, with its broker URL alone.
        (secrets,) = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        given = {item["path"]: source["secret"]["name"] for source in secrets["sources"] for item in source["secret"]["items"]}
        wants("amqp-url and nbi-password", given.keys() == {"amqp-url", "nbi-password"})
        wants("broker URL of another user than the workers'",
              (given["amqp-url"] == given["nbi-password"]) == (one["kind"] == "Deployment"))
        places.append({key: pod.get(key) for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName")})
        wants("the same places as other pods", places[0] == places[-1])
        if one["kind"] == "Deployment":
            wants("no worker taken away before another is ready",
                  one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1})
            grace = int(re.search(r'grace = "(\d+)s"', config(path)).group(1))
            wants(f"terminationGracePeriodSeconds longer than shutdown.grace ({grace} s)",
                  pod["terminationGracePeriodSeconds"] >= grace + 5)
            wants("spread", pod.get("topologySpreadConstraints"))
            container = pod["containers"][0]
            for probe, page in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/livez")):
                wants(probe, container.get(probe, {}).get("httpGet") == {"path": page, "port": "http"})
            selected = one["spec"]["selector"]["matchLabels"].items()
            wants("selector", selected <= template["metadata"]["labels"].items())
    return complaints


def names(path):
    complaints, seen = [], set()
    for one in documents(path):
        name = one["kind"], one["metadata"]["name"]
        longest = 253 if one["kind"] in ("ConfigMap", "Secret", "Deployment") else 63
        if name in seen or len(name[1]) > longest:
            complaints.append(f"{name[0]} {name[1]}: there twice, or longer than {longest}")
        seen.add(name)
    return complaints


def config(path):
    (one,) = [one for one in documents(path) if one["kind"] == "ConfigMap" and "nbi-upgrade.toml" in one["data"]]
    return one["data"]["nbi-upgrade.toml"]


def split(path, folder):
    Path(folder).mkdir()
    for number, one in enumerate(documents(path)):
        if not one["apiVersion"].startswith(CUSTOM):
            file = Path(folder) / f'{number}-{one["kind"]}.yaml'
            file.write_text(yaml.safe_dump(one))
            print(file)


if __name__ == "__main__":
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "pods":
        sys.exit("\n".join(pods(*arguments)) or 0)
    elif what == "names":
        sys.exit("\n".join(names(*arguments)) or 0)
    elif what == "config":
        print(config(*arguments))
    else:
        split(*arguments)
