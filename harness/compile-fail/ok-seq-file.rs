// SPDX-License-Identifier: GPL-2.0
//! A sequential file: the lines 0 to 9.

use kernel::prelude::*;
use kernel::seq_file::{Index, Operations, SeqFile};
use kernel::seq_print;

pub struct Digits;

impl Operations for Digits {
    type State = ();
    type Session = [u8; 10];
    type Cursor<'s> = &'s [u8];
    type AfterShow<'s> = &'s [u8];

    fn start(&self, index: Index) -> Result<Option<[u8; 10]>> {
        Ok((index < 10).then(|| core::array::from_fn(|n| n as u8)))
    }

    fn first<'s>(
        &self,
        _state: &mut (),
        session: &'s mut [u8; 10],
        index: &mut Index,
    ) -> Result<Option<&'s [u8]>> {
        let digits = &session[*index as usize..];
        *index += 1;
        Ok(Some(digits))
    }

    fn next<'s>(
        &self,
        _state: &mut (),
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>> {
        *index += 1;
        Ok(Some(shown).filter(|digits| !digits.is_empty()))
    }

    fn show<'s>(
        &self,
        _state: &mut (),
        m: &SeqFile,
        cursor: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        seq_print!(m, "{}\n", cursor[0]);
        Ok(&cursor[1..])
    }
}
