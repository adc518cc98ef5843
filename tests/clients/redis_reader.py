"""Reads Redis for redis.rs through redis-py. Each line of input is a JSON array, a command and its arguments, and each answer is a line
of JSON.

    redis_reader.py URL

redis_reader.py and redis_reader.mjs must have the same commands:

    ["get", KEY]              answers the value of a Redis key, which is JSON; null if there is none
    ["pttl", KEY]             answers its time to live in milliseconds
    ["keys", PATTERN]         answers the keys of strings that match, sorted
    ["subscribe", CHANNEL]    listens to a channel from now on, and answers null
    ["message", SECONDS]      answers the next message of the channel, or null if none comes within that time
"""

import json
import sys

import redis

client = redis.Redis.from_url(sys.argv[1], decode_responses=True)
listener = client.pubsub(ignore_subscribe_messages=True)


def answer(command, *arguments):
    """Carries out a command and returns the answer."""
    if command == "get":
        text = client.get(*arguments)
        return None if text is None else json.loads(text)
    if command == "pttl":
        return client.pttl(*arguments)
    if command == "keys":
        return sorted(client.scan_iter(match=arguments[0], _type="string"))
    if command == "subscribe":
        listener.subscribe(*arguments)
        # The confirmation, which is ignored.
        return listener.get_message(timeout=180)
    if command == "message":
        message = listener.get_message(timeout=arguments[0])
        return message and json.loads(message["data"])
    raise ValueError(command)


for line in sys.stdin:
    print(json.dumps(answer(*json.loads(line))), flush=True)
