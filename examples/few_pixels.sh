#!/usr/bin/env bash
# From a table of time series with some labels to an encoder of one's own, and what it is worth with few labels.
#
#   examples/few_pixels.sh series.parquet crop 2023
#   examples/few_pixels.sh dekad_2023.geoparquet crop 2023 --columns substitute.B8A=B08
#
# The table has a row per sample and date (docs/series.md). All its samples are trained on, without their labels, which
# only the second command looks at. What follows the year goes to both.
set -euo pipefail
table=$1 column=$2 year=$3
shift 3

tessera pretrain "$table" --window "$year-01/$year-12" --preset small-data --out "runs/$column-$year" "$@"
tessera evaluate "$table" --year "$year" --column "$column" --model "runs/$column-$year" --budgets 1,10,100 \
    --shots 1,5 --adapter logistic --out "reports/$column-$year" "$@"
