"""One redis-py connection. Logs a JSON line for each command that it sends: operation, masked statement, error code.

Arguments: port, what to do, how often. Before every round but the first of `waits` it waits for a line on its input.
"""
import json
import sys

import redis

port, what, rounds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = redis.Redis(host="127.0.0.1", port=port, single_connection_client=True, socket_timeout=20)


def log(operation, statement, code=""):
    print(json.dumps({"operation": operation, "statement": statement, "code": code}), flush=True)


def plain(turn):
    key = f"{what}:{turn}"
    client.set(key, "v" * (turn % 50), ex=100)
    log("SET", f"SET {key} ? ? ?")
    client.get(key)
    log("GET", f"GET {key}")
    try:
        client.lpush(key, "x")
        raise AssertionError("a string took a push")
    except redis.ResponseError:
        log("LPUSH", f"LPUSH {key} ?", "WRONGTYPE")


def pipeline(turn, transaction):
    pipe = client.pipeline(transaction=transaction)
    if transaction:
        log("MULTI", "MULTI")
    for part in range(20):
        key = f"{what}:{turn}:{part}"
        pipe.set(key, part)
        log("SET", f"SET {key} ?")
        pipe.incr(key)
        log("INCRBY", f"INCRBY {key} ?")
        if part % 5 == 0:
            pipe.sadd(key, "x")
            log("SADD", f"SADD {key} ?", "" if transaction else "WRONGTYPE")
    pipe.execute(raise_on_error=False)
    if transaction:
        log("EXEC", "EXEC")


def subscription(turn):
    channels = [f"{what}:{turn}:{part}" for part in range(3)]
    listener = redis.Redis(host="127.0.0.1", port=port, socket_timeout=20)
    pubsub = listener.pubsub()
    pubsub.subscribe(*channels)
    log("SUBSCRIBE", "SUBSCRIBE " + " ".join(sorted(channels)))
    for _ in channels:
        assert pubsub.get_message(timeout=20)["type"] == "subscribe"
    for part in range(50):
        client.publish(channels[part % 3], "m" * part * 10)
        log("PUBLISH", f"PUBLISH {channels[part % 3]} ?")
        assert pubsub.get_message(timeout=20)["type"] == "message"
    pubsub.unsubscribe()
    log("UNSUBSCRIBE", "UNSUBSCRIBE")
    for _ in channels:
        assert pubsub.get_message(timeout=20)["type"] == "unsubscribe"
    pubsub.close()


for turn in range(rounds):
    if what == "waits" and turn > 0:
        sys.stdin.readline()
    if what in ("plain", "waits"):
        for part in range(100) if what == "waits" else [turn]:
            plain(part if what != "waits" else turn * 100 + part)
    elif what in ("pipeline", "transaction"):
        pipeline(turn, what == "transaction")
    elif what == "subscription":
        subscription(turn)
client.close()
