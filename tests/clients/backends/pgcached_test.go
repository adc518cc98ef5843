// Tests of examples/backends/go, with lib/pq. `backends.rs` runs them on a new database, to which the variables of libpq lead. A
// *lease* is the right to compute the value of a key, while other callers wait. After cache_watch('product'), a write to the table
// product invalidates the values with the tag product.
package pgcached

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq"
)

var ctx = context.Background()

// Longer than a lease lasts: a lease that is not released costs 30 seconds.
const patient, prompt = time.Minute, 20 * time.Second

func open(t *testing.T) *sql.DB {
	db, err := sql.Open("postgres", "sslmode=disable")
	check(t, err)
	db.SetMaxOpenConns(4)
	t.Cleanup(func() { db.Close() })
	return db
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect[T comparable](t *testing.T, actual, expected T) {
	t.Helper()
	if actual != expected {
		t.Fatalf("%v is not %v", actual, expected)
	}
}

func cents(db DB) func(context.Context) (int, error) {
	return func(ctx context.Context) (cents int, err error) {
		return cents, db.QueryRowContext(ctx, `SELECT cents FROM product`).Scan(&cents)
	}
}

// 50 goroutines share four connections with the function. One of them calls it.
func TestOneComputes(t *testing.T) {
	db := open(t)
	var calls int32
	var group sync.WaitGroup
	for i := 0; i < 50; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			value, err := GetOrCompute(ctx, db, "stampede", Options{Wait: patient}, func(ctx context.Context) (value string, err error) {
				atomic.AddInt32(&calls, 1)
				return value, db.QueryRowContext(ctx, `SELECT 'computed' FROM pg_sleep(0.3)`).Scan(&value)
			})
			if err != nil || value != "computed" {
				t.Error(value, err)
			}
		}()
	}
	group.Wait()
	expect(t, calls, 1)
}

// A commit invalidates the value, and a rollback does not. An outdated value is returned once, and not stored.
func TestValuesFollowTheirTable(t *testing.T) {
	db := open(t)
	_, err := db.Exec(`CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')`)
	check(t, err)
	write := func(db DB, cents int) {
		_, err := db.ExecContext(ctx, `UPDATE product SET cents = $1`, cents)
		check(t, err)
	}
	// With compute nil, the value must be in the cache: a call of nil would panic.
	get := func(db DB, expected int, compute func(context.Context) (int, error)) {
		t.Helper()
		options := Options{Wait: patient, TTL: time.Hour, Tags: []string{"product", `a "tag"`}}
		value, err := GetOrCompute(ctx, db, "price", options, compute)
		check(t, err)
		expect(t, value, expected)
	}
	began := time.Now()
	get(db, 100, cents(db))
	get(db, 100, nil)
	write(db, 101)
	get(db, 101, cents(db))
	get(db, 101, nil)

	tx, err := db.Begin()
	check(t, err)
	write(tx, 0)
	get(tx, 0, cents(tx))
	get(tx, 0, cents(tx))
	get(db, 101, nil)
	check(t, tx.Rollback())
	get(db, 101, nil)

	write(db, 102)
	get(db, 102, func(ctx context.Context) (int, error) {
		old, err := cents(db)(ctx)
		write(db, 103)
		return old, err
	})
	get(db, 103, cents(db))
	get(db, 103, nil)

	tx, err = db.Begin()
	check(t, err)
	check(t, InvalidateTags(ctx, tx, `a "tag"`))
	get(db, 103, nil)
	check(t, tx.Rollback())
	get(db, 103, nil)
	check(t, InvalidateTags(ctx, db, `a "tag"`))
	get(db, 7, func(context.Context) (int, error) { return 7, nil })
	if time.Since(began) > prompt {
		t.Error("a lease was not released")
	}
}

func TestFailures(t *testing.T) {
	db := open(t)
	began, failure := time.Now(), errors.New("no")
	fail := func(context.Context) (int, error) { return 0, failure }
	for i := 0; i < 2; i++ {
		_, err := GetOrCompute(ctx, db, "fails", Options{Wait: patient}, fail)
		expect(t, errors.Is(err, failure), true)
		_, err = GetOrCompute(ctx, db, "fails", Options{Wait: patient}, func(context.Context) (func(), error) { return nil, nil })
		expect(t, strings.Contains(err.Error(), "unsupported type"), true)
		func() {
			defer func() { _ = recover() }()
			_, _ = GetOrCompute(ctx, db, "fails", Options{Wait: patient}, func(context.Context) (int, error) { panic("no") })
		}()
		ending, cancel := context.WithCancel(ctx)
		_, err = GetOrCompute(ending, db, "fails", Options{Wait: patient}, func(ctx context.Context) (int, error) {
			cancel()
			return 0, ctx.Err()
		})
		expect(t, errors.Is(err, context.Canceled), true)
		// In a failed transaction, the error of the function arrives.
		tx, err := db.Begin()
		check(t, err)
		_, err = GetOrCompute(ctx, tx, "fails", Options{Wait: patient}, func(ctx context.Context) (n int, err error) {
			return n, tx.QueryRowContext(ctx, `SELECT 1 / 0`).Scan(&n)
		})
		expect(t, strings.Contains(err.Error(), "division by zero"), true)
		check(t, tx.Rollback())
	}
	value, err := GetOrCompute(ctx, db, "fails", Options{Wait: patient}, func(context.Context) (int, error) { return 1, nil })
	check(t, err)
	expect(t, value, 1)

	// A caller waits only so long.
	var lease int64
	check(t, db.QueryRow(`SELECT lease FROM cache_acquire_bytes('held')`).Scan(&lease))
	value, err = GetOrCompute(ctx, db, "held", Options{Wait: 100 * time.Millisecond}, func(context.Context) (int, error) {
		return 2, nil
	})
	check(t, err)
	expect(t, value, 2)
	if time.Since(began) > prompt {
		t.Error("a lease was not released")
	}
}
