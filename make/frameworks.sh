# shellcheck shell=bash
# Fetches the frameworks of those measurements that ONLY selects, and sets the variables that name them to the parts
# frameworks-* (bench/src/frameworks/). make/bench.sh sources this file after make/lib.sh and place_work_dir. The
# variable of a framework that cannot be had stays empty: its part then says so. The same holds for solid_cache, a store
# of Rails.
# shellcheck source=make/drivers.sh
. "$ROOT/make/drivers.sh"

export PG_CACHE_BENCH_PYTHON='' PG_CACHE_BENCH_NODE_MODULES='' PG_CACHE_BENCH_RUBY='' PG_CACHE_BENCH_GEMS=''

selects() { [[ frameworks-$1 == *"${ONLY:-}"* ]]; }
without() { say "    going on without $*"; }

# A failed fetch ends the shell, so the first call of each pair runs in a shell of its own. The second call finds the
# complete copy, and sets the variable.
if selects django; then
    packages=("psycopg[binary]==$psycopg" "django==$django" "redis==$redis_py" "hiredis==$hiredis")
    if (need_packages python && fetch_python bench "${packages[@]}"); then
        fetch_python bench "${packages[@]}"
        PG_CACHE_BENCH_PYTHON=$python
    else
        without Django
    fi
fi

if selects keyv; then
    packages=("pg@$pg" "keyv@$keyv" "@keyv/postgres@$keyv_postgres" "@keyv/redis@$keyv_redis")
    if has_node && (fetch_node bench "${packages[@]}"); then
        fetch_node bench "${packages[@]}"
        PG_CACHE_BENCH_NODE_MODULES=$modules
    else
        without keyv
    fi
fi

if selects rails; then
    if (need_packages ruby ruby-redis); then
        PG_CACHE_BENCH_RUBY=ruby
        # solid_cache needs a newer Rails than Debian's. All stores then run in that one.
        packages=("activerecord:$rails" "activejob:$rails" "railties:$rails" "solid_cache:$solid_cache")
        if (fetch_gems bench "${packages[@]}"); then
            fetch_gems bench "${packages[@]}"
            PG_CACHE_BENCH_GEMS=$gems
        else
            without "solid_cache (some of its gems need ruby-dev and a compiler)"
        fi
    else
        without Rails
    fi
fi
