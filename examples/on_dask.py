"""Embed the landscape of `make demo` on a Dask cluster: python examples/on_dask.py [ADDRESS]

ADDRESS is that of a scheduler, such as tcp://host:8786; without it two workers are started on this machine. Whoever has
started a cluster, its address is all that is needed (`pip install 'tessera-embed[dask]' dask-jobqueue`):

    cluster = dask_jobqueue.SLURMCluster(cores=8, processes=1, memory="16GB", walltime="04:00:00")
    cluster.scale(jobs=8)
    tessera.embed(..., scheduler=cluster.scheduler_address)

Workers see the folders of catalogue, weights and output under the same paths as this script.
"""

import os
import sys

from distributed import Client, LocalCluster

import tessera_cli as tessera


def main(address: str | None = None) -> None:
    # A worker computes with all cores that its job grants; two on one machine have to share them.
    threads = None if address else max(1, (os.cpu_count() or 2) // 2)
    with Client(address or LocalCluster(n_workers=2, threads_per_worker=1)) as client:
        summary = tessera.embed(
            aoi="demo/catalog/aoi.geojson",
            year=2023,
            catalog="demo/catalog/items.json",
            model="demo",
            out="demo/on_dask",
            scheduler=client.scheduler.address,
            threads=threads,
        )
    if error := summary.error():  # tiles that failed do not raise; the same call again does what is missing
        sys.exit(str(error))
    print(f"{summary.pixels} pixels: {', '.join(map(str, summary.mosaics))}")


if __name__ == "__main__":  # workers import this file
    main(*sys.argv[1:])
