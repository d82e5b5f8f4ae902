#!/usr/bin/env bash
# Feed areas from any tool to `tessera embed -`, follow it as it goes, and act on how it ended.
#
#   examples/pipeline.sh examples/field.geojson 2023 out            (needs jq)
#   examples/pipeline.sh demo/catalog/aoi.geojson 2023 demo/piped --catalog demo/catalog/items.json --model demo
set -uo pipefail
aoi=$1 year=$2 out=$3
shift 3

cat "$aoi" |
    tessera embed - --year "$year" --out "$out" --json "$@" |
    jq --unbuffered -r '
        if .type == "tile" then "\(.status)\t\(.tile)\t\(.pixels) pixels\t\(.error // "")"
        else "total\t\(.pixels) pixels in \(.seconds) s" end'
code=${PIPESTATUS[1]}

case $code in
    0) echo "finished: $out" ;;
    3) echo "nothing to embed there" ;;
    4 | 75) echo "some tiles are missing: run the same command again" ;;
    *) echo "failed with exit code $code" ;;
esac
exit "$code"
