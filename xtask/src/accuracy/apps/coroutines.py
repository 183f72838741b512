"""The lab's service on one event loop: aiohttp (or FastAPI under uvicorn), redis.asyncio, psycopg's async connections.

LAB_ROLE says which service it is, LAB_* where the others are. The path is the place in the tree, and what it calls are
the places below. LAB_SERVER=uvicorn chooses FastAPI.
"""

import asyncio
import os

import aiohttp
import psycopg
from aiohttp import web
from redis import asyncio as redis

ROLE, PORT, SEED = os.environ["LAB_ROLE"], int(os.environ["LAB_PORT"]), os.environ["LAB_SEED"]
UPSTREAMS = os.environ["LAB_UPSTREAMS"].split(",")
THINK_US, PARALLEL = int(os.environ["LAB_THINK_US"]), os.environ["LAB_PARALLEL"] == "1"


async def think(place, step):
    """Sleeps as long as seed, place and step say: FNV-1a, so that all languages think alike."""
    number = 2166136261
    for byte in f"{SEED}/{place}/{step}".encode():
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    await asyncio.sleep(number % (THINK_US + 1) / 1e6)


class Service:
    """Made inside the running loop; all requests share its connections."""

    def __init__(self):
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self.session = aiohttp.ClientSession(connector=connector)
        self.commands = redis.Redis(host="127.0.0.1", port=int(os.environ["LAB_REDIS"]))
        self.free = []
        self.work = {"s1": self.front, "s2": self.cache, "s3": self.store}[ROLE]

    async def call(self, place, index):
        await think(place, index)
        url = f"http://127.0.0.1:{UPSTREAMS[index]}/task/{place}/{index}"
        async with self.session.get(url) as answer:
            await answer.read()
            return answer.status == 200

    async def front(self, place):
        if PARALLEL:
            return all(await asyncio.gather(*(self.call(place, index) for index in range(len(UPSTREAMS)))))
        return all([await self.call(place, index) for index in range(len(UPSTREAMS))])

    async def cache(self, place):
        key = "lab:" + place.replace("/", ":")
        await think(place, 0)
        await self.commands.get(f"{key}:0")
        await think(place, 1)
        return await self.commands.incr(f"{key}:1") > 0

    async def store(self, place):
        await think(place, 0)
        good = await self.ask("lab_" + place.replace("/", "_") + "_0")
        await think(place, 1)
        await self.commands.get("lab:" + place.replace("/", ":") + ":1")
        return good

    async def ask(self, alias):
        if self.free:
            connection = self.free.pop()
        else:
            where = f"host=127.0.0.1 port={os.environ['LAB_POSTGRESQL']} user=lab dbname=postgres sslmode=disable"
            connection = await psycopg.AsyncConnection.connect(where, autocommit=True)
        # With a parameter it is an extended query.
        cursor = await connection.execute(f"SELECT %s::int AS {alias}", (1,))
        row = await cursor.fetchone()
        self.free.append(connection)
        return row == (1,)

    async def answer(self, place):
        good = await self.work(place)
        await think(place, 9)
        return good


def with_aiohttp():
    async def start(app):
        app["service"] = Service()

    async def work(request):
        good = await request.app["service"].answer(request.match_info["place"])
        return web.Response(text="ok" if good else "failed", status=200 if good else 500)

    app = web.Application()
    app.on_startup.append(start)
    app.router.add_get("/task/{place:.+}", work)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None, keepalive_timeout=60)


def with_uvicorn():
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.on_event("startup")
    async def start():
        app.state.service = Service()

    @app.get("/task/{place:path}")
    async def work(place: str):
        good = await app.state.service.answer(place)
        return PlainTextResponse("ok" if good else "failed", status_code=200 if good else 500)

    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False, timeout_keep_alive=60)


with_uvicorn() if os.environ.get("LAB_SERVER") == "uvicorn" else with_aiohttp()
