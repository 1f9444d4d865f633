// SPDX-License-Identifier: GPL-2.0
//! Prints a backtrace with names and places, for which the library reads its own maps; with the
//! argument `wait` it waits instead, with a few threads and some memory.

use std::{backtrace::Backtrace, hint::black_box, thread, time::Duration};

#[inline(never)]
fn innermost() -> Backtrace {
    black_box(Backtrace::force_capture())
}

#[inline(never)]
fn outer() -> Backtrace {
    black_box(innermost())
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("wait") {
        let memory: Vec<Vec<u8>> = (1..200).map(|n| vec![1; n * 1000]).collect();
        for _ in 0..4 {
            thread::spawn(|| loop {
                thread::sleep(Duration::from_secs(3600))
            });
        }
        println!("ready {}", std::process::id());
        thread::sleep(Duration::from_secs(7200));
        black_box(memory);
        return;
    }
    println!("{}", outer());
}
