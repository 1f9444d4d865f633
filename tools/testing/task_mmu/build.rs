// SPDX-License-Identifier: GPL-2.0

fn main() {
    println!("cargo::rustc-cfg=CONFIG_PER_VMA_LOCK");
    println!("cargo::rerun-if-changed=build.rs");
}
