//! State of the session: plain statics, because a `thread_local!` would cost a function call at each access.
//!
//! One thread owns this state: the thread in which the server loaded the library. The postmaster forks each backend from that
//! thread. The only thread of the child then has the same thread control block, at the same address. A library may start more
//! threads, so each access compares the address of the running thread's control block with the owner's, and panics in any other
//! thread.
//!
//! The server itself belongs to the same thread. pgrx's guard refuses calls from other threads. Functions of this library that call
//! the server without that guard, or read its variables, must call [`check_thread`].

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Deref;

/// The address of the owner's thread control block; 0 before the library is loaded. It is written once and is not an atomic, so
/// that the compiler can merge the checks of two accesses in a row.
static mut OWNER: usize = 0;

/// Makes the running thread the owner. Only the first call has an effect. The server makes it when it loads the library
/// (`_PG_init`), in the thread that ends with the process: so no other thread can have the same control block later.
pub fn claim_thread() {
    // SAFETY: the server calls no other function of the library before it has loaded it, so no other thread of ours runs when the
    // first call writes. All later calls only read.
    unsafe {
        if OWNER == 0 {
            OWNER = thread();
        }
    }
}

/// Panics in a thread that does not own the session.
#[inline(always)]
pub fn check_thread() {
    // SAFETY: the variable is not written any more, see `claim_thread`.
    if thread() != unsafe { OWNER } {
        refuse_thread();
    }
}

#[cold]
#[inline(never)]
fn refuse_thread() -> ! {
    panic!("state of the session is used in another thread than the session's")
}

/// Returns a value that differs between any two running threads.
#[inline(always)]
fn thread() -> usize {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let block: usize;
        // SAFETY: the first word of a thread's control block holds the block's own address (System V ABI, thread-local storage). It
        // never changes while the thread runs, so the compiler may merge two reads.
        unsafe {
            std::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) block, options(pure, nomem, nostack, preserves_flags));
        }
        block
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    {
        let block: usize;
        // SAFETY: reads the register that holds the address. It never changes while the thread runs.
        unsafe {
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) block, options(pure, nomem, nostack, preserves_flags));
        }
        block
    }
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        thread_local! {
            static OWN: u8 = const { 0 };
        }
        OWN.with(|own| std::ptr::from_ref(own).addr())
    }
}

/// A value that only the session's thread can access. Declared by [`local!`].
pub struct Local<T>(T);

// SAFETY: the content was made at compile time (`new`), so no thread holds a share in it from the start. It can only be accessed
// through `deref`, which panics in all threads but the owner. A static is never dropped.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// Makes the initial value of a static.
    ///
    /// # Safety
    /// The call must be evaluated at compile time: a thread that makes the content at run time could keep a share in it.
    pub const unsafe fn new(content: T) -> Self {
        Self(content)
    }
}

/// Declares statics that belong to the session: `local! { static NAME: Type = content; }`.
macro_rules! local {
    ($($(#[$meta:meta])* static $name:ident: $type:ty = $content:expr;)+) => {$(
        $(#[$meta])*
        static $name: $crate::pg::local::Local<$type> = {
            const fn of(content: $type) -> $crate::pg::local::Local<$type> {
                #[allow(unsafe_code)]
                // SAFETY: `of` is only called below, for the initial value of a static, which is evaluated at compile time.
                unsafe {
                    $crate::pg::local::Local::new(content)
                }
            }
            of($content)
        };
    )+};
}
pub(crate) use local;

impl<T> Deref for Local<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        check_thread();
        &self.0
    }
}

impl<T> Local<RefCell<T>> {
    /// Calls `call` with a reference to the content. Panics if the content is borrowed as mutable.
    #[inline]
    pub fn with_borrow<R>(&self, call: impl FnOnce(&T) -> R) -> R {
        call(&(**self).borrow())
    }

    /// Calls `call` with a mutable reference to the content. Panics if the content is borrowed: `call` must not use this static
    /// again.
    #[inline]
    pub fn with_borrow_mut<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        call(&mut (**self).borrow_mut())
    }
}

/// Returns whether another thread is refused access to the session's state. For tests, in debug builds only (`CREATE FUNCTION … AS
/// '$libdir/pg_cache', 'refuses_threads_wrapper'`).
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn refuses_threads() -> bool {
    local! {
        static CONTENT: std::cell::Cell<u32> = std::cell::Cell::new(1);
    }
    CONTENT.set(2);
    CONTENT.get() == 2 && std::thread::spawn(|| CONTENT.set(3)).join().is_err() && CONTENT.get() == 2
}
