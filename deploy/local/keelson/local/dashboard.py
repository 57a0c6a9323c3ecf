"""The Grafana dashboard, as code: drawn from `panels`; `make docs` writes it as JSON."""

from pathlib import Path
from typing import Any

import msgspec

from keelson.local.panels import SECTIONS, Panel

DASHBOARD = Path(__file__).parents[4] / "deploy" / "grafana" / "dashboards" / "keelson.json"

# As deploy/grafana/provisioning names it.
DATASOURCE = {"type": "prometheus", "uid": "keelson"}

# Of the grid's 24 columns, and in its rows.
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 7


def dashboard_text() -> str:
    """Give the dashboard's JSON as it is committed."""
    document = {
        "uid": "keelson",
        "title": "Keelson",
        "description": "Generated from deploy/local/keelson/local/dashboard.py by `make docs`; not edited by hand.",
        "tags": ["keelson"],
        "editable": False,
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": _placed(),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _placed() -> list[dict[str, Any]]:
    """Give all panels, each section under a heading, from left to right and from top to bottom."""
    placed: list[dict[str, Any]] = []
    top = 0
    for title, panels in SECTIONS.items():
        heading = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        placed.append({"id": len(placed) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": heading})
        top += 1
        for number, panel in enumerate(panels):
            line, column = divmod(number, _COLUMNS // _WIDTH)
            place = {"x": column * _WIDTH, "y": top + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            placed.append({"id": len(placed) + 1, **_drawn(panel), "gridPos": place})
        top += -(-len(panels) // (_COLUMNS // _WIDTH)) * _HEIGHT
    return placed


def _drawn(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": line.expression,
            "legendFormat": line.legend,
        }
        for number, line in enumerate(panel.lines)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.question,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }
