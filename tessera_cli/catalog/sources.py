"""What a data provider calls things: one profile per source, data only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from tessera_cli.dpixel import S2_BANDS
from tessera_cli.errors import UsageError


@dataclass(frozen=True)
class Source:
    """Collections, asset keys and conventions of one provider."""

    name: str
    api: str
    s2_collection: str
    s1_collection: str
    s2_assets: Mapping[str, str]
    """Our band name -> asset key, in the order of S2_BANDS, with SCL last."""
    s1_assets: Mapping[str, str]
    max_cloud: float
    """Scenes with eo:cloud_cover at or above it, or without the property, are not used."""
    offset_after: dt.date | None
    """`official` preprocessing: 1000 is subtracted from scenes taken after this date; None: never."""
    signer: str
    """How hrefs are signed when read: `planetary-computer` or `none`."""

    @property
    def collections(self) -> tuple[str, str]:
        return (self.s2_collection, self.s1_collection)

    @property
    def s2_band_assets(self) -> tuple[str, ...]:
        return tuple(self.s2_assets[band] for band in S2_BANDS)

    @property
    def scl_asset(self) -> str:
        return self.s2_assets["SCL"]


MPC = Source(
    name="mpc",
    api="https://planetarycomputer.microsoft.com/api/stac/v1",
    s2_collection="sentinel-2-l2a",
    s1_collection="sentinel-1-rtc",
    s2_assets={**{band: band for band in S2_BANDS}, "SCL": "SCL"},
    s1_assets={"VV": "vv", "VH": "vh"},
    max_cloud=100.0,
    offset_after=dt.date(2022, 1, 25),
    signer="planetary-computer",
)

SOURCES = {source.name: source for source in (MPC,)}


def source_named(name: str) -> Source:
    try:
        return SOURCES[name]
    except KeyError:
        known = ", ".join(SOURCES)
        raise UsageError(f"--source {name} is not known. Choose one of: {known}.") from None
