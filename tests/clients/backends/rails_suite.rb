# frozen_string_literal: true

# Runs the tests that Active Support has for the behaviour of cache stores with examples/backends/rails.
#
#   rails_suite.rb DIRECTORY BEHAVIORS     DIRECTORY contains pg_cache_store.rb, and BEHAVIORS the tests

require "minitest/autorun"
require "active_record"
require "active_support/test_case"
require "active_support/testing/method_call_assertions"
require "securerandom"

require_relative "#{File.expand_path(ARGV[0])}/pg_cache_store"
behaviors = %w[cache_store cache_store_version cache_store_coder cache_increment_decrement cache_instrumentation encoded_key_cache]
behaviors.each { |name| require "#{File.expand_path(ARGV[1])}/#{name}_behavior" }
ARGV.clear

ActiveSupport.test_order = :random
ActiveRecord::Base.establish_connection(adapter: "postgresql")

class PgCacheStoreBehaviorTest < ActiveSupport::TestCase
  include ActiveSupport::Testing::MethodCallAssertions
  include CacheStoreBehavior, CacheStoreVersionBehavior, CacheStoreCoderBehavior
  include CacheIncrementDecrementBehavior, CacheInstrumentationBehavior, EncodedKeyCacheBehavior

  setup do
    @namespace = "test-#{SecureRandom.hex}"
    @cache = lookup_store(expires_in: 60)
  end

  teardown { @cache.clear }

  def lookup_store(options = {})
    PgCacheStore.new(namespace: @namespace, **options)
  end
end
