// A strategy in another language, from the .proto files alone: ask, report, look.
//
//   npm ci && node client.js 127.0.0.1:50051 ALPHA KO 63.50 ../../../protos
//
// The rules that the Python client keeps by itself stand here in the open: one id for every attempt at an order, a
// deadline on every call, a retry of what may pass, never a quantity above what was allowed, a report of what became of
// it. Prints what it was allowed and what it holds in the end.
"use strict";

const { randomUUID } = require("node:crypto");
const { setTimeout: pause } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, account, symbol, price, protos] = process.argv.slice(2);
const definition = loader.loadSync("riskgateway/v1/risk_gateway.proto", {
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
  includeDirs: [protos],
});
const { RiskGateway } = grpc.loadPackageDefinition(definition).riskgateway.v1;
const gateway = new RiskGateway(address, grpc.credentials.createInsecure());

const ATTEMPT_MS = 2_000;
const DEADLINE_MS = 10_000;
const { UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED } = grpc.status;
const PASSING = [UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED];

function attempt(method, request) {
  return new Promise((resolve, reject) => {
    gateway[method](request, new grpc.Metadata(), { deadline: Date.now() + ATTEMPT_MS }, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

// Safe to repeat: the request carries its id, and the gateway answers repeats from its log.
async function call(method, request) {
  const until = Date.now() + DEADLINE_MS;
  for (let wait = 50; ; wait = Math.min(2 * wait, 1_000)) {
    try {
      return await attempt(method, request);
    } catch (error) {
      if (!PASSING.includes(error.code) || Date.now() + wait > until) throw error;
      await pause(wait * (0.5 + Math.random() / 2));
    }
  }
}

const report = (order, kind, more) =>
  call("ReportExecution", {
    executions: [{ account, execution_id: randomUUID(), client_order_id: order.client_order_id, kind, ...more }],
  });

async function main() {
  const order = {
    account,
    strategy: "node",
    client_order_id: randomUUID(),
    symbol,
    side: "SIDE_BUY",
    quantity: 10,
    order_type: "ORDER_TYPE_LIMIT",
    limit_price: Number(price),
    time_in_force: "TIME_IN_FORCE_DAY",
  };
  const verdict = await call("CheckOrder", { order });
  console.log(`${verdict.action}: ${verdict.allowed_quantity} of ${order.quantity} ${symbol} (${verdict.reason})`);
  if (verdict.allowed) {
    await report(order, "EXECUTION_KIND_WORKING");
    const fill = { last_quantity: verdict.allowed_quantity, last_price: order.limit_price };
    await report(order, "EXECUTION_KIND_FILL", fill);
  }
  const state = await call("GetRiskState", { account });
  for (const held of state.positions) console.log(`holds ${held.quantity} ${held.symbol}`);
  gateway.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
