"""A scene: one STAC item, reduced to what reading its pixels takes."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from tessera_cli.catalog.hrefs import REFUSED, SIGNED, cleared, unreadable, used
from tessera_cli.catalog.items import MALFORMED, checked
from tessera_cli.catalog.sources import Source

NOT_STAC = "not a STAC item"
"""What the reason begins with of items that are malformed, rather than of no use."""
POLARISATIONS = ("VV", "VH", "HH", "HV")
KEPT_FIELDS = ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "properties")
KEPT_ASSET_FIELDS = frozenset(
    {
        *("href", "type", "roles", "gsd", "raster:bands", "nodata", "data_type"),
        *("file:size", "file:checksum", REFUSED, SIGNED),
    }
)


NO_SHAPE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, shapely.errors.ShapelyError)
"""What shapely and we raise of coordinates that are none."""


class Sensor(StrEnum):
    """Sensor of a scene: Sentinel-2, or Sentinel-1 with its orbit direction, which some items do not state."""

    S2 = "s2"
    S1_ASC = "s1_asc"
    S1_DESC = "s1_desc"
    S1 = "s1"


class SkippedItem(Exception):  # noqa: N818 - not an error: normal input that is skipped and counted
    """Raised with the reason why an item is skipped."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One STAC item. Equal ids are equal scenes."""

    item: Mapping[str, Any]
    """The pruned item; hrefs are absolute and unsigned."""
    sensor: Sensor
    missing: tuple[str, ...]
    """Asset keys that every scene of the collection has and that are not listed here, or lie where we cannot read."""
    signatures: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Unsigned href -> the query it came with. Secret: never logged, never written."""

    @classmethod
    def from_item(cls, item: Mapping[str, Any], source: Source) -> Scene:
        """Return the scene of an item; SkippedItem with the reason if a valid item holds nothing usable."""
        item = checked(item)
        if why := item.get(MALFORMED):
            raise SkippedItem(f"{NOT_STAC} ({why})")
        collection, properties = item["collection"], item["properties"]
        assets, signatures = used(item["assets"], (*source.s2_assets.values(), *source.s1_assets.values()))
        if collection == source.s2_collection:
            sensor, wanted = Sensor.S2, tuple(source.s2_assets.values())
            cover = _number(properties.get("eo:cloud_cover"))
            if cover is None:
                raise SkippedItem("without eo:cloud_cover")
            if not cover < source.max_cloud:
                raise SkippedItem("cloud cover")
        elif collection == source.s1_collection:
            wanted = tuple(source.s1_assets.values())
            if not all(key in assets for key in wanted):
                has = ", ".join(sorted(key.upper() for key in item["assets"] if key.upper() in POLARISATIONS))
                raise SkippedItem(f"without both VV and VH{f' (has {has})' if has else ''}")
            orbit = str(properties.get("sat:orbit_state", "")).lower()
            if source.granules:
                sensor = Sensor.S1
            elif orbit not in ("ascending", "descending"):
                raise SkippedItem("without orbit direction")
            else:
                sensor = Sensor.S1_ASC if orbit == "ascending" else Sensor.S1_DESC
        else:
            raise SkippedItem(f"collection {collection}" if collection else "without a collection")
        if utc_time(_timestamp(properties)) is None:
            raise SkippedItem("without a readable datetime")
        missing = tuple(key for key in wanted if key not in assets or unreadable(assets[key]))
        return cls(_prune({**item, "assets": assets}, wanted), sensor, missing, signatures)

    @property
    def id(self) -> str:
        return str(self.item["id"])

    @property
    def collection(self) -> str:
        return str(self.item["collection"])

    @property
    def defect(self) -> str | None:
        """Return why the scene cannot be read, as far as its item tells; else None."""
        unlisted = [key for key in self.missing if key not in self.item["assets"]]
        closed = [key for key in self.missing if key in self.item["assets"]]
        told = [f"asset {', '.join(unlisted)} is not listed"] if unlisted else []
        if closed:
            told.append(f"asset {', '.join(closed)} {unreadable(self.item['assets'][closed[0]])}")
        return "; ".join(told) or None

    @property
    def signed(self) -> bool:
        """Return whether a file of the scene wants a signature that only the catalogue has."""
        return any(asset.get(SIGNED) for asset in self.item["assets"].values())

    @property
    def timestamp(self) -> str:
        """Return the datetime as the catalogue spells it: overlaps are decided by the order of these strings."""
        return _timestamp(self.item["properties"])

    @functools.cached_property
    def time(self) -> dt.datetime:
        time = utc_time(self.timestamp)
        assert time is not None  # from_item has seen to it
        return time

    @functools.cached_property
    def date(self) -> dt.date:
        """Return the UTC date, by which frames are grouped (never the solar day)."""
        return self.time.date()

    @property
    def cloud_cover(self) -> float | None:
        return _number(self.item["properties"].get("eo:cloud_cover"))

    @property
    def baseline(self) -> str | None:
        """Return the processing baseline of Sentinel-2, such as 05.09."""
        return self.item["properties"].get("s2:processing_baseline")

    @functools.cached_property
    def footprint(self) -> BaseGeometry | None:
        """Return the footprint in degrees; None if the item has neither geometry nor bbox."""
        return footprint_of(self.item)


def utc_time(text: str | None) -> dt.datetime | None:
    """Return a STAC datetime, taken as UTC if it has no zone; None if it is absent or unreadable."""
    try:
        time = dt.datetime.fromisoformat(str(text))
        return time.astimezone(dt.timezone.utc) if time.tzinfo else time.replace(tzinfo=dt.timezone.utc)
    except (ValueError, OverflowError):  # the latter of zones around the years 1 and 9999
        return None


def footprint_of(item: Mapping[str, Any]) -> BaseGeometry | None:
    """Return the geometry of an item, else its bbox, in degrees (longitude, latitude)."""
    if item.get("geometry"):
        with suppress(*NO_SHAPE):
            shape = shapely.geometry.shape(item["geometry"])
            shape = shape if shape.is_valid else shapely.make_valid(shape)
            if np.isfinite(shape.bounds).all():  # else it is empty
                return shape
    with suppress(*NO_SHAPE):
        bbox = item["bbox"]
        box = shapely.box(*map(float, (*bbox[:2], *bbox[len(bbox) // 2 :][:2])))
        if np.isfinite(box.bounds).all():
            return box
    return None


def _timestamp(properties: Mapping[str, Any]) -> str:
    return str(properties.get("datetime") or properties.get("start_datetime") or "")


def _prune(item: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the item without unused assets; with all properties, as projections are spelled in many ways.

    Addresses among these are cleared of signatures and passwords.
    """
    kept = {k: cleared(v) for k, v in item.items() if k in KEPT_FIELDS}
    assets = {
        key: {
            k: v if k == "href" else cleared(v)
            for k, v in item["assets"][key].items()
            if k in KEPT_ASSET_FIELDS or k.startswith("proj:")
        }
        for key in wanted
        if key in item["assets"]
    }
    return {**kept, "links": [], "assets": assets}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
