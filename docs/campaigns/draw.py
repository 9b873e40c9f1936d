"""Draws the simulated campaigns: starts a minute, devices in flight and what has finished, each over time."""

import csv
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams.update({"font.size": 9})

import matplotlib.dates as dates  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402

BERLIN = ZoneInfo("Europe/Berlin")


def read(path):
    """The rows of a story, and a row of no starts for every minute in which nothing was seen."""
    with path.open() as file:
        rows = [{key: value for key, value in row.items()} for row in csv.DictReader(file)]
    filled = []
    for row in rows:
        now = {
            "time": datetime.fromisoformat(row["time"].replace("Z", "+00:00")).astimezone(BERLIN),
            **{name: int(row[name]) for name in ("starts", "in_flight", "waiting", "finished", "failed")},
        }
        filled.append(now)
    return filled


def draw(rows, title, path, windows=()):
    """Three panels above one axis of time."""
    times = [row["time"] for row in rows]
    figure, panels = plt.subplots(3, 1, sharex=True, figsize=(9, 6.2), height_ratios=(2, 2, 3))
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        for begin, end in windows:
            panel.axvspan(begin, end, color="#f3e9c6", linewidth=0, zorder=0)
    panels[0].fill_between(times, [row["starts"] for row in rows], step="mid", color="#1f77b4", linewidth=0)
    panels[0].set_ylabel("starts a minute")
    panels[1].plot(times, [row["in_flight"] for row in rows], color="#9467bd", linewidth=1)
    panels[1].set_ylabel("in flight")
    failed = [row["failed"] for row in rows]
    completed = [row["finished"] - row["failed"] for row in rows]
    waiting = [row["waiting"] for row in rows]
    panels[2].stackplot(times, failed, completed, labels=("failed", "completed"), colors=("#d62728", "#2ca02c"))
    panels[2].plot(times, waiting, color="black", linewidth=1, label="waiting")
    panels[2].set_ylabel("devices")
    panels[2].legend(loc="center left", frameon=False)
    panels[2].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for panel in panels:
        panel.set_ylim(bottom=0)
    locator = dates.AutoDateLocator(tz=BERLIN)
    panels[2].xaxis.set_major_locator(locator)
    panels[2].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=BERLIN))
    panels[0].set_title(title, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main():
    """Draws every story."""
    data, pictures = Path(sys.argv[1]), Path(sys.argv[2])
    nights = [
        (datetime(2026, 10, day, 1, tzinfo=BERLIN), datetime(2026, 10, day, 5, tzinfo=BERLIN)) for day in range(23, 27)
    ]
    draw(
        read(data / "nights.csv"),
        "100,000 devices, 120 starts a minute, 01:00–05:00 Europe/Berlin; clocks go back on the third night",
        pictures / "nights.png",
        nights,
    )
    draw(
        read(data / "ramp.csv"),
        "100,000 devices, 60 starts a minute, growing by half after every 500 successes up to 900",
        pictures / "ramp.png",
    )
    draw(
        read(data / "bad-image.csv")[:300],
        "100,000 devices, a bad image: paused by its abort criterion, repaired, resumed; the first hours",
        pictures / "bad-image.png",
    )


main()
