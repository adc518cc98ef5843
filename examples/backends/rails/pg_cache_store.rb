# frozen_string_literal: true

require "active_support"
require "active_support/cache"
require "base64"
require "digest"
require "pg"

# A cache store for Rails that keeps its values in pg_cache, through the connection of Active Record. See README.md.
#
# A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value: +cache_acquire+ returns the value
# (status +hit+ or +stale+), or a lease (+compute+), or the status +wait+ if another caller has the lease. A set with the lease
# stores nothing if the key or one of the tags has changed since the lease was acquired. A set that stores ends the lease. Otherwise
# the caller must release it, also after an error: the others would wait until +hold+ is over.
class PgCacheStore < ActiveSupport::Cache::Store
  KEY_BYTES_MAX = 1024
  YEAR_SECONDS = 366 * 24 * 60 * 60
  POLL_SECONDS = [0.005, 0.1].freeze # between two calls of cache_acquire: the shortest and the longest pause
  DIGITS = /\A-?\d{1,18}\z/.freeze
  ARRAY = PG::TextEncoder::Array.new

  # If there is no value, a call of +fetch+ waits up to +wait+ seconds for another session that computes it. Then it computes the
  # value itself, without storing it. Others wait up to +hold+ seconds for a session that computes.
  def initialize(space: "default", wait: 5, hold: 30, connection: -> { ActiveRecord::Base.connection }, **options)
    super(options)
    @space, @wait, @hold, @connection = space, wait, hold, connection
  end

  def self.supports_cache_versioning?
    true
  end

  # The option +tags+ gives the value tags. One session computes a missing value, and the others wait for it.
  def fetch(name, options = nil)
    options = merged_options(options)
    # Rails has its own way to renew entries with race_condition_ttl.
    return super unless block_given? && !options[:force] && !options[:race_condition_ttl]

    key, lease = normalize_key(name, options), nil
    begin
      super(name, options) do |*arguments|
        status, lease, payload = acquire(key)
        if status == "hit"
          entry = entry_of(payload)
          return entry.value unless entry.nil? || entry.expired? || entry.mismatched?(normalize_version(name, options))
        end
        # This result is not stored: fetch returns before Rails writes it.
        return yield(*arguments) if status == "wait"

        leases[[@space, key]] = lease if lease
        yield(*arguments)
      end
    ensure
      leases.delete([@space, key])
      release(key, lease) if lease
    end
  end

  # Adds to a number that was written with <tt>raw: true</tt>, at once for all sessions: a rollback does not undo it.
  def increment(name, amount = 1, options = nil)
    options = merged_options(options)
    value("SELECT cache_incr($1, $2, make_interval(secs => $3), $4)", normalize_key(name, options), amount, ttl(**options), @space)
  end

  def decrement(name, amount = 1, options = nil)
    increment(name, -amount, options)
  end

  # Deletes the keys that match a pattern: *, ?, and \ to escape.
  def delete_matched(pattern, options = nil)
    raise ArgumentError, "Only strings are supported: #{pattern.inspect}" unless pattern.is_a?(String)

    namespace = namespace_key("", merged_options(options)).gsub(/[\\*?]/) { |character| "\\#{character}" }
    value("SELECT cache_invalidate_pattern($1, $2)", namespace + pattern, @space)
  end

  # Invalidates all values with one of the tags, in all spaces of the database.
  def invalidate_tags(*tags)
    value("SELECT cache_invalidate_tags($1::text[])", ARRAY.encode(tags))
  end

  def clear(options = nil)
    merged_options(options)[:namespace] ? delete_matched("*", options) : value("SELECT cache_flush($1)", @space)
  end

  # pg_cache removes expired entries itself.
  def cleanup(options = nil); end

  private
    def read_entry(key, **)
      entry_of(value("SELECT cache_get_text($1, $2)", key, @space))
    end

    def read_multi_entries(names, **options)
      keys = names.index_by { |name| normalize_key(name, options) }
      found = rows("SELECT key, value FROM cache_get_many_text($1::text[], $2)", ARRAY.encode(keys.keys), @space)
      found.each_with_object({}) do |(key, payload), results|
        name, entry = keys[key], entry_of(payload)
        results[name] = entry.value unless entry.expired? || entry.mismatched?(normalize_version(name, options))
      end
    end

    def write_entry(key, entry, **options)
      write_multi_entries({ key => entry }, **options).first
    end

    def write_multi_entries(entries, tags: [], unless_exist: false, raw: false, **options)
      sql = <<~SQL
        SELECT key, cache_set_text(key, value, make_interval(secs => $3), $4::text[], $5, $6, lease => $7)
        FROM unnest($1::text[], $2::text[]) AS entry(key, value)
      SQL
      payloads = entries.values.map { |entry| payload_of(entry, raw) }
      mode, lease = unless_exist ? "absent" : "always", leases[[@space, entries.keys.first]]
      arrays = [entries.keys, payloads].map { |list| ARRAY.encode(list) }
      rows(sql, *arrays, ttl(**options), ARRAY.encode(tags), @space, mode, lease).map(&:last)
    end

    def delete_entry(key, **)
      value("SELECT cache_delete($1, $2)", key, @space)
    end

    def delete_multi_entries(keys, **)
      value("SELECT cache_delete_many($1::text[], $2)", ARRAY.encode(keys), @space)
    end

    def normalize_key(key, options)
      key = super or return
      return key if key.bytesize <= KEY_BYTES_MAX && !key.include?("\0")

      # With the beginning of the key, so that patterns and namespaces find it.
      "#{key.byteslice(0, 512).scrub("").delete("\0")}:sha256:#{Digest::SHA256.hexdigest(key)}"
    end

    # A number that is stored raw is a text of digits, to which cache_incr can add. Other raw values begin with "=".
    def payload_of(entry, raw)
      return Base64.strict_encode64(serialize_entry(entry)) unless raw

      text = entry.value.to_s
      DIGITS.match?(text) ? text : "=#{Base64.strict_encode64(text)}"
    end

    # The reverse of payload_of. Without a payload, returns nil.
    def entry_of(payload)
      case payload
      when nil then nil
      when DIGITS then ActiveSupport::Cache::Entry.new(payload)
      when /\A=/
        text = Base64.strict_decode64(payload.delete_prefix("="))
        ActiveSupport::Cache::Entry.new(text.force_encoding(Encoding::UTF_8))
      else deserialize_entry(Base64.strict_decode64(payload))
      end
    end

    # As in other stores, an entry with race_condition_ttl must outlive its time, so that Rails can renew it.
    def ttl(expires_in: nil, race_condition_ttl: nil, **)
      seconds = expires_in ? expires_in.to_f + (race_condition_ttl ? 300 : 0) : YEAR_SECONDS
      [seconds, YEAR_SECONDS].min
    end

    # Returns the status, the lease and the payload.
    def acquire(key)
      deadline, pause = now + @wait, POLL_SECONDS.first
      loop do
        sql = "SELECT value, status, lease FROM cache_acquire_text($1, $2, hold => make_interval(secs => $3))"
        payload, status, lease = rows(sql, key, @space, @hold).first
        return [status == "stale" ? "hit" : status, lease, payload] if status != "wait" || now > deadline

        sleep pause
        pause = [2 * pause, POLL_SECONDS.last].min
      end
    end

    # After an outdated value, or an error, the next caller must not wait for the lease. A set that stores a value ends it.
    def release(key, lease)
      value("SELECT cache_release($1, $2, $3)", key, lease, @space)
    rescue ActiveRecord::StatementInvalid
      # The transaction has failed. Its rollback releases the lease.
    end

    # The leases of the keys whose values this thread computes.
    def leases
      Thread.current[:pg_cache_leases] ||= {}
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def value(sql, *values)
      rows(sql, *values).first
    end

    # Active Record prepares the statement only if the configuration of the database allows it.
    def rows(sql, *values)
      @connection.call.exec_query(sql, "pg_cache", values, prepare: true).cast_values
    end
end
