"""A whole HTML page in one string: it asks no host for anything, and looks the same in all that we write."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path

THEME = Path(__file__).with_name("theme.css").read_text(encoding="utf-8")
"""Colours in light and dark, type, and the list of facts below a title."""


def document(title: str, style: str, body: str, *, script: str = "") -> str:
    """Return a page.

    Args:
        title: Plain text; it is escaped here.
        style: CSS that follows the theme.
        body: HTML, with what others have written escaped.
        script: JavaScript. A page with one has a policy by which nothing but this script runs, whatever text of others
            stands in the body, and nothing but pictures within the page is loaded.
    """
    style = THEME + style
    policy = "" if not script else f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}"/>\n'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>{policy}<title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"/><meta name="color-scheme" content="light dark"/>'
        f"<style>{style}</style></head><body>\n{body}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body></html>\n"
    )


def facts(entries: Mapping[str, object]) -> str:
    """Return names and values as a list, escaped."""
    lines = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in entries.items())
    return f"<dl>{''.join(lines)}</dl>\n"


def _policy(style: str, script: str) -> str:
    allowed = {"script-src": _hash(script), "style-src": _hash(style), "img-src": "data:"}
    listed = "; ".join(f"{kind} {source}" for kind, source in allowed.items())
    return f"default-src 'none'; {listed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
