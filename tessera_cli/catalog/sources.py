"""Collections, asset keys and conventions of each data provider: data only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tessera_cli.dpixels.dpixel import S2_BANDS
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
    page: int
    """Items per page of a search: what the API bears."""
    max_cloud: float
    """Scenes with eo:cloud_cover at or above it, or without the property, are not used."""
    offset_after: dt.date | None
    """`official` preprocessing: 1000 is subtracted from scenes taken after this date; None: never."""
    harmonised: bool | None
    """Whether the files already lack the offset of baseline 04.00 and later; None: it depends on the producer."""
    s1_resampling: Literal["nearest", "bilinear"]
    s1_arithmetic: Literal["float64", "float32"]
    """In which power is turned into scaled decibels: the official code differs by source."""
    s1_newest_first: bool
    """Which pass of a date wins where two overlap."""
    signer: Literal["planetary-computer", "earthdata"]
    """Whose signatures or tokens its files want."""
    granules: str | None = None
    """Where Sentinel-1 is searched if not in `api`: a CMR granule search, which does not tell orbit directions."""
    forbids_when_busy: bool = False
    """Whether the API answers too many requests with 403."""

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
    page=250,
    max_cloud=100.0,
    offset_after=dt.date(2022, 1, 25),
    harmonised=False,
    s1_resampling="nearest",
    s1_arithmetic="float64",
    s1_newest_first=True,
    signer="planetary-computer",
)

AWS = Source(
    name="aws",
    api="https://earth-search.aws.element84.com/v1",
    s2_collection="sentinel-2-l2a",
    s1_collection="OPERA_L2_RTC-S1_V1",
    s2_assets={
        "B04": "red",
        "B02": "blue",
        "B03": "green",
        "B08": "nir",
        "B8A": "nir08",
        "B05": "rededge1",
        "B06": "rededge2",
        "B07": "rededge3",
        "B11": "swir16",
        "B12": "swir22",
        "SCL": "scl",
    },
    s1_assets={"VV": "VV", "VH": "VH"},
    page=100,  # answers are capped at 6 MB: 250 always fails
    max_cloud=100.0,
    offset_after=None,
    harmonised=None,
    s1_resampling="bilinear",
    s1_arithmetic="float32",
    s1_newest_first=False,
    signer="earthdata",
    granules="https://cmr.earthdata.nasa.gov/search/granules.json",
    forbids_when_busy=True,
)

SOURCES = {source.name: source for source in (MPC, AWS)}


def get_source(name: str) -> Source:
    try:
        return SOURCES[name]
    except KeyError:
        known = ", ".join(SOURCES)
        raise UsageError(f"--source {name} is not known. Choose one of: {known}.") from None
