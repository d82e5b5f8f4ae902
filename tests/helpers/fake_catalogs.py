"""Catalogues on loopback: a STAC API that pages as Earth Search and pgstac do, and a CMR; both misbehave as told."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import shapely

PAGE = b"<!DOCTYPE html><html><body>Service temporarily unavailable</body></html>"
CONCEPT = "C2777436413-ASF"


@dataclass(frozen=True)
class Asked:
    """One question to a catalogue."""

    method: str
    path: str
    fields: Mapping[str, Any]
    """Of the query or of the JSON body."""
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] | None = None
    cut: bool = False
    """Half of the body, with the length of the whole."""


Mischief = Callable[[int, Asked], Reply | None]
"""Number of the search (from 1) and what it asks -> what is answered in place of the truth; None: the truth."""


def honest(nth: int, asked: Asked) -> None:
    return None


def first(times: int, reply: Reply) -> Mischief:
    return lambda nth, asked: reply if nth <= times else None


def always(reply: Reply) -> Mischief:
    return lambda nth, asked: reply


class Catalogue(ThreadingHTTPServer):
    """Answers by `answer`; `asked` lists the searches."""

    daemon_threads = True

    def __init__(self, mischief: Mischief = honest) -> None:
        self.mischief, self.asked, self._lock = mischief, [], threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reply(self, asked: Asked) -> Reply:
        if not self.is_search(asked):
            return self.answer(asked)
        with self._lock:
            self.asked.append(asked)
            nth = len(self.asked)
        return self.mischief(nth, asked) or self.answer(asked)

    def is_search(self, asked: Asked) -> bool:
        raise NotImplementedError

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Catalogue
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.respond("GET", {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.respond("POST", json.loads(body) if body else {})

    def respond(self, method, fields):
        reply = self.server.reply(Asked(method, urlsplit(self.path).path, fields, dict(self.headers.items())))
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **(reply.headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
        self.close_connection = self.close_connection or reply.cut


class Api(Catalogue):
    """A STAC API: newest first, pages by token; it compares longitudes as numbers, as PostGIS does.

    `longest`: beyond so many items a page is answered with 502. `told`: number of matches -> what each page says of it.
    `documents`: further paths -> JSON; `/collections/ID/items` are searches of one collection.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        mischief: Mischief = honest,
        *,
        page: int = 2,
        longest: int | None = None,
        too_long: int = 502,
        landing: Reply | None = None,
        method: str = "POST",
        told: Callable[[int], Mapping[str, Any]] = lambda matched: {},
        documents: Mapping[str, Any] | None = None,
    ) -> None:
        def latest_reprocessing(item):
            return (item["properties"].get("datetime") or item["properties"]["start_datetime"], item["id"])

        self.items = sorted(items, key=latest_reprocessing, reverse=True)
        self.page, self.longest, self.too_long, self.landing, self.method = page, longest, too_long, landing, method
        self.told, self.documents = told, documents or {}
        super().__init__(mischief)

    def is_search(self, asked):
        return asked.path.endswith(("/search", "/items"))

    def answer(self, asked):
        if asked.path in self.documents:
            content = self.documents[asked.path]
            return content if isinstance(content, Reply) else Reply(200, json.dumps(content).encode())
        if not self.is_search(asked):
            core = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
            link = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json"}
            if self.method == "POST":
                link["method"] = "POST"
            root = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "x", "conformsTo": core}
            return self.landing or Reply(200, json.dumps({**root, "links": [link]}).encode())
        fields = dict(asked.fields)
        bbox, collections = fields.get("bbox", [-999, -90, 999, 90]), fields.get("collections")
        if asked.method == "GET" and "bbox" in fields:
            bbox = [float(number) for number in bbox.split(",")]
        if asked.method == "GET" and "collections" in fields:
            collections = collections.split(",")
        if asked.path.endswith("/items"):
            collections = [asked.path.split("/")[-2]]
        start, end = fields.get("datetime", "0000/9999").split("/")
        hits = [
            item
            for item in self.items
            if (collections is None or item["collection"] in collections)
            and _touches(item, bbox)
            and _within(item["properties"], start, end)
        ]
        size = min(int(fields.get("limit", 10)), self.page)
        if self.longest is not None and size > self.longest:
            return Reply(self.too_long, b"Bad gateway")
        first = int(fields.get("token", 0))
        onwards = []
        if first + size < len(hits):
            token = {**fields, "token": first + size}
            if asked.method == "GET":
                query = "&".join(f"{key}={value}" for key, value in token.items())
                onwards = [{"rel": "next", "method": "GET", "href": f"{self.url}{asked.path}?{query}"}]
            else:
                onwards = [{"rel": "next", "method": "POST", "href": f"{self.url}/search", "body": token}]
        onwards += [{"rel": "prev", "href": f"{self.url}{asked.path}"}] * (first > 0)
        page = {"type": "FeatureCollection", "features": hits[first : first + size], "links": onwards}
        page |= self.told(len(hits))
        return Reply(200, json.dumps(page).encode())


def _touches(item, bbox):
    return shapely.geometry.shape(item["geometry"]).intersects(shapely.box(*bbox))


def _within(properties, start, end):
    first = properties.get("datetime") or properties["start_datetime"]
    last = properties.get("datetime") or properties["end_datetime"]
    return first <= end and last >= start


def granule(
    title: str, start: str, end: str, outline: shapely.Polygon, assets: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """As CMR lists one; `assets`: ending of a file's name -> its address."""
    ring = " ".join(f"{lat} {lon}" for lon, lat in outline.exterior.coords)
    rel = "http://esipfed.org/ns/fedsearch/1.1"
    return {
        "id": f"G{abs(hash(title))}-ASF",
        "title": title,
        "producer_granule_id": title,
        "time_start": start,
        "time_end": end,
        "updated": "2023-12-01T00:00:00.000Z",
        "collection_concept_id": CONCEPT,
        "polygons": [[ring]],
        "dataset_id": "OPERA Radiometric Terrain Corrected SAR Backscatter (Version 1)",
        "links": [
            *({"rel": f"{rel}/data#", "href": href, "hreflang": "en-US"} for href in assets.values()),
            {"rel": f"{rel}/metadata#", "href": "https://asf.alaska.edu/about_VV.tif", "inherited": True},
        ],
        **more,
    }


class Cmr(Catalogue):
    """A granule search that pages by CMR-Search-After, as CMR does: also after a last page that happens to be full."""

    def __init__(self, granules: Sequence[Mapping[str, Any]], mischief: Mischief = honest) -> None:
        self.granules = sorted(granules, key=lambda entry: entry["time_start"])
        super().__init__(mischief)

    def is_search(self, asked):
        return asked.path == "/search/granules.json"

    def answer(self, asked):
        if not self.is_search(asked):
            return Reply(404, b'{"errors": ["no such path"]}')
        fields = asked.fields
        if "page_num" in fields and "CMR-Search-After" in asked.headers:
            return Reply(400, b'{"errors": ["page_num is not allowed with search-after"]}')
        start, end = fields["temporal"].split(",")
        area = shapely.box(*(float(number) for number in fields["bounding_box"].split(",")))
        hits = [
            entry
            for entry in self.granules
            if fields["collection_concept_id"] == CONCEPT
            and entry["time_start"] <= end
            and entry["time_end"] >= start
            and _outline(entry).intersects(area)
        ]
        after = json.loads(asked.headers.get("CMR-Search-After", '["", 0]'))[1]
        page = hits[after : after + int(fields["page_size"])]
        headers = {"CMR-Hits": str(len(hits))}
        if page:
            headers["CMR-Search-After"] = json.dumps([page[-1]["time_start"], after + len(page)])
        feed = {"feed": {"updated": "2024-01-01T00:00:00.000Z", "id": "x", "title": "granules", "entry": page}}
        return Reply(200, json.dumps(feed).encode(), headers)


def _outline(entry):
    numbers = [float(number) for number in entry["polygons"][0][0].split()]
    return shapely.Polygon(list(zip(numbers[1::2], numbers[0::2], strict=True)))


def jwt(seconds: float, **more: Any) -> str:
    """A JSON Web Token, as Earthdata Login issues them, that ends in so many seconds."""
    parts = ({"typ": "JWT", "alg": "RS256"}, {"type": "User", "uid": "me", "exp": int(time.time() + seconds), **more})
    coded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*coded, "c2lnbmF0dXJl"])
