# SPDX-License-Identifier: GPL-2.0

# Handed to the harness through the environment as they were typed: a `$` in
# CMD is the guest's.
vars := CMD SHARE ICOUNT ACCEL TIMEOUT ONLY COMMIT SET FORCE CACHE MIRROR FLAVOUR KCONFIG PLAIN SMALL
define hand_on
ifneq ($$(origin $(1)),undefined)
override $(1) := $$(value $(1))
export $(1)
endif
endef
$(foreach v,$(vars),$(eval $(call hand_on,$(v))))

define help_text
make run      build the kernel with the Rust /proc/PID/maps and show it in a guest
make shell    a shell in the guest (leave it with `exit`)
make test     what tells a broken series from a sound one; prints KTAP and at the
              end N passed, N failed, N skipped (minutes)
make test-all all of that, a kernel with lockdep and other checks, each commit,
              other configurations, the kernel's tests of mm (an hour and a half,
              the first time two and a half)
make test-debug
              the tests and a million lines of torture on kernels with KASAN,
              kmemleak, lockdep, KCSAN (hours the first time)
make test-long
              the model with two writers in all cases, 20,000,000 lines of
              torture, 20,000 rounds of what a reader must not leave behind
              (hours)
make test-mutants
              breaks the walk in many ways and tells which test sees each
make lint     rustfmt, clippy, checkpatch and other checks of the sources
make bench    instructions per line and VMA, Rust against C; how long readers
              hold up the process that they read about

make deb      Debian packages of a kernel with the series, by Debian's own
              configuration, in out/deb (an hour; SMALL=1: 16 minutes)
make debian   a Debian 13 that runs the kernel of these packages: a login, or CMD
make test-debian
              programs that read maps, in that Debian, with C and with Rust

make build    build the kernel and the guest's file system, and no more
make lay      bring the kernel tree in the cache to the end of the series
make save COMMIT=SET/NN-name
              bring edits made in the kernel tree back into the checkout; those
              to files of the base go into that commit of series/
make series   write the sets of patches for `git am` to out/series (SET=NAME: one)

Everything else is made on the way, as far as something changed. Variables:

CMD='...'     run, debian: shell command to run in the guest instead of the tour
SHARE=DIR     run, shell, debian: the guest has DIR as /share
ICOUNT=1      run, shell: guest time counts instructions; one CPU
ACCEL=tcg     run, shell, test: do not use KVM (kvm: do not probe it)
TIMEOUT=N     run, debian: kill the guest after N seconds (default 600, 900)
ONLY=a,b      test, test-all, test-debian: only these pieces (`harness/host test.py --help`
              lists them)
FLAVOUR=NAME  deb, debian: Debian's configuration: cloud-amd64 (default) or amd64
KCONFIG=FILE  deb, debian: a configuration of your own instead, as /boot/config-*
PLAIN=1       deb, debian: the kernel without the series
SMALL=1       deb: leave out modules that a guest of QEMU does not load (debian and
              test-debian do so if not given SMALL=0)
FORCE=1       lay: drop edits in the kernel tree that are not in the series
CACHE=DIR     where the toolchain, kernel tree and objects are
              (default ~/.cache/task_mmu; takes up to 12 GB)
MIRROR=URL    Debian mirror for the toolchain (default: the one apt uses here)

make itself exits with 2 when a command fails; to have the guest command's exit
status call `harness/host run.py COMMAND...`. harness/host --help tells more.
endef
export help_text

.PHONY: help run shell test test-all test-debug test-long test-mutants lint build lay \
	save series bench deb debian test-debian

help:
	@echo "$$help_text"

run:
	@harness/host run.py

shell:
	@harness/host run.py --shell

build:
	@harness/host run.py --build

test:
	@harness/host test.py

test-all:
	@harness/host test.py --all

test-debug:
	@harness/host test.py --only kasan,kcsan

test-long:
	@harness/host test.py --only model-long,torture-long,trace-long

test-mutants:
	@harness/host mutants.py

lint:
	@harness/host lint.py

lay:
	@harness/host series.py lay

save:
	@harness/host series.py save

series:
	@harness/host series.py export

bench:
	@harness/host bench.py

deb:
	@harness/host deb.py

debian:
	@harness/host debian.py

test-debian:
	@harness/host clients.py
