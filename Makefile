# Each target runs a script in make/. The script installs what it needs, or reports what is missing.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help all run psql stop test test-long fuzz bench lint matrix install uninstall package release-check clean

# PG is the PostgreSQL major to build for: 15 (the default), 16, 17 or 18. PG_CONFIG names an installation instead.
export PG PORT PG_CONFIG ONLY QUICK FUZZ_SECONDS
unexport CDPATH

help: ## show this list
	@make/help.sh

run: ## build, start a private server in .pg and play the tour   (PORT=54329, PG=15)
	@make/run.sh

psql: ## open a session in the private server
	@make/cluster.sh psql

stop: ## stop the private server
	@make/cluster.sh stop

test: ## run all tests: core, models, SQL, interleavings, sessions, drivers, set-up   (PG=15, ONLY=stage)
	@make/test.sh

test-long: ## run all tests, the soak tests, queries of sqlsmith, the suites of frameworks and of PostgreSQL, the address sanitizer and the fuzzer
	@make/test.sh long

fuzz: ## search for input that breaks the core, with libFuzzer   (FUZZ_SECONDS=60 for each target)
	@make/fuzz.sh

bench: ## measure pg_cache next to a table and Redis, and the hot tier by itself; results in bench/results
	@make/bench.sh

lint: ## formatting, compiler and clippy warnings, spelling, and the rules of this repository
	@make/lint.sh

matrix: ## run the SQL and session tests and PostgreSQL's own suites on PostgreSQL 15 to 18 and on a 15 with assertions
	@make/matrix.sh

# PGXN's client calls this target before `make install`.
all:
	@make/build.sh release

install: ## install the release build into the PostgreSQL of PG_CONFIG
	@make/install.sh

uninstall: ## remove pg_cache from the PostgreSQL of PG_CONFIG
	@make/install.sh uninstall

package: ## build the packages for PostgreSQL $PG in target/package: Debian, RPM, PGXN, images   (PG=15)
	@make/package.sh

release-check: ## check everything that a release needs: versions, lint, packages, upgrades   (PG=15)
	@make/release.sh

clean: ## stop the private server, remove .pg and everything that was built
	@make/clean.sh
