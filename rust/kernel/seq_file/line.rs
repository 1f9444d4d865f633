// SPDX-License-Identifier: GPL-2.0

//! Lines that are written into the buffer of a sequential file in one pass.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use super::SeqFile;
use crate::bindings;
use core::{marker::PhantomData, ops::Range};

/// A line that is being written into the buffer of a [`SeqFile`].
///
/// ```text
///   buf                start      at                    limit
///    |                   |        |                       |
///    v                   v        v                       v
///    [ lines before this | ddddd  |        room           ]
/// ```
///
/// The line is not part of the buffer before [`Line::finish`]. If it does not fit, the buffer stays
/// full for all later writes, so that `seq_file` drops the line and asks for it again.
///
/// # Invariants
///
/// The pointers are in the buffer of a `struct seq_file` that is exclusively used by `'m`, and
/// stand in the order of the diagram. All bytes from `buf` to `at` have been written.
pub struct Line<'m> {
    buf: *mut u8,
    start: *mut u8,
    at: *mut u8,
    limit: *mut u8,
    m: *mut bindings::seq_file,
    _m: PhantomData<&'m SeqFile>,
}

/// Where a text stands in the buffer of a [`SeqFile`].
///
/// It stands there until `stop`, or until its record is dropped or read.
// A buffer has less than 2 GiB.
#[derive(Clone, Copy, Default)]
pub struct Place {
    start: u32,
    end: u32,
}

impl Place {
    /// Returns how many bytes the text has.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl SeqFile {
    /// Returns a raw pointer to the `struct seq_file`.
    #[inline]
    pub fn as_ptr(&self) -> *mut bindings::seq_file {
        self.inner.get()
    }

    /// Begins a line.
    ///
    /// Mirrors `seq_get_buf`.
    #[inline]
    pub fn line(&self) -> Line<'_> {
        let m = self.as_ptr();

        // SAFETY: `m` is valid and only used by this thread. `count` bytes of the buffer have been
        // written, of `size` that it has.
        let (buf, start, limit) = unsafe {
            let buf: *mut u8 = (*m).buf.cast();
            (buf, buf.add((*m).count), buf.add((*m).size))
        };

        // INVARIANT: These are the pointers of the diagram.
        Line {
            buf,
            start,
            at: start,
            limit,
            m,
            _m: PhantomData,
        }
    }
}

/// How many bytes are written at once.
const WORD: usize = core::mem::size_of::<u64>();

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Returns the eight hexadecimal digits of `value`, the first of them in the highest byte.
#[inline]
fn hexadecimal(value: u32) -> u64 {
    // one digit to a byte
    let mut digits = u64::from(value);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;

    // 1 where the digit is a letter
    let letters = (digits + 6 * ONES) >> 4 & ONES;
    digits + u64::from(b'0') * ONES + u64::from(b'a' - b'9' - 1) * letters
}

/// The two hexadecimal digits of each byte.
static PAIRS: [[u8; 2]; 256] = {
    let mut all = [[0; 2]; 256];
    let mut n = 0;
    while n < 256 {
        all[n] = [b"0123456789abcdef"[n / 16], b"0123456789abcdef"[n % 16]];
        n += 1;
    }
    all
};

/// Returns how many hexadecimal digits `value` is written with, at least `width`.
#[inline]
fn digits(value: u64, width: usize) -> usize {
    let needed = (67 - (value | 1).leading_zeros() as usize) / 4;
    needed.max(width.clamp(1, 8))
}

/// Returns the eight decimal digits of `value`, a number from 0 to 9 each, the first of them in the
/// lowest byte.
#[inline]
fn decimal(value: u32) -> u64 {
    // Fours, pairs and single digits are divided where they stand: 5243 / 2^19 is 1/100 for what
    // is below 10,000, and 103 / 2^10 is 1/10 for what is below 100.
    let fours = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = ((fours * 5243) >> 19) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - 10 * tens) << 8
}

/// The first number that has more than eight decimal digits.
const EIGHT_DIGITS: u64 = 100_000_000;

/// Returns the eight decimal digits of `value` as text, the first of them in the lowest byte, and
/// how many of them are zeroes in front of the number.
#[inline]
fn decimal_and_zeroes(value: u32) -> (u64, usize) {
    let digits = decimal(value);
    // at least one is left of the zeroes in front
    let zeroes = (digits | 1 << 56).trailing_zeros() / 8;
    (digits | u64::from(b'0') * ONES, zeroes as usize)
}

/// Copies `len` bytes, by words.
///
/// Lines are too short for `memcpy`, which first has to choose a method.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of `len` bytes, and they must not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    const HALF: usize = WORD / 2;

    // SAFETY: No byte beyond the first `len` is touched: each word or half of one ends at or before
    // that, and where there is not even one, each byte does.
    unsafe {
        if len >= WORD {
            let mut done = 0;
            while done < len - WORD {
                core::ptr::copy_nonoverlapping(from.add(done), to.add(done), WORD);
                done += WORD;
            }
            core::ptr::copy_nonoverlapping(from.add(len - WORD), to.add(len - WORD), WORD);
        } else if len >= HALF {
            core::ptr::copy_nonoverlapping(from, to, HALF);
            core::ptr::copy_nonoverlapping(from.add(len - HALF), to.add(len - HALF), HALF);
        } else {
            for n in 0..len {
                to.add(n).write(from.add(n).read());
            }
        }
    }
}

impl Line<'_> {
    /// The most digits that a number has, in hexadecimal or decimal.
    const DIGITS: usize = 24;

    #[inline]
    fn room(&self) -> usize {
        self.limit as usize - self.at as usize
    }

    /// Leaves no room for anything.
    #[cold]
    fn overflow(&mut self) {
        self.limit = self.at;
    }

    /// Writes a number by way of an array. There may be room for it in the buffer, but not for all
    /// that is written before its length is known.
    #[cold]
    fn put_at_the_end(&mut self, put: impl FnOnce(&mut Line<'_>)) {
        let mut text = [0u8; 2 * Self::DIGITS];
        let buf = text.as_mut_ptr();

        // INVARIANT: All of the array has been written. `m` is not used by what writes numbers.
        let mut line = Line {
            buf,
            start: buf,
            at: buf,
            // SAFETY: That is the end of the array.
            limit: unsafe { buf.add(2 * Self::DIGITS) },
            m: self.m,
            _m: PhantomData,
        };
        put(&mut line);
        let len = line.column();
        self.put(&text[..len]);
    }

    /// Has `f` write to a copy of the line. So the address of the line itself is not taken, and it
    /// can stay in registers.
    #[inline(always)]
    pub fn out_of_line(&mut self, f: impl FnOnce(&mut Line<'_>)) {
        let mut copy = Line { ..*self };
        f(&mut copy);
        *self = copy;
    }

    /// Returns how many bytes the line has so far.
    #[inline]
    pub fn column(&self) -> usize {
        self.at as usize - self.start as usize
    }

    /// Writes a text.
    #[inline(always)]
    pub fn put(&mut self, text: &[u8]) {
        if text.len() > self.room() {
            return self.overflow();
        }
        // SAFETY: There is room for it. The buffer is no part of `text`, which cannot change.
        unsafe {
            copy(text.as_ptr(), self.at, text.len());
            self.at = self.at.add(text.len());
        }
    }

    /// Writes a number in hexadecimal, with at least `width` digits. `width` must be 1 to 8.
    ///
    /// Mirrors `seq_put_hex_ll`.
    #[inline(always)]
    pub fn put_hexadecimal(&mut self, value: u64, width: usize) {
        if self.room() < Self::DIGITS {
            return self.put_at_the_end(|line| line.put_hexadecimal(value, width));
        }
        // Most numbers of devices.
        if let (Ok(byte), 2) = (u8::try_from(value), width) {
            // SAFETY: There is room for `DIGITS` bytes, more than these two, and only this line,
            // which is borrowed mutably, writes to the buffer.
            return unsafe { self.push(PAIRS[usize::from(byte)], 2) };
        }
        let digits = digits(value, width);
        let low = hexadecimal(value as u32);
        if digits > 8 {
            // SAFETY: There is room for more digits than a number has.
            unsafe { self.push_hexadecimal(hexadecimal((value >> 32) as u32), low, digits) }
        } else {
            let text = (low << (8 * (8 - digits))).to_be_bytes();
            // SAFETY: There is room for eight, and the bytes that count are written.
            unsafe {
                self.at.cast::<[u8; 8]>().write(text);
                self.at = self.at.add(digits);
            }
        }
    }

    /// Writes a range of addresses in hexadecimal, with at least eight digits each.
    #[inline(always)]
    pub fn put_range(&mut self, range: Range<usize>) {
        let (start, end) = (range.start as u64, range.end as u64);
        let high = start >> 32;

        // Most ranges have what is above the last eight digits in common: up to four digits.
        if high > 0xffff || high != end >> 32 || self.room() < 2 * Self::DIGITS {
            return self.out_of_line(|line| line.put_any_range(start, end));
        }
        let in_common = ((high << 4 | 1).ilog2() / 4) as usize;
        let text = hexadecimal((start >> 16) as u32) << (8 * (4 - in_common));
        // SAFETY: There is room for more digits than both have, and what stands between them.
        unsafe {
            self.push(text.to_be_bytes(), in_common + 4);
            self.push_low(start as u16);
            self.push(*b"-", 1);
            self.push(text.to_be_bytes(), in_common);
            self.push_low((end >> 16) as u16);
            self.push_low(end as u16);
        }
    }

    #[cold]
    fn put_any_range(&mut self, start: u64, end: u64) {
        self.put_hexadecimal(start, 8);
        self.put(b"-");
        self.put_hexadecimal(end, 8);
    }

    /// Writes a text of which `len` bytes count.
    ///
    /// # Safety
    ///
    /// `len` must not be above `N`, and there must be room for `N` bytes.
    #[inline(always)]
    unsafe fn push<const N: usize>(&mut self, text: [u8; N], len: usize) {
        // SAFETY: There is room for it.
        unsafe {
            self.at.cast::<[u8; N]>().write(text);
            self.at = self.at.add(len);
        }
    }

    /// Writes four digits.
    ///
    /// # Safety
    ///
    /// There must be room for them.
    #[inline(always)]
    unsafe fn push_low(&mut self, value: u16) {
        let [first, second] = value.to_be_bytes();

        // SAFETY: There is room for it.
        unsafe {
            self.push(PAIRS[usize::from(first)], 2);
            self.push(PAIRS[usize::from(second)], 2);
        }
    }

    /// Writes the last digits of a number that has `digits` of them, 9 to 16.
    ///
    /// # Safety
    ///
    /// There must be room for 16 bytes.
    #[inline(always)]
    unsafe fn push_hexadecimal(&mut self, high: u64, low: u64, digits: usize) {
        let high = (high << (8 * (16 - digits))).to_be_bytes();

        // SAFETY: There is room for it. The first word begins where the number does, and the second
        // follows it or overlaps it.
        unsafe {
            self.at.cast::<[u8; 8]>().write(high);
            self.at
                .add(digits - 8)
                .cast::<[u8; 8]>()
                .write(low.to_be_bytes());
            self.at = self.at.add(digits);
        }
    }

    /// Writes a number in decimal.
    ///
    /// Mirrors `seq_put_decimal_ull`.
    #[inline]
    pub fn put_decimal(&mut self, value: u64) {
        if self.room() < Self::DIGITS {
            return self.put_at_the_end(|line| line.put_decimal(value));
        }
        if value < EIGHT_DIGITS {
            let (digits, skip) = decimal_and_zeroes(value as u32);
            let text = digits >> (8 * skip);
            // SAFETY: There is room for eight, and the bytes that count are written.
            unsafe { self.push(text.to_le_bytes(), 8 - skip) }
        } else {
            self.put_decimal(value / EIGHT_DIGITS);
            let (text, _) = decimal_and_zeroes((value % EIGHT_DIGITS) as u32);
            self.put(&text.to_le_bytes());
        }
    }

    /// Writes a number in decimal, with spaces before it if it has less than `width` digits.
    /// `width` must be 1 to 8.
    ///
    /// Mirrors `seq_put_decimal_ull_width`.
    // Most numbers that stand in columns are zero.
    #[inline(always)]
    pub fn put_decimal_padded(&mut self, value: u64, width: usize) {
        let width = width.clamp(1, WORD);

        if value >= 10 || self.room() < WORD {
            return self.out_of_line(|line| line.put_any_decimal_padded(value, width));
        }
        let text =
            (u64::from(b' ') * ONES >> 8 | (u64::from(b'0') | value) << 56) >> (8 * (WORD - width));
        // SAFETY: There is room for eight bytes, and those that count are written.
        unsafe { self.push(text.to_le_bytes(), width) }
    }

    fn put_any_decimal_padded(&mut self, value: u64, width: usize) {
        if value >= EIGHT_DIGITS || self.room() < WORD {
            let digits = value.checked_ilog10().unwrap_or_default() as usize + 1;
            for _ in digits..width {
                self.put(b" ");
            }
            return self.put_decimal(value);
        }
        let (digits, zeroes) = decimal_and_zeroes(value as u32);
        let spaces = u64::from(b'0' ^ b' ') * ONES & ((1 << (8 * zeroes)) - 1);
        let omitted = zeroes.min(WORD - width);
        let text = (digits ^ spaces) >> (8 * omitted);
        // SAFETY: There is room for eight bytes, and those that count are written.
        unsafe { self.push(text.to_le_bytes(), WORD - omitted) }
    }

    /// Writes spaces, at least one, until the line has `column` bytes.
    ///
    /// Mirrors `seq_setwidth` with one less than `column`, and `seq_pad`.
    #[inline]
    pub fn pad_to(&mut self, column: usize) {
        // More than stand before any name, and few enough to be written without a loop.
        const SPACES: usize = 40;

        let missing = column.saturating_sub(self.column()).max(1);
        if missing <= SPACES && SPACES <= self.room() {
            // SAFETY: There is room for `SPACES` bytes, not less than `missing`, and only this
            // line, which is borrowed mutably, writes to the buffer.
            return unsafe { self.push([b' '; SPACES], missing) };
        }
        if missing > self.room() {
            return self.overflow();
        }
        (0..missing).for_each(|_| self.put(b" "));
    }

    /// Returns where what was written from `column` on stands.
    #[inline]
    pub fn place(&self, column: usize) -> Place {
        let start = self.start as usize - self.buf as usize;
        Place {
            start: (start + column) as u32,
            end: (start + self.column()) as u32,
        }
    }

    /// Returns whether there is nothing before this line in the buffer.
    ///
    /// If so, `seq_file` may have the next record written over it, to skip it. A line that is
    /// behind another stays until `stop`, if it has fit.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.start == self.buf
    }

    /// Returns whether what stood at `place` in a line before this is still there.
    #[inline]
    pub fn is_before(&self, place: Place) -> bool {
        place.end as usize <= self.start as usize - self.buf as usize
    }

    /// Writes the bytes `part` of what stands at `place`.
    ///
    /// If not all of these bytes are in an earlier line of the buffer, writes nothing and marks the
    /// line as overflown.
    #[inline(always)]
    pub fn put_copy_of(&mut self, place: Place, part: Range<usize>) {
        let (start, len) = (place.start as usize + part.start, part.len());
        if part.end > place.len() || !self.is_before(place) || len > self.room() {
            return self.overflow();
        }
        // SAFETY: There is room for it. By the type invariants all of the buffer up to `self.start`
        // has been written, and nothing behind that is read.
        unsafe {
            copy(self.buf.add(start), self.at, len);
            self.at = self.at.add(len);
        }
    }

    /// Has `fill` write a text to the room that is left. It returns what part of that it has
    /// written, or [`None`] if it needs more.
    ///
    /// # Safety
    ///
    /// `fill` must have written what it returns, which must be within the room that it is given.
    #[inline(always)]
    pub unsafe fn put_by(&mut self, fill: impl FnOnce(*mut u8, usize) -> Option<(*mut u8, usize)>) {
        let room = self.room();
        if room == 0 {
            return;
        }
        let Some((from, len)) = fill(self.at, room) else {
            return self.overflow();
        };
        // SAFETY: The text is in the room from `at`, and is moved to its start.
        unsafe {
            if from as usize - self.at as usize >= len {
                copy(from, self.at, len);
            } else {
                core::ptr::copy(from, self.at, len);
            }
            self.at = self.at.add(len);
        }
    }

    /// Ends the line without a newline. It has one already, or another function continues it.
    ///
    /// Mirrors `seq_commit`.
    #[inline]
    pub fn end_without_newline(self) {
        // SAFETY: The `struct seq_file` is valid and exclusively ours. A count as large as the
        // buffer says that something did not fit.
        unsafe {
            (*self.m).count = if self.room() > 0 {
                self.at as usize - self.buf as usize
            } else {
                (*self.m).size
            };
        }
    }

    /// Ends the line.
    ///
    /// Mirrors `seq_commit`.
    #[inline]
    pub fn finish(self) {
        // SAFETY: The `struct seq_file` is valid and exclusively ours. If there is room for it, the
        // newline is the last byte of the buffer that has been written. A count as large as the
        // buffer says that something did not fit.
        unsafe {
            (*self.m).count = if self.room() > 1 {
                self.at.write(b'\n');
                self.at as usize + 1 - self.buf as usize
            } else {
                (*self.m).size
            };
        }
    }
}

#[macros::kunit_tests(rust_kernel_seq_file_line)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use pin_init::Zeroable;

    const GUARD: u8 = 0xa5;
    const NUMBERS: [u64; 12] = [
        0,
        1,
        9,
        10,
        0xf0,
        99_999_999,
        100_000_000,
        0xffff_f000,
        0x1_0000_0000,
        0x7fff_1234_5000,
        0xffff_ffff_ff60_0000,
        u64::MAX,
    ];

    /// A `struct seq_file` with a buffer of `size` bytes, and behind it bytes to be left alone.
    struct TestFile {
        m: bindings::seq_file,
        buf: KVec<u8>,
    }

    impl TestFile {
        fn new(size: usize) -> Result<Self> {
            let mut buf = KVec::from_elem(GUARD, size + 64, GFP_KERNEL)?;
            let mut m = bindings::seq_file::zeroed();
            m.buf = buf.as_mut_ptr().cast();
            m.size = size;
            Ok(Self { m, buf })
        }

        fn file(&mut self) -> &SeqFile {
            // SAFETY: It is valid for as long as `self` is borrowed, and no other thread uses it.
            unsafe { SeqFile::from_raw(&mut self.m) }
        }

        fn text(&self) -> &[u8] {
            &self.buf[..self.m.count]
        }

        fn is_overflown(&self) -> bool {
            self.m.count == self.m.size
        }

        fn is_intact(&self) -> bool {
            self.buf[self.m.size..].iter().all(|&byte| byte == GUARD)
        }
    }

    /// What C and [`Line`] write for a number.
    fn written(
        by_c: impl FnOnce(*mut bindings::seq_file),
        by_line: impl FnOnce(&mut Line<'_>),
    ) -> Result<(TestFile, TestFile)> {
        let mut c = TestFile::new(128)?;
        let mut rust = TestFile::new(128)?;

        by_c(c.file().as_ptr());
        let mut line = rust.file().line();
        by_line(&mut line);
        line.finish();
        rust.m.count -= 1;
        Ok((c, rust))
    }

    #[test]
    fn hexadecimal_as_in_c() -> Result {
        for number in Iterator::chain((0..64).map(|bit| 1 << bit), NUMBERS) {
            for number in [number, number.saturating_sub(1)] {
                for width in 1..=8 {
                    let (c, rust) = written(
                        // SAFETY: The file is valid.
                        |m| unsafe {
                            bindings::seq_put_hex_ll(m, core::ptr::null(), number, width)
                        },
                        |line| line.put_hexadecimal(number, width as usize),
                    )?;
                    assert_eq!(c.text(), rust.text());
                }
            }
        }
        Ok(())
    }

    fn decimal_numbers() -> impl Iterator<Item = u64> {
        let powers = (0..20).map(|n| 10u64.pow(n));
        Iterator::chain(powers, NUMBERS)
            .flat_map(|number| [number, number.wrapping_sub(1), number / 7 * 3])
    }

    #[test]
    fn decimal_as_in_c() -> Result {
        for number in decimal_numbers() {
            let (c, rust) = written(
                // SAFETY: The file is valid.
                |m| unsafe { bindings::seq_put_decimal_ull(m, core::ptr::null(), number) },
                |line| line.put_decimal(number),
            )?;
            assert_eq!(c.text(), rust.text());
        }
        Ok(())
    }

    #[test]
    fn decimal_padded_as_in_c() -> Result {
        for number in decimal_numbers() {
            for width in 1..=8 {
                let (c, rust) = written(
                    // SAFETY: The file is valid.
                    |m| unsafe {
                        bindings::seq_put_decimal_ull_width(m, core::ptr::null(), number, width)
                    },
                    |line| line.put_decimal_padded(number, width as usize),
                )?;
                assert_eq!(c.text(), rust.text());
            }
        }
        Ok(())
    }

    #[test]
    fn ranges_as_in_c() -> Result {
        for start in Iterator::chain((0..64).map(|bit| 1 << bit), NUMBERS) {
            let near = [start, start ^ 0xabcd_f000, start ^ 0x1_0000_1000];
            for end in Iterator::chain(near.into_iter(), NUMBERS) {
                let (c, rust) = written(
                    // SAFETY: The file is valid.
                    |m| unsafe {
                        bindings::seq_put_hex_ll(m, core::ptr::null(), start, 8);
                        bindings::seq_put_hex_ll(m, c"-".as_char_ptr(), end, 8);
                    },
                    |line| line.put_range(start as usize..end as usize),
                )?;
                assert_eq!(c.text(), rust.text());
            }
        }
        Ok(())
    }

    #[test]
    fn padded_as_in_c() -> Result {
        const TEXT: &[u8] = b"0123456789ab";

        for len in 0..TEXT.len() {
            let (c, rust) = written(
                // SAFETY: The file is valid, and so is the text.
                |m| unsafe {
                    (*m).pad_until = 7;
                    bindings::seq_write(m, TEXT.as_ptr().cast(), len);
                    bindings::seq_pad(m, b' ');
                },
                |line| {
                    line.put(&TEXT[..len]);
                    line.pad_to(8);
                },
            )?;
            assert_eq!(c.text(), rust.text());
        }
        Ok(())
    }

    fn put_all(line: &mut Line<'_>) {
        line.put_range(0x7fff_1234_5000..0x7fff_1234_7000);
        line.put(b" rw-p ");
        line.put_hexadecimal(0x12, 8);
        line.put(b" ");
        line.put_decimal(1_234_567_890);
        line.put_decimal_padded(12, 7);
        line.pad_to(65);
        line.put(b"name");
    }

    const ALL: &[u8] = b"7fff12345000-7fff12347000 rw-p 00000012 1234567890     12        name\n";

    /// A line is there if C would find room for it: if a byte is left.
    #[test]
    fn fits_or_overflows_at_every_size() -> Result {
        for size in 1..2 * ALL.len() {
            let mut file = TestFile::new(size)?;
            let mut line = file.file().line();
            put_all(&mut line);
            line.finish();

            assert!(file.is_intact());
            assert_eq!(file.is_overflown(), size <= ALL.len());
            if !file.is_overflown() {
                assert_eq!(file.text(), ALL);
            }
        }
        Ok(())
    }

    /// Another function continues a line that was left open.
    #[test]
    fn left_open_and_gone_on_with() -> Result {
        for size in 1..16 {
            let mut file = TestFile::new(size)?;
            let mut line = file.file().line();
            line.put(b"one ");
            line.end_without_newline();
            assert!(file.is_intact());
            // there has to be a byte more, as in C
            assert_eq!(file.is_overflown(), size <= 4);

            // SAFETY: The file is valid.
            unsafe { bindings::seq_write(file.file().as_ptr(), c"two".as_char_ptr().cast(), 3) };
            assert!(file.is_intact());
            assert_eq!(file.is_overflown(), size <= 7);
            if !file.is_overflown() {
                assert_eq!(file.text(), b"one two");
            }
        }
        Ok(())
    }

    /// A line that is not finished adds nothing to the buffer.
    #[test]
    fn dropped_line_is_none() -> Result {
        let mut file = TestFile::new(256)?;
        put_all(&mut file.file().line());
        assert_eq!(file.text(), b"");
        Ok(())
    }

    #[test]
    fn again_what_stands_before() -> Result {
        let mut file = TestFile::new(256)?;
        let mut line = file.file().line();
        line.put(b"one ");
        let from = line.column();
        line.put(b"two three");
        let place = line.place(from);
        assert_eq!(place.len(), 9);
        // it is part of this line
        assert!(!line.is_before(place));
        line.finish();

        let mut line = file.file().line();
        assert!(line.is_before(place));
        line.put_copy_of(place, 0..9);
        line.put(b",");
        line.put_copy_of(place, 4..9);
        line.put_copy_of(place, 0..3);
        line.finish();
        assert_eq!(file.text(), b"one two three\ntwo three,threetwo\n");

        let mut line = file.file().line();
        line.put_copy_of(place, 4..10);
        line.finish();
        assert!(file.is_overflown());

        // the lines have been read, and the buffer begins anew
        file.m.count = 0;
        let line = file.file().line();
        assert!(!line.is_before(place));
        Ok(())
    }
}
