# frozen_string_literal: true

# Runs cache stores of Rails for the part frameworks-rails of make bench. client.rs describes and sends the commands.
#
#   rails_client.rb DIRECTORY SOCKET SPACE KEYS BYTES MANY
#
# DIRECTORY contains pg_cache_store.rb, SOCKET is that of Redis, and SPACE a space, a named cache, of pg_cache. KEYS is the number
# of keys, BYTES the length of a value, and MANY the number of keys in a call that gets many.
#
# client.rs calls a contender by its position in `contenders`. The first must be pg_cache, and must take part in all operations. An
# operation must return false or nil if its result is wrong, for instance after a miss: `run` then raises an error.

require "json"
require "logger"
require "tmpdir"
require "active_record"

directory, socket, space, *numbers = ARGV
key_count, value_bytes, many = numbers.map { |number| Integer(number) }
require_relative "#{File.expand_path(directory)}/pg_cache_store"
require "active_support/cache/redis_cache_store"
begin
  # RedisCacheStore of Rails 6.1 requires the file itself.
  require "redis/connection/hiredis"
rescue LoadError
  # Version 5 of redis-rb has another name for it.
  nil
end

TTL_SECONDS = 86_400

# Returns the store of solid_cache, which needs an application and Rails 7.2. Raises an error if it cannot be had.
def solid_cache(options)
  require "rails"
  require "active_record/railtie"
  require "solid_cache"
  root = Dir.mktmpdir
  at_exit { FileUtils.remove_entry(root) }
  application = Class.new(Rails::Application) do
    config.root = root
    config.eager_load = false
    config.logger = Logger.new(nil)
    config.cache_store = :solid_cache_store, options
  end
  application.initialize!
  ActiveRecord::Base.connection.create_table "solid_cache_entries" do |table|
    table.binary "key", limit: 1024, null: false
    table.binary "value", limit: 536_870_912, null: false
    table.datetime "created_at", null: false
    table.integer "key_hash", limit: 8, null: false
    table.integer "byte_size", limit: 4, null: false
    table.index ["byte_size"]
    table.index ["key_hash", "byte_size"]
    table.index ["key_hash"], unique: true
  end
  Rails.cache.tap do |store|
    raise "it stores nothing" unless store.write("probe", 1) && store.read("probe") == 1
  end
end

# The variables of libpq lead to the server, and those of Rails must not lead to another.
ENV["DATABASE_URL"] = "postgresql:///#{ENV.fetch("PGDATABASE")}"
ActiveRecord::Base.establish_connection(ENV["DATABASE_URL"])
# By default, solid_cache and RedisCacheStore take an error for a miss.
options = { expires_in: TTL_SECONDS, error_handler: ->(method:, exception:, **) { raise "#{method}: #{exception.message}" } }
missing, contenders = [], {}
contenders["pg_cache"] = PgCacheStore.new(space: space, expires_in: TTL_SECONDS)
begin
  contenders["solid_cache"] = solid_cache(options)
rescue LoadError, StandardError => error
  missing << "solid_cache: it needs Rails 7.2 and RubyGems (#{error.message.lines.first.to_s.strip})"
end
contenders["RedisCacheStore"] = ActiveSupport::Cache::RedisCacheStore.new(url: "unix://#{socket}", **options)

keys = Array.new(key_count) { |number| format("key:%04d", number) }.shuffle(random: Random.new(1))
counters = keys.map { |key| "counter:#{key}" }
groups = Array.new(key_count) { |start| Array.new(many) { |step| keys[(start + step) % key_count] } }
value = "x" * value_bytes

operations = {
  "get" => ->(store, turn) { store.read(keys[turn]).bytesize == value_bytes },
  "set" => ->(store, turn) { store.write(keys[turn], value) },
  "get_many" => ->(store, turn) { store.read_multi(*groups[turn]).size == many },
  "incr" => ->(store, turn) { store.increment(counters[turn]).positive? },
}
titles = {
  "get" => "`Rails.cache.read`",
  "set" => "`Rails.cache.write`",
  "get_many" => "`Rails.cache.read_multi`, #{many} keys",
  "incr" => "`Rails.cache.increment`",
}

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)
end

# Repeats an operation for a while. Returns the number of calls, and the nanoseconds that they took.
def run(operation, store, key_count, nanoseconds)
  count, began = 0, now
  loop do
    operation.call(store, count % key_count) or raise "a call returns another result"
    count += 1
    passed = now - began
    return [count, passed] if passed >= nanoseconds
  end
end

contenders.each_value do |store|
  keys.each { |key| store.write(key, value) }
  counters.each { |counter| store.write(counter, 0, raw: true) }
end

drivers = { "Active Record" => ActiveRecord::VERSION::STRING, "pg" => PG::VERSION, "redis-rb" => Redis::VERSION }
drivers["hiredis"] = Hiredis::VERSION if defined?(Redis::Connection::Hiredis)
drivers["solid_cache"] = SolidCache::VERSION if contenders["solid_cache"]
notes = [
  "The contenders in PostgreSQL use the one connection of Active Record, outside of transactions, with `prepared_statements` on.",
  "Counters are written with `raw: true`. With a time to live, `RedisCacheStore` sends a second command for each `increment`.",
]
puts JSON.generate(
  versions: "Ruby #{RUBY_VERSION}, #{drivers.map { |name, version| "#{name} #{version}" }.join(", ")}",
  operations: operations.keys.map { |id| { id: id, title: titles[id] } },
  contenders: contenders.keys.map { |name| { name: name, operations: operations.keys } },
  missing: missing,
  notes: notes,
)
$stdout.flush
while (line = $stdin.gets)
  number, operation, milliseconds = line.split
  puts run(operations[operation], contenders.values[number.to_i], key_count, milliseconds.to_i * 1_000_000).join(" ")
  $stdout.flush
end
