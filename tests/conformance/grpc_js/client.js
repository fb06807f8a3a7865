// The calls that a Node.js application makes, checked one by one; ends with code 1 at the first that is wrong.
'use strict';
const assert = require('node:assert');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, proto] = process.argv.slice(2);
const definition = loader.loadSync(proto, { keepCase: true, longs: Number, defaults: true, oneofs: true });
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());

const call = (method, request, metadata = new grpc.Metadata(), options = {}) =>
  new Promise((resolve, reject) => {
    const trailers = {};
    const sent = client[method](request, metadata, options, (error, answer) =>
      error ? reject(error) : setImmediate(() => resolve({ answer, trailers })));
    sent.on('status', (status) => Object.assign(trailers, status.metadata.getMap()));
  });

const request = (rows, id = '') => ({
  model_name: 'affine',
  id,
  inputs: [{ name: 'x', datatype: 'FP32', shape: [rows.length, 4] }],
  raw_input_contents: [Buffer.from(new Float32Array(rows.flat()).buffer)],
});

const floats = (bytes) => Array.from(new Float32Array(new Uint8Array(bytes).buffer));

async function refused(code, ...wanted) {
  try {
    await call(...wanted);
  } catch (error) {
    assert.strictEqual(error.code, code, error.message);
    return error;
  }
  assert.fail(`expected code ${code}`);
}

async function main() {
  assert.strictEqual((await call('ServerLive', {})).answer.live, true);
  assert.strictEqual((await call('ModelReady', { name: 'affine' })).answer.ready, true);
  const metadata = (await call('ModelMetadata', { name: 'affine' })).answer;
  assert.deepStrictEqual(metadata.inputs[0].shape, [-1, 4]);

  const { answer, trailers } = await call('ModelInfer', request([[1, 2, 3, 4], [5, 6, 7, 8]], 'js-1'));
  assert.strictEqual(answer.id, 'js-1');
  assert.deepStrictEqual(floats(answer.raw_output_contents[0]), [2, 4, 6, 8, 10, 12, 14, 16]);
  assert.strictEqual(trailers['x-gateway-version'], '1');

  const together = await Promise.all(
    Array.from({ length: 200 }, (_, i) => call('ModelInfer', request([[i, i, i, i]], `n${i}`))));
  together.forEach(({ answer: each }, i) => {
    assert.strictEqual(each.id, `n${i}`);
    assert.deepStrictEqual(floats(each.raw_output_contents[0]), [2 * i, 2 * i, 2 * i, 2 * i]);
  });

  await refused(grpc.status.NOT_FOUND, 'ModelInfer', { ...request([[1, 2, 3, 4]]), model_name: 'absent' });
  const short = { ...request([[1, 2, 3, 4]]), raw_input_contents: [Buffer.alloc(15)] };
  assert.match((await refused(grpc.status.INVALID_ARGUMENT, 'ModelInfer', short)).details, /expected 16 bytes|Expected 16/);
  await refused(grpc.status.DEADLINE_EXCEEDED, 'ModelInfer', request([[1, 2, 3, 4]]), new grpc.Metadata(), {
    deadline: Date.now() - 1000,
  });
  await refused(grpc.status.UNIMPLEMENTED, 'SystemSharedMemoryRegister', { name: 'a', key: '/a', byte_size: 1 });

  const stream = client.ModelStreamInfer();
  const ids = [];
  const ended = new Promise((resolve, reject) => stream.on('end', resolve).on('error', reject));
  stream.on('data', (message) => ids.push(message.infer_response.id));
  for (let i = 0; i < 20; i += 1) stream.write(request([[i, i, i, i]], `s${i}`));
  stream.end();
  await ended;
  assert.strictEqual(new Set(ids).size, 20);

  const large = Array.from({ length: 65536 }, (_, i) => [i, i, i, i]);
  const doubled = floats((await call('ModelInfer', request(large))).answer.raw_output_contents[0]);
  assert.strictEqual(doubled.length, 4 * large.length);
  assert.ok(doubled.every((value, i) => value === 2 * Math.floor(i / 4)));
  assert.strictEqual((await call('ServerReady', {})).answer.ready, true);
  client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
