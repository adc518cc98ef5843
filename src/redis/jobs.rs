//! The jobs that the Redis worker of pg_cache (`workers/redis/copier.rs`) sends to the thread (`thread.rs`), and the answers. There
//! is one answer for each job, in the order of the jobs. A *set* in Redis has the Redis keys of the values that depend on a tag or
//! a relation. Its *proof* is a member that shows that the set is complete (`lib.rs`).

/// One job. The thread executes jobs in the order in which they were sent.
#[derive(Debug)]
pub enum Job {
    /// Connects anew. Every job after a failure is answered `Skipped` until this one succeeds.
    Connect,
    /// Asks for the facts again, and asks the sentinels whether the master is still the same.
    Check,
    /// Writes and removes values.
    Write(Batch),
    /// Removes the keys that are members of these sets, then the sets. Announces the removed keys on `channel`.
    RemoveMembers {
        /// The Redis keys of the sets.
        sets: Vec<String>,
        /// The channel for the announcements.
        channel: String,
    },
    /// One step of a scan over all primaries. A scan begins with node 0 and cursor 0.
    Scan {
        /// The number of the primary, from 0.
        node: usize,
        /// The cursor within the primary.
        cursor: u64,
        /// The pattern that the keys must match (see [`pattern`](crate::pattern)).
        pattern: Vec<u8>,
    },
}

/// The changes of one `Job::Write`. A server first adds to the sets, then writes the values, then removes. The servers of a cluster
/// do not wait for each other.
#[derive(Debug, Default)]
pub struct Batch {
    /// Members to add to sets.
    pub set_additions: Vec<SetAddition>,
    /// Values to write.
    pub values: Vec<Value>,
    /// Redis keys to remove.
    pub removals: Vec<Vec<u8>>,
    /// The channels on which the batch is announced. A key is announced on a channel if it begins with the channel's name and `:`.
    /// Other keys are not announced, so a batch without channels announces nothing.
    pub channels: Vec<String>,
}

/// Members to add to one set.
#[derive(Debug)]
pub struct SetAddition {
    /// The Redis key of the set.
    pub set: String,
    /// The Redis keys to add.
    pub members: Vec<Vec<u8>>,
    /// When the set expires, in milliseconds from now.
    pub ttl_ms: u64,
    /// Whether the set was written before, so that it must exist. Only an addition with `false` here adds the proof that the set is
    /// complete.
    pub must_exist: bool,
}

/// A value to write.
#[derive(Debug)]
pub struct Value {
    /// The Redis key.
    pub key: Vec<u8>,
    /// The value.
    pub json: String,
    /// When the value expires, in milliseconds from now. 0 removes the key.
    pub ttl_ms: u64,
}

/// The answer to one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The answer to `Connect` and `Check`.
    Facts(Facts),
    /// The answer to `Write`.
    Written {
        /// The error of Redis if it is full, or if it does not take one of the values. The keys of all values of the batch were
        /// then removed.
        refused: Option<String>,
        /// Whether a set that must exist was gone or lacked its proof, so that it lacks members.
        lost_sets: bool,
    },
    /// The answer to `RemoveMembers`.
    MembersRemoved {
        /// False if one of the sets did not exist, or lacked its proof, so that members may be missing.
        all_found: bool,
    },
    /// The answer to `Scan`.
    Scanned {
        /// The node and the cursor of the next step. `None` after the last one.
        next: Option<(usize, u64)>,
        /// The keys of this step. A scan may return a key more than once.
        keys: Vec<Vec<u8>>,
    },
    /// The connection is given up. The text is one line without secrets, of at most 200 bytes.
    Failed(String),
    /// The job was not executed, because a job before it failed and no `Connect` has succeeded since.
    Skipped,
}

/// The facts about the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `run_id` and `master_replid` of each primary, sorted. Equal values mean the same processes, whose data were not replaced.
    /// `None` if the user may not run `INFO`.
    pub identity: Option<Vec<String>>,
    /// The limit of memory in bytes; 0 if one of the primaries has no limit, else the smallest one.
    pub maxmemory: Option<u64>,
    /// The policy of evictions at the limit; `noeviction` if that is the policy of one of the primaries.
    pub policy: Option<String>,
    /// False if one of the servers is a replica.
    pub is_writable: bool,
}
