# Development of Tallyhook. "make" lists the targets; CI runs "make test".
.DEFAULT_GOAL := help
# The steps of a check are in an order, the quick ones first.
.NOTPARALLEL:
.PHONY: help run build test check needs promtool format vet lint fuzz race cover chaos corpus attack bench golden

VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LINT_VERSION := 2.15.0
LINT         := .tools/golangci-lint
FUZZTIME     ?= 3s
ROUNDS       ?= 20
MINUTES      ?= 5
INPUTS       ?= 100000
SEED         ?= 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build, and serve a demonstration; its data is kept in ./data
	@mkdir -p data
	@DATABASE_URL=$${DATABASE_URL:-sqlite:data/tallyhook.db} exec bin/tallyhook serve --demo

build: ## build bin/tallyhook
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tallyhook ./cmd/tallyhook

test: check ## everything that CI runs (the same as make check)

check: needs promtool format vet lint fuzz race ## format, vet, lint, a short fuzz of each target, all tests with -race

# The race detector is the one thing here that needs a C compiler.
needs:
	@command -v gcc >/dev/null || { \
		echo 'gcc is missing, which go test -race needs: apt-get install -y gcc libc6-dev' >&2; exit 1; }

# For the test of the alert rules; taken out of Debian's package.
promtool:
	@scripts/promtool

# Built outside of go.mod, so that its dependencies are not ours. GOFLAGS is
# cleared because -mod and -modfile do not go with a version.
$(LINT): Makefile
	@if $(LINT) version 2>/dev/null | grep -qF 'version $(LINT_VERSION) '; then touch $(LINT); else \
		echo 'building golangci-lint $(LINT_VERSION), once; this takes some minutes' && \
		GOFLAGS= GOBIN='$(CURDIR)/.tools' go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION); fi

format: $(LINT)
	@$(LINT) fmt --diff || { echo 'not formatted; mend it with: $(LINT) fmt' >&2; exit 1; }

vet:
	go vet ./...

lint: $(LINT) ## run golangci-lint, built into .tools when missing
	$(LINT) run

fuzz: ## fuzz every target; FUZZTIME=10m for long
	scripts/fuzz $(FUZZTIME)

race: needs
	scripts/gotest -race -count=1 -timeout 40m ./...

cover: ## the coverage of all tests, by function
	@mkdir -p bin
	go test -count=1 -coverpkg=./internal/... -coverprofile=bin/cover.out ./...
	go tool cover -func=bin/cover.out | sort -k3 -n

chaos: needs ## the long forms: the crash test, ROUNDS=20, and the storm of faults, SEED= MINUTES=5
	TALLYHOOK_CHAOS_ROUNDS=$(ROUNDS) TALLYHOOK_CHAOS_MINUTES=$(MINUTES) scripts/gotest -race -count=1 -timeout 24h -v \
		-run '$(if $(SEED),^TestStorm$$,Crash|^TestStorm$$)' ./internal/app -args -seed=$(or $(SEED),0)

corpus: ## run vendors' bodies and signatures of a folder; CORPUS=folder
	@test -n '$(CORPUS)' || { echo 'say which folder: make corpus CORPUS=folder' >&2; exit 2; }
	@go test -c -o bin/provider.test ./internal/provider
	@bin/provider.test -corpus '$(CORPUS)'

attack: ## 100,000 hostile inputs against a server of its own; INPUTS=, SEED=, URL=http://127.0.0.1:3000 for a running one
	scripts/gotest -count=1 -v -timeout 2h -run TestAttack ./internal/attack -args -inputs=$(INPUTS) -seed=$(SEED) -url=$(URL)

bench: build ## measure this machine: a server of its own, commits to PostgreSQL, the queue in Redis
	bin/tallyhook bench --self
	go test -run '^$$' -bench 'Commit|BareInsert' -benchtime 5s ./internal/store/postgres
	go test -run '^$$' -bench . -benchtime 2s ./internal/redisq

golden: ## write the golden files anew; read the difference before committing it
	@for p in $$(grep -rlF 'flag.Bool("update"' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do \
		go test -count=1 "$$p" -update || exit 1; done
