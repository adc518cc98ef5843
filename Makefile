# Each target runs a script in make/. The script installs what it needs, or reports what is missing.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run psql stop test test-long fuzz bench lint matrix install uninstall clean

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

test: ## prove everything: core, models, SQL, interleavings, sessions, drivers, set-up   (PG=15, ONLY=stage)
	@make/test.sh

test-long: ## the same with the soaks and PostgreSQL's own suites, which take their time
	@make/test.sh long

fuzz: ## look for input that breaks the core, with libFuzzer   (FUZZ_SECONDS=60 for each target)
	@make/fuzz.sh

bench: ## measure side by side with a table and with Redis, and the hot tier by itself; results in bench/results
	@make/bench.sh

lint: ## formatting, compiler and clippy warnings, fenced unsafe, shell scripts
	@make/lint.sh

matrix: ## build and test on PostgreSQL 15, 16, 17, 18 and on a 15 with assertions, with PostgreSQL's own suites
	@make/matrix.sh

install: ## install the release build into the PostgreSQL of PG_CONFIG
	@make/install.sh

uninstall: ## remove it from there
	@make/install.sh uninstall

clean: ## stop the private server, remove .pg and everything that was built
	@make/clean.sh
