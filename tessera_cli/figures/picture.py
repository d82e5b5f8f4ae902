"""A figure that was drawn, as SVG for a page of ours and as PNG. The same figure gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from tessera_cli.figures.style import ROLES, plain, style

DPI = 200
_ROLE_OF = {value: name for name, value in ROLES.items()}
_REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure."""

    title: str
    """What it shows, for those who do not see it."""
    figure: Any
    """matplotlib Figure."""

    @classmethod
    def of(cls, title: str, figure: Any) -> Picture:
        """Return a figure with its parts in their places for good: laid out again, they would move by a hair."""
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return cls(title, figure)

    def png(self) -> bytes:
        """Return it on white."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        with style():
            FigureCanvasAgg(self.figure)
            data = io.BytesIO()
            self.figure.savefig(data, format="png", dpi=DPI, facecolor=ROLES["card"], metadata={"Software": None})
        return data.getvalue()

    def svg(self) -> str:
        """Return it as an element of an HTML page, transparent, in the theme's colours of the page around it."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        salt = "f" + hashlib.sha256(self.title.encode(errors="backslashreplace")).hexdigest()[:12]
        with style(**{"svg.hashsalt": salt}):
            FigureCanvasSVG(self.figure)
            data = io.StringIO()
            self.figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
        return _within_a_page(data.getvalue(), self.title, salt)


def _within_a_page(document: str, title: str, salt: str) -> str:
    """Return the element alone: colours by name, no style sheet, and of identifiers those that it uses itself."""
    root = ElementTree.fromstring(document)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": plain(title, 200),
        "style": "stroke-linejoin: round; overflow: visible",
    }
    used = set(_REFERENCE.findall(document))
    for parent in root.iter():
        parent.tag = _local(parent.tag)
        for child in [each for each in parent if _local(each.tag) in ("metadata", "style")]:
            parent.remove(child)
        attributes = {_local(key): value for key, value in parent.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        else:  # several figures stand in one page: identifiers are theirs by the salt
            attributes["id"] = f"{salt}-{attributes['id']}"
        parent.attrib = {key: _rewritten(key, value, salt) for key, value in attributes.items()}
    return ElementTree.tostring(root, encoding="unicode")


def _rewritten(key: str, value: str, salt: str) -> str:
    if key in ("href", "clip-path"):
        return re.sub(r"^(url\(#|#)", rf"\g<1>{salt}-", value)
    if key in ("style", "fill", "stroke"):
        value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _named(found[0]), value)
        return value.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    return value


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _named(colour: str) -> str:
    name = _ROLE_OF.get(colour)
    return colour if name is None else f"var(--{name})"
