package unique_test

import "testing"

const nodeService = `
const fs = require("fs"), crypto = require("crypto"), vm = require("vm");
const { Worker, isMainThread, parentPort } = require("worker_threads");
const used = vm.createContext({}), unused = vm.createContext({});
const show = () => ({
  math: Math.random(), context: vm.runInContext("Math.random()", used), uuid: crypto.randomUUID(),
  integer: crypto.randomInt(2 ** 40), bytes: crypto.randomBytes(8).toString("hex"),
  web: Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(8))).toString("hex"),
});
for (let i = 0; i < 1000; i++) show();
if (!isMainThread) {
  parentPort.on("message", () => parentPort.postMessage(show()));
} else {
  const worker = new Worker(__filename);
  const ask = () => new Promise(done => { worker.once("message", done); worker.postMessage(1); });
  ask().then(() => {
    const fd = fs.openSync(process.argv[2], "r+"), b = Buffer.alloc(100);
    const again = () => fs.read(fd, b, 0, 100, null, async () => {
      const all = { ...show(), unused: vm.runInContext("Math.random()", unused) };
      for (const [k, v] of Object.entries(await ask())) all["worker" + k] = v;
      console.log(Object.entries(all).map(([k, v]) => k + "=" + v).join(" "));
      gc();
      again();
    });
    again();
    console.log("ready");
  });
}
`

func TestNode(t *testing.T) {
	startService(t, "node", "--expose-gc", writeFile(t, "service.js", nodeService)).checkFutures()
}
