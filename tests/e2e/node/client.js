// A client that was written against the .proto files alone: what an agent, a feed and an operator do, step by step.
// Arguments: gateway address, control address, folder of the protos. Prints a line for each step that held, and ends
// with status 0 only if all did. The limits it trips are those of the test's configuration.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [gatewayAddress, controlAddress, protos] = process.argv.slice(2);
const OPTIONS = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true, includeDirs: [protos] };
const ACCOUNT = "NODE";
const SESSION = "2022-12-28";
const CALL_MS = 8_000;
const { riskgateway } = grpc.loadPackageDefinition(
  loader.loadSync(
    ["risk_gateway", "risk_admin", "risk_analytics"].map((name) => `riskgateway/v1/${name}.proto`),
    OPTIONS,
  ),
);
const details = loader.loadSync(path.join(__dirname, "rpc_details.proto"), { ...OPTIONS, includeDirs: [] });

const v1 = riskgateway.v1;
const credentials = grpc.credentials.createInsecure();
const gateway = new v1.RiskGateway(gatewayAddress, credentials);
const control = new v1.RiskGateway(controlAddress, credentials);
const admin = new v1.RiskAdmin(controlAddress, credentials);
const feed = new v1.RiskAdmin(gatewayAddress, credentials);
const analytics = new v1.RiskAnalytics(gatewayAddress, credentials);

const deadline = () => Date.now() + CALL_MS;
const now = () => ({ seconds: Math.floor(Date.now() / 1000), nanos: (Date.now() % 1000) * 1_000_000 });
const held = (step) => console.log(`held: ${step}`);

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, new grpc.Metadata(), { deadline: deadline() }, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

function publish(marks) {
  return new Promise((resolve, reject) => {
    const stream = feed.PublishMarks(new grpc.Metadata(), { deadline: deadline() }, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
    stream.write({ marks });
    stream.end();
  });
}

let orders = 0;

function order(symbol, quantity, limit_price, terms = {}) {
  orders += 1;
  return {
    account: ACCOUNT,
    client_order_id: `node-${orders}`,
    symbol,
    side: "SIDE_BUY",
    quantity,
    order_type: "ORDER_TYPE_LIMIT",
    limit_price,
    time_in_force: "TIME_IN_FORCE_DAY",
    ...terms,
  };
}

const check = (asked) => call(gateway, "CheckOrder", { order: asked });

async function refused(promise) {
  const error = await promise.then(
    () => assert.fail("expected an error"),
    (reason) => reason,
  );
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  const status = trailer ? details["google.rpc.Status"].deserialize(trailer) : { details: [] };
  const bad = status.details.find((any) => any.type_url.endsWith("/google.rpc.BadRequest"));
  const violations = bad ? details["google.rpc.BadRequest"].deserialize(bad.value).field_violations : [];
  return { code: error.code, message: error.details, fields: violations.map((violation) => violation.field) };
}

function expect(verdict, action, reason) {
  assert.deepEqual([verdict.action, verdict.reason], [action, reason], verdict.message);
  assert.equal(verdict.allowed, ["ACTION_ALLOW", "ACTION_WARN", "ACTION_REDUCE"].includes(action));
  assert.equal(verdict.allowed_quantity > 0, verdict.allowed);
  assert.equal(verdict.approval.length > 0, verdict.allowed);
  assert.ok(verdict.sequence > 0);
}

async function open() {
  const equity = { asset_class: "ASSET_CLASS_EQUITY", currency: "USD", lot_size: 1, tick_size: 0.01, sector: "Any" };
  const instruments = ["AAPL", "MSFT", "KO"].map((symbol) => ({ ...equity, symbol, issuer: symbol }));
  const registered = await call(admin, "RegisterInstruments", { instruments });
  assert.equal(registered.added + registered.unchanged + registered.changed, 3);
  const event = { account: ACCOUNT, event_time: now() };
  const cash = [{ currency: "USD", amount: 1_000_000 }];
  const account_opened = { base_currency: "USD", cash };
  const opened = await call(admin, "ReportAccountEvent", { ...event, event_id: "opening", account_opened });
  assert.equal(opened.duplicate, false);
  const session_opened = { session_date: SESSION };
  await call(admin, "ReportAccountEvent", { ...event, event_id: "session", session_opened });
  const again = await call(admin, "ReportAccountEvent", { ...event, event_id: "opening", account_opened });
  assert.equal(again.duplicate, true);
  const prices = { AAPL: 126, MSFT: 234.5, KO: 63.5 };
  const marks = Object.entries(prices).map(([symbol, last]) => ({
    symbol,
    last,
    bid: last - 0.01,
    ask: last + 0.01,
    mark_time: now(),
  }));
  assert.equal((await publish(marks)).accepted, 3);
  held("instruments, account, session and prices are taken, and told twice they change nothing");
}

// Follows the account; `until` returns the first state, from now on, for which the condition holds.
function follow() {
  const stream = gateway.StreamRiskState({ accounts: [ACCOUNT] });
  const waiting = new Set();
  const seen = { states: 0, changes: [] };
  stream.on("data", (update) => {
    if (update.update === "trading_state_change") seen.changes.push(update.trading_state_change.trading_state);
    if (update.update !== "risk_state") return;
    seen.states += 1;
    for (const entry of waiting) {
      if (entry.condition(update.risk_state)) {
        waiting.delete(entry);
        entry.resolve(update.risk_state);
      }
    }
  });
  stream.on("error", (error) => {
    if (error.code !== grpc.status.CANCELLED) throw error;
  });
  const until = (condition) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`not on the stream in time: ${condition}`)), 3 * CALL_MS);
      waiting.add({ condition, resolve: (state) => (clearTimeout(late), resolve(state)) });
    });
  return { stream, seen, until };
}

async function everyAction() {
  const small = await check(order("KO", 10, 63.5));
  expect(small, "ACTION_ALLOW", "REASON_NONE");
  assert.ok(small.checks.some((row) => row.measure === "var_99" && row.after > row.before && row.limit === 0.08));
  expect(await check(order("KO", 475, 63.5)), "ACTION_WARN", "REASON_ORDER_VALUE");
  const reduced = await check(order("KO", 100, 63.5));
  expect(reduced, "ACTION_REDUCE", "REASON_POSITION");
  assert.equal(reduced.allowed_quantity, 15);
  expect(await check(order("AAPL", 500, 126)), "ACTION_REJECT", "REASON_ORDER_VALUE");
  expect(await check(order("MSFT", 900, 234.5)), "ACTION_HALT", "REASON_ORDER_QUANTITY");
  expect(await check(order("MSFT", 1, 234.5)), "ACTION_HALT", "REASON_REDUCE_ONLY");
  held("every action happens: ALLOW, WARN, REDUCE, REJECT, HALT");
}

async function sameIdSameAnswer() {
  const asked = order("AAPL", 5, 126);
  const first = await check(asked);
  const again = await check(asked);
  assert.deepEqual(
    [again.replayed, again.action, again.sequence, again.allowed_quantity],
    [true, first.action, first.sequence, first.allowed_quantity],
  );
  const other = await refused(check({ ...asked, quantity: 6 }));
  assert.equal(other.code, grpc.status.ALREADY_EXISTS);
  held("the same id gets the same answer, with other contents ALREADY_EXISTS");
}

async function badInput() {
  const nan = await refused(check(order("KO", Number.NaN, 63.5)));
  assert.deepEqual([nan.code, nan.fields], [grpc.status.INVALID_ARGUMENT, ["order.quantity"]], nan.message);
  const many = await refused(check(order("KO", -1, 63.5, { side: "SIDE_UNSPECIFIED", account: "" })));
  assert.equal(many.code, grpc.status.INVALID_ARGUMENT);
  assert.deepEqual(many.fields.sort(), ["order.account", "order.quantity", "order.side"]);
  const nobody = await refused(check(order("KO", 1, 63.5, { account: "NOBODY" })));
  assert.equal(nobody.code, grpc.status.NOT_FOUND);
  held("bad input is INVALID_ARGUMENT and each wrong field is named; an unknown account is NOT_FOUND");
}

async function stopAndResume(states) {
  const before = order("KO", 1, 63.5, { side: "SIDE_SELL" });
  expect(await check(before), "ACTION_ALLOW", "REASON_NONE");
  const halted = states.until((state) => state.trading_state === "TRADING_STATE_HALTED");
  const stopped = await call(control, "StopAll", { account: ACCOUNT });
  assert.equal(stopped.trading_state, "TRADING_STATE_HALTED");
  assert.equal(stopped.acknowledged_partitions, 1);
  assert.ok(stopped.open_orders.some((open) => open.client_order_id === before.client_order_id));
  expect(await check(order("AAPL", 1, 126)), "ACTION_HALT", "REASON_TRADING_HALTED");
  const superseded = await check(before);
  assert.deepEqual([superseded.allowed, superseded.reason], [false, "REASON_SUPERSEDED_BY_STOP"]);
  assert.equal(superseded.prior.approved, true);
  assert.equal((await halted).causes[0].origin, "TRADING_STATE_ORIGIN_STOP");
  held("a stop needs no reason, refuses what comes after it, takes back what came before it, and is on the stream");

  const unreasoned = await refused(call(control, "Resume", { account: ACCOUNT }));
  assert.deepEqual([unreasoned.code, unreasoned.fields], [grpc.status.INVALID_ARGUMENT, ["reason"]]);
  expect(await check(order("AAPL", 1, 126)), "ACTION_HALT", "REASON_TRADING_HALTED");
  const resumed = await call(control, "Resume", { account: ACCOUNT, reason: "the client has been looked at" });
  assert.ok(resumed.stop_epoch > stopped.stop_epoch);
  expect(await check(order("AAPL", 1, 126)), "ACTION_ALLOW", "REASON_NONE");
  expect(await check(order("MSFT", 1, 234.5)), "ACTION_ALLOW", "REASON_NONE");
  assert.equal((await check(before)).reason, "REASON_SUPERSEDED_BY_STOP");
  held("a resume needs a reason; after it orders pass again, and what was stopped stays void");
}

async function headroomIsWhatAnOrderGets() {
  const told = await call(gateway, "GetHeadroom", { account: ACCOUNT, symbols: ["KO", "NOPE"] });
  const [ko, nope] = told.headrooms;
  assert.deepEqual([told.account, ko.symbol, nope.symbol], [ACCOUNT, "KO", "NOPE"]);
  assert.ok(told.sequence > 0 && ko.max_sell_quantity > 0);
  assert.match(ko.binding_sell_measure, /^[a-z_0-9]+@[a-z_]+:.+$/);
  assert.deepEqual([nope.max_buy_quantity, nope.buy_reason], [0, "REASON_INSTRUMENT_UNKNOWN"]);
  const market = { side: "SIDE_SELL", order_type: "ORDER_TYPE_MARKET" };
  const dry = (quantity) => {
    const { limit_price, ...asked } = order("KO", quantity, 0, market);
    return call(gateway, "CheckOrder", { order: asked, dry_run: true });
  };
  const whole = await dry(ko.max_sell_quantity);
  assert.deepEqual([whole.allowed, whole.allowed_quantity], [true, ko.max_sell_quantity], whole.message);
  const more = await dry(ko.max_sell_quantity + 1);
  assert.ok(more.allowed_quantity <= ko.max_sell_quantity);
  assert.equal(more.reason, ko.sell_reason);
  held("headroom is what an order then gets, and one lot more does not");
}

// Sends the orders and closes its half; the verdicts, and the error that ended the stream, if one did.
function streamed(requests) {
  return new Promise((resolve) => {
    const stream = gateway.CheckOrderStream(new grpc.Metadata(), { deadline: deadline() });
    const verdicts = [];
    stream.on("data", (verdict) => verdicts.push(verdict));
    stream.on("error", (error) => resolve({ verdicts, error }));
    stream.on("end", () => resolve({ verdicts, error: null }));
    for (const asked of requests) stream.write({ order: asked });
    stream.end();
  });
}

async function streamOfOrders() {
  const sent = Array.from({ length: 20 }, () => order("AAPL", 1, 126, { side: "SIDE_SELL" }));
  const { verdicts, error } = await streamed(sent);
  assert.equal(error, null);
  assert.deepEqual(
    verdicts.map((verdict) => verdict.client_order_id),
    sent.map((asked) => asked.client_order_id),
  );
  const bad = [order("AAPL", 1, 126), order("AAPL", Number.NaN, 126), order("AAPL", 1, 126)];
  const ended = await streamed(bad);
  assert.deepEqual(
    ended.verdicts.map((verdict) => verdict.client_order_id),
    [bad[0].client_order_id],
  );
  const { code, fields } = await refused(Promise.reject(ended.error));
  assert.deepEqual([code, fields], [grpc.status.INVALID_ARGUMENT, ["requests[1].order.quantity"]]);
  held("a stream of orders is answered in order, and ends at a malformed one with what came before it answered");
}

const report = (asked, kind, more = {}) => ({
  account: ACCOUNT,
  execution_id: `${asked.client_order_id}-${kind}`,
  client_order_id: asked.client_order_id,
  kind: `EXECUTION_KIND_${kind}`,
  ...more,
});

async function basketAndReports() {
  const legs = [order("AAPL", 2, 126), order("AAPL", 3, 126)];
  const basket = await call(gateway, "CheckOrders", { orders: legs, all_or_none: true });
  assert.deepEqual([basket.all_allowed, basket.responses.map((leg) => leg.allowed_quantity)], [true, [2, 3]]);
  const fill = { last_quantity: 2, last_price: 126, cumulative_quantity: 2 };
  const executions = [report(legs[0], "WORKING"), report(legs[0], "FILL", fill), report(legs[1], "NOT_SENT")];
  const told = await call(gateway, "ReportExecution", { executions });
  assert.deepEqual(told.results.map((result) => result.duplicate), [false, false, false]);
  const again = await call(gateway, "ReportExecution", { executions });
  assert.deepEqual(again.results.map((result) => result.duplicate), [true, true, true]);
  const state = await call(gateway, "GetRiskState", { account: ACCOUNT });
  assert.equal(state.positions.find((position) => position.symbol === "AAPL").quantity, 2);
  held("a basket is one step; what became of it is reported, and reported twice it counts once");
}

// The first instruction for the order, acknowledged and followed.
function instructed(asked) {
  return new Promise((resolve, reject) => {
    const stream = gateway.StreamInstructions(new grpc.Metadata(), { deadline: deadline() });
    stream.on("error", (error) => error.code !== grpc.status.CANCELLED && reject(error));
    stream.on("data", (instruction) => {
      const outcome = { instruction_id: instruction.instruction_id, status: "INSTRUCTION_STATUS_DONE" };
      stream.write({ outcome });
      if (instruction.client_order_id !== asked.client_order_id) return;
      const executions = [report(asked, "CANCELLED")];
      call(gateway, "ReportExecution", { executions }).then(() => (stream.cancel(), resolve(instruction)), reject);
    });
    stream.write({ subscription: { accounts: [ACCOUNT] } });
  });
}

async function instructions() {
  const working = order("AAPL", 4, 120);
  expect(await check(working), "ACTION_ALLOW", "REASON_NONE");
  await call(gateway, "ReportExecution", { executions: [report(working, "WORKING")] });
  await call(control, "StopAll", { account: ACCOUNT, reason: "to see a cancel" });
  const cancel = await instructed(working);
  assert.deepEqual([cancel.kind, cancel.reason], ["INSTRUCTION_KIND_CANCEL", "REASON_TRADING_HALTED"]);
  const state = await call(gateway, "GetRiskState", { account: ACCOUNT });
  assert.ok(!state.open_orders.some((open) => open.client_order_id === working.client_order_id));
  await call(control, "Resume", { account: ACCOUNT, reason: "seen" });
  held("a stop asks for a cancel, which is acknowledged, followed and reported");
}

async function limitsChange() {
  const before = await call(admin, "GetLimits", {});
  const limits = before.limits.map((row) => ({ ...row }));
  const rate = limits.find((row) => row.measure === "order_rate");
  rate.limit = 10;
  const update = { limits, allocations: before.allocations, reason: "the patient are asked to be more so" };
  const stale = await refused(call(admin, "UpdateLimits", { ...update, expected_limit_set: "00" }));
  assert.equal(stale.code, grpc.status.ABORTED, stale.message);
  const expected_limit_set = before.limit_set;
  const wrong = limits.map((row) => ({ ...row, measure: row === rate ? "order_rat" : row.measure }));
  const bad = await refused(call(admin, "UpdateLimits", { ...update, limits: wrong, expected_limit_set }));
  assert.equal(bad.code, grpc.status.INVALID_ARGUMENT);
  assert.deepEqual(bad.fields, [`limits[${limits.indexOf(rate)}].measure`]);
  const changed = await call(admin, "UpdateLimits", { ...update, expected_limit_set });
  assert.deepEqual([changed.acknowledged_partitions, changed.changes.length], [64, 1]);
  assert.deepEqual([changed.changes[0].loosened, changed.changes[0].previous.limit], [false, 20]);
  assert.equal((await call(admin, "GetLimits", {})).limit_set, changed.limit_set);
  held("limits change as a whole, against the set they were made from, and a wrong row is named");
}

async function reconciled() {
  const state = await call(gateway, "GetRiskState", { account: ACCOUNT });
  const positions = state.positions.map(({ strategy, symbol, quantity }) => ({ strategy, symbol, quantity }));
  const told = await call(admin, "ReconcilePositions", { account: ACCOUNT, positions, snapshot_time: now() });
  assert.deepEqual(told.differences, []);
  positions[0].quantity += 1;
  const off = await call(admin, "ReconcilePositions", { account: ACCOUNT, positions, snapshot_time: now() });
  assert.equal(off.differences.length, 1);
  held("what the broker holds is taken, and each difference told");
}

// The worker answers, and one that has just started does so in some seconds only.
async function figures(method, request) {
  for (;;) {
    try {
      return await call(analytics, method, { account: ACCOUNT, ...request });
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

async function theWorkersFigures() {
  const risk = await figures("GetVar", { methods: ["VAR_METHOD_ALL"], include_components: true });
  const parametric = risk.estimates.find((one) => one.method === "VAR_METHOD_PARAMETRIC" && one.confidence === 0.99);
  const sum = risk.components.reduce((total, one) => total + one.component, 0);
  assert.ok(parametric.value_at_risk > 0 && Math.abs(sum - parametric.value_at_risk) < 1e-6 * sum);
  assert.equal(risk.stamp.model_session_date, SESSION);
  const stress = await figures("GetStress", {});
  assert.equal(stress.results.length, 6);
  const reverse = await figures("GetReverseStress", { loss: stress.worst_stress.loss / 2 });
  assert.ok(reverse.reachable && Math.abs(reverse.multiplier - 0.5) < 1e-6);
  const replay = await figures("ReplayHistory", { window: "2020" });
  assert.deepEqual([replay.status, replay.days.length], ["REPLAY_STATUS_COMPLETE", 23]);
  const greeks = await figures("GetGreeks", {});
  assert.ok(greeks.underlyings.every((one) => one.greeks.gamma === 0));
  const report = await figures("GetRiskReport", {});
  assert.ok(report.level.startsWith("RISK_LEVEL_") && report.gauges.every((one) => one.critical_threshold > 0));
  const wrong = await refused(call(analytics, "GetVar", { account: ACCOUNT, confidences: [0.2], paths: 1 }));
  assert.equal(wrong.code, grpc.status.INVALID_ARGUMENT);
  assert.deepEqual(wrong.fields.sort(), ["confidences[0]", "paths"]);
  const nobody = await refused(call(analytics, "GetVar", { account: "NOBODY" }));
  assert.equal(nobody.code, grpc.status.NOT_FOUND);
  held("the worker's figures come through the gateway, and its errors with their details");
}

async function eventsAndSizes() {
  const wrong = await refused(call(admin, "UpsertEvent", { event: { factor: 2 } }));
  assert.equal(wrong.code, grpc.status.INVALID_ARGUMENT);
  assert.ok(wrong.fields.includes("event.factor") && wrong.fields.includes("reason"));
  assert.deepEqual((await call(admin, "ListEvents", {})).events, []);
  const size = await figures("SizePosition", { symbol: "AAPL", method: "SIZING_METHOD_FIXED_FRACTION", fraction: 0.01 });
  assert.equal(size.target_quantity, Math.floor((0.01 * size.stamp.equity) / 126));
  assert.ok(size.order_quantity <= size.wanted_quantity && size.volatility === 0);
  held("events are listed and checked; a position is sized within the limits");
}

async function main() {
  await open();
  const states = follow();
  const judged = await states.until((state) => state.model_session_date === SESSION && state.report !== null);
  assert.ok(judged.sequence > 0 && judged.equity === 1_000_000);
  held("the stream tells of the risk model and of the worker's report");
  await everyAction();
  await sameIdSameAnswer();
  await badInput();
  await stopAndResume(states);
  await headroomIsWhatAnOrderGets();
  await streamOfOrders();
  await basketAndReports();
  await instructions();
  await limitsChange();
  await reconciled();
  await theWorkersFigures();
  await eventsAndSizes();
  const counted = await call(gateway, "GetRiskState", { account: ACCOUNT });
  assert.equal(counted.trading_state, "TRADING_STATE_ACTIVE");
  assert.equal(counted.counters.active_breaches, 0);
  assert.ok(states.seen.states > 3 && states.seen.changes.includes("TRADING_STATE_HALTED"));
  states.stream.cancel();
  held("the account's state has counted it all");
  for (const client of [gateway, control, admin, feed, analytics]) client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
