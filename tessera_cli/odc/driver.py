"""Our reader as a driver of odc-loader: its protocol `ReaderDriver`."""

from __future__ import annotations

import logging
import os
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.enums import Resampling

from tessera_cli import config
from tessera_cli.catalog.earthdata import DOMAINS, EarthdataSigner
from tessera_cli.catalog.hrefs import web_address
from tessera_cli.catalog.signing import PlanetaryComputerSigner
from tessera_cli.errors import UsageError
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.reader import GDAL_OPTIONS, MissingFile, Reader
from tessera_cli.imagery.warp import on_grid
from tessera_cli.net import Client, RequestStats, SignedRequest, Signer
from tessera_cli.net.address import redact, unsigned, web
from tessera_cli.net.reach import Reach

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from odc.loader.types import RasterLoadParams, RasterSource

logger = logging.getLogger(__name__)


class Driver:
    """Reads GeoTIFFs for `odc.stac.load`, with signatures renewed, retries, and the cause of every failure told.

    Hand an instance to `odc.stac.load(items, driver=Driver(), pool=32)` to ask it afterwards what is `missing`, or the
    name `"tessera_cli.odc.Driver"`. It serves threads (`pool=`), dask (`chunks=`) and other processes. Local files,
    http and https are read, of each file the first band at full resolution.

    A file that is absent (404, 410) or broken (its bytes are all there and do not decode) raises AbsentError or
    BrokenError; with `fail_on_error=False` it is listed in `missing`, a warning is logged, and its pixels stay empty.
    Where neither is certain, CredentialsError, SourceRefusedError, SourceBusyError or SourceUnavailableError is raised
    in any case. Pixels are those of a `rasterio.vrt.WarpedVRT` of the whole file, across UTM zones too.

    Args:
        signer: signs the hrefs when they are asked for; None signs for Planetary Computer and for NASA's Earthdata
            (with EARTHDATA_TOKEN, or EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or ~/.netrc). Pickled with the driver.
    """

    md_parser = dask_reader = aux_reader = None

    def __init__(self, *, signer: Signer | None = None) -> None:
        self._key, self._signer = uuid.uuid4().hex, signer
        self._pid, self._state = os.getpid(), _State(signer)
        _STATES[self._pid, self._key] = self._state

    def __getstate__(self) -> tuple[str, Signer | None]:
        return self._key, self._signer

    def __setstate__(self, pickled: tuple[str, Signer | None]) -> None:
        self._key, self._signer = pickled
        self._pid = 0

    @property
    def state(self) -> _State:
        """Return what the copies of this driver share in this process; a fork has no threads and starts anew."""
        if self._pid != os.getpid():
            with _LOCK:
                pid = os.getpid()
                known = _STATES.get((pid, self._key))
                self._state = _STATES[pid, self._key] = known or _State(self._signer)
                self._pid = pid
                if known is None:
                    _KEPT.append(self._state)
        return self._state

    @property
    def missing(self) -> Mapping[str, str]:
        """Href -> why it gave no pixels, of the reads in this process. Other processes log theirs as warnings."""
        return dict(self.state.missing)

    @property
    def stats(self) -> Mapping[str, Any]:
        """`reads` by how they ended, `retries` by cause, `requests` and `bytes`, of the reads in this process."""
        return self.state.reader.client.stats.to_dict()

    def web_address(self, uri: str) -> str:
        """Return what to ask for: without a signature, which is kept for the request, and expires."""
        if self._signer is not None:
            return uri
        href, query = unsigned(web_address(uri))
        if query:
            self.state.reader.client.given.add({href: query})
        return href

    def new_load(self, geobox: GeoBox, *, chunks: dict[str, int] | None = None) -> None:
        """Nothing is shared by the reads of one load alone."""

    def finalise_load(self, load_state: None) -> None: ...

    def capture_env(self) -> dict[str, Any]:
        return {}

    def restore_env(self, env: dict[str, Any], load_state: None) -> AbstractContextManager[None]:
        return nullcontext()

    def open(self, src: RasterSource, ctx: None) -> _BandReader:
        return _BandReader(self, src)


class _State:
    """What the copies of a driver share in one process."""

    def __init__(self, signer: Signer | None) -> None:
        stats = RequestStats()
        reach = Reach(everywhere=True, outside=True)  # hrefs are those of the program that asks
        client = Client(signer or AnySigner(stats), stats=stats, reach=reach)
        self.reader = Reader(client, gdal_options=config.gdal_options(GDAL_OPTIONS))
        self.missing: dict[str, str] = {}


_STATES: weakref.WeakValueDictionary[tuple[int, str], _State] = weakref.WeakValueDictionary()
"""By process id and the key of the driver."""
_KEPT: deque[_State] = deque(maxlen=2)
"""Of drivers that came from another process: each task brings a copy, and they share connections and headers."""
_LOCK = threading.Lock()
os.register_at_fork(after_in_child=_KEPT.clear)


@dataclass(frozen=True)
class _Grid:
    """A GeoBox, as our warp wants it."""

    shape: tuple[int, int]
    crs: str
    transform: Affine


@dataclass(frozen=True, eq=False)
class _BandReader:
    """Reads one file; odc-loader's `RasterReader`."""

    driver: Driver
    source: RasterSource

    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: np.ndarray | None = None, selection: Any = None
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return the pixels of the GeoBox, or none of it where the file is missing and `cfg` permits it."""
        from odc.loader import resolve_dst_dtype, resolve_dst_nodata, resolve_src_nodata

        href, state = self.driver.web_address(self.source.uri), self.driver.state
        name = redact(href)
        if self.source.band != 1 or self.source.subdataset or selection is not None:
            raise UsageError(f"{name}: our driver reads the first band of a file. Use odc-stac's own for others.")
        if cfg.resampling not in Resampling.__members__:
            raise UsageError(f"{cfg.resampling} is no resampling. Choose one of {', '.join(Resampling.__members__)}.")
        grid = _Grid((dst_geobox.shape[0], dst_geobox.shape[1]), str(dst_geobox.crs), dst_geobox.transform)

        def pixels(file: GeoTiffFile) -> np.ndarray:
            header = file.header
            nodata = resolve_src_nodata(header.nodata, cfg)
            if nodata is not header.nodata:
                header = replace(header, nodata=nodata)
            dtype = resolve_dst_dtype(header.dtype, cfg)
            fill = resolve_dst_nodata(dtype, cfg, nodata)
            return on_grid(file, grid, cfg.resampling, str(dtype), 0 if fill is None else fill, header)

        found = state.reader.read(href, pixels)
        roi = np.s_[0 : grid.shape[0], 0 : grid.shape[1]]
        if isinstance(found, MissingFile):
            state.missing[name] = str(found)
            if cfg.fail_on_error:
                raise type(found.error)(f"{name} is {found}. fail_on_error=False goes on without it.") from found.error
            logger.warning("%s is %s: a missing scene", name, found)
            roi, found = np.s_[0:0, 0:0], np.empty((0, 0), cfg.dtype)
        if dst is None:
            return roi, found
        dst[roi] = found
        return roi, dst[roi]


class AnySigner:
    """Signs for Planetary Computer (blob storage of Azure) and for NASA's Earthdata; other hrefs pass unchanged."""

    def __init__(self, stats: RequestStats) -> None:
        self._stats, self._blobs = stats, PlanetaryComputerSigner(stats=stats)

    @cached_property
    def _earthdata(self) -> EarthdataSigner:
        """With the credentials of the environment, which are looked for when a file of NASA is read."""
        return EarthdataSigner(config.earthdata(), stats=self._stats)

    def sign(self, href: str) -> SignedRequest:
        return self._for(href).sign(href)

    def renew(self, href: str) -> bool:
        return self._for(href).renew(href)

    def stop(self) -> None:
        self._blobs.stop()
        if "_earthdata" in vars(self):
            self._earthdata.stop()

    def _for(self, href: str) -> Signer:
        url = web(href)
        return self._earthdata if url and url.host.endswith(DOMAINS) else self._blobs
