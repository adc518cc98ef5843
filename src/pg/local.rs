//! What belongs to the session alone, and so to the process: plain statics, where a thread's own would cost a call at each look.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Deref;

/// Something that only this session's own thread looks at.
#[derive(Debug)]
pub struct Local<T>(T);

// SAFETY: a backend has one thread, and the server calls into this library from no other. Whoever starts a thread here must not let
// it call what uses this.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// To be a static.
    pub const fn new(content: T) -> Self {
        Self(content)
    }
}

impl<T> Deref for Local<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Local<RefCell<T>> {
    /// Calls with the content.
    #[inline]
    pub fn with_borrow<R>(&self, call: impl FnOnce(&T) -> R) -> R {
        call(&self.0.borrow())
    }

    /// Calls with the content, to change it.
    #[inline]
    pub fn with_borrow_mut<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        call(&mut self.0.borrow_mut())
    }
}
