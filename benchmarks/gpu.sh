#!/usr/bin/env bash
# All GPU measurements in one go, on a machine that has PyTorch and nothing else of ours.
#
#   benchmarks/gpu.sh OUT [WHEELS]
#
# WHEELS: a folder of wheels of what the package needs besides PyTorch; they are unpacked beside it, not installed.
set -euo pipefail
out=$1 wheels=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "$wheels" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
fi
cd "$here"
PYTHONUNBUFFERED=1 PYTHONPATH="$here:$site" timeout 540 python3 -m benchmarks.gpu "$out"
