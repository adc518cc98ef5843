// Package pgcached caches values in pg_cache, with database/sql. See README.md.
//
// A space is a named cache of pg_cache. A lease is the right to compute a missing value: cache_acquire returns the value (status
// hit or stale), or a lease (compute), or the status wait if another session has the lease. A set with the lease stores nothing if
// the key or one of the tags has changed since the lease was acquired. A set that stores ends the lease. Otherwise the holder must
// release it, also after an error: the other sessions would wait until Hold is over.
package pgcached

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// DB is an *sql.DB, *sql.Conn or *sql.Tx. Other sessions see the changes of a transaction when it commits.
type DB interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Options tell how a value is cached.
type Options struct {
	Space string        // "" is the space default
	TTL   time.Duration // at most a year; 0 is the default of the space
	Tags  []string      // the value is invalid as soon as one of them is invalidated
	Wait  time.Duration // how long to wait for another session that computes, 5 s by default. Then compute is called, and nothing stored
	Hold  time.Duration // how long other sessions wait for this one, 30 s by default
}

// Between two calls of cache_acquire: the shortest and the longest pause.
const shortestPoll, longestPoll = 5 * time.Millisecond, 100 * time.Millisecond

// GetOrCompute returns the value of a key. If there is none, one session computes it, and the others wait for it. The value is
// stored as JSON. A key must have 1 to 1024 bytes: nothing is stored under other keys.
func GetOrCompute[T any](ctx context.Context, db DB, key string, o Options, compute func(context.Context) (T, error)) (T, error) {
	o.Space, o.Wait, o.Hold = or(o.Space, "default"), or(o.Wait, 5*time.Second), or(o.Hold, 30*time.Second)
	var value T
	for deadline, pause := time.Now().Add(o.Wait), shortestPoll; ; pause = min(2*pause, longestPoll) {
		var stored []byte
		var status string
		var lease sql.NullInt64
		// cache_acquire could wait itself, but would keep a connection of the pool, which compute may need.
		err := db.QueryRowContext(ctx, `SELECT value, status, lease
			FROM cache_acquire_bytes($1, $2, hold => make_interval(secs => $3))`,
			key, o.Space, o.Hold.Seconds()).Scan(&stored, &status, &lease)
		switch {
		case err != nil:
			return value, err
		case status == "hit" || status == "stale":
			return value, json.Unmarshal(stored, &value)
		case status == "compute":
			return computeAndStore(ctx, db, key, o, lease.Int64, compute)
		case time.Now().After(deadline):
			return compute(ctx)
		}
		select {
		case <-ctx.Done():
			return value, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// computeAndStore computes the value and stores it with the lease of the key. The value is returned also if it is not stored.
func computeAndStore[T any](
	ctx context.Context, db DB, key string, o Options, lease int64, compute func(context.Context) (T, error),
) (T, error) {
	released := false // whether a set has stored the value, which ends the lease
	defer func() { // also after a panic, or if the context has ended
		if !released {
			// In a failed transaction this is an error. Its rollback releases the lease.
			_, _ = db.ExecContext(context.Background(), `SELECT cache_release($1, $2, $3)`, key, lease, o.Space)
		}
	}()
	value, err := compute(ctx)
	if err != nil {
		return value, err
	}
	stored, err := json.Marshal(value)
	if err != nil {
		return value, err
	}
	tags, err := json.Marshal(append([]string{}, o.Tags...))
	if err != nil {
		return value, err
	}
	var ttl sql.NullFloat64
	if o.TTL != 0 {
		ttl = sql.NullFloat64{Float64: o.TTL.Seconds(), Valid: true}
	}
	// If a table or a tag has changed since the lease, this stores nothing.
	err = db.QueryRowContext(ctx, `SELECT cache_set_bytes($1, $2, make_interval(secs => $3),
		ARRAY(SELECT jsonb_array_elements_text($4::jsonb)), $5, lease => $6)`,
		key, stored, ttl, string(tags), o.Space, lease).Scan(&released)
	return value, err
}

// InvalidateTags invalidates all values with one of the tags.
func InvalidateTags(ctx context.Context, db DB, tags ...string) error {
	list, err := json.Marshal(append([]string{}, tags...))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `SELECT cache_invalidate_tags(ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))`, string(list))
	return err
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}
