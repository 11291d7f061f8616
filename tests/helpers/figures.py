"""What a picture shows: its texts and where they stand."""

import re
from xml.etree import ElementTree


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text for element in parsed(svg).iter("{http://www.w3.org/2000/svg}text")]


def boxes(svg: str) -> list[tuple[str, float, float, float, float]]:
    """Left, right, top and bottom of each level text, with characters as wide as those of common fonts are."""
    found = []
    for element in parsed(svg).iter("{http://www.w3.org/2000/svg}text"):
        if "rotate(-90" not in element.get("transform"):
            x, y = float(element.get("x")), float(element.get("y"))
            size = float(re.search(r"font-size: ([\d.]+)px", element.get("style"))[1])
            width = 0.5 * size * len(element.text)
            anchor = re.search(r"text-anchor: (\w+)", element.get("style"))[1]
            left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            found.append((element.text, left, left + width, y - 0.7 * size, y))
    return found
