// SPDX-License-Identifier: GPL-2.0

//! KUnit tests, and the address spaces that they put in place of real ones.

#[cfg(CONFIG_PER_VMA_LOCK)]
mod forced;
#[cfg(CONFIG_PER_VMA_LOCK)]
mod forced_test;
mod maps_test;
mod position_test;
mod scripted;
mod sums_test;
mod walk_test;
