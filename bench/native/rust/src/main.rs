//! One measurement of one of Rust's own primitives: the loops of loops.py, word for word.
//!
//!     fastsync-bench-native CASE CONTESTANT THREADS INSIDE OUTSIDE SECONDS CLOCKED [READERS]
//!
//! prints one line of JSON: every thread's operations and, when CLOCKED, its longest wait (ns).

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

type Count = (u64, u64);

#[derive(Clone, Copy)]
struct Work {
    inside: u32,
    outside: u32,
    clocked: bool,
}

/// The words of a test begin a pair of cache lines and share it with nobody.
///
/// A closure must use the whole of it (`let m = &m;`): one that names `m.value` alone captures
/// that field alone, and the padding is lost.
#[repr(C, align(128))]
struct Padded<T> {
    value: T,
}

fn padded<T>(value: T) -> Padded<T> {
    Padded { value }
}

#[inline(always)]
fn multiply(times: u32, shared: &mut f64, carried: &mut f64) {
    let (mut s, mut c) = (*shared, *carried);
    for _ in 0..times {
        s += c;
        s *= 1.01;
        c = s;
    }
    *shared = s;
    *carried = c;
}

/// Run `threads` copies of `body` until the time is up.
fn run<F>(threads: usize, seconds: f64, body: F) -> Vec<Count>
where
    F: Fn(usize, &AtomicBool) -> Count + Send + Sync + 'static,
{
    let body = Arc::new(body);
    let stop = Arc::new(padded(AtomicBool::new(false)));
    let start = Arc::new(Barrier::new(threads + 1));
    let handles: Vec<_> = (0..threads)
        .map(|index| {
            let (body, stop, start) = (body.clone(), stop.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                body(index, &stop.value)
            })
        })
        .collect();
    start.wait();
    thread::sleep(Duration::from_secs_f64(seconds));
    stop.value.store(true, Ordering::Relaxed);
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

/// The loop of the mutex and rwlock cases: `$enter` gives a guard or nothing, `$body` the work.
macro_rules! lock_loop {
    ($work:expr, $stop:expr, $guard:ident = $enter:expr, $carried:ident, $inner:expr, $leave:expr) => {{
        let mut count = 0u64;
        let mut longest = 0u64;
        let mut local = 0.0f64;
        let mut $carried = 1.0f64;
        while !$stop.load(Ordering::Relaxed) {
            let began = if $work.clocked { Some(Instant::now()) } else { None };
            #[allow(unused_mut)]
            let mut $guard = $enter;
            if let Some(began) = began {
                longest = longest.max(began.elapsed().as_nanos() as u64);
            }
            $inner;
            $leave;
            multiply($work.outside, &mut local, &mut $carried);
            count += 1;
        }
        black_box((local, $carried));
        (count, longest)
    }};
}

fn mutex(contestant: &str, threads: usize, work: Work, seconds: f64) -> Option<Vec<Count>> {
    Some(match contestant {
        "parking_lot" => {
            let m = padded(parking_lot::Mutex::new(0.0f64));
            run(threads, seconds, move |_, stop| {
                let (m, work) = (&m, black_box(work)); // each thread has its own `work`
                lock_loop!(work, stop, g = m.value.lock(), v, multiply(work.inside, &mut g, &mut v), drop(g))
            })
        }
        "parking_lot_fair" => {
            let m = padded(parking_lot::FairMutex::new(0.0f64));
            run(threads, seconds, move |_, stop| {
                let (m, work) = (&m, black_box(work)); // each thread has its own `work`
                lock_loop!(work, stop, g = m.value.lock(), v, multiply(work.inside, &mut g, &mut v), drop(g))
            })
        }
        "std" => {
            let m = padded(std::sync::Mutex::new(0.0f64));
            run(threads, seconds, move |_, stop| {
                let (m, work) = (&m, black_box(work)); // each thread has its own `work`
                lock_loop!(work, stop, g = m.value.lock().unwrap(), v, multiply(work.inside, &mut g, &mut v), drop(g))
            })
        }
        _ => return None,
    })
}

/// The first `readers` threads read, the others write.
macro_rules! rwlock_run {
    ($lock:expr, $threads:expr, $readers:expr, $work:expr, $seconds:expr, $read:ident, $write:ident, $unwrap:expr) => {{
        let l = padded($lock);
        let (readers, work) = ($readers, $work);
        run($threads, $seconds, move |index, stop| {
            let (l, work) = (&l, black_box(work));
            if index < readers {
                lock_loop!(work, stop, g = $unwrap(l.value.$read()), v, {
                    let mut seen = 0.0f64;
                    for _ in 0..work.inside {
                        seen += v;
                        seen *= *g;
                        v = seen;
                    }
                }, drop(g))
            } else {
                lock_loop!(work, stop, g = $unwrap(l.value.$write()), v, multiply(work.inside, &mut g, &mut v), drop(g))
            }
        })
    }};
}

fn rwlock(contestant: &str, threads: usize, readers: usize, work: Work, seconds: f64) -> Option<Vec<Count>> {
    Some(match contestant {
        "parking_lot" => rwlock_run!(parking_lot::RwLock::new(0.0f64), threads, readers, work, seconds, read, write, |g| g),
        "std" => rwlock_run!(std::sync::RwLock::new(0.0f64), threads, readers, work, seconds, read, write, |g: Result<_, _>| match g { Ok(g) => g, Err(_) => unreachable!() }),
        _ => return None,
    })
}

/// Threads in a ring: each waits for its turn, then gives it to the next. With `one`, each has a
/// condition variable of its own. A mutex and a condition variable of either crate are used alike,
/// but for `$wait` and `$lock`.
macro_rules! ring {
    ($threads:expr, $seconds:expr, $one:expr, $home:path, |$m:ident| $lock:expr,
     |$c:ident, $turn:ident| $wait:expr) => {{
        use $home as home;
        use home::{Condvar, Mutex};
        let ring = padded((Mutex::new(0usize), std::array::from_fn::<_, 8, _>(|_| Condvar::new())));
        let (threads, one) = ($threads, $one);
        run(threads, $seconds, move |index, stop| {
            let ring = &ring;
            let ($m, changed) = &ring.value;
            let next = (index + 1) % threads;
            let mut count = 0;
            let notify = || {
                if one { changed[next].notify_one(); } else { changed[0].notify_all(); }
            };
            let $c = &changed[if one { index } else { 0 }];
            let mut $turn = $lock;
            while !stop.load(Ordering::Relaxed) {
                while *$turn != index && !stop.load(Ordering::Relaxed) {
                    $wait;
                }
                *$turn = next;
                notify();
                count += 1;
            }
            notify();
            (count, 0)
        })
    }};
}

fn condvar(one: bool, contestant: &str, threads: usize, seconds: f64) -> Option<Vec<Count>> {
    Some(match contestant {
        "parking_lot" => ring!(threads, seconds, one, parking_lot, |m| m.lock(), |c, turn| c.wait(&mut turn)),
        "std" => ring!(threads, seconds, one, std::sync, |m| m.lock().unwrap(), |c, turn| turn = c.wait(turn).unwrap()),
        _ => return None,
    })
}

/// What does not block: `$step` until the time is up.
macro_rules! step_loop {
    ($threads:expr, $seconds:expr, $shared:ident = $value:expr, $step:expr) => {{
        let $shared = padded($value);
        run($threads, $seconds, move |_, stop| {
            let $shared = &$shared;
            let $shared = &$shared.value;
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                $step;
                count += 1;
            }
            (count, 0)
        })
    }};
}

struct Plain(UnsafeCell<i64>);
unsafe impl Sync for Plain {}

fn once(contestant: &str, threads: usize, seconds: f64) -> Option<Vec<Count>> {
    Some(match contestant {
        "parking_lot" => step_loop!(threads, seconds, s = (parking_lot::Once::new(), Plain(UnsafeCell::new(0))), {
            s.0.call_once(|| unsafe { *s.1 .0.get() += 1 })
        }),
        "std" => step_loop!(threads, seconds, s = (std::sync::Once::new(), Plain(UnsafeCell::new(0))), {
            s.0.call_once(|| unsafe { *s.1 .0.get() += 1 })
        }),
        _ => return None,
    })
}

/// All threads call each once of a block; the last one there makes the block new.
macro_rules! once_race {
    ($threads:expr, $seconds:expr, $once:ty) => {{
        #[repr(C)] // in the order of loops.py
        struct Words {
            arrived: AtomicI64,
            round: AtomicI64,
            over: UnsafeCell<bool>,
            value: UnsafeCell<f64>,
            block: UnsafeCell<[$once; 4096]>,
        }
        unsafe impl Sync for Words {}
        unsafe impl Send for Words {}
        let words = Box::new(padded(Words {
            arrived: AtomicI64::new(0),
            round: AtomicI64::new(0),
            over: UnsafeCell::new(false),
            value: UnsafeCell::new(0.0),
            block: UnsafeCell::new([const { <$once>::new() }; 4096]),
        }));
        let threads = $threads;
        run(threads, $seconds, move |_, stop| {
            let words = &words;
            let s = &words.value;
            let (mut count, mut round) = (0, 0);
            // Only the last thread that arrives writes what is in a cell, before the next round.
            while !unsafe { *s.over.get() } {
                for once in unsafe { &*s.block.get() } {
                    once.call_once(|| {
                        let mut carried = 1.0;
                        multiply(20, unsafe { &mut *s.value.get() }, &mut carried);
                    });
                }
                count += 4096;
                round += 1;
                if s.arrived.fetch_add(1, Ordering::SeqCst) == threads as i64 - 1 {
                    unsafe {
                        *s.block.get() = [const { <$once>::new() }; 4096];
                        *s.over.get() = stop.load(Ordering::Relaxed);
                    }
                    s.arrived.store(0, Ordering::Relaxed);
                    s.round.fetch_add(1, Ordering::SeqCst);
                }
                while s.round.load(Ordering::SeqCst) != round {
                    thread::yield_now();
                }
            }
            (count, 0)
        })
    }};
}

fn once_race(contestant: &str, threads: usize, seconds: f64) -> Option<Vec<Count>> {
    Some(match contestant {
        "parking_lot" => once_race!(threads, seconds, parking_lot::Once),
        "std" => once_race!(threads, seconds, std::sync::Once),
        _ => return None,
    })
}

fn atomic(case: &str, contestant: &str, threads: usize, seconds: f64) -> Option<Vec<Count>> {
    Some(match (case, contestant) {
        ("load", "std") => step_loop!(threads, seconds, a = AtomicI64::new(1), {
            black_box(a.load(Ordering::Acquire));
        }),
        ("fetch_add", "std") => step_loop!(threads, seconds, a = AtomicI64::new(0), {
            black_box(a.fetch_add(1, Ordering::Relaxed));
        }),
        ("cas", "std") => step_loop!(threads, seconds, a = AtomicI64::new(0), {
            let mut seen = a.load(Ordering::Relaxed);
            while let Err(now) = a.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed) {
                seen = now;
            }
        }),
        ("fetch_add", "crossbeam") => step_loop!(threads, seconds, a = crossbeam::atomic::AtomicCell::new(0i64), {
            black_box(a.fetch_add(1));
        }),
        ("load", "crossbeam") => step_loop!(threads, seconds, a = crossbeam::atomic::AtomicCell::new(0i64), {
            black_box(a.load());
        }),
        _ => return None,
    })
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).map_or(0.0, |text| text.parse::<f64>().unwrap());
    let (case, contestant) = (args[0].as_str(), args[1].as_str());
    let (threads, seconds) = (number(2) as usize, number(5));
    let work = Work { inside: number(3) as u32, outside: number(4) as u32, clocked: number(6) != 0.0 };
    let counts = match case {
        "mutex" => mutex(contestant, threads, work, seconds),
        "rwlock" => rwlock(contestant, threads, number(7) as usize, work, seconds),
        "condvar" => condvar(false, contestant, threads, seconds),
        "condvar_one" => condvar(true, contestant, threads, seconds),
        "once" => once(contestant, threads, seconds),
        "once_race" => once_race(contestant, threads, seconds),
        _ => atomic(case, contestant, threads, seconds),
    };
    let counts = counts.expect("no such case or contestant");
    let join = |f: fn(&Count) -> u64| counts.iter().map(|c| f(c).to_string()).collect::<Vec<_>>().join(", ");
    println!("{{\"counts\": [{}], \"waits\": [{}]}}", join(|c| c.0), join(|c| c.1));
}
