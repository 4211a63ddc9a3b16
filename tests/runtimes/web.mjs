// Runs a model in onnxruntime-web's wasm. Arguments: the folder with node_modules, the model, a
// JSON file {"feeds": [{NAME: {shape, file, type}}], "beside": MODEL, "runs": N}; files hold the
// values. Prints {"outputs": [{NAME: FILE}], "ratios": [...]}: of each feed, and the model's CPU
// time over the other's, runs of both in turn.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { cpuUsage } from "node:process";
import path from "node:path";

const [home, model, request] = process.argv.slice(2);
const ort = createRequire(path.join(home, "package.json"))("onnxruntime-web");
const { feeds, beside, runs = 0 } = JSON.parse(readFileSync(request, "utf8"));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const open = (file) =>
  ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] });
const session = await open(model);

function tensors(feed) {
  return Object.fromEntries(
    Object.entries(feed).map(([name, { shape, file, type = "float32" }]) => {
      const bytes = readFileSync(file);
      const of = { float32: Float32Array, int64: BigInt64Array, uint8: Uint8Array }[type];
      const data = new of(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      return [name, new ort.Tensor(type, data, shape)];
    }),
  );
}

const outputs = [];
for (const [number, feed] of feeds.entries()) {
  const found = {};
  for (const [name, tensor] of Object.entries(await session.run(tensors(feed)))) {
    found[name] = `${request}.${number}.${name.replace(/[^A-Za-z0-9]/g, "_")}.bin`;
    writeFileSync(found[name], Buffer.from(tensor.data.buffer));
  }
  outputs.push(found);
}
const ratios = [];
if (runs) {
  const other = await open(beside);
  const inputs = tensors(feeds[0]);
  const spend = async (each) => {
    const before = cpuUsage();
    await each.run(inputs);
    const spent = cpuUsage(before);
    return spent.user + spent.system;
  };
  for (let run = -10; run < runs; run++) {
    const [second, first] = [await spend(session), await spend(other)];
    if (run >= 0) ratios.push(second / first);
  }
}
console.log(JSON.stringify({ outputs, ratios }));
