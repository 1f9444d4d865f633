#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds the model and runs it with the arguments given. Nothing is written here:
# cargo gets a package of its own in CARGO_TARGET_DIR whose sources are these.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
: "${CARGO_TARGET_DIR:?has to name a folder for what is built}"
crates=${CRATES:-/usr/share/cargo/registry}

mkdir -p "$CARGO_TARGET_DIR/package"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
export CARGO_TARGET_DIR
cd "$CARGO_TARGET_DIR/package"
cp "$here/Cargo.toml" "$here/build.rs" .
rm -f Cargo.lock
ln -sfn "$here/src" src

# Debian's packages of crates, where they are installed.
if [ -d "$crates/loom-0.5.6" ]; then
	set -- --offline --config 'source.crates-io.replace-with="debian"' \
		--config "source.debian.directory=\"$crates\"" -- "$@"
else
	set -- -- "$@"
fi
exec cargo run --quiet --release "$@"
