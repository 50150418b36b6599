#!/usr/bin/env python3
"""Makes control/assets/world.txt, the shapes of the data map, out of Natural Earth's.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz   # Natural Earth 4.1 as TopoJSON
    apt-get install iso-codes                                     # codes by their numbers
    scripts/world.py package > control/assets/world.txt
"""

import json
import math
import sys

WIDTH = 2000
# Antarctica is not drawn; its point is at the lower edge.
SOUTH, NORTH = -58.0, 84.0
ISO = "/usr/share/iso-codes/json/iso_3166-1.json"
# Natural Earth draws these as parts of another country: by where a polygon is.
PARTS = [
    ("250", lambda lon, lat: -56 < lon < -50 and 0 < lat < 8, "GF"),
    ("250", lambda lon, lat: -62 < lon < -60.9 and 15.7 < lat < 16.6, "GP"),
    ("250", lambda lon, lat: -61.4 < lon < -60.7 and 14.2 < lat < 15, "MQ"),
    ("250", lambda lon, lat: 55 < lon < 56 and -22 < lat < -20, "RE"),
    ("250", lambda lon, lat: 44.5 < lon < 46 and -14 < lat < -12, "YT"),
    ("578", lambda lon, lat: 8 < lon < 35 and lat > 75, "SJ"),
    ("578", lambda lon, lat: lat < -54, "BV"),
    ("528", lambda lon, lat: -69 < lon < -62 and 12 < lat < 18, "BQ"),
]
# Where no set has a shape of its own: longitude and latitude.
POINTS = {
    "AQ": (0.0, SOUTH),
    "BV": (3.4, -54.4),
    "CC": (96.9, -12.2),
    "CX": (105.6, -10.5),
    "SJ": (16.0, 78.6),
    "TK": (-171.8, -9.2),
}


def project(lon, lat):
    """The Natural Earth projection (Tom Patterson, Bojan Savric), in units of the sphere."""
    l, p = math.radians(lon), math.radians(lat)
    p2 = p * p
    p4 = p2 * p2
    x = l * (0.8707 - 0.131979 * p2 + p4 * (-0.013791 + p4 * (0.003971 * p2 - 0.001529 * p4)))
    y = p * (1.007226 + p2 * (0.015085 + p4 * (-0.044475 + 0.028874 * p2 - 0.005916 * p4)))
    return x, y


SCALE = WIDTH / (2 * project(180, 0)[0])
TOP = project(0, NORTH)[1] * SCALE
HEIGHT = round(TOP - project(0, SOUTH)[1] * SCALE)


def placed(lon, lat):
    x, y = project(lon, lat)
    return round(x * SCALE + WIDTH / 2), round(TOP - y * SCALE)


def polygons(package, size):
    """The number of its country, or None, and the rings of every polygon of a set; the outer one first."""
    with open(f"{package}/countries-{size}.json", encoding="utf-8") as file:
        atlas = json.load(file)
    scale, move = atlas["transform"]["scale"], atlas["transform"]["translate"]
    arcs = []
    for arc in atlas["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x * scale[0] + move[0], y * scale[1] + move[1]))
        arcs.append(points)

    def ring(indices):
        points = []
        for index in indices:
            arc = arcs[index] if index >= 0 else arcs[~index][::-1]
            points += arc[1:] if points else arc
        return points

    for country in atlas["objects"]["countries"]["geometries"]:
        if country["type"] is None:
            continue
        parts = country["arcs"] if country["type"] == "MultiPolygon" else [country["arcs"]]
        for part in parts:
            outer, *holes = (cut(ring(indices)) for indices in part)
            # No hole lies across the meridian.
            for piece in outer:
                yield country.get("id"), [piece] + [hole for cut_hole in holes for hole in cut_hole]
                holes = []


def cut(ring):
    """A ring that crosses the 180th meridian as rings on either side of it."""
    unwound, turns = [], 0
    for lon, lat in ring:
        if unwound and abs(lon + turns - unwound[-1][0]) > 180:
            turns += 360 if lon + turns < unwound[-1][0] else -360
        unwound.append((lon + turns, lat))
    pieces = []
    for shift in (-360, 0, 360):
        piece = [(lon + shift, lat) for lon, lat in unwound]
        for sign in (1, -1):
            inside = []
            for a, b in zip(piece, piece[1:] + piece[:1]):
                a_in, b_in = sign * a[0] <= 180, sign * b[0] <= 180
                if a_in:
                    inside.append(a)
                if a_in != b_in:
                    t = (sign * 180 - a[0]) / (b[0] - a[0])
                    inside.append((sign * 180, a[1] + t * (b[1] - a[1])))
            piece = inside
        if len(piece) > 2:
            pieces.append(piece)
    return pieces


def area(ring):
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:] + ring[:1])) / 2


def distance(point, ring):
    """To the nearest edge; negative: outside."""
    px, py = point
    inside, nearest = False, math.inf
    for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1]):
        if (ay > py) != (by > py) and px < (bx - ax) * (py - ay) / (by - ay) + ax:
            inside = not inside
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        t = max(0, min(1, ((px - ax) * dx + (py - ay) * dy) / length)) if length else 0
        nearest = min(nearest, math.hypot(px - ax - t * dx, py - ay - t * dy))
    return nearest if inside else -nearest


def middle(ring):
    """The point of a ring that is farthest from its edges, on a grid of 24 × 24."""
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    grid = [
        (min(xs) + (max(xs) - min(xs)) * (i + 0.5) / 24, min(ys) + (max(ys) - min(ys)) * (j + 0.5) / 24)
        for i in range(24)
        for j in range(24)
    ]
    return max(grid, key=lambda point: distance(point, ring))


def code(number, ring, codes):
    lon, lat = (sum(axis) / len(ring) for axis in zip(*ring))
    for whole, is_part, part in PARTS:
        if number == whole and is_part(lon, lat):
            return part
    return codes.get(number)


def path(rings):
    """Relative whole steps: a map of this width shows no finer ones."""
    drawn = ""
    for ring in rings:
        points = []
        for lon, lat in ring:
            point = placed(lon, max(lat, SOUTH))
            if not points or points[-1] != point:
                points.append(point)
        if points and points[0] == points[-1]:
            points.pop()
        if len(points) < 3:
            continue
        steps = [points[0]] + [(b[0] - a[0], b[1] - a[1]) for a, b in zip(points, points[1:])]
        text = "".join(
            f"{' ' if index > 1 and x >= 0 else ''}{x}{'' if y < 0 else ' '}{y}{'l' if index == 0 else ''}"
            for index, (x, y) in enumerate(steps)
        )
        drawn += f"M{text}z"
    return drawn


def main(package):
    with open(ISO, encoding="utf-8") as file:
        codes = {entry["numeric"]: entry["alpha_2"] for entry in json.load(file)["3166-1"]}
    shapes, largest = {}, {}
    for size in ("110m", "50m", "10m"):
        found = {}
        for number, rings in polygons(package, size):
            alpha = code(number, rings[0], codes)
            if size == "110m" and alpha != "AQ":
                shapes[alpha] = shapes.get(alpha, "") + path(rings)
            if alpha and abs(area(rings[0])) > abs(area(found.get(alpha, [(0, 0)]))):
                found[alpha] = rings[0]
        for alpha, ring in found.items():
            largest.setdefault(alpha, ring)
    points = {alpha: placed(*middle(ring)) for alpha, ring in largest.items()}
    points.update({alpha: placed(*at) for alpha, at in POINTS.items()})
    missing = sorted(set(codes.values()) - set(points))
    if missing:
        sys.exit(f"no point for {', '.join(missing)}")
    print(f"{WIDTH} {HEIGHT}")
    for alpha in sorted(points):
        x, y = points[alpha]
        print(f"{alpha.lower()} {x} {y} {shapes.get(alpha, '-')}")
    print(f"- - - {shapes[None]}")


main(sys.argv[1])
