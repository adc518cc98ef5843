//! State of the session: plain statics, where a `thread_local!` would cost a function call at each access.
//!
//! One thread owns it: the thread in which the server loaded the library. The postmaster forks each backend in that thread, and the
//! only thread of the child has the same thread control block at the same address. A library may start more threads. Each access
//! therefore compares the address of the running thread's control block with the owner's, and panics in any other thread.
//!
//! The server itself belongs to the same thread. pgrx's guard refuses calls from another one; functions of this library that call the
//! server without that guard, or read its variables, ask [`check_thread`].

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Deref;

/// The address of the owner's thread control block; 0 before the library is loaded. Written once, and no atomic: the compiler can see that
/// two accesses in a row need one check.
static mut OWNER: usize = 0;

/// Makes the running thread the owner. The first call counts. The server makes it when it loads the library (`_PG_init`), in the thread
/// that ends with the process: no other thread can have the same control block later.
pub fn claim_thread() {
    // SAFETY: the server calls nothing else of the library before it has loaded it, so that no other thread of ours runs when the first
    // call writes. Every later call only reads.
    unsafe {
        if OWNER == 0 {
            OWNER = thread();
        }
    }
}

/// Panics in a thread that does not own the session.
#[inline(always)]
pub fn check_thread() {
    // SAFETY: not written to any more, see above.
    if thread() != unsafe { OWNER } {
        refuse_thread();
    }
}

#[cold]
#[inline(never)]
fn refuse_thread() -> ! {
    panic!("state of the session is used in another thread than the session's")
}

/// What tells the running thread from all others that run.
#[inline(always)]
fn thread() -> usize {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let block: usize;
        // SAFETY: the first word of a thread's control block holds the block's own address (System V ABI, thread-local storage). It
        // never changes while the thread runs, so the compiler may take two reads for one.
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

/// Something that only the session's thread can reach. Declared by [`local!`].
pub struct Local<T>(T);

// SAFETY: the content was made at compile time (`new`), so that no thread begins with a share in it. It is reached through `deref` only,
// which panics in all threads but one. A static is never dropped.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// The initial value of a static.
    ///
    /// # Safety
    /// It must be evaluated at compile time: a thread that made the content while it runs could keep a share in it.
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
                // SAFETY: called once, below: the initial value of a static is evaluated at compile time.
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
    /// Calls with the content.
    #[inline]
    pub fn with_borrow<R>(&self, call: impl FnOnce(&T) -> R) -> R {
        call(&(**self).borrow())
    }

    /// Calls with the content, to change it.
    #[inline]
    pub fn with_borrow_mut<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        call(&mut (**self).borrow_mut())
    }
}

/// For tests, in their builds only: whether another thread is refused what belongs to the session
/// (`CREATE FUNCTION … AS '$libdir/pg_cache', 'refuses_threads_wrapper'`).
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn refuses_threads() -> bool {
    local! {
        static CONTENT: std::cell::Cell<u32> = std::cell::Cell::new(1);
    }
    CONTENT.set(2);
    CONTENT.get() == 2 && std::thread::spawn(|| CONTENT.set(3)).join().is_err() && CONTENT.get() == 2
}
