// Orders one upgrade and waits for its outcome, with amqplib. Exit status 0: the device was upgraded.
//
//     npm install amqplib
//     node upgrade.mjs CPE000001 https://files.example.com/fw-2.bin

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const [cpe_id, firmware_url] = process.argv.slice(2);
const job_id = `example-${randomUUID()}`;
const FINAL = ["upgrade.completed", "upgrade.failed", "upgrade.cancelled", "upgrade.rejected"];

const connection = await amqp.connect(process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f");
const channel = await connection.createConfirmChannel();
channel.on("return", () => {
  console.error("nobody takes requests here: is a worker's topology declared?");
  process.exit(1);
});

// A queue of our own, bound before the request goes out: so no event is missed.
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "upgrade.results", "upgrade.#");

const outcome = new Promise((resolve) => {
  channel.consume(
    queue,
    (message) => {
      const event = JSON.parse(message.content);
      if (event.data.job_id !== job_id) return;
      const { stage, reason, message: text, errors = [] } = event.data;
      console.log([event.type, stage, reason, text].filter(Boolean).join(" "));
      for (const error of errors) console.log(`  ${error.field}: ${error.message}`);
      if (FINAL.includes(event.type)) resolve(event.data.outcome);
    },
    { noAck: true },
  );
});

const request = { job_id, cpe_id, firmware_url, requested_at: new Date().toISOString() };
channel.publish("upgrade.requests", "request", Buffer.from(JSON.stringify(request)), {
  contentType: "application/json",
  persistent: true,
  mandatory: true,
});
await channel.waitForConfirms();
console.error(`ordered ${job_id}`);

process.exitCode = (await outcome) === "completed" ? 0 : 1;
await connection.close();
