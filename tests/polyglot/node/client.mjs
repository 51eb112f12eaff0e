// A client of a durable consumer: prints what it has handled, leaves when its input ends.
//
//     node client.mjs ADDRESS CONSUMER
//
// An event whose position is a multiple of ten is refused at the first try. The protos are loaded as
// they stand; nothing is generated.

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loader.loadSync("tocsin/v1/event_log.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: Number, // lease ids and positions stay below 2^53
  enums: String,
  oneofs: true,
});
const { tocsin } = grpc.loadPackageDefinition(definition);

const [address, consumer] = process.argv.slice(2);
const client = new tocsin.v1.EventLog(address, grpc.credentials.createInsecure());
const stream = client.Consume();

function handle({ event, lease_id, attempt }) {
  if (event.position % 10 === 0 && attempt === 1) {
    stream.write({ nack: { lease_ids: [lease_id], action: "NACK_ACTION_RETRY", reason: "not yet" } });
  } else {
    console.log(`handled ${event.position}`);
    stream.write({ ack: { lease_ids: [lease_id] } });
  }
}

stream.on("data", (response) => {
  if (response.message === "started") console.log("started");
  else if (response.message === "batch") response.batch.deliveries.forEach(handle);
  else if (response.message === "done") console.log("done");
});
stream.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
stream.on("end", () => client.close());
stream.write({ start: { name: consumer, heartbeat_interval: { seconds: 1 } } });
process.stdin.on("end", () => stream.end()).resume();
