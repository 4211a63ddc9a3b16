// Runs a model in onnxruntime-web's wasm. Arguments: the folder with node_modules, the model, a
// JSON file {"feeds": [{NAME: {shape, file}}], "runs": N}; files hold little-endian float32.
// Prints {"outputs": [{NAME: FILE}], "milliseconds": [...]}, of each feed and of each timed run.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { cpuUsage } from "node:process";
import path from "node:path";

const [home, model, request] = process.argv.slice(2);
const ort = createRequire(path.join(home, "package.json"))("onnxruntime-web");
const { feeds, runs = 0 } = JSON.parse(readFileSync(request, "utf8"));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const session = await ort.InferenceSession.create(readFileSync(model), {
  executionProviders: ["wasm"],
});

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
const milliseconds = [];
for (let run = 0; run < runs; run++) {
  const inputs = tensors(feeds[0]);
  const before = cpuUsage();
  await session.run(inputs);
  const spent = cpuUsage(before);
  milliseconds.push((spent.user + spent.system) / 1000);
}
console.log(JSON.stringify({ outputs, milliseconds }));
