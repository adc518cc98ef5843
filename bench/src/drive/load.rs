//! The load of a run, and its result. In a run, one *contender*, one of the alternatives that a measurement compares, works for a
//! while. The contenders are those of the plan (`plan.rs`), and those of other parts of the report, such as `tables/` and
//! `outward/`.

/// The result of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// The number of operations done. Each key of a request counts as one.
    pub operations: u64,
    /// Operations per second of all clients together, by the clock of the program that ran them.
    pub per_second: f64,
}

/// The load of a run: the same for all contenders of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The number of connections.
    pub clients: u32,
    /// Requests that a client sends before it waits for their answers.
    pub pipeline: u32,
    /// Keys of one request. Must be at least 1, because operations are counted by keys: `redis_benchmark` divides by this number.
    pub keys: u32,
}
