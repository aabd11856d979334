"""Draw the asset graph of the documentation from Dagster's own definitions.

    python docs/graph.py

writes ``docs/images/assets.svg``: one box per asset of the default settings, coloured by group. A
test compares the file with the definitions. Edges that others imply are left out.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import networkx as nx

IMAGE = Path(__file__).with_name("images") / "assets.svg"

WIDTH, HEIGHT = 168, 30  # of a box, in pixels of the drawing
COLUMN, ROW = 182, 58  # from one box to the next
MARGIN, LEGEND = 12, 34
#: Fill in the light and in the dark, one pair per group in the order of the flow.
FILLS = {
    "market": ("#dbe9fb", "#1f3a5f"),
    "features": ("#dcf1df", "#1f4a2c"),
    "networks": ("#fbe7cf", "#5a3d17"),
    "evidence": ("#eadffa", "#42306b"),
    "trading": ("#fadcdc", "#632a2a"),
}
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2128; }
rect { stroke: #57606a; stroke-width: .8; }
path { fill: none; stroke: #6e7781; stroke-width: 1.2; }
.page { fill: #ffffff; stroke: none; }
marker path { fill: #6e7781; stroke: none; }
"""


def assets() -> nx.DiGraph:
    """The graph of assets, each with its group."""
    from rnn_pipeline.definitions import defs

    graph = nx.DiGraph()
    for node in sorted(defs.resolve_asset_graph().asset_nodes, key=lambda each: each.key):
        name = node.key.to_user_string()
        graph.add_node(name, group=node.group_name)
        graph.add_edges_from((parent.to_user_string(), name) for parent in sorted(node.parent_keys))
    return graph


def routed(graph: nx.DiGraph) -> tuple[nx.DiGraph, dict[tuple[str, str], list[str]]]:
    """The graph with a bend in each row that an edge passes, and the way of every edge."""
    row = {name: at for at, names in enumerate(nx.topological_generations(graph)) for name in names}
    bent, ways = nx.DiGraph(), {}
    bent.add_nodes_from(graph)
    for start, end in sorted(graph.edges):
        bends = [f"{start} {end} {at}" for at in range(row[start] + 1, row[end])]
        ways[start, end] = [start, *bends, end]
        nx.add_path(bent, ways[start, end])
    return bent, ways


def placed(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """The middle of each box: a row below all that it needs, near its neighbours in the row."""
    rows = [sorted(names) for names in nx.topological_generations(graph)]
    widest = max(map(len, rows))
    place: dict[str, float] = {}

    def spread() -> None:
        for names in rows:
            place.update((name, (widest - len(names)) / 2 + at) for at, name in enumerate(names))

    spread()
    for sweep in range(12):
        beside = graph.pred if sweep % 2 == 0 else graph.succ
        for names in rows:
            near = {name: [place[other] for other in beside[name]] for name in names}
            names.sort(
                key=lambda name: sum(near[name]) / len(near[name]) if near[name] else place[name]
            )
        spread()
    return {
        name: (MARGIN + WIDTH / 2 + place[name] * COLUMN, MARGIN + LEGEND + HEIGHT / 2 + at * ROW)
        for at, names in enumerate(rows)
        for name in names
    }


def drawn(graph: nx.DiGraph) -> str:
    """The graph as an SVG that follows the reader's choice of light or dark."""
    bent, ways = routed(nx.transitive_reduction(graph))
    place = placed(bent)
    width = max(x for x, _ in place.values()) + WIDTH / 2 + MARGIN
    height = max(y for _, y in place.values()) + HEIGHT / 2 + MARGIN
    light, dark = (
        "".join(f".{group} {{ fill: {fills[shade]}; }} " for group, fills in FILLS.items())
        for shade in (0, 1)
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        ' role="img" aria-label="The asset graph">',
        f"<style>{_STYLE}{light}\n@media (prefers-color-scheme: dark) {{"
        f" text {{ fill: #e6edf3; }} .page {{ fill: #161b22; }} {dark}}}</style>",
        '<rect class="page" width="100%" height="100%" rx="8"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for number, group in enumerate(FILLS):
        x = MARGIN + number * 110
        parts.append(
            f'<rect class="{group}" x="{x}" y="{MARGIN - 8}" width="14" height="14" rx="3"/>'
            f'<text x="{x + 20}" y="{MARGIN + 3}">{group}</text>'
        )
    for way in ways.values():
        line = ""
        for before, after in pairwise(way):
            (x0, y0), (x1, y1) = place[before], place[after]
            y0 += HEIGHT / 2 if before == way[0] else 0
            y1 -= HEIGHT / 2 if after == way[-1] else 0
            middle = (y0 + y1) / 2
            line += f"M{x0:g} {y0:g}" if before == way[0] else ""
            line += f"C{x0:g} {middle:g} {x1:g} {middle:g} {x1:g} {y1:g}"
        parts.append(f'<path d="{line}" marker-end="url(#tip)"/>')
    for name in sorted(graph):
        (x, y), group = place[name], graph.nodes[name]["group"]
        parts.append(
            f'<rect class="{group}" x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}"'
            f' width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{x:g}" y="{y + 4.5:g}" text-anchor="middle">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    IMAGE.write_text(drawn(assets()))
    print(IMAGE)
