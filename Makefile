# SPDX-License-Identifier: Apache-2.0
# One Makefile: `make help` lists the targets. V=dev|asan|tsan|fuzz chooses a variant; each is built beside the others
# under build/. WERROR= lets a compiler that we do not know warn without stopping.

V       ?= dev
B       := build/$(V)
CC_dev  := gcc
CC_asan := gcc
CC_tsan := gcc
CC_fuzz := clang-14
CC      := $(CC_$(V))
WERROR  ?= -Werror
DESTDIR ?=
PREFIX  ?= /usr/local
T       ?= 60
# How many states of a function the analyser of clang-tidy visits before it gives up. 225000 is its own number, and what
# make check-long takes: it cost three times as much and found no more in eleven planted bugs; 20000 missed one.
STATES  ?= 50000

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef $(WERROR)
OPT_dev := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
INCLUDE := -I. -isystem /usr/include/libnl3
CFLAGS  += -std=gnu17 -D_GNU_SOURCE -fPIE -pthread $(INCLUDE) $(WARN) $(OPT_$(V))
LDFLAGS += -pthread -pie -Wl,-z,relro,-z,now,--as-needed
LIBS    := -ljansson -lsqlite3 -lcpg -lquorum -lvotequorum -lcmap -lcfg -levent_openssl -levent_core -lnl-route-3 -lnl-3 \
           -lssl -lcrypto -lexpat -lxxhash -lseccomp -lcap-ng

# A folder is a static library; what it may include (scripts/check-layers) is also all that it may link.
FOLDERS := base fencing hv watchdog migrate cluster node cli
LINK_base := base
LINK_fencing := fencing base
LINK_hv := hv base
LINK_watchdog := watchdog fencing hv base
LINK_migrate := migrate hv base
LINK_cluster := cluster fencing base
LINK_node := node cluster fencing migrate hv base
LINK_cli := cli fencing base

NAMES    := godwit godwitd godwit-migrate godwit-vm godwit-watchdog
PROGRAMS := $(NAMES:%=$(B)/%)
SOURCES  := $(wildcard $(FOLDERS:%=%/*.c) tests/*/*.c tests/unit/*/*.c bench/*.c)
HEADERS  := $(wildcard $(FOLDERS:%=%/*.h) tests/*/*.h tests/unit/*/*.h bench/*.h)
UNIT     := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/*/*-test.c))
FUZZERS  := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/*-fuzz.c))
PRELOADS := $(patsubst tests/tools/%.c,$(B)/tools/%.so,$(wildcard tests/tools/*-preload.c))
TOOLS    := $(patsubst tests/tools/%.c,$(B)/tools/%,$(filter-out %-preload.c,$(wildcard tests/tools/*.c)))
MAN      := $(patsubst man/%.scd,build/man/%,$(wildcard man/*.scd))
objs     = $(patsubst %.c,$(B)/%.o,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))
helpers  = $(patsubst %.c,$(B)/%.o,$(filter-out %-test.c,$(wildcard tests/unit/$(1)/*.c)))
libs     = $(foreach f,$(1),$(B)/lib$(f).a)
link     = @mkdir -p $(@D); echo "  LINK  $@"; $(CC) $(LDFLAGS) $(OPT_$(V)) -o $@ $^ $(LIBS)

## all          the programs (the default)
all: $(PROGRAMS)
$(B)/godwit-migrate: $(B)/migrate/main.o $(call libs,$(LINK_migrate))
	$(link)
$(B)/godwit-vm: $(B)/hv/main.o $(call libs,$(LINK_hv))
	$(link)
$(B)/godwit-watchdog: $(B)/watchdog/main.o $(call libs,$(LINK_watchdog))
	$(link)
$(B)/godwitd: $(B)/node/main.o $(call libs,$(LINK_node))
	$(link)
$(B)/godwit: $(B)/cli/main.o $(call libs,$(LINK_cli))
	$(link)

define folder_rule
$(B)/lib$(1).a: $(call objs,$(1))
	@rm -f $$@; echo "  AR    $$@"; ar rcs $$@ $$^
$(B)/unit/$(1)/%: $(B)/tests/unit/$(1)/%.o $(sort $(call helpers,base) $(call helpers,$(1))) $(call libs,$(LINK_$(1)))
	$$(link) -lcmocka
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_rule,$(f))))
# Those of node/ and watchdog/ run the programs.
$(filter $(B)/unit/node/%,$(UNIT)): | $(PROGRAMS)
$(B)/unit/fencing/watchdog-test: | $(PRELOADS)
$(filter $(B)/unit/watchdog/%,$(UNIT)): | $(B)/godwit-watchdog $(B)/godwit-vm $(PRELOADS)

$(B)/sim/replica-sim: $(patsubst %.c,$(B)/%.o,tests/sim/replica-sim.c $(wildcard tests/sim/sim-*.c)) $(call libs,$(LINK_cluster))
	$(link)
$(B)/sim/move-sim: $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/move-*.c)) $(call libs,$(LINK_cluster))
	$(link)
$(B)/sim/moves-sim: $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/moves-*.c)) $(call libs,$(LINK_node))
	$(link)
$(B)/sim/lease-sim: $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/lease-*.c)) $(call libs,$(LINK_cluster))
	$(link)
$(B)/sim/ha-sim: $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/ha-*.c)) $(call libs,$(LINK_node))
	$(link) -Wl,--wrap=timing_make
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(call libs,$(LINK_node))
	$(link) -fsanitize=fuzzer
$(B)/tools/replica-member: $(B)/tests/tools/replica-member.o $(B)/tests/unit/cluster/kv-machine.o $(call libs,$(LINK_cluster))
	$(link)
$(B)/tools/keeper-ask: $(B)/tests/tools/keeper-ask.o $(call libs,$(LINK_fencing))
	$(link)
# Loaded into programs of every variant: without sanitizers.
$(B)/tools/%-preload.so: tests/tools/%-preload.c
	@mkdir -p $(@D); echo "  CC    $@"; $(CC) -std=gnu17 -D_GNU_SOURCE -O2 -g -fPIC -shared $(INCLUDE) $(WARN) -o $@ $<
$(B)/tools/%: $(B)/tests/tools/%.o $(call helpers,base) $(call libs,base)
	$(link)
$(B)/%.o: %.c
	@mkdir -p $(@D); echo "  CC    $@"; $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(B)/node/http-api.o: hv/guest.schema.json node/http-api.schemas.json
build/man/%: man/%.scd
	@mkdir -p $(@D); scdoc < $< > $@.part && mv $@.part $@

## deps         install the Debian packages that are missing (root, or sudo)
deps:
	@scripts/deps
## demo         watch a running guest move between two hosts (installs what it needs)
demo:
	@scripts/deps build run
	@$(MAKE) --no-print-directory -j2 all
	@scripts/demo
## check        every test that takes minutes (installs what it needs); check-long: the others too
check check-long: deps
	@scripts/check $(if $(filter check-long,$@),--long)
## unit         the unit tests alone; with V=asan or V=tsan in that variant
unit: $(UNIT)
	@for t in $(UNIT); do $$t || exit 1; done
## fuzz         every fuzzer for T seconds (default 60)
fuzz:
	@scripts/check --only fuzz --fuzz-seconds $(T)
## bench        measure against plain QEMU and etcd on this machine, minutes to hours (ARGS=--help)
bench: all guest $(B)/bench-observe $(B)/tools/replica-member
	@bench/run --godwit $(B)/godwit-migrate --observer $(B)/bench-observe $(ARGS)
	@[ -n "$(ARGS)" ] || bench/replica
$(B)/bench-observe: $(B)/bench/observe.o
	$(link)
## bench-replica the second part of it alone, minutes (ARGS=--help)
bench-replica: $(B)/tools/replica-member
	@bench/replica $(ARGS)
## bench-ha     how soon a guest runs again when its host is lost, beside pacemaker, minutes (ARGS=--help)
bench-ha: all guest
	@scripts/deps bench
	@bench/ha $(ARGS)
## guest        the test guest: build/guest/vmlinuz and initramfs.cpio.gz
guest:
	@tests/guest/build
## man          the manual pages, under build/man
man: $(MAN)
## install      programs, manual pages, completion and systemd units to DESTDIR and PREFIX (default /usr/local)
install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(filter %.1,$(MAN)) $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(filter %.8,$(MAN)) $(DESTDIR)$(PREFIX)/share/man/man8
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	$(B)/godwit completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/godwit
	$(B)/godwit completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_godwit
	install -m 644 packaging/systemd/godwitd.service packaging/systemd/godwit-watchdog.service $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 packaging/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/godwit.conf
	install -m 644 packaging/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/godwit.conf
## clean        remove build/
clean:
	rm -rf build
## help         this list
help:
	@sed -n 's/^## /  /p' Makefile

# What scripts/check builds.
programs-of-tests: $(UNIT) $(TOOLS) $(PRELOADS) $(addprefix $(B)/sim/,replica-sim move-sim moves-sim lease-sim ha-sim)
fuzzers: $(FUZZERS)
ANALYSER = -Xclang -analyzer-config -Xclang max-nodes=$(STATES)
tidy: $(SOURCES:%=build/tidy/%.ok)
build/tidy/%.ok: % $(HEADERS) .clang-tidy
	@mkdir -p $(@D); clang-tidy --quiet --warnings-as-errors='*' $< -- -std=gnu17 -D_GNU_SOURCE $(INCLUDE) $(ANALYSER) && touch $@

.PHONY: all deps demo check check-long unit fuzz bench bench-ha bench-replica guest man install clean help programs-of-tests fuzzers tidy
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
