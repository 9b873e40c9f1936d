"""Grafana's public lint rules for dashboards (grafana/dashboard-linter), applied to deploy/grafana/*.json.

Written anew from their documentation, as the linter cannot be installed everywhere. That each query is valid PromQL and returns
data is seen on a real Prometheus (tests/it/observe); here is what that cannot see. Exceptions stand in EXCEPTIONS, with reasons.
"""

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana"

# The units of Grafana that we use; a misspelt one would be shown as text behind each number.
UNITS = {"none", "short", "percentunit", "s", "bytes", "reqps", "ops", "cpm"}

# Rule, what it is found in, why it may stand.
EXCEPTIONS = [
    ("target-job-rule", "Alerts", "an alert is of the fleet; it has no job"),
    ("target-instance-rule", "Alerts", "an alert is of the fleet; it has no instance"),
    ("template-instance-rule", "allValue", "all instances are those with the chosen prefix, not all that there are"),
]

used = set()


def is_excepted(rule, text):
    for exception in EXCEPTIONS:
        if exception[0] == rule and exception[1] in text:
            used.add(exception)
            return True
    return False


def selectors(query):
    """Name and labels of every series in a query; strings are told from code."""
    words = {"by", "on", "or", "and", "unless", "group_left", "offset", "without", "ignoring"}
    for match in re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\}|\(|)", bare(query)):
        name, rest = match.groups()
        if name not in words and rest.startswith("{"):
            yield name, query[match.start(2):match.end(2)], match.start(), match.end()


def bare(query):
    """The query with the text in quotes blanked out, so that braces and brackets in it do not count."""
    return re.sub(r'"[^"]*"', lambda text: '"' + "_" * (len(text.group()) - 2) + '"', query)


def check(path):
    complaints = []

    def complain(rule, text):
        if not is_excepted(rule, text):
            complaints.append(f"{path.name}: {rule}: {text}")

    board = json.loads(path.read_text())
    if board.get("editable") is not False:
        complain("uneditable-dashboard", "editable must be false: what is changed by hand is lost")
    for key in ("uid", "title", "description", "tags"):
        if not board.get(key):
            complain("dashboard", f"has no {key}")
    if len(board["uid"]) > 40:
        complain("dashboard", "the uid is longer than Grafana's 40 characters")

    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    sources = [variable for variable in variables.values() if variable["type"] == "datasource"]
    if [(source["name"], source["label"], source["query"]) for source in sources] != [("datasource", "Data source", "prometheus")]:
        complain("template-datasource-rule", "there must be one variable datasource, labelled Data source, of type prometheus")
    for name, variable in variables.items():
        if variable["type"] == "datasource":
            continue
        rule = "template-job-rule" if name == "job" else "template-instance-rule"
        if variable["datasource"]["uid"] not in ("$datasource", "${datasource}"):
            complain(rule, f"{name} does not use the data source variable")
        if variable["type"] != "query" or variable["label"] != name.capitalize():
            complain(rule, f"{name} must be a query, labelled {name.capitalize()}")
        if not variable.get("multi") or not variable.get("includeAll"):
            complain(rule, f"{name} must allow several and all")
        if variable.get("allValue") != ".+":
            complain(rule, f"allValue of {name} must be .+")
        if variable.get("refresh") != 2:
            complain("template-on-time-change-reload-rule", f"{name} must reload when the time range changes")
        if not re.fullmatch(r"label_values\([a-zA-Z_:]+(\{.*\})?, [a-z_]+\)", variable["definition"]):
            complain("template-label-promql-rule", f"{name}: {variable['definition']}")
    for name in ("job", "instance", "prefix"):
        if name not in variables:
            complain(f"template-{name}-rule", f"there is no variable {name}")

    ids, places, titles = set(), [], set()
    for panel in board["panels"]:
        title = panel.get("title", "")
        if panel["id"] in ids:
            complain("panel", f"{title}: the id {panel['id']} is taken")
        ids.add(panel["id"])
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            complain("panel", f"{title} stands over the edge")
        for other, other_title in places:
            if (place["x"] < other["x"] + other["w"] and other["x"] < place["x"] + place["w"]
                    and place["y"] < other["y"] + other["h"] and other["y"] < place["y"] + place["h"]):
                complain("panel", f"{title} covers {other_title}")
        places.append((place, title))
        if panel["type"] == "row":
            continue
        if not title or not panel.get("description"):
            complain("panel-title-description-rule", f"panel {panel['id']} {title} needs a title and a description")
        if title in titles:
            complain("panel-title-description-rule", f"two panels are called {title}")
        titles.add(title)
        if panel["datasource"]["uid"] not in ("$datasource", "${datasource}"):
            complain("panel-datasource-rule", title)
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            complain("panel-units-rule", f"{title}: {panel['fieldConfig']['defaults'].get('unit')}")
        if not panel["targets"]:
            complain("panel-no-targets-rule", title)
        letters = [target["refId"] for target in panel["targets"]]
        if len(set(letters)) != len(letters):
            complain("panel", f"{title}: a refId is there twice")
        for target in panel["targets"]:
            query = target["expr"]
            text = f"{title}: {query}"
            found = list(selectors(query))
            if not found:
                complain("target-promql-rule", f"{text} selects nothing")
            if not target["legendFormat"] or target["legendFormat"] == "__auto":
                complain("target-legend", text)
            for name, labels, begin, end in found:
                for label in ("job", "instance"):
                    if f'{label}=~"${label}"' not in labels:
                        complain(f"target-{label}-rule", text)
                before = re.search(r"([a-z_]+)\($", query[:begin])
                function = before.group(1) if before else ""
                is_ranged = query[end:].startswith("[")
                if re.search(r"_(total|count|sum|bucket)$", name) and not (
                        is_ranged and function in ("rate", "irate", "increase")):
                    complain("target-counter-agg-rule", text)
                if is_ranged and function in ("rate", "irate") and not query[end:].startswith("[$__rate_interval]"):
                    complain("target-rate-interval-rule", text)
                if name.endswith("_bucket") and "histogram_quantile" in query and "le" not in query:
                    complain("target-histogram-rule", text)
    for mark in board["annotations"]["list"]:
        if mark["datasource"]["uid"] not in ("$datasource", "${datasource}"):
            complain("panel-datasource-rule", f"the annotation {mark['name']}")
    if not {"Deploys", "Circuit opens", "Circuit closes"} <= {mark["name"] for mark in board["annotations"]["list"]}:
        complain("annotations", "deploys and changes of the circuit must be marked")
    return complaints


def main():
    paths = sorted(FOLDER.glob("*.json"))
    if not paths:
        sys.exit(f"no dashboards in {FOLDER}")
    complaints = [complaint for path in paths for complaint in check(path)]
    for path in paths:
        board = json.loads(path.read_text())
        print(f"{path.name}: {sum(panel['type'] != 'row' for panel in board['panels'])} panels")
    unused = [exception for exception in EXCEPTIONS if exception not in used]
    complaints += [f"the exception {exception[:2]} is not needed" for exception in unused]
    print("\n".join(complaints))
    sys.exit(1 if complaints else 0)


main()
