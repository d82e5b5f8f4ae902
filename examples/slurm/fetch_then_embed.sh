#!/bin/bash
# For clusters whose compute nodes have no network: fetch here, on the login node, then encode on compute nodes.
#
#   examples/slurm/fetch_then_embed.sh alps v2-large --aoi alps.geojson --year 2023
#
# writes alps_dpixels/ and alps/. Safe to repeat: what is there is neither fetched nor encoded again. SBATCH_* variables and
# OPTIONS are sbatch's: OPTIONS='--array=1-32 --partition=gpu'.
set -euo pipefail
out=$1 model=$2
shift 2

until tessera fetch "$@" --model "$model" --out "${out}_dpixels"; do    # the weights, too
    code=$?
    case $code in
        4 | 75) sleep "${PAUSE:-300}" ;;    # some tiles failed, or the source is not available at the moment
        *) exit $code ;;
    esac
done

export HF_HUB_OFFLINE=1
read -ra options <<<"${OPTIONS:-}"
sbatch ${options[@]+"${options[@]}"} "$(dirname "$0")/embed.sbatch" --dpixels "${out}_dpixels" --model "$model" --out "$out"
