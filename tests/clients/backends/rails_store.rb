# frozen_string_literal: true

# Tests what examples/backends/rails adds to the tests of Active Support: one computation for many threads, tags, transactions.
#
#   rails_store.rb DIRECTORY     DIRECTORY contains pg_cache_store.rb
#
# backends.rs runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a key,
# while other callers wait. After cache_watch('product'), a write to the table product invalidates the values with the tag product.

require "minitest/autorun"
require "active_record"
require "active_support/test_case"

require_relative "#{File.expand_path(ARGV[0])}/pg_cache_store"
ARGV.clear

ActiveSupport.test_order = :random
ActiveRecord::Base.establish_connection(adapter: "postgresql", pool: 25)

class PgCacheStoreTest < ActiveSupport::TestCase
  setup do
    @other = PG.connect
    sql "SELECT cache_create_space('rails', if_not_exists => true), cache_flush('*')"
    sql "CREATE TABLE product (cents int)"
    sql "INSERT INTO product VALUES (100)"
    sql "SELECT cache_watch('product')"
    @cache = PgCacheStore.new(space: "rails", namespace: "shop", wait: 60)
    @began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  teardown do
    sql "DROP TABLE product"
    @other.close
    # A lease that is not released costs 30 seconds.
    assert Process.clock_gettime(Process::CLOCK_MONOTONIC) - @began < 20, "a lease was not released"
  end

  def sql(text)
    ActiveRecord::Base.connection.execute(text)
  end

  def cents
    ActiveRecord::Base.connection.select_value("SELECT cents FROM product")
  end

  def price(&compute)
    @cache.fetch("price", tags: ["product", 'a "tag"']) { compute ? compute.call : cents }
  end

  def rolled_back
    ActiveRecord::Base.transaction do
      yield
      raise ActiveRecord::Rollback
    end
  end

  # Tells what another session sees.
  def seen?(key)
    @other.exec_params("SELECT cache_exists($1, 'rails')", ["shop:#{key}"]).getvalue(0, 0) == "t"
  end

  test "one thread computes" do
    calls = Queue.new
    threads = Array.new(20) do
      Thread.new do
        ActiveRecord::Base.connection_pool.with_connection do
          @cache.fetch("stampede") do
            calls << 1
            sleep 0.3
            cents
          end
        end
      end
    end
    assert_equal [100] * 20, threads.map(&:value)
    assert_equal 1, calls.size
  end

  test "a caller waits only so long" do
    lease = @other.exec("SELECT lease FROM cache_acquire_text('shop:held', 'rails')").getvalue(0, 0)
    assert_equal 1, PgCacheStore.new(space: "rails", namespace: "shop", wait: 0.1).fetch("held") { 1 }
    assert_not seen?("held")
    @other.exec_params("SELECT cache_release('shop:held', $1, 'rails')", [lease])
    assert_equal [2, 2], [@cache.fetch("held") { 2 }, @cache.read("held")]
  end

  test "tags" do
    @cache.write("a", 1, tags: ["x"])
    @cache.write_multi({ "b" => 2, "c" => 3 }, tags: ["x", "y"])
    rolled_back { @cache.invalidate_tags("x", "y") }
    assert_equal({ "a" => 1, "b" => 2, "c" => 3 }, @cache.read_multi("a", "b", "c"))
    @cache.invalidate_tags("y")
    assert_equal({ "a" => 1 }, @cache.read_multi("a", "b", "c"))
  end

  test "a write to a watched table invalidates" do
    assert_equal [100, 100], [price, @cache.read("price")]
    @other.exec("BEGIN; UPDATE product SET cents = 0")
    assert_equal 100, @cache.read("price")
    @other.exec("ROLLBACK")
    assert_equal 100, @cache.read("price")
    @other.exec("UPDATE product SET cents = 101")
    assert_equal [nil, 101, 101], [@cache.read("price"), price, @cache.read("price")]
    @cache.invalidate_tags('a "tag"')
    # An outdated value is returned once, and not stored.
    outdated = price { cents.tap { @other.exec("UPDATE product SET cents = 102") } }
    assert_equal [101, nil, 102, 102], [outdated, @cache.read("price"), price, @cache.read("price")]
  end

  test "transactions" do
    price
    rolled_back do
      @cache.write("answer", 42)
      sql "UPDATE product SET cents = 0"
      assert_equal [42, false, 0, 0, true], [@cache.read("answer"), seen?("answer"), price, price, seen?("price")]
    end
    assert_equal [nil, 100], [@cache.read("answer"), @cache.read("price")]
    ActiveRecord::Base.transaction { @cache.write("answer", 42) }
    assert seen?("answer")
    # A number that is stored raw can be counted up at once.
    @cache.write("number", 1, raw: true)
    rolled_back { assert_equal 3, @cache.increment("number", 2) }
    assert_equal "3", @cache.read("number", raw: true)
  end

  test "failures" do
    2.times do
      assert_raises(RuntimeError) { price { raise "no" } }
      error = assert_raises(ActiveRecord::StatementInvalid) do
        ActiveRecord::Base.transaction { price { sql "SELECT 1 / 0" } }
      end
      assert_match(/division by zero/, error.message)
    end
    assert_equal 100, price
    assert_equal :thrown, catch(:out) { @cache.fetch("thrown") { throw :out, :thrown } }
    assert_equal 1, @cache.fetch("thrown") { 1 }
  end

  test "keys and limits" do
    @cache.write("k" * 2000, "long")
    assert_equal ["long", nil], [@cache.read("k" * 2000), @cache.read("k" * 2001)]
    @cache.write("raw", "a\u00e9\0", raw: true)
    assert_equal "a\u00e9\0", @cache.read("raw", raw: true)
    assert_not @cache.write("large", Random.bytes(9_000_000))
    @cache.write("user:1", 1)
    PgCacheStore.new(space: "rails", namespace: "s*p").clear
    assert seen?("user:1")
    @cache.delete_matched("user:*")
    assert_not seen?("user:1")
    @cache.clear
    assert_nil @cache.read("k" * 2000)
  end

  test "renewal with race_condition_ttl" do
    options = { expires_in: 0.2, race_condition_ttl: 10 }
    @cache.fetch("race", **options) { 1 }
    sleep 0.3
    renewed = @cache.fetch("race", **options) do
      assert_equal 1, @cache.fetch("race", **options) { flunk }
      2
    end
    assert_equal [2, 2], [renewed, @cache.read("race")]
  end
end
