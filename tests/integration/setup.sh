#!/usr/bin/env bash
# Installs what the integration tests talk to, where it is missing: PostgreSQL with PostGIS, nginx, Slurm, and a STAC API in
# an environment of its own. For Debian and Ubuntu; safe to repeat. The tests start their own servers: no service is needed,
# and none is left running by this script.
set -euo pipefail
cd "$(dirname "$0")/../.."
shopt -s nullglob

postgis=(/usr/share/postgresql/*/extension/postgis.control)
packages=()
((${#postgis[@]})) || packages+=(postgresql postgresql-postgis)
PATH="$PATH:/usr/sbin" command -v nginx >/dev/null || packages+=(nginx-light)
PATH="$PATH:/usr/sbin" command -v slurmctld >/dev/null || packages+=(slurm-wlm)
PATH="$PATH:/usr/sbin" command -v munged >/dev/null || packages+=(munge)
command -v strace >/dev/null || packages+=(strace)

if ((${#packages[@]})); then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "setup.sh: as root, run: apt-get install ${packages[*]}" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    policy=/usr/sbin/policy-rc.d # where it exits with 101, packages start no services
    if [ ! -e "$policy" ]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

venv=.venv-servers
pins=tests/integration/constraints.txt
if ! cmp -s "$pins" "$venv/installed"; then
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --constraint "$pins" stac-fastapi.pgstac 'pypgstac[psycopg]' uvicorn
    cp "$pins" "$venv/installed"
fi
