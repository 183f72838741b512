// The lab's service on node's event loop: plain http on both sides, Redis over one pipelined connection, PostgreSQL
// over a pool of small clients (simple queries).
//
// LAB_ROLE says which service it is, LAB_* where the others are. The path is the place in the tree, and what it calls
// are the places below.
"use strict";

const http = require("node:http");
const net = require("node:net");

const { LAB_ROLE, LAB_PORT, LAB_UPSTREAMS, LAB_REDIS, LAB_POSTGRESQL, LAB_SEED, LAB_THINK_US, LAB_PARALLEL } =
  process.env;
const upstreams = LAB_UPSTREAMS.split(",").map(Number);

// Sleeps as long as seed, place and step say: FNV-1a, so that all languages think alike.
function think(place, step) {
  let number = 2166136261;
  for (const byte of Buffer.from(`${LAB_SEED}/${place}/${step}`)) number = Math.imul(number ^ byte, 16777619) >>> 0;
  return new Promise((done) => setTimeout(done, (number % (Number(LAB_THINK_US) + 1)) / 1000));
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

async function call(place, index) {
  await think(place, index);
  return new Promise((done, failed) => {
    const options = { host: "127.0.0.1", port: upstreams[index], path: `/task/${place}/${index}`, agent };
    http
      .get(options, (answer) => {
        answer.resume();
        answer.on("end", () => done(answer.statusCode === 200));
      })
      .on("error", failed);
  });
}

// Answers come in the order of the commands: a value, an integer or a nil, one line each here.
class Redis {
  constructor() {
    this.waiting = [];
    this.rest = "";
    this.socket = net.connect(Number(LAB_REDIS), "127.0.0.1");
    this.socket.setNoDelay(true);
    this.socket.on("data", (bytes) => {
      this.rest += bytes;
      for (let end = this.rest.indexOf("\r\n"); end >= 0; end = this.rest.indexOf("\r\n")) {
        this.waiting.shift()(this.rest.slice(0, end));
        this.rest = this.rest.slice(end + 2);
      }
    });
  }

  command(...words) {
    this.socket.write(`*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`);
    return new Promise((done) => this.waiting.push(done));
  }
}

function message(type, text) {
  const body = Buffer.from(`${text}\0`);
  const head = Buffer.alloc(type.length + 4);
  head.write(type);
  head.writeUInt32BE(body.length + 4, type.length);
  return Buffer.concat([head, body]);
}

// One connection; `ask` waits for ReadyForQuery, and says whether a row came before it.
class Postgresql {
  constructor() {
    this.rest = Buffer.alloc(0);
    this.row = false;
    this.socket = net.connect(Number(LAB_POSTGRESQL), "127.0.0.1");
    this.socket.setNoDelay(true);
    this.socket.on("data", (bytes) => {
      this.rest = Buffer.concat([this.rest, bytes]);
      while (this.rest.length >= 5 && this.rest.length > this.rest.readUInt32BE(1)) {
        const type = String.fromCharCode(this.rest[0]);
        this.rest = this.rest.subarray(1 + this.rest.readUInt32BE(1));
        if (type === "D") this.row = true;
        if (type === "Z") this.ready(this.row);
      }
    });
    this.open = this.send("", "\0\u0003\0\0user\0lab\0database\0postgres\0");
  }

  send(type, text) {
    this.row = false;
    this.socket.write(message(type, text));
    return new Promise((done) => (this.ready = done));
  }
}

const free = [];

async function ask(alias) {
  const connection = free.pop() ?? new Postgresql();
  await connection.open;
  const row = await connection.send("Q", `SELECT 1 AS ${alias}`);
  free.push(connection);
  return row;
}

const redis = LAB_ROLE === "s1" ? null : new Redis();

const work = {
  async s1(place) {
    if (LAB_PARALLEL === "1") return (await Promise.all(upstreams.map((_, index) => call(place, index)))).every(Boolean);
    let good = true;
    for (const index of upstreams.keys()) good = (await call(place, index)) && good;
    return good;
  },
  async s2(place) {
    const key = `lab:${place.replaceAll("/", ":")}`;
    await think(place, 0);
    await redis.command("GET", `${key}:0`);
    await think(place, 1);
    return (await redis.command("INCR", `${key}:1`)).startsWith(":");
  },
  async s3(place) {
    await think(place, 0);
    const good = await ask(`lab_${place.replaceAll("/", "_")}_0`);
    await think(place, 1);
    await redis.command("GET", `lab:${place.replaceAll("/", ":")}:1`);
    return good;
  },
}[LAB_ROLE];

const server = http.createServer(async (request, response) => {
  const place = request.url.slice("/task/".length);
  const good = await work(place);
  await think(place, 9);
  response.statusCode = good ? 200 : 500;
  response.end(good ? "ok" : "failed");
});
server.keepAliveTimeout = 60000;
server.listen(Number(LAB_PORT), "127.0.0.1");
