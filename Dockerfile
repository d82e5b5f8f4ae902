# docker build -t tessera . && docker run --rm -v "$PWD:/work" tessera embed --aoi field.geojson --year 2023
FROM python:3.11-slim

# rasterio, pyproj and torch bring their libraries in their wheels; only certificates and OpenMP are taken from Debian.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgomp1 libexpat1 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tessera
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY tessera_cli ./tessera_cli
# The CPU build of torch. For a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt .

RUN useradd --create-home tessera
USER tessera
WORKDIR /work
ENTRYPOINT ["tessera"]
