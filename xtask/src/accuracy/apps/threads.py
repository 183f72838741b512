"""The lab's service with a thread for each request: Flask under gunicorn (gthread), requests, redis-py, psycopg.

LAB_ROLE says which service it is, LAB_* where the others are. The path is the place in the tree, and what it calls are
the places below. Connections come from pools that all threads share.
"""

import os
import queue
import time

import psycopg
import redis
import requests
from flask import Flask, Response
from gunicorn.app.base import BaseApplication

ROLE, PORT, SEED = os.environ["LAB_ROLE"], os.environ["LAB_PORT"], os.environ["LAB_SEED"]
UPSTREAMS = os.environ["LAB_UPSTREAMS"].split(",")
THINK_US, WORKERS = int(os.environ["LAB_THINK_US"]), int(os.environ["LAB_WORKERS"])


def think(place, step):
    """Sleeps as long as seed, place and step say: FNV-1a, so that all languages think alike."""
    number = 2166136261
    for byte in f"{SEED}/{place}/{step}".encode():
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    time.sleep(number % (THINK_US + 1) / 1e6)


class Statements:
    """Connections to PostgreSQL, the one used last first."""

    def __init__(self):
        self.free = queue.LifoQueue()

    def ask(self, alias):
        try:
            connection = self.free.get_nowait()
        except queue.Empty:
            place = f"host=127.0.0.1 port={os.environ['LAB_POSTGRESQL']} user=lab dbname=postgres sslmode=disable"
            connection = psycopg.connect(place, autocommit=True)
        # With a parameter it is an extended query.
        row = connection.execute(f"SELECT %s::int AS {alias}", (1,)).fetchone()
        self.free.put(connection)
        return row == (1,)


def service():
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=64))
    commands = redis.Redis(host="127.0.0.1", port=int(os.environ["LAB_REDIS"]))
    statements = Statements()

    def front(place):
        good = True
        for index, port in enumerate(UPSTREAMS):
            think(place, index)
            good &= session.get(f"http://127.0.0.1:{port}/task/{place}/{index}").status_code == 200
        return good

    def cache(place):
        key = "lab:" + place.replace("/", ":")
        think(place, 0)
        commands.get(f"{key}:0")
        think(place, 1)
        return commands.incr(f"{key}:1") > 0

    def store(place):
        think(place, 0)
        good = statements.ask("lab_" + place.replace("/", "_") + "_0")
        think(place, 1)
        commands.get("lab:" + place.replace("/", ":") + ":1")
        return good

    work = {"s1": front, "s2": cache, "s3": store}[ROLE]
    app = Flask(ROLE)

    @app.get("/task/<path:place>")
    def answer(place):
        good = work(place)
        think(place, 9)
        return Response("ok" if good else "failed", status=200 if good else 500, mimetype="text/plain")

    return app


class Server(BaseApplication):
    def load_config(self):
        for key, value in {
            "bind": f"127.0.0.1:{PORT}",
            "worker_class": "gthread",
            "threads": WORKERS,
            "keepalive": 60,
            "loglevel": "error",
        }.items():
            self.cfg.set(key, value)

    def load(self):
        # In the worker, after the fork: no connection is shared with the master.
        return service()


Server().run()
