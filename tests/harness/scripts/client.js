// node's own http client over one kept connection. Same input and the same output as client.py.
const http = require("http");
const fs = require("fs");
const port = Number(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(path) {
  return new Promise((resolve, reject) => {
    const started = process.hrtime.bigint();
    http
      .get({ host: "127.0.0.1", port, path, agent }, (response) => {
        response.resume();
        response.on("end", () => {
          const ns = Number(process.hrtime.bigint() - started);
          console.log(JSON.stringify({ path, status: String(response.statusCode), ns }));
          resolve();
        });
      })
      .on("error", reject);
  });
}

(async () => {
  for (const path of fs.readFileSync(0, "utf8").split(/\s+/).filter(Boolean)) await ask(path);
  agent.destroy();
})();
