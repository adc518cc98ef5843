"""Runs examples/near_cache.py for near.rs, which sends a command a line and gets an answer a line.

    near.py listen|poll POLL_SECONDS STALE_SECONDS

The values are integers. A place is SPACE/KEY. near.py and near.mjs must have the same commands. Where no answer is said, it is
`ok`.

    get PLACE                 answers the value, or `null`, or `error`
    send PLACE                begins a get, in the background
    receive                   answers the value of that get, when it has come
    cursor                    answers the number of the last change that the near-cache has applied
    held                      answers the values that the near-cache holds, each as PLACE=VALUE
    storm PLACE...            starts three readers, which get places at random
    floors PLACE=NUMBER...    from now on, a reader that gets a smaller value of a place has got a stale one
    reads                     answers how often the readers have got a value or a miss
    calm                      ends the readers, and answers how often they have got a value or a miss, and how many were stale
"""

import random
import sys
import threading
import time
from pathlib import Path

import psycopg

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from near_cache import NearCache  # noqa: E402

cache = NearCache(listen=sys.argv[1] == "listen", poll_seconds=float(sys.argv[2]), stale_seconds=float(sys.argv[3]))
sent, received = None, []
floors, readers, counts, calm = {}, [], {"reads": 0, "stale": 0}, threading.Event()


def get(place):
    space, key = place.split("/")
    value = cache.get(key, space)
    return "null" if value is None else str(value)


def read_at_random(places):
    while not calm.is_set():
        place = random.choice(places)
        floor = floors.get(place, 0)
        try:
            value = get(place)
        except psycopg.Error:
            time.sleep(0.01)
            continue
        counts["reads"] += 1
        counts["stale"] += value != "null" and int(value) < floor


def answer(command, arguments):
    """Carries out a command and returns the answer."""
    global sent
    if command == "get":
        try:
            return get(arguments[0])
        except psycopg.Error:
            return "error"
    if command == "send":
        sent = threading.Thread(target=lambda: received.append(get(arguments[0])))
        sent.start()
    elif command == "receive":
        sent.join()
        return received.pop()
    elif command == "cursor":
        return str(cache._cursor)
    elif command == "held":
        with cache._lock:
            return " ".join(f"{space}/{key}={entry[0]}" for (space, key), entry in cache._values.items())
    elif command == "storm":
        readers.extend(threading.Thread(target=read_at_random, args=[arguments]) for _ in range(3))
        for reader in readers:
            reader.start()
    elif command == "floors":
        floors.update((place, int(number)) for place, number in (floor.split("=") for floor in arguments))
    elif command == "reads":
        return str(counts["reads"])
    elif command == "calm":
        calm.set()
        for reader in readers:
            reader.join()
        return f"{counts['reads']} {counts['stale']}"
    return "ok"


for line in sys.stdin:
    command, *arguments = line.split()
    print(answer(command, arguments), flush=True)
calm.set()
cache.close()
