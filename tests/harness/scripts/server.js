// node's own http server. Same paths and the same log as server.py.
const http = require("http");
const fs = require("fs");
const [port, file] = [Number(process.argv[2]), process.argv[3]];
const log = fs.createWriteStream(file, { flags: "a" });

http
  .createServer((request, response) => {
    const started = process.hrtime.bigint();
    const parts = request.url.split("/");
    const status = parts[1].startsWith("missing") ? 404 : 200;
    response.on("finish", () => {
      const ns = Number(process.hrtime.bigint() - started);
      log.write(JSON.stringify({ path: request.url, status: String(status), ns }) + "\n");
    });
    const answer = () => {
      response.writeHead(status, { "Content-Length": 6 });
      response.end("hello\n");
    };
    request.resume();
    if (parts[1] === "wait") setTimeout(answer, Number(parts[2]));
    else answer();
  })
  .listen(port, "127.0.0.1");
